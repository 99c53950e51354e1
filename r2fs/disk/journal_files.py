"""Files beside the journal's database: the lock of the state directory, and their removal where all is void.

Owns:    the lock file, and when a state directory holds nothing that anybody could miss.
Never:   removes a file of staging; removes anything without the lock, or of a journal that was there before.
Fails:   StateLocked where another daemon has it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from r2fs.model.errors import StateLocked
from r2fs.model.mount_record import NAME as RECORD

log = logging.getLogger(__name__)

TABLES_OF_WORK = ("inode", "gone", "leaving", "attempt", "multipart", "part")
PID_BYTES = 20  # of the lock file: written over in place, which needs no room on a full disk


def lock(state_dir: Path) -> int:
    """One daemon a state directory: its pid is in the lock file."""
    while True:
        fd = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, PID_BYTES, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise StateLocked(
                f"the state directory {state_dir} is in use by another r2fs (pid {pid}): "
                "unmount that one first, or give this mount a --state-dir of its own"
            ) from None
        if _is_named(fd, state_dir / "lock"):
            break
        os.close(
            fd
        )  # a start that failed has just taken it away: the lock of a file without a name excludes nobody
    os.pwrite(fd, f"{os.getpid():<{PID_BYTES}}\n".encode(), 0)
    return fd


def _is_named(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


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
