"""Open modes: files that the kernel reads and writes by itself, and files read through the daemon.

Owns:    for each open inode its mode, its backing id, and the validity of the kernel's pages from an earlier
         open.
Never:   opens or reads content; calls the engine.
Threads: every method is thread-safe.
Locks:   _lock is a leaf: only the two ioctls run under it, and they call nothing of the daemon.

What the kernel demands (every breach is EIO for the program that opens):
    - an inode is either plain (through the page cache) or passthrough while any handle is open;
    - all passthrough opens of an inode name one backing id;
    - passthrough never comes with KEEP_CACHE.
The kernel counts an open until just before it sends RELEASE, so counting from the answer of
OPEN until RELEASE is never less than what the kernel counts.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from r2fs.drivers.kernel import wire
from r2fs.model.errors import Stale

log = logging.getLogger(__name__)

# Registering doubles the cost of an open, so small files stay registered after their last close.
# A registered file keeps its blocks on the disk: hence the limits.
IDLE: Final = 1024  # registrations
IDLE_FILE: Final = 256 << 10  # bytes of the largest file that stays registered
NEVER: Final = frozenset({errno.EPERM, errno.ENOTTY, errno.ENOSYS})  # not with this mount


@dataclass(frozen=True, slots=True)
class OpenMode:
    """Status of one open inode."""

    ino: int
    mode: str  # "passthrough" or "cached"
    why: str
    handles: int


class Grant(NamedTuple):
    """Content of OPEN's answer. Returned by OpenModes.leave()."""

    passthrough: bool
    fopen: int  # FOPEN_*
    backing_id: int
    file: tuple[int, int] = (0, 0)  # device and inode of the registered file


class Backing(Protocol):
    """Files registered with the kernel."""

    def register(self, local: int) -> int:
        """A backing id for the regular file behind a descriptor, which may be closed afterwards."""
        ...

    def unregister(self, backing_id: int) -> None: ...


class DeviceBacking:
    """Backing ids of a session: ioctl(2) on its descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def register(self, local: int) -> int:
        # A registered descriptor that may write counts as a writer, and denies leases; one by
        # O_PATH or for reading does not, and the kernel opens it again as each caller asks.
        if fcntl.fcntl(local, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            return self.register_descriptor(local)
        path = os.open(f"/proc/self/fd/{local}", os.O_PATH | os.O_CLOEXEC)
        try:
            return self.register_descriptor(path)
        finally:
            os.close(path)

    def register_descriptor(self, fd: int) -> int:
        # a bytearray: with bytes, ioctl returns the buffer and not the id
        backing_id: int = fcntl.ioctl(
            self._fd, wire.DEV_IOC_BACKING_OPEN, bytearray(wire.BACKING_MAP.pack(fd, 0, 0))
        )
        return backing_id

    def unregister(self, backing_id: int) -> None:
        fcntl.ioctl(self._fd, wire.DEV_IOC_BACKING_CLOSE, bytearray(wire.BACKING_ID.pack(backing_id)))


@dataclass(slots=True, eq=False)
class _Inode:
    """guarded by: OpenModes._lock"""

    plain: int = 0  # open handles
    passthrough_handles: int = 0  # open handles
    backing_id: int = 0  # while passed through or idle
    file: tuple[int, int] = (0, 0)  # device and inode of the registered file
    reader: Grant | None = None  # the mode of each further reader
    size: int = 0  # its bytes at registration
    grows: bool = False  # a writer has had it open since
    pages: int | None = None  # Opened.version of the kernel's pages; None: unknown
    why: str = ""


class OpenModes:
    """`unavailable`: the reason why passthrough is off; None while it is possible."""

    def __init__(self, backing: Backing, unavailable: str | None = None) -> None:
        # constant
        self._backing = backing
        # guarded by: _lock
        self._lock = threading.Lock()
        self._unavailable = unavailable
        self._inodes: dict[int, _Inode] = {}
        self._idle: OrderedDict[int, _Inode] = OrderedDict()  # registered, though not open; oldest first

    def probe(self, local: int) -> None:
        """Register any file of the cache's file system once, to learn whether the kernel allows passthrough."""
        with self._lock:
            if self._unavailable is None:
                backing_id = self._register_locked(local, _Inode())
                if backing_id:
                    self._backing.unregister(backing_id)

    def disable(self, why: str) -> None:
        """Stop further passthrough; open files keep their mode."""
        with self._lock:
            self._unavailable = self._unavailable or why

    @property
    def unavailable(self) -> str | None:
        return self._unavailable

    def enter(
        self, ino: int, local: int | None, version: int, writes: bool, file: tuple[int, int] | None = None
    ) -> Grant:
        """Count one more open handle. Raises Stale if `local` is not the file already open."""
        # close(2) of a writer waits until its bytes are safe; a reader's has no reason to wait
        flush = 0 if writes else wire.FOPEN_NOFLUSH
        with self._lock:
            inode = self._inodes.get(ino)
            if inode is None:
                inode = self._inodes[ino] = _Inode()
            if self._may_pass_locked(ino, inode, local, file):
                if not inode.passthrough_handles:
                    inode.why = "all bytes are here"
                inode.passthrough_handles += 1
                inode.grows = inode.grows or writes
                inode.pages = None  # fadvise leaves pages that passthrough writes do not change
                if writes:
                    return Grant(True, wire.FOPEN_PASSTHROUGH, inode.backing_id, inode.file)
                if inode.reader is None:
                    inode.reader = Grant(True, wire.FOPEN_PASSTHROUGH | flush, inode.backing_id, inode.file)
                return inode.reader
            inode.plain += 1
            keep = wire.FOPEN_KEEP_CACHE if inode.pages == version else 0
            inode.pages = version
            return Grant(False, keep | flush, 0)

    def leave(self, ino: int, passthrough: bool) -> None:
        """End one handle: at RELEASE, or where the answer to OPEN was not taken."""
        with self._lock:
            inode = self._inodes[ino]
            if passthrough:
                inode.passthrough_handles -= 1
                if not inode.passthrough_handles:
                    self._rest_locked(ino, inode)
            else:
                inode.plain -= 1

    def forgotten(self, ino: int) -> None:
        """The kernel gave the inode back, its pages too."""
        with self._lock:
            inode = self._inodes.get(ino)
            if inode is not None and not (inode.plain or inode.passthrough_handles):
                self._unregister_locked(ino, inode)
                del self._inodes[ino]

    def recover(self, ino: int, backing_id: int, file: tuple[int, int]) -> None:
        """Count one handle of an earlier daemon: passthrough of `file`, or page cache with backing id 0."""
        with self._lock:
            inode = self._inodes.setdefault(ino, _Inode(why="opened before r2fs restarted"))
            if backing_id:
                inode.passthrough_handles += 1
                inode.backing_id, inode.file, inode.grows = backing_id, file, True
            else:
                inode.plain += 1

    def view(self) -> tuple[OpenMode, ...]:
        with self._lock:
            return tuple(
                OpenMode(
                    ino,
                    "passthrough" if inode.passthrough_handles else "cached",
                    inode.why,
                    inode.passthrough_handles + inode.plain,
                )
                for ino, inode in self._inodes.items()
                if inode.passthrough_handles or inode.plain
            )

    def check(self) -> None:
        """Invariants, for tests."""
        with self._lock:
            for ino, inode in self._inodes.items():
                assert inode.plain >= 0 and inode.passthrough_handles >= 0, ino
                assert not (inode.plain and inode.passthrough_handles), f"inode {ino} has both modes"
                assert bool(inode.backing_id) == bool(inode.passthrough_handles or ino in self._idle), ino

    # ------------------------------------------------------------------ the decision
    def _may_pass_locked(
        self, ino: int, inode: _Inode, local: int | None, file: tuple[int, int] | None
    ) -> bool:
        """Choose the mode of a further handle; register the file at the first passthrough open."""
        if inode.plain:  # the first handle decided; `why` has the reason
            return False
        if inode.passthrough_handles:
            # Complete content stays complete: a handle without descriptor reads the same file.
            if local is not None and (file or _identity(local)[0]) != inode.file:
                raise Stale(f"inode {ino} is open with other content")
            return True
        if inode.backing_id:
            if local is not None and (file or _identity(local)[0]) == inode.file:
                del self._idle[ino]
                return True
            self._unregister_locked(ino, inode)
        if local is None:
            inode.why = "some bytes are missing, or a writer is slowed"
            return False
        if self._unavailable is not None:
            inode.why = self._unavailable
            return False
        inode.backing_id = self._register_locked(local, inode)
        if inode.backing_id:
            inode.file, inode.size = _identity(local)
            inode.grows, inode.reader = False, None
        return bool(inode.backing_id)

    def _rest_locked(self, ino: int, inode: _Inode) -> None:
        """The last passthrough handle was closed."""
        self._idle[ino] = inode
        if inode.grows or inode.size > IDLE_FILE:
            self._unregister_locked(ino, inode)
        elif len(self._idle) > IDLE:
            self._unregister_locked(*next(iter(self._idle.items())))

    def _unregister_locked(self, ino: int, inode: _Inode) -> None:
        """Unregister the file of an inode without open handles."""
        if self._idle.pop(ino, None) is not None:
            backing_id, inode.backing_id, inode.reader = inode.backing_id, 0, None
            self._backing.unregister(backing_id)

    def _register_locked(self, local: int, inode: _Inode) -> int:
        """A backing id, or 0 with `why` set."""
        try:
            return self._backing.register(local)
        except OSError as e:
            if e.errno in NEVER:
                self._unavailable = "passthrough needs root (CAP_SYS_ADMIN)"
                log.debug("no passthrough for this mount: %s", e)
                inode.why = self._unavailable
            else:  # ELOOP, EOPNOTSUPP: the cache's file system; others: a limit of the system
                inode.why = f"the kernel takes no passthrough of this file ({e.strerror})"
                log.debug("no passthrough for a file: %s", e)
            return 0


def _identity(local: int) -> tuple[tuple[int, int], int]:
    """Device and inode of a file, and its size in bytes."""
    found = os.fstat(local)
    return (found.st_dev, found.st_ino), found.st_size
