"""The verbs: what a driver asks of the engine, by inode number and handle.

Owns:  the contract between `drivers/` and `engine/fs.py`. A driver is a translation
       of these calls and nothing more.
Never: knows FUSE.
Fails: R2fsError with the errno to reply; WouldWait where `caller.may_wait` is False and the
       answer needs the network, an fsync or another slow thing (nothing has changed then).

Names are `str`; bytes that are not UTF-8 arrive by `os.fsdecode` and are refused as BadName.
`ROOT` is the root's inode number. `flags` are those of open(2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from r2fs.model.ports import Caller, KernelCache
from r2fs.model.records import AttributeChange, DirEntry, Entry, FileSystemStats, Opened

ROOT = 1

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2  # renameat2(2)


class Verbs(Protocol):
    def set_kernel_cache(self, kernel_cache: KernelCache) -> None:
        """Who is told when something changes other than by a call through this driver."""
        ...

    # ---- names
    def lookup(self, caller: Caller, parent: int, name: str) -> Entry:
        """Counts one reference on the inode, to be given back by forget(). NotFound carries valid_s."""
        ...

    def forget(self, ino: int, count: int) -> None:
        """Gives `count` references back. Unknown inodes are fine."""
        ...

    def mkdir(self, caller: Caller, parent: int, name: str, mode: int) -> Entry:
        """Like lookup, counts one reference."""
        ...

    def mknod(self, caller: Caller, parent: int, name: str, mode: int, device: int) -> Entry:
        """A FIFO, socket or device; `mode` is st_mode, already masked. Counts one reference.

        Fails: NotPermitted for another type.
        """
        ...

    def symlink(self, caller: Caller, parent: int, name: str, target: str) -> Entry: ...
    def readlink(self, caller: Caller, ino: int) -> str: ...
    def unlink(self, caller: Caller, parent: int, name: str) -> None: ...
    def rmdir(self, caller: Caller, parent: int, name: str) -> None: ...

    def rename(
        self, caller: Caller, parent: int, name: str, new_parent: int, new_name: str, flags: int = 0
    ) -> None: ...

    def readdir(self, caller: Caller, ino: int) -> Sequence[DirEntry]:
        """The whole directory at this moment, without `.` and `..`, in a stable order."""
        ...

    def readdir_entry(self, caller: Caller, ino: int, name: str) -> Entry | None:
        """For READDIRPLUS: like lookup, but None where the name has gone, and never waits."""
        ...

    def st_ino(self, ino: int) -> int:
        """The number that stat shows of an inode. Never waits; Stale where it has gone."""
        ...

    # ---- attributes
    def getattr(self, caller: Caller, ino: int, handle: int | None = None) -> Entry:
        """Attributes and their validity. Counts no reference."""
        ...

    def setattr(
        self, caller: Caller, ino: int, change: AttributeChange, handle: int | None = None
    ) -> Entry: ...

    def statfs(self, caller: Caller) -> FileSystemStats: ...
    def getxattr(self, caller: Caller, ino: int, name: str) -> bytes: ...
    def listxattr(self, caller: Caller, ino: int) -> Sequence[str]: ...
    def setxattr(self, caller: Caller, ino: int, name: str, value: bytes, flags: int) -> None: ...
    def removexattr(self, caller: Caller, ino: int, name: str) -> None: ...

    # ---- open files
    def create(self, caller: Caller, parent: int, name: str, mode: int, flags: int) -> tuple[Entry, Opened]:
        """Open, or make and open. `mode` is already masked by the caller's umask. Counts one reference."""
        ...

    def open(self, caller: Caller, ino: int, flags: int) -> Opened:
        """O_TRUNC in `flags` is carried out here."""
        ...

    def read(self, caller: Caller, handle: int, offset: int, size: int) -> bytes:
        """Works on LOCAL handles too. Short only at the end of the file."""
        ...

    def write(
        self, caller: Caller, handle: int, offset: int, data: bytes | memoryview, paged: bool = False
    ) -> int:
        """Works on LOCAL handles too. With O_APPEND `offset` is ignored: the data goes to the end.

        `paged`: the kernel writes back pages of a mapping, through any handle: `offset` holds.
        """
        ...

    def wrote(self, handle: int) -> None:
        """The driver has written to the LOCAL descriptor itself."""
        ...

    def fallocate(self, caller: Caller, handle: int, mode: int, offset: int, length: int) -> None: ...

    def lseek(self, caller: Caller, handle: int, offset: int, whence: int, paged: bool = False) -> int:
        """SEEK_DATA and SEEK_HOLE. `paged`: the kernel may have pages of a mapping still to write back."""
        ...

    def flush(self, caller: Caller, handle: int) -> None:
        """close() of one descriptor: what was written is in staging and the journal knows."""
        ...

    def fsync(self, caller: Caller, handle: int, data_only: bool) -> None:
        """What was written survives a power cut."""
        ...

    def fsync_directory(self, caller: Caller, ino: int) -> None:
        """Names changed below `ino` survive a power cut."""
        ...

    def release(self, handle: int) -> None:
        """The last descriptor of this open is gone. Never fails, never waits for the network."""
        ...
