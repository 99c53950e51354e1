"""Sparse file: one local file of which some ranges are present, and some of these written by this host.

A complete file keeps its own ranges alone, and only while it is watched: it began with holes, so that every
write went through this object, and no writer has its descriptor. After `unwatch` others may write through
the descriptor (passthrough), unseen. A complete file never becomes incomplete.

Never:   deletes a file; closes a descriptor that was handed out. The owner closes it after its last use.
Threads: every public method.
Locks:   self._ready (leaf), a condition: held over the map and over writes of the file, so that the base's
         bytes never land on newer ones; not held while reading.
Fails:   NoSpace and LocalError of the disk; ValueError for a read of missing bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Self

from r2fs.disk import filecalls
from r2fs.disk.file_map import FileMap, Snapshot
from r2fs.disk.open_file import BaseBytes
from r2fs.model.errors import Interrupted, NoSpace, R2fsError, StateDamaged
from r2fs.model.ranges import Range, RangeSet

CANCEL_POLL_S = 0.1  # an Event cannot wake a Condition: how late an interrupt may be noticed


class SparseFile(BaseBytes):
    """Made by `create`, `empty`, `hollow` or `adopt`."""

    def __init__(self, path: Path, fd: int, ranges: FileMap, complete: bool, mode: int = os.O_RDWR) -> None:
        super().__init__(path, fd, mode, ranges, complete)
        # guarded by: _ready
        self._failure: R2fsError | None = None
        self._released = 0  # counts releases: a read that overlaps one is made again
        self._kept = False  # False → True only: it is to be complete, on the disk
        self._changes = 0  # counts changes by this host while it is watched
        self._watched = not complete  # True → False only: the map's own ranges tell of every write

    # -------------------------------------------------------------- constructors
    @classmethod
    def hollow(cls, path: Path, size: int) -> Self:
        """A file of `size` holes in memory, for a disk that has no room. `path` is for messages."""
        file = cls(path, filecalls.memory_file(path, size), FileMap(size), complete=False)
        file._streams = file.in_memory = True
        return file

    @classmethod
    def create(cls, path: Path, size: int, complete: bool) -> Self:
        """A new file: `size` zeros that count (complete), or holes to be filled from a base of `size`."""
        return cls(path, filecalls.new_file(path, size), FileMap(size), complete)

    @classmethod
    def empty(cls, path: Path, fd: int) -> Self:
        """A new and empty file that is open O_RDWR already: complete. Takes the descriptor over."""
        return cls(path, fd, FileMap(0), complete=True)

    @classmethod
    def adopt(
        cls, path: Path, size: int, present: RangeSet | None,
        own: RangeSet | None = None, base_limit: int | None = None,
    ) -> Self:  # fmt: skip
        """An existing file. `present` None: complete, whatever its size is.

        Raises StateDamaged where bytes that should be here lie past the file's end.
        """
        if present is None:
            fd, mode = filecalls.open_even_readonly(path)
            return cls(path, fd, FileMap(size), complete=True, mode=mode)
        fd = filecalls.open_file(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            there = os.fstat(fd).st_size
            last = max((stop for _, stop in present), default=0)
            if min(last, size) > there:
                raise StateDamaged(f"{path}: ends at byte {there}, but bytes up to {last} should be here")
            if there != size:
                filecalls.resize(fd, size, path)
        except R2fsError:
            os.close(fd)
            raise
        return cls(path, fd, FileMap.within(size, present, own, base_limit), complete=False)

    # -------------------------------------------------------------- state
    @property
    def size(self) -> int:
        """Bytes: of a complete file as fstat says, since others may write to it."""
        return os.fstat(self.fd).st_size if self.complete else self._map.size

    @property
    def base_limit(self) -> int:
        return self._map.base_limit

    @property
    def changes(self) -> int:
        """Number of changes by this host, each of which is in the file. Void once it is complete and unwatched."""
        with self._ready:  # a write is counted before it begins, and holds the lock
            return self._changes

    def missing(self, start: int, stop: int) -> list[Range]:
        """Return the holes in [start, stop), in order. There are none past the end."""
        if self.complete:
            return []
        with self._ready:
            return self._map.present.missing(start, min(stop, self._map.size))

    def covers(self, start: int, stop: int) -> bool:
        """True if no byte of the file is missing in [start, stop)."""
        if self.complete:
            return True
        with self._ready:
            return self._map.present.covers(start, min(stop, self._map.size))

    def edits(self) -> RangeSet | None:
        """Return the ranges that may differ from the base; None: any may."""
        if not self._watched:
            return None
        with self._ready:
            return self._map.own.copy()

    def own_ranges(self) -> tuple[RangeSet, int] | None:
        """Return this host's ranges and `base_limit`; None for a complete file that others may write to."""
        with self._ready:
            if self.complete and not self._watched:
                return None
            return self._map.own.copy(), self._map.base_limit

    def unwatch(self) -> None:
        """Stop keeping own ranges: others write through the descriptor from now on, or the base has changed."""
        if self._watched:
            with self._ready:
                self._watched = False

    def snapshot(self) -> Snapshot:
        """Return copies of the maps, as `adopt` accepts them."""
        if self.complete:
            size = self.size
            return Snapshot(RangeSet([(0, size)]), RangeSet([(0, size)]), 0)
        with self._ready:
            return self._map.snapshot()

    def check(self) -> None:
        """Raise AssertionError where an invariant is broken. For tests."""
        with self._ready:
            if self.complete:
                return
            assert self._streams or not self._map.is_whole, "complete, but not marked so"
            self._map.check()

    # -------------------------------------------------------------- streaming
    def here(self) -> RangeSet:
        """Return a copy of the present ranges."""
        with self._ready:
            return RangeSet([(0, self._map.size)]) if self.complete else self._map.present.copy()

    def here_bytes(self) -> int:
        """Return the number of present bytes."""
        with self._ready:
            return self._map.size if self.complete else self._map.present.total()

    @property
    def streams(self) -> bool:
        """True if `release` may give present ranges back to the disk."""
        return self._streams

    def stream(self) -> bool:
        """Let `release` give ranges back from now on. False for a file that is complete, kept, or holds own bytes.

        The caller drops the cache's entry of a linked file: both are the same file.
        """
        with self._ready:
            if self.complete or self._map.own or self._kept or self.closed:
                return False
            self._streams = True
            return True

    def keep(self, path: Path) -> None:
        """Undo `stream` for good: all bytes are to be on the disk. A file in memory moves to the new file `path`."""
        with self._ready:
            if self.in_memory:
                self._renew_locked(filecalls.new_file(path, self._map.size), path, 0)
                self.in_memory = False
            self._streams, self._kept = False, True
            self._settle_locked()

    def to_memory(self, held: int) -> None:
        """Replace the file on the disk by one in memory. Of its bytes the first `held`, not accepted yet, are copied.

        Raises NoSpace for a file that does not stream any more: it has been opened for writing.
        """
        with self._ready:
            if self.complete or self._map.own or not self._streams:
                raise NoSpace(f"{self.path}: is to stay on this disk, which has no room for it")
            self._renew_locked(filecalls.memory_file(self.path, self._map.size), self.path, held)
            self._streams = self.in_memory = True

    def _renew_locked(self, fd: int, path: Path, held: int) -> None:
        """Put another file behind the descriptor, which no program has: the file is not complete."""
        try:
            if held:
                filecalls.write(fd, filecalls.pread_all(self.fd, held, 0, self.path), 0, path)
            self._replace_locked(fd, path)
        finally:
            os.close(fd)
        self._map.present = RangeSet()
        self._released += 1
        self.files += not held

    # -------------------------------------------------------------- reading
    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes, or fewer at the end. ValueError names a missing range."""
        while not self.complete:
            with self._ready:
                stop = min(offset + size, self._map.size)
                holes = self._map.present.missing(offset, stop)
                if holes:
                    raise ValueError(f"{self.path.name}: bytes {holes[0][0]}-{holes[0][1]} are not here")
                released = self._released
            data = filecalls.pread_all(self.fd, max(0, stop - offset), offset, self.path)
            with self._ready:
                if released == self._released:
                    return data
        return filecalls.pread_all(self.fd, size, offset, self.path)

    def wait_present(
        self, start: int, stop: int, timeout: float | None = None, cancelled: Event | None = None
    ) -> bool:
        """Wait until [start, stop) is present (True), or for `timeout` seconds (False).

        Raises the error given to `fail`, or Interrupted when `cancelled` is set.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._ready:
            while not (self.complete or self._map.present.covers(start, min(stop, self._map.size))):
                self.fd  # noqa: B018  (raises ContentClosed once closed)
                if self._failure is not None:
                    raise self._failure.with_traceback(None)
                if cancelled is not None and cancelled.is_set():
                    raise Interrupted(f"{self.path.name}: the caller was interrupted")
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                if cancelled is not None:
                    left = CANCEL_POLL_S if left is None else min(left, CANCEL_POLL_S)
                self._ready.wait(left)
        return True

    def fail(self, failure: R2fsError | None) -> None:
        """Make waiters for missing bytes raise `failure`; None: they wait again."""
        if failure is self._failure is None:
            return
        with self._ready:
            self._failure = failure
            self._ready.notify_all()

    def release(self, start: int, stop: int) -> int:
        """Give clean bytes of a range back to the disk; return their number. Own bytes and complete files stay.

        The caller drops the cache's entry of a linked file before: both are the same file.
        """
        freed = 0
        with self._ready:
            if self.complete or self.closed:
                return 0
            for here in self._map.present.within(start, min(stop, self._map.base_limit)):
                for clean in self._map.own.missing(*here):
                    if not self._release_locked(*clean):
                        return freed
                    freed += clean[1] - clean[0]
        return freed

    # -------------------------------------------------------------- this host's bytes
    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Write at `offset`; return the number of bytes. A gap after the old end becomes zeros."""
        if not self.complete or self._watched:
            with self._ready:
                if not self.complete or self._watched:
                    return self._write_locked(offset, data)
        return filecalls.write(self.fd, data, offset, self.path)

    def append(self, data: bytes | bytearray | memoryview) -> int:
        """Write at the end, atomically among appends through this object; return the number of bytes."""
        with self._ready:
            if self.complete and not self._watched:
                return filecalls.write(self.fd, data, self.size, self.path)
            return self._write_locked(self.size, data)

    def truncate(self, size: int) -> None:
        """Cut, or extend by zeros. Bytes of the base past a cut never count again."""
        with self._ready:
            self._changes += 1
            filecalls.resize(self.fd, size, self.path)
            if self.complete and not self._watched:
                return
            self._map.resize(size)
            self._settle_locked()

    def zero(self, start: int, stop: int) -> None:
        """Make [start, stop) zeros that occupy no disk (FALLOC_FL_PUNCH_HOLE); the size stays."""
        with self._ready:
            stop = min(stop, self.size)
            if start >= stop:
                return
            self._changes += 1
            with self._or_unwatched_locked():
                filecalls.zero(self.fd, start, stop, self.path)
            if not self.complete or self._watched:
                self._released += 1  # a read under way may have seen old bytes and zeros
                self._map.add_own(start, stop)
                self._settle_locked()

    # -------------------------------------------------------------- helpers
    def _release_locked(self, start: int, stop: int) -> bool:
        # Out of the map first: after a failure half way the bytes are downloaded again.
        self._map.present.remove(start, stop)
        self._released += 1
        if filecalls.free(self.fd, start, stop, self.path):
            return True
        self._map.present.add(start, stop)
        return False

    def _write_locked(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        if len(data) == 0:
            return 0
        self._changes += 1
        with self._or_unwatched_locked():
            written = filecalls.write(self.fd, data, offset, self.path)
        self._map.add_own(offset, offset + written)
        self._settle_locked()
        return written

    @contextmanager
    def _or_unwatched_locked(self) -> Iterator[None]:
        """Unwatch after a failure half way (a full disk): which bytes changed is unknown."""
        try:
            yield
        except R2fsError:
            self._watched = False
            raise
