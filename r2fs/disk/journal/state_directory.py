"""Directories of a journal: made under the state directory's lock, and removed where a start failed that made them.

Owns:    their layout's first step, and when a state directory holds nothing that anybody could miss.
Never:   removes a file of staging; removes anything without the lock, or of a journal that was there before.
Fails:   StateLocked, DirectoryUnusable.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from r2fs.disk.journal.state_lock import lock_state
from r2fs.model import owned_paths
from r2fs.model.errors import DirectoryUnusable
from r2fs.model.mount_record import NAME as RECORD

log = logging.getLogger(__name__)

FILES = ("lock", "journal.db", "journal.db-wal", "journal.db-shm", "ballast")  # opened by their names
TABLES_OF_WORK = ("inode", "pending_delete", "staging_garbage", "attempt", "multipart", "part")


def make_and_lock(state_dir: Path, staging_dir: Path) -> int:
    """The lock's descriptor. Raises StateLocked, DirectoryUnusable."""
    try:
        owned_paths.make_directory(state_dir)
        owned_paths.check_files(state_dir, *FILES)
        lock_fd = lock_state(state_dir)
        try:  # with the lock held: another start that fails takes its directories away
            for directory in (staging_dir, staging_dir / "data", staging_dir / "open"):
                owned_paths.make_directory(directory)
        except OSError:
            os.close(lock_fd)
            raise
        return lock_fd
    except OSError as error:
        raise DirectoryUnusable(
            f"the state directory {state_dir} cannot be used ({error.strerror}): "
            "make it writable, or choose another by --state-dir"
        ) from error


def is_void(database: sqlite3.Connection, data_dir: Path, orphan_dir: Path) -> bool:
    """Neither a row nor a byte: nothing is lost with it. False where that cannot be known."""
    try:
        rows = [database.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() for name in TABLES_OF_WORK]
        return not any(rows) and not any(os.listdir(each) for each in (data_dir, orphan_dir) if each.is_dir())
    except (OSError, sqlite3.Error) as error:
        log.info("%s: kept, since it is not known to be void: %s", data_dir.parent, error)
        return False


def remove(state_dir: Path, directories: Iterable[Path]) -> None:
    """The files of a void journal that is closed, and `directories` that are empty. The lock is held, and goes last."""
    for directory in directories:
        with suppress(OSError):  # a link to staging beside the cache, or something that is not ours
            directory.rmdir()
    for name in ("journal.db", "journal.db-wal", RECORD, "lock"):
        with suppress(FileNotFoundError):
            (state_dir / name).unlink()
