"""Verbs: the calls of a driver to the engine, by inode number and handle. A driver only translates requests into these
calls; `engine/fs.py` carries them out.

Names are `str`; other bytes than UTF-8 arrive by `os.fsdecode` and are refused as BadName.
`ROOT` is the root's inode number. `flags` are those of open(2).

Fails: R2fsError with the errno to reply; WouldWait if `caller.may_wait` is False and the
       answer needs the network, an fsync or another slow operation (no state has changed then).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from r2fs.model.directory_lines import DirectoryLines
from r2fs.model.ports import Caller, KernelCache
from r2fs.model.records import AttributeChange, Entry, FileSystemStats, Opened

ROOT = 1

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2  # renameat2(2)


class Verbs(Protocol):
    def set_kernel_cache(self, kernel_cache: KernelCache) -> None:
        """Set the cache to be invalidated after changes other than by calls of this driver."""
        ...

    # ---- names
    def lookup(self, caller: Caller, parent: int, name: str) -> Entry:
        """Find a name. Counts one reference on the inode, given back by forget(). NotFound carries valid_s."""
        ...

    def forget(self, ino: int, count: int) -> None:
        """Give `count` references back. No error for unknown inodes."""
        ...

    def mkdir(self, caller: Caller, parent: int, name: str, mode: int) -> Entry:
        """Make a directory. Counts one reference."""
        ...

    def mknod(self, caller: Caller, parent: int, name: str, mode: int, device: int) -> Entry:
        """Make a FIFO, socket or device. `mode` is st_mode, already masked. Counts one reference.

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

    def readdir(self, caller: Caller, ino: int) -> DirectoryLines:
        """List the whole directory, without `.` and `..`, in a stable order."""
        ...

    def readdir_entry(self, caller: Caller, ino: int, name: str) -> Entry | None:
        """Find a name for READDIRPLUS. As lookup, but None for a missing name, and never waits."""
        ...

    def st_ino(self, ino: int) -> int:
        """Inode number shown by stat(2). Never waits. Raises Stale if the inode does not exist any more."""
        ...

    # ---- attributes
    def getattr(self, caller: Caller, ino: int, handle: int | None = None) -> Entry:
        """Attributes and their time of validity. Counts no reference."""
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
        """Open a file, or make and open it. `mode` is already masked by the caller's umask. Counts one reference."""
        ...

    def open(self, caller: Caller, ino: int, flags: int) -> Opened:
        """Open a file. Carries out O_TRUNC in `flags`."""
        ...

    def read(self, caller: Caller, handle: int, offset: int, size: int) -> bytes:
        """Read from a STREAM or LOCAL handle. Short only at the end of the file."""
        ...

    def write(
        self, caller: Caller, handle: int, offset: int, data: bytes | memoryview, paged: bool = False
    ) -> int:
        """Write to a STREAM or LOCAL handle. With O_APPEND `offset` is ignored: data is appended.

        `paged`: the kernel writes back pages of a mapping, through any handle: `offset` counts.
        """
        ...

    def wrote(self, handle: int) -> None:
        """Note that the driver has written to the LOCAL descriptor itself."""
        ...

    def fallocate(self, caller: Caller, handle: int, mode: int, offset: int, length: int) -> None: ...

    def lseek(self, caller: Caller, handle: int, offset: int, whence: int, paged: bool = False) -> int:
        """SEEK_DATA and SEEK_HOLE. `paged`: the kernel may still have pages of a mapping to write back."""
        ...

    def copy_file_range(
        self, caller: Caller, handle: int, offset: int, target: int, target_offset: int, length: int
    ) -> int:
        """Copy bytes into the LOCAL file of the handle `target`; return their number, 0 at the end of the source."""
        ...

    def flush(self, caller: Caller, handle: int) -> None:
        """Answer close(2) of one descriptor: written bytes are in staging and in the journal."""
        ...

    def fsync(self, caller: Caller, handle: int, data_only: bool) -> None:
        """Make written bytes survive a power cut."""
        ...

    def fsync_directory(self, caller: Caller, ino: int) -> None:
        """Make changes of names in `ino` survive a power cut."""
        ...

    def release(self, handle: int) -> None:
        """End an open file after its last descriptor was closed. Never fails, never waits for the network."""
        ...
