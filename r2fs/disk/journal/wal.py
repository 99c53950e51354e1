"""SQLite's write-ahead log of the journal, synced from outside SQLite.

Owns:    a second descriptor of the log. SQLite holds no POSIX lock on that file, so closing the descriptor
         takes none away; a sync through it keeps nobody's commit waiting.
Never:   reads or writes a page.
Locks:   none of its own: journal.py says which of its locks is around each method.
Fails:   OSError.
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
        # guarded by: the journal's _lock
        self._fd = -1
        # guarded by: the journal's _durability
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

    def begun_anew(self) -> None:
        """Note that a checkpoint has emptied the log, with syncs of its own."""
        self.sync_failed = False

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
