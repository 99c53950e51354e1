"""Disk reserve: a preallocated file, given up when the journal finds the disk full.

Never:   decides on the time: the journal gives it up, `engine/content/disk_space.py` has it allocated anew.
Threads: every method.
Locks:   self._lock (leaf), around the file alone.
Fails:   softly: without space or preallocation there is no reserve.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock

from r2fs.disk.filecalls import BLOCK
from r2fs.model import owned_paths

log = logging.getLogger(__name__)

SIZE = 24 << 20  # the journal's log at its largest, and as much again for its checkpoint
SHARE = 16  # of a small disk: at most this part


class DiskReserve:
    def __init__(self, path: Path) -> None:
        # constant
        self.path = path
        self.size = _size(path.parent)
        # guarded by: _lock
        self._lock = Lock()
        # bytes; 0: in use by the journal, or never allocated
        self.held = self.size if self._is_whole() else 0

    def hold(self) -> bool:
        """Allocate the reserve, if it is not held. False: the disk has too little space."""
        with self._lock:
            if not self.held and self._allocate():
                self.held = self.size
            return self.held > 0

    def give_up(self) -> bool:
        """Free the reserve for the journal. False: there was none."""
        with self._lock:
            held, self.held = self.held, 0
            return self._remove() and held > 0

    def _allocate(self) -> bool:
        try:
            fd = owned_paths.open_file(self.path, os.O_WRONLY | os.O_CREAT)
        except OSError as error:
            log.debug("%s: not made: %s", self.path, error)
            return False
        try:
            os.posix_fallocate(fd, 0, self.size)
            return True
        except OSError as error:
            log.debug("%s: not made: %s", self.path, error)
            self._remove()
            return False
        finally:
            os.close(fd)

    def _remove(self) -> bool:
        try:
            with suppress(FileNotFoundError):
                os.unlink(self.path)
        except OSError as error:
            log.error("%s: its room cannot be given back: %s", self.path, error)
            return False
        return True

    def _is_whole(self) -> bool:
        """True if an earlier daemon left the file with all its blocks."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return found.st_size == self.size and found.st_blocks * BLOCK >= self.size


def _size(directory: Path) -> int:
    found = os.statvfs(directory)
    return min(SIZE, found.f_blocks * found.f_frsize // SHARE)
