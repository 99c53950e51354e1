"""Write-ahead log: the sync of SQLite's log through a descriptor of its own, for Database.barrier.

Owns:    the descriptor, and what a failed sync left unknown.
Never:   reads or writes the log: SQLite does.
Threads: `fd`, `close` with the database's lock held; `sync` with its `_durability`.
Fails:   OSError from `sync`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from r2fs.disk.durable import fsync_dir


class WriteAheadLog:
    def __init__(self, state_dir: Path) -> None:
        # constant
        self.path = state_dir / "journal.db-wal"
        # guarded by: the database's lock
        self._fd = -1
        # guarded by: the database's _durability
        self._named = False  # the directory was synced since the log was made; False → True only
        self.sync_failed = False  # since the log was begun: the kernel has forgotten its dirty pages

    def fd(self) -> int:
        """Return the descriptor; -1: SQLite has made no log yet."""
        if self._fd < 0:
            with suppress(FileNotFoundError):
                self._fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self._fd

    def sync(self, fd: int) -> None:
        """Make the log's bytes and its name survive a power cut. Waits for the disk."""
        if fd < 0:
            return
        try:
            os.fsync(fd)
            if not self._named:
                # SQLite syncs the log's name with the first sync of its own, which may be far.
                fsync_dir(self.path.parent)
                self._named = True
        except OSError:
            self.sync_failed = True
            raise

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
