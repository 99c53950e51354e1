"""State directory of one mount: locked, made where it is missing, and removed where the start that made it failed.

Owns:    the lock file, the disk reserve and the staging directory of the mount; the test that a state directory
         holds nothing that could be missed.
Never:   removes a file of staging; removes anything without the lock, or of a journal that an earlier start made.
Fails:   StateLocked, DirectoryUnusable.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Self

from r2fs.disk.journal.state_lock import lock_state
from r2fs.disk.reserve import DiskReserve
from r2fs.disk.staging import Staging
from r2fs.model import owned_paths
from r2fs.model.errors import DirectoryUnusable
from r2fs.model.mount_record import NAME as RECORD

log = logging.getLogger(__name__)

FILES = ("lock", "journal.db", "journal.db-wal", "journal.db-shm", "reserve")  # opened by their names
TABLES_OF_WORK = ("inode", "pending_delete", "staging_garbage", "attempt", "multipart", "part")


class StateDirectory:
    """See the module's head. Made by `take`; not thread-safe."""

    def __init__(self, path: Path, staging: Staging, lock_fd: int) -> None:
        # constant
        self.path = path
        self.staging = staging
        self.reserve = DiskReserve(path / "reserve")
        self.is_new = not any(path.glob("journal.db*"))  # no earlier start has made a journal here
        self._lock_fd = lock_fd

    @classmethod
    def take(cls, path: Path, staging: Staging) -> Self:
        """Make the directory and `staging` where they are missing, and take the lock.

        Raises StateLocked, DirectoryUnusable.
        """
        try:
            owned_paths.make_directory(path)
            owned_paths.check_files(path, *FILES)
            lock_fd = lock_state(path)
            try:
                # Under the lock: another start that fails removes its directories.
                staging.make()
                return cls(path, staging, lock_fd)
            except BaseException:
                os.close(lock_fd)
                raise
        except OSError as error:
            raise DirectoryUnusable(
                f"the state directory {path} cannot be used ({error.strerror}): "
                "make it writable, or choose another by --state-dir"
            ) from error

    @property
    def lock_fd(self) -> int:
        """Descriptor of the lock file; -1: released."""
        return self._lock_fd

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)

    def is_void(self, database: sqlite3.Connection) -> bool:
        """True if the journal has no row of work and staging no file. False where that cannot be known."""
        try:
            rows = [database.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() for name in TABLES_OF_WORK]
            return not any(rows) and self.staging.is_empty()
        except (OSError, sqlite3.Error) as error:
            log.info("%s: kept, since it is not known to be void: %s", self.path, error)
            return False

    def remove(self) -> None:
        """Remove the files of a void journal, which is closed, and the empty directories. The lock file goes last."""
        self.reserve.give_up()
        with suppress(OSError):  # a link to staging beside the cache, or a directory that holds other things
            self.staging.remove_directories()
        for name in ("journal.db", "journal.db-wal", RECORD, "lock"):
            with suppress(FileNotFoundError):
                (self.path / name).unlink()
