"""Open file: the descriptor of one local file, its path and its mode.

The descriptor's number stays the same over a change of mode and of name.

Never:   closes a descriptor that it has handed out.
Threads: every public method.
Locks:   self._ready (leaf), a condition that subclasses share: held over a change of path or mode.
Fails:   NoSpace and LocalError of the disk; ContentClosed once it is closed.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Condition, RLock

from r2fs.disk import filecalls
from r2fs.disk.durable import allocated_bytes, local_errors


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
        self._read_failed = False

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

    @property
    def read_failed(self) -> bool:
        """True if the disk failed to read the file: it is not to be kept."""
        return self._read_failed

    def distrust(self) -> None:
        """Note a failed read, for good."""
        with self._ready:
            self._read_failed = True

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
