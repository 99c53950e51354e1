"""Content: one local file, which of its ranges are here, and which are this host's own.

Owns:    the descriptor and the maps of one file. `present`: bytes that are here. `own`: bytes
         that this host wrote, or that became zeros here. `base_limit`: where the base version
         ends for good (a truncate lowers it: what lay past it never comes back).
Never:   fetches; deletes a file; closes a descriptor that somebody else was handed. The owner
         closes when nobody uses it any more.
Threads: every public method.
Locks:   self._ready (leaf), a condition: held over the map and over writes of the file, so that
         a fill never lands on newer bytes; not while reading.
Fails:   NoSpace and LocalError of the disk; ValueError for a read of bytes that are not here.

Complete content keeps one map, `own`, and only while it is watched: it began partial, so that all
writes came by here, and its descriptor was handed to nobody who writes. After `unwatch` somebody else
may write through it (passthrough), and nothing here is told or needs to be. It never becomes partial
again.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Event
from typing import NamedTuple, Self

from r2fs.disk.durable import allocated_bytes, local_error, punch_hole
from r2fs.disk.filecalls import memory_file as _memory_file
from r2fs.disk.filecalls import new_file as _new_file
from r2fs.disk.filecalls import open_even_readonly as _open_even_readonly
from r2fs.disk.filecalls import open_file as _open
from r2fs.disk.filecalls import pread_all as _pread_all
from r2fs.disk.filecalls import punch as _punch
from r2fs.disk.filecalls import resize as _resize
from r2fs.disk.filecalls import write as _write
from r2fs.model.errors import Interrupted, NoSpace, R2fsError, StateDamaged
from r2fs.model.ranges import Range, RangeSet

CANCEL_POLL_S = 0.1  # an Event cannot wake a Condition: how late an interrupt may be noticed


class Snapshot(NamedTuple):
    """The maps at one moment, as the journal and the cache keep them."""

    present: RangeSet
    own: RangeSet  # of complete content: all of it, since nobody watches who writes
    base_limit: int


class Content:
    """See the module's head. Made by `create` or `adopt`."""

    def __init__(
        self, path: Path, fd: int, size: int, present: RangeSet | None, own: RangeSet, base_limit: int
    ) -> None:
        self._fd = fd
        self._mode = os.O_RDWR
        self._file: tuple[int, int] | None = None  # asked for once
        self._ready = Condition()
        # guarded by: _ready
        self.path = path
        self.doubtful = False  # the disk failed to read it: not to be kept
        self._size = size
        self._present = RangeSet() if present is None else present
        self._own = own
        self._base_limit = base_limit
        self._failure: R2fsError | None = None
        self._released = 0  # counts releases: a read that one overlaps is made again
        self._streams = False  # what has been read may be given back, so it never is complete
        self._kept = False  # False → True only: it is to be whole, on the disk
        self.in_memory = False  # and has no name on the disk
        self._files = 0  # counts the files that it was: what one of them held is not in the next
        self._changes = 0  # counts what this host did to it while it was watched
        self._complete = present is None  # False → True only
        self._watched = present is not None  # True → False only: does `own` tell of every write?
        if present is not None:
            self._settle_locked()

    # -------------------------------------------------------------- beginning and end
    @classmethod
    def hollow(cls, path: Path, size: int) -> Self:
        """Of `size` bytes that are all to come, in memory: for a disk that has no room. `path` is for messages."""
        content = cls(path, _memory_file(path, size), size, RangeSet(), RangeSet(), size)
        content._streams = content.in_memory = True
        return content

    @classmethod
    def create(cls, path: Path, size: int, complete: bool) -> Self:
        """A new file: `size` zeros that count (complete), or holes to be filled from a base of `size`."""
        fd = _new_file(path, size)
        return cls(path, fd, size, None if complete else RangeSet(), RangeSet(), size)

    @classmethod
    def empty(cls, path: Path, fd: int) -> Self:
        """A new and empty file that is open O_RDWR already: complete. The descriptor becomes ours."""
        return cls(path, fd, 0, None, RangeSet(), 0)

    @classmethod
    def adopt(
        cls,
        path: Path,
        size: int,
        present: RangeSet | None,
        own: RangeSet | None = None,
        base_limit: int | None = None,
    ) -> Self:
        """An existing file. `present` None: complete, whatever its size is.

        Raises StateDamaged where bytes that should be here lie past the file's end.
        """
        if present is None:
            fd, mode = _open_even_readonly(path)
            content = cls(path, fd, size, None, RangeSet(), size)
            content._mode = mode
            return content
        fd = _open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            there = os.fstat(fd).st_size
            last = max((stop for _, stop in present), default=0)
            if min(last, size) > there:
                raise StateDamaged(f"{path}: ends at byte {there}, but bytes up to {last} should be here")
            if there != size:
                _resize(fd, size, path)
        except R2fsError:
            os.close(fd)
            raise
        here, mine = present.copy(), RangeSet() if own is None else own.copy()
        here.remove(size, max(size, last))
        mine.remove(size, max(size, last))
        return cls(path, fd, size, here, mine, size if base_limit is None else base_limit)

    @property
    def fd(self) -> int:
        """O_RDWR unless made read-only. Complete content may be written through it by others, without telling."""
        if self._fd < 0:
            raise ValueError(f"{self.path}: content is closed")
        return self._fd

    @property
    def file(self) -> tuple[int, int]:
        """Device and inode: of every descriptor that it ever has, and under every name."""
        if self._file is None:
            found = os.fstat(self.fd)
            self._file = (found.st_dev, found.st_ino)
        return self._file

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def close(self) -> None:
        """Idempotent. Whoever waits gets ValueError."""
        with self._ready:
            fd, self._fd = self._fd, -1
            self._ready.notify_all()
        if fd >= 0:
            os.close(fd)

    def make_readonly(self) -> None:
        """The descriptor, whose number stays, can no longer write: no lease is denied because of it."""
        self._reopen(os.O_RDONLY)

    def make_writable(self) -> None:
        """The reverse of `make_readonly`. A read lease on the file must be given back before."""
        self._reopen(os.O_RDWR)

    def _reopen(self, mode: int) -> None:
        with self._ready:
            if self._mode == mode:
                return
            fd = _open(Path(f"/proc/self/fd/{self.fd}"), mode | os.O_CLOEXEC)
            os.dup2(fd, self.fd, inheritable=False)
            os.close(fd)
            self._mode = mode

    def reader(self) -> int:
        """A second descriptor, the caller's to close, that outlives this content and denies nobody a lease."""
        return _open(Path(f"/proc/self/fd/{self.fd}"), os.O_RDONLY | os.O_CLOEXEC)

    def rename_to(self, path: Path) -> None:
        """Move the file. Descriptors stay what they are."""
        with self._ready:
            try:
                os.rename(self.path, path)
            except OSError as error:
                raise local_error(error, self.path) from error
            self.path = path

    def link_to(self, path: Path) -> None:
        """Another name for the file, which is the content's from now on; the earlier one stays, too."""
        with self._ready:
            try:
                os.link(self.path, path)
            except OSError as error:
                raise local_error(error, self.path) from error
            self.path = path

    # -------------------------------------------------------------- what is here
    @property
    def complete(self) -> bool:
        """Every byte of it is here, and stays."""
        return self._complete

    @property
    def size(self) -> int:
        """Bytes. Asked of the file itself where others may write to it."""
        return os.fstat(self.fd).st_size if self._complete else self._size

    @property
    def base_limit(self) -> int:
        return self._base_limit

    @property
    def changes(self) -> int:
        """How often this host changed it: each of them is in the file. Says nothing once it is complete, when
        others may write to it."""
        with self._ready:  # a write counts before it is at it
            return self._changes

    def missing(self, start: int, stop: int) -> list[Range]:
        """Holes in [start, stop), in order. Nothing is missing past the end."""
        if self._complete:
            return []
        with self._ready:
            return self._present.missing(start, min(stop, self._size))

    def covers(self, start: int, stop: int) -> bool:
        """Is what [start, stop) has of the file here?"""
        if self._complete:
            return True
        with self._ready:
            return self._present.covers(start, min(stop, self._size))

    def edits(self) -> RangeSet | None:
        """Where it differs from the base for all that is known; None: anywhere."""
        with self._ready:
            return self._own.copy() if self._watched else None

    def own_ranges(self) -> tuple[RangeSet, int] | None:
        """Where this host's bytes are, and `base_limit`; None of complete content that others may write to."""
        with self._ready:
            if self._complete and not self._watched:
                return None
            return self._own.copy(), self._base_limit

    def set_times(self, atime_ns: int, mtime_ns: int) -> None:
        """utimens(2), in ns. Not while somebody fills it, who would set them back."""
        with self._ready:
            os.utime(self.fd, ns=(atime_ns, mtime_ns))

    def unwatch(self) -> None:
        """From now on somebody else writes through the descriptor, or the base is another."""
        with self._ready:
            self._watched = False

    def snapshot(self) -> Snapshot:
        """Copies of the maps. `adopt` takes them back."""
        if self._complete:
            size = self.size
            return Snapshot(RangeSet([(0, size)]), RangeSet([(0, size)]), 0)
        with self._ready:
            return Snapshot(self._present.copy(), self._own.copy(), self._base_limit)

    def allocated(self) -> int:
        """Bytes of disk that it occupies."""
        return allocated_bytes(self.fd)

    def check(self) -> None:
        """Invariants, for tests."""
        with self._ready:
            if self._complete:
                return
            assert self._base_limit >= 0
            assert self._streams or not self._present.covers(0, self._size), "complete, but not marked so"
            for start, stop in self._own:
                assert self._present.covers(start, stop), "own bytes that are not here"
            for start, stop in self._present:
                assert 0 <= start < stop <= self._size, "bytes past the end"
            for start, stop in self._present.missing(0, self._size):
                assert stop <= self._base_limit, f"hole {start}-{stop} that nothing can fill"

    # -------------------------------------------------------------- more than there is room for
    def here(self) -> RangeSet:
        """A copy of the map of what is here."""
        with self._ready:
            return RangeSet([(0, self._size)]) if self._complete else self._present.copy()

    @property
    def streams(self) -> bool:
        """True if ranges that are here may be given back by `release`."""
        return self._streams

    def stream(self) -> bool:
        """From now on `streams`. False: it is complete, or was to be kept, or holds bytes of this host, and stays.

        A file that the cache has linked must be dropped there: it is the same file.
        """
        with self._ready:
            if self._complete or self._own or self._kept or self.closed:
                return False
            self._streams = True
            return True

    def keep(self, path: Path) -> None:
        """The reverse of `stream`, for good: it is to be whole, on the disk, if need be as the new file `path`."""
        with self._ready:
            if self.in_memory:
                self._renew_locked(_new_file(path, self._size), path, 0)
                self.in_memory = False
            self._streams, self._kept = False, True
            self._settle_locked()
            self._ready.notify_all()

    def to_memory(self, held: int) -> None:
        """Its file is given up, and with it what is here, but for the first `held` bytes, which nobody has seen.

        Raises NoSpace where it does not `stream` any more: it was opened for writing a moment ago.
        """
        with self._ready:
            if self._complete or self._own or not self._streams:
                raise NoSpace(f"{self.path}: is to stay on this disk, which has no room for it")
            self._renew_locked(_memory_file(self.path, self._size), self.path, held)
            self._streams = self.in_memory = True

    def _renew_locked(self, fd: int, path: Path, held: int) -> None:
        """Another file in the place of this one. Nobody was handed its descriptor: it is not complete."""
        try:
            if held:
                _write(fd, _pread_all(self.fd, held, 0, self.path), 0, path)
            os.dup2(fd, self.fd, inheritable=False)
        finally:
            os.close(fd)
        self._file, self._mode, self.path = None, os.O_RDWR, path
        self._present = RangeSet()
        self._released += 1
        self._files += not held

    # -------------------------------------------------------------- reading
    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end. ValueError names a range that is not here."""
        while not self.complete:
            with self._ready:
                stop = min(offset + size, self._size)
                holes = self._present.missing(offset, stop)
                if holes:
                    raise ValueError(f"{self.path.name}: bytes {holes[0][0]}-{holes[0][1]} are not here")
                released, complete = self._released, self._complete
            data = _pread_all(self.fd, max(0, stop - offset), offset, self.path)
            with self._ready:
                if complete or released == self._released:
                    return data
        return _pread_all(self.fd, size, offset, self.path)

    def wait_present(
        self, start: int, stop: int, timeout: float | None = None, cancelled: Event | None = None
    ) -> bool:
        """Wait until [start, stop) is here (True), or for `timeout` seconds (False).

        Raises what `fail` was given, or Interrupted when `cancelled` is set.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._ready:
            while not (self._complete or self._present.covers(start, min(stop, self._size))):
                self.fd  # noqa: B018  (closed: nothing will come)
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
        """What is missing will not come, for this reason; None: it may come again."""
        with self._ready:
            self._failure = failure
            self._ready.notify_all()

    # -------------------------------------------------------------- the base's bytes
    def fill(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Bytes of the base version have come. They go into holes only, below `base_limit`."""
        self._fill(offset, data, True)

    def hold(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """As `fill`, but nobody sees the bytes before `accept` says that they are right."""
        self._fill(offset, data, False)

    @property
    def files(self) -> int:
        """Number of the present file; `hold` of an earlier one is void."""
        return self._files

    def accept(self, start: int, stop: int, files: int) -> bool:
        """Count [start, stop) that `hold` wrote as present. False: the file has been replaced since `files` was read."""
        with self._ready:
            if self._complete:
                return True
            if files != self._files:
                return False
            self._present.add(start, min(stop, self._base_limit, self._size))
            self._settle_locked()
            self._ready.notify_all()
            return True

    def _fill(self, offset: int, data: bytes | bytearray | memoryview, seen: bool) -> None:
        if self.complete:
            return
        with self._ready:
            if self._complete:
                return
            stop = min(offset + len(data), self._base_limit, self._size)
            view = memoryview(data)
            before = os.fstat(self.fd)
            try:
                for start, end in self._present.missing(offset, stop):
                    while start < end:  # what a full disk cut short raises at the next turn
                        written = _write(self.fd, view[start - offset : end - offset], start, self.path)
                        if seen:
                            self._present.add(start, start + written)
                        start += written
            finally:
                # The file's time is that of the last write by a program, or what utimens said.
                os.utime(self.fd, ns=(before.st_atime_ns, before.st_mtime_ns))
                self._settle_locked()
                self._ready.notify_all()

    def release(self, start: int, stop: int) -> int:
        """Give clean bytes of a range back to the disk; how many. Never own ones, nor of complete content.

        A file that the cache has linked must be dropped there first: it is the same file.
        """
        if self.complete:
            return 0
        freed = 0
        with self._ready:
            if self._complete or self.closed:
                return 0
            for here in self._present.within(start, min(stop, self._base_limit)):
                for clean in self._own.missing(*here):
                    if not self._release_locked(*clean):
                        return freed
                    freed += clean[1] - clean[0]
        return freed

    # -------------------------------------------------------------- this host's bytes
    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Write at `offset`; how many bytes. A gap after the old end becomes zeros."""
        if not self._complete or self._watched:
            with self._ready:
                if not self._complete or self._watched:
                    return self._write_locked(offset, data)
        return _write(self.fd, data, offset, self.path)

    def append(self, data: bytes | bytearray | memoryview) -> int:
        """Write at the end, atomically among appends through this content; how many bytes."""
        with self._ready:
            if self._complete and not self._watched:
                return _write(self.fd, data, self.size, self.path)
            return self._write_locked(self.size, data)

    def truncate(self, size: int) -> None:
        """Cut, or extend by zeros. Bytes of the base past a cut are gone for good."""
        with self._ready:
            self._changes += 1
            _resize(self.fd, size, self.path)
            if self._complete and not self._watched:
                return
            if size < self._size:
                self._present.remove(size, self._size)
                self._own.remove(size, self._size)
                self._base_limit = min(self._base_limit, size)
                self._size = size
            else:
                self._own_locked(self._size, size)
            self._settle_locked()
            self._ready.notify_all()

    def zero(self, start: int, stop: int) -> None:
        """Make [start, stop) zeros without occupying disk (FALLOC_FL_PUNCH_HOLE); the size stays."""
        with self._ready:
            stop = min(stop, self.size)
            if start >= stop:
                return
            self._changes += 1
            with self._or_unwatched_locked():
                _punch(self.fd, start, stop, self.path)
            if not self._complete or self._watched:
                self._released += 1  # a read under way may have seen either
                self._own_locked(start, stop)
                self._settle_locked()
                self._ready.notify_all()

    def reserve(self, offset: int, length: int) -> None:
        """Room on the disk for [offset, offset + length) of complete content (posix_fallocate)."""
        try:
            os.posix_fallocate(self.fd, offset, length)
        except OSError as error:
            raise local_error(error, self.path) from error

    def fsync(self, data_only: bool = False) -> None:
        """What was written survives a power cut. Slow."""
        try:
            (os.fdatasync if data_only else os.fsync)(self.fd)
        except OSError as error:
            raise local_error(error, self.path) from error

    # -------------------------------------------------------------- helpers
    def _release_locked(self, start: int, stop: int) -> bool:
        # Out of the map first: if the punch fails half way, the bytes are fetched again.
        self._present.remove(start, stop)
        self._released += 1
        try:
            punch_hole(self.fd, start, stop - start)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise local_error(error, self.path) from error
            self._present.add(start, stop)  # a file system without holes has changed nothing
            return False
        return True

    def _write_locked(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        if len(data) == 0:
            return 0
        self._changes += 1
        with self._or_unwatched_locked():
            written = _write(self.fd, data, offset, self.path)
        self._own_locked(offset, offset + written)
        self._settle_locked()
        self._ready.notify_all()
        return written

    @contextmanager
    def _or_unwatched_locked(self) -> Iterator[None]:
        """What fails half way (a full disk) has changed nobody knows what."""
        try:
            yield
        except R2fsError:
            self._watched = False
            raise

    def _own_locked(self, start: int, stop: int) -> None:
        """[start, stop) is ours, and so are the zeros between the old end and it."""
        start = min(start, self._size)
        self._present.add(start, stop)
        self._own.add(start, stop)
        self._size = max(self._size, stop)

    def _settle_locked(self) -> None:
        """Has the last hole been filled?"""
        if not self._streams and self._present.covers(0, self._size):
            self._complete = True
