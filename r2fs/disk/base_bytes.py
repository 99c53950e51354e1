"""Base bytes: downloads into a file of which some ranges are missing, and the disk allocated for them.

Never:   writes on a byte that is present; changes the file's times.
Threads: every public method.
Locks:   self._ready (leaf), of OpenFile: held over the map and over writes of the file.
Fails:   NoSpace and LocalError of the disk; ContentClosed once it is closed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r2fs.disk import filecalls
from r2fs.disk.file_map import FileMap
from r2fs.disk.open_file import OpenFile
from r2fs.model.errors import NoSpace


class BaseBytes(OpenFile):
    def __init__(self, path: Path, fd: int, mode: int, ranges: FileMap, complete: bool) -> None:
        super().__init__(path, fd, mode)
        # guarded by: _ready
        self.in_memory = False  # without a name on the disk
        self._map = ranges  # of a complete file: its own ranges count alone, while it is watched
        self._streams = False  # present ranges may be given back, so that it never becomes complete
        self._files = 0  # counts the files behind the descriptor: bytes held in one are not in the next
        self._complete = complete or ranges.is_whole  # False → True only

    @property
    def complete(self) -> bool:
        """True if every byte is present, for good."""
        return self._complete

    @property
    def files(self) -> int:
        """Number of the file behind the descriptor; bytes held in an earlier one are void."""
        return self._files

    def stat(self) -> os.stat_result:
        return os.fstat(self.fd) if self._complete else super().stat()  # nothing fills a complete file

    def fill(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write downloaded bytes of the base version: into holes only, below `base_limit`."""
        self._fill(offset, data, True)

    def hold(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write as `fill` does, but leave the bytes missing until `accept`."""
        self._fill(offset, data, False)

    def accept(self, start: int, stop: int, files: int) -> bool:
        """Count [start, stop), which `hold` wrote, as present. False: the file was replaced since `files` was read."""
        with self._ready:
            if self._complete:
                return True
            if files != self._files:
                return False
            self._map.add_base(start, stop)
            self._settle_locked()
            return True

    def prepare(self, start: int, stop: int) -> None:
        """Allocate disk for missing bytes of [start, stop) that are about to arrive: by one call, not at each write.

        Without effect on a file system that cannot, or has no room: the write of a byte finds that, too.
        """
        with self._ready:
            if self._complete or self.in_memory or self.closed:
                return
            with self._same_times_locked():
                for hole in self._holes_locked(start, stop):
                    try:
                        if not filecalls.allocate(self.fd, *hole, self.path):
                            return
                    except NoSpace:  # a part may be allocated: another writer may need that
                        filecalls.free(self.fd, *hole, self.path)
                        return

    def trim(self, start: int, stop: int) -> None:
        """Give back what `prepare` allocated for bytes of [start, stop) that did not arrive. None of them may be held."""
        with self._ready:
            if self._complete or self.in_memory or self.closed:
                return
            with self._same_times_locked():
                for hole in self._holes_locked(start, stop):
                    filecalls.free(self.fd, *hole, self.path)

    # ---- helpers
    def _holes_locked(self, start: int, stop: int) -> list[tuple[int, int]]:
        return self._map.present.missing(start, min(stop, self._map.base_limit, self._map.size))

    def _fill(self, offset: int, data: bytes | bytearray | memoryview, seen: bool) -> None:
        if self.complete:
            return
        with self._ready:
            if self._complete:
                return
            view = memoryview(data)
            try:
                with self._same_times_locked():
                    for start, end in self._holes_locked(offset, offset + len(data)):
                        while start < end:  # a write that a full disk cut short raises at the next turn
                            written = filecalls.write(
                                self.fd, view[start - offset : end - offset], start, self.path
                            )
                            if seen:
                                self._map.present.add(start, start + written)
                            start += written
            finally:
                if seen:
                    self._settle_locked()

    @contextmanager
    def _same_times_locked(self) -> Iterator[None]:
        """Set the file's times back afterwards: they are those of the last write by a program, or of utimens.

        After each call, not once a download: a daemon that is killed would leave a time for which no entry of the
        cache vouches, and with it all that the cache has of the file.
        """
        before = os.fstat(self.fd)
        try:
            yield
        finally:
            os.utime(self.fd, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _settle_locked(self) -> None:
        """Mark the file complete if its last hole is filled, and wake waiting threads. Called after a change of the map."""
        if not self._streams and self._map.is_whole:
            self._complete = True
        self._ready.notify_all()
