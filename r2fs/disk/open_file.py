"""Open file: the descriptor of one local file, its path and its mode; and the downloads into one with missing ranges.

The descriptor's number stays the same over a change of mode and of name.

Never:   closes a descriptor that it has handed out; writes a download on a byte that is present, or lets it change the
         file's times.
Threads: every public method.
Locks:   self._ready (leaf), a condition that subclasses share: held over a change of path or mode, over the map of
         ranges and over writes of the file.
Fails:   NoSpace and LocalError of the disk; ContentClosed once it is closed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, RLock

from r2fs.disk import filecalls
from r2fs.disk.file_map import FileMap
from r2fs.disk.filecalls import allocated_bytes, local_errors
from r2fs.model.errors import NoSpace


class ContentClosed(ValueError):
    """The file was closed by its last user."""


class OpenFile:
    def __init__(self, path: Path, fd: int, mode: int = os.O_RDWR) -> None:
        self._file_id: tuple[int, int] | None = None  # set by the first call of `file`
        self._lock = RLock()
        self._ready = Condition(self._lock)
        # guarded by: _ready
        self.path = path
        self._fd = fd
        self._mode = mode
        self.read_failed = (
            False  # False → True only: the disk failed to read the file, which is not to be kept
        )

    @property
    def fd(self) -> int:
        """The descriptor: O_RDWR, O_RDONLY after `make_readonly`. Others may write through it, unseen."""
        if self._fd < 0:
            raise ContentClosed(f"{self.path}: content is closed")
        return self._fd

    @property
    def file(self) -> tuple[int, int]:
        """Device and inode: the same for every descriptor and name of the file."""
        if self._file_id is None:
            found = os.fstat(self.fd)
            self._file_id = (found.st_dev, found.st_ino)
        return self._file_id

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def distrust(self) -> None:
        """Note a failed read, for good."""
        with self._ready:
            self.read_failed = True

    def close(self) -> None:
        """Close the descriptor. Idempotent; a wait for bytes ends with ContentClosed."""
        with self._ready:
            fd, self._fd = self._fd, -1
            self._ready.notify_all()
        if fd >= 0:
            os.close(fd)

    def make_readonly(self) -> None:
        """Make the descriptor, whose number stays, unable to write: no read lease is denied because of it."""
        self._reopen(os.O_RDONLY)

    def make_writable(self) -> None:
        """Undo `make_readonly`. A read lease on the file must be given back before."""
        self._reopen(os.O_RDWR)

    def _reopen(self, mode: int) -> None:
        with self._ready:
            if self._mode == mode:
                return
            fd = filecalls.open_file(Path(f"/proc/self/fd/{self.fd}"), mode | os.O_CLOEXEC)
            os.dup2(fd, self.fd, inheritable=False)
            os.close(fd)
            self._mode = mode

    def _replace_locked(self, fd: int, path: Path) -> None:
        """Put another file, open O_RDWR, behind the descriptor's number."""
        os.dup2(fd, self.fd, inheritable=False)
        self._file_id, self._mode, self.path = None, os.O_RDWR, path

    def reader(self) -> int:
        """Return a second descriptor, the caller's to close: it outlives this object and denies nobody a lease."""
        return filecalls.open_file(Path(f"/proc/self/fd/{self.fd}"), os.O_RDONLY | os.O_CLOEXEC)

    def rename_to(self, path: Path) -> None:
        """Move the file. Descriptors stay valid."""
        with self._ready, local_errors(self.path):
            os.rename(self.path, path)
            self.path = path

    def link_to(self, path: Path) -> None:
        """Give the file a second name, which is `path` from now on; the earlier name stays, too."""
        with self._ready, local_errors(self.path):
            os.link(self.path, path)
            self.path = path

    def set_times(self, atime_ns: int, mtime_ns: int) -> None:
        """Set the times in ns (utimens(2)). The lock keeps out a fill, which sets them back."""
        with self._ready:
            os.utime(self.fd, ns=(atime_ns, mtime_ns))

    def stat(self) -> os.stat_result:
        """Return fstat(2) of the file, without the times that a fill leaves for a moment."""
        with self._lock:  # the lock of `_ready`, without two calls of Python at each open and close
            return os.fstat(self.fd)

    def allocated(self) -> int:
        """Bytes of disk that the file occupies."""
        return allocated_bytes(self.fd)

    def reserve(self, offset: int, length: int) -> None:
        """Allocate disk for [offset, offset + length) of a complete file (posix_fallocate)."""
        with local_errors(self.path):
            os.posix_fallocate(self.fd, offset, length)

    def fsync(self, data_only: bool = False) -> None:
        """Make the bytes survive a power cut. Waits for the disk."""
        with local_errors(self.path):
            (os.fdatasync if data_only else os.fsync)(self.fd)


class BaseBytes(OpenFile):
    """Downloads of the base version into missing ranges, and the disk allocated for them."""

    def __init__(self, path: Path, fd: int, mode: int, ranges: FileMap, complete: bool) -> None:
        super().__init__(path, fd, mode)
        # guarded by: _ready
        self.in_memory = False  # without a name on the disk
        self._map = ranges  # of a complete file: its own ranges count alone, while it is watched
        self._streams = False  # present ranges may be given back, so that it never becomes complete
        self.files = 0  # counts the files behind the descriptor: bytes held in an earlier one are void
        self.complete = complete or ranges.is_whole  # False → True only: every byte is present

    def stat(self) -> os.stat_result:
        return os.fstat(self.fd) if self.complete else super().stat()  # nothing fills a complete file

    def fill(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write downloaded bytes of the base version: into holes only, below `base_limit`."""
        self._fill(offset, data, True)

    def hold(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write as `fill` does, but leave the bytes missing until `accept`."""
        self._fill(offset, data, False)

    def accept(self, start: int, stop: int, files: int) -> bool:
        """Count [start, stop), which `hold` wrote, as present. False: the file was replaced since `files` was read."""
        with self._ready:
            if self.complete:
                return True
            if files != self.files:
                return False
            self._map.add_base(start, stop)
            self._settle_locked()
            return True

    def prepare(self, start: int, stop: int) -> None:
        """Allocate disk for missing bytes of [start, stop) that are about to arrive: by one call, not at each write.

        Without effect on a file system that cannot, or has no room: the write of a byte finds that, too.
        """
        with self._ready:
            if self.complete or self.in_memory or self.closed:
                return
            with self._same_times_locked(self.fd):
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
            if self.complete or self.in_memory or self.closed:
                return
            with self._same_times_locked(self.fd):
                for hole in self._holes_locked(start, stop):
                    filecalls.free(self.fd, *hole, self.path)

    # ---- helpers
    def _holes_locked(self, start: int, stop: int) -> list[tuple[int, int]]:
        return self._map.present.missing(start, min(stop, self._map.base_limit, self._map.size))

    def _fill(self, offset: int, data: bytes | bytearray | memoryview, seen: bool) -> None:
        with self._ready:
            if self.complete:
                return
            view, fd = memoryview(data), self.fd
            try:
                with self._same_times_locked(fd):
                    for start, end in self._holes_locked(offset, offset + len(data)):
                        while start < end:  # a write that a full disk cut short raises at the next turn
                            written = filecalls.write(
                                fd, view[start - offset : end - offset], start, self.path
                            )
                            if seen:
                                self._map.present.add(start, start + written)
                            start += written
            finally:
                if seen:
                    self._settle_locked()

    @contextmanager
    def _same_times_locked(self, fd: int) -> Iterator[None]:
        """Set the file's times back afterwards: they are those of the last write by a program, or of utimens.

        After each call, not once a download: a daemon that is killed would leave a time for which no entry of the
        cache vouches, and with it all that the cache has of the file.
        """
        before = os.fstat(fd)
        try:
            yield
        finally:
            os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _settle_locked(self) -> None:
        """Mark the file complete if its last hole is filled, and wake waiting threads. Called after a change of the map."""
        if not self._streams and self._map.is_whole:
            self.complete = True
        self._ready.notify_all()
