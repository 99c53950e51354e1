"""libfuse's high-level operations, translated to verbs. Signatures are fuse.h's, of 2.9 and 3.x.

Owns:    the tables of open files and directories: libfuse's `fh` of a file is the engine's handle;
         directories have numbers of their own.
Never:   imports mfusepy or fusepy (libfuse_driver.py does, and passes the types in); turns an exception into
         an errno (libfuse_driver.py's `_door` does).
Threads: libfuse's own, many at once. A read that waits for the network holds its thread.
Locks:   none: the tables are dicts, changed by single operations.
Fails:   R2fsError, and OSError of a read or write on a local file.

Arguments that only libfuse 3 passes have defaults. Paths are None where a handle suffices.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from r2fs.drivers.libfuse.c_values import fill, fill_statfs, give, id_of, memory, text, times_of
from r2fs.drivers.libfuse.cshapes import Config, FileInfo, Fill, Pointer, Stat, StatVfs, Times
from r2fs.drivers.libfuse.paths import Dentry, PathTable, is_hidden
from r2fs.drivers.setid import drop_set_id
from r2fs.model.errors import BadHandle, NotPermitted, NotSupported, Stale
from r2fs.model.ports import Caller
from r2fs.model.records import TYPE_BITS, AttributeChange, Attributes, Opened
from r2fs.model.verbs import ROOT, Verbs

if TYPE_CHECKING:
    from r2fs.drivers.libfuse.cshapes import Bytes

READDIR_PLUS = 1  # fuse_readdir_flags
FILL_DIR_PLUS = 2  # fuse_fill_dir_flags

# The kernel reads this attribute before every write(2), if a file system has extended attributes at all.
_CAPABILITY = b"security.capability"

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class LibfuseFile:
    handle: int
    ino: int
    local: int | None  # a descriptor of the engine's, to read and write
    appends: bool
    dentry: Dentry
    direct: bool  # reads past the kernel's pages


@dataclass(slots=True)
class OpenDirectory:
    ino: int
    references: int  # ours in the engine


def by_path(
    operation: Callable[Concatenate[Callbacks, bytes, P], R],
) -> Callable[Concatenate[Callbacks, bytes, P], R]:
    """Repeat an operation once after Stale: an inode on the way may have been replaced since its lookup."""

    def again(self: Callbacks, path: bytes, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return operation(self, path, *args, **kwargs)
        except Stale:
            self._names.distrust(text(path))
            return operation(self, path, *args, **kwargs)

    again.__name__ = operation.__name__
    return again


class Callbacks:
    # Of libfuse 2's table of operations: no path where a handle is enough; times may be left alone.
    flag_nullpath_ok = flag_nopath = flag_utime_omit_ok = 1

    def __init__(
        self,
        fs: Verbs,
        names: PathTable,
        caller: Callable[[], Caller],
        stat_type: Callable[[], Stat],
        started: Callable[[int, Pointer[Config] | None], None],
    ) -> None:
        # constant
        self._fs = fs
        self._names = names
        self._caller = caller
        self._stat_type = stat_type
        self._started = started
        self._lock = threading.Lock()
        # changed by single operations of dict
        self._files: dict[int, LibfuseFile] = {}
        self._directories: dict[int, OpenDirectory] = {}
        self._directory_numbers = itertools.count(1)

    # ---- the mount
    def init(self, connection: int, config: Pointer[Config] | None = None) -> None:
        self._started(connection, config)

    def destroy(self, _data: int) -> None:
        """Release every handle that the kernel has not released before the unmount."""
        for handle in list(self._files):
            self._release(handle)

    def statfs(self, _path: bytes, out: Pointer[StatVfs]) -> None:
        fill_statfs(out.contents, self._fs.statfs(self._caller()))

    # ---- attributes
    def getattr(self, path: bytes | None, out: Pointer[Stat], info: Pointer[FileInfo] | None = None) -> None:
        fill(out.contents, self._attributes(path, info))

    def _attributes(self, path: bytes | None, info: Pointer[FileInfo] | None) -> Attributes:
        caller = self._caller()
        if info:
            file = self._file(info)
            return self._fs.getattr(caller, file.ino, file.handle).attributes
        try:
            return self._names.find(caller, text(path)).attributes
        except Stale:
            self._names.distrust(text(path))
            return self._names.find(caller, text(path)).attributes

    fgetattr = getattr

    def chmod(self, path: bytes | None, mode: int, info: Pointer[FileInfo] | None = None) -> None:
        self._change(path, info, AttributeChange(mode=stat.S_IMODE(mode)))

    def chown(self, path: bytes | None, uid: int, gid: int, info: Pointer[FileInfo] | None = None) -> None:
        self._change(path, info, AttributeChange(uid=id_of(uid), gid=id_of(gid)))

    def truncate(self, path: bytes | None, size: int, info: Pointer[FileInfo] | None = None) -> None:
        self._change(path, info, AttributeChange(size=size))

    ftruncate = truncate

    def utimens(
        self, path: bytes | None, times: Pointer[Times] | None, info: Pointer[FileInfo] | None = None
    ) -> None:
        atime, mtime = times_of(times, time.time_ns())
        self._change(path, info, AttributeChange(atime_ns=atime, mtime_ns=mtime))

    def _change(self, path: bytes | None, info: Pointer[FileInfo] | None, change: AttributeChange) -> None:
        caller = self._caller()
        if info:
            file = self._file(info)
            self._fs.setattr(caller, file.ino, change, file.handle)
            return
        try:
            self._fs.setattr(caller, self._names.ino(caller, text(path)), change)
        except Stale:
            self._names.distrust(text(path))
            self._fs.setattr(caller, self._names.ino(caller, text(path)), change)

    # ---- names
    @by_path
    def mkdir(self, path: bytes, mode: int) -> None:
        caller = self._caller()
        parent, name = self._names.split(caller, text(path))
        self._names.learned(parent, name, self._fs.mkdir(caller, parent, name, stat.S_IMODE(mode)))

    @by_path
    def mknod(self, path: bytes, mode: int, device: int) -> None:
        caller = self._caller()
        parent, name = self._names.split(caller, text(path))
        if stat.S_IFMT(mode) != stat.S_IFREG:
            self._names.learned(parent, name, self._fs.mknod(caller, parent, name, mode, device))
            return
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        entry, opened = self._fs.create(caller, parent, name, stat.S_IMODE(mode), flags)
        self._names.learned(parent, name, entry)
        self._fs.release(opened.handle)

    def symlink(self, target: bytes, path: bytes) -> None:
        self._symlink(path, text(target))

    @by_path
    def _symlink(self, path: bytes, target: str) -> None:
        caller = self._caller()
        parent, name = self._names.split(caller, text(path))
        self._names.learned(parent, name, self._fs.symlink(caller, parent, name, target))

    @by_path
    def readlink(self, path: bytes, out: Bytes, size: int) -> None:
        caller = self._caller()
        target = os.fsencode(self._fs.readlink(caller, self._names.ino(caller, text(path))))
        ctypes.memmove(out, target[: size - 1] + b"\0", min(len(target) + 1, size))

    def link(self, source: bytes, _path: bytes) -> None:
        raise NotPermitted(f"{text(source)}: a bucket has no hard links")

    @by_path
    def unlink(self, path: bytes) -> None:
        caller = self._caller()
        parent, name = self._names.split(caller, text(path))
        if is_hidden(name):
            return  # unlinked at its hiding, and forgotten at its last release
        self._fs.unlink(caller, parent, name)
        self._names.removed(parent, name)

    @by_path
    def rmdir(self, path: bytes) -> None:
        caller = self._caller()
        parent, name = self._names.split(caller, text(path))
        self._fs.rmdir(caller, parent, name)
        self._names.removed(parent, name)

    def rename(self, old: bytes, new: bytes, flags: int = 0) -> None:
        try:
            self._rename(text(old), text(new), flags)
        except Stale:
            self._names.distrust(text(old))
            self._names.distrust(text(new))
            self._rename(text(old), text(new), flags)

    def _rename(self, old: str, new: str, flags: int) -> None:
        caller = self._caller()
        parent, name = self._names.split(caller, old)
        new_parent, new_name = self._names.split(caller, new)
        if is_hidden(new_name):
            self._names.hide(caller, parent, name, new_name)
        else:
            self._names.rename(caller, parent, name, new_parent, new_name, flags)

    # ---- directories
    def opendir(self, path: bytes, info: Pointer[FileInfo]) -> None:
        caller = self._caller()
        try:
            directory = self._directory(caller, text(path))
        except Stale:
            self._names.distrust(text(path))
            directory = self._directory(caller, text(path))
        number = next(self._directory_numbers)
        self._directories[number] = directory
        info.contents.fh = number

    def _directory(self, caller: Caller, path: str) -> OpenDirectory:
        """The directory with a reference of its own, so that it stays open after its name is removed."""
        if path == "/":
            return OpenDirectory(ROOT, 0)
        return OpenDirectory(self._fs.lookup(caller, *self._names.split(caller, path)).ino, 1)

    def readdir(
        self,
        _path: bytes | None,
        buffer: int,
        filler: Fill,
        _offset: int,
        info: Pointer[FileInfo],
        flags: int | None = None,
    ) -> None:
        """Return the whole directory at once: libfuse keeps it and serves all further requests from it."""
        caller = self._caller()
        ino = self._directories[info.contents.fh].ino
        out, plain = self._stat_type(), () if flags is None else (0,)
        plus = (FILL_DIR_PLUS,) if flags is not None and flags & READDIR_PLUS else None
        filler(buffer, b".", None, 0, *plain)
        filler(buffer, b"..", None, 0, *plain)
        for line in self._fs.readdir(caller, ino):
            entry = self._fs.readdir_entry(caller, ino, line.name) if plus is not None else None
            if entry is not None:
                self._names.learned(ino, line.name, entry)
                fill(out, entry.attributes)
            else:
                out.st_ino, out.st_mode = line.st_ino, TYPE_BITS[line.kind]
            name = line.name.encode("utf-8", "surrogateescape")
            if filler(buffer, name, out, 0, *(plus if plus is not None and entry is not None else plain)):
                return  # libfuse has no memory left, and reports the error itself

    def releasedir(self, _path: bytes | None, info: Pointer[FileInfo]) -> None:
        directory = self._directories.pop(info.contents.fh)
        if directory.references:
            self._fs.forget(directory.ino, directory.references)

    def fsyncdir(self, _path: bytes | None, _data_only: int, info: Pointer[FileInfo]) -> None:
        self._fs.fsync_directory(self._caller(), self._directories[info.contents.fh].ino)

    # ---- extended attributes
    @by_path
    def getxattr(self, path: bytes, name: bytes, out: Bytes, size: int) -> int:
        if name == _CAPABILITY:
            return -errno.ENODATA
        caller = self._caller()
        value = self._fs.getxattr(caller, self._names.ino(caller, text(path)), text(name))
        return give(value, out, size)

    @by_path
    def listxattr(self, path: bytes, out: Bytes, size: int) -> int:
        caller = self._caller()
        names = self._fs.listxattr(caller, self._names.ino(caller, text(path)))
        return give(b"".join(os.fsencode(name) + b"\0" for name in names), out, size)

    @by_path
    def setxattr(self, path: bytes, name: bytes, value: Bytes, size: int, flags: int) -> None:
        if name == _CAPABILITY:
            raise NotSupported(f"{text(path)}: programs get no capabilities from a bucket")
        caller = self._caller()
        ino = self._names.ino(caller, text(path))
        self._fs.setxattr(caller, ino, text(name), ctypes.string_at(value, size), flags)

    @by_path
    def removexattr(self, path: bytes, name: bytes) -> None:
        caller = self._caller()
        self._fs.removexattr(caller, self._names.ino(caller, text(path)), text(name))

    # ---- open files
    @by_path
    def create(self, path: bytes, mode: int, info: Pointer[FileInfo]) -> None:
        caller, flags = self._caller(), info.contents.flags
        parent, name = self._names.split(caller, text(path))
        entry, opened = self._fs.create(caller, parent, name, stat.S_IMODE(mode), flags | os.O_CREAT)
        self._names.learned(parent, name, entry)
        self._opened(info, parent, name, entry.ino, opened)

    @by_path
    def open(self, path: bytes, info: Pointer[FileInfo]) -> None:
        caller = self._caller()
        parent, name = self._names.split(caller, text(path))
        ino = self._names.ino(caller, text(path))
        if caller.uid and info.contents.flags & os.O_TRUNC:  # else the kernel does this, by chmod
            drop_set_id(self._fs, self._names, caller, ino)
        opened = self._fs.open(caller, ino, info.contents.flags)
        self._opened(info, parent, name, ino, opened)

    def _opened(self, info: Pointer[FileInfo], parent: int, name: str, ino: int, opened: Opened) -> None:
        fi = info.contents
        dentry, keep, direct = self._names.opened(parent, name, ino, opened)
        appends = bool(fi.flags & os.O_APPEND)
        self._files[opened.handle] = LibfuseFile(opened.handle, ino, opened.local, appends, dentry, direct)
        fi.fh, fi.keep_cache, fi.direct_io = opened.handle, keep, direct

    def read(self, _path: bytes | None, out: Bytes, size: int, offset: int, info: Pointer[FileInfo]) -> int:
        file = self._file(info)
        if file.local is not None:
            with suppress(OSError):  # the engine meets the same error, and reports the cause
                return os.preadv(file.local, [memory(out, size)], offset)
        data = self._fs.read(self._caller(), file.handle, offset, size)
        ctypes.memmove(out, data, len(data))
        return len(data)

    def write(self, _path: bytes | None, data: Bytes, size: int, offset: int, info: Pointer[FileInfo]) -> int:
        file, paged = self._file(info), bool(info.contents.writepage)
        buffer = memory(data, size)
        if file.local is None or (file.appends and not paged):
            # The kernel computes an append's offset from a size that may be old.
            return self._fs.write(self._caller(), file.handle, offset, memoryview(buffer).cast("B"), paged)
        try:
            written = os.pwrite(file.local, buffer, offset)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return self._fs.write(self._caller(), file.handle, offset, memoryview(buffer).cast("B"), paged)
        self._fs.wrote(file.handle)
        if paged and written < size:  # of pages the kernel hears an error, and no smaller number
            rest = memoryview(buffer).cast("B")[written:]
            written += self._fs.write(self._caller(), file.handle, offset + written, rest, paged)
        return written

    def flush(self, _path: bytes | None, info: Pointer[FileInfo]) -> None:
        self._fs.flush(self._caller(), self._file(info).handle)

    def fsync(self, _path: bytes | None, data_only: int, info: Pointer[FileInfo]) -> None:
        self._fs.fsync(self._caller(), self._file(info).handle, bool(data_only))

    def fallocate(
        self, _path: bytes | None, mode: int, offset: int, length: int, info: Pointer[FileInfo]
    ) -> None:
        self._fs.fallocate(self._caller(), self._file(info).handle, mode, offset, length)

    def lseek(self, _path: bytes | None, offset: int, whence: int, info: Pointer[FileInfo]) -> int:
        try:
            return self._fs.lseek(self._caller(), self._file(info).handle, offset, whence, paged=True)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return -errno.ENXIO  # an answer, not a failure: no data after `offset`

    def release(self, _path: bytes | None, info: Pointer[FileInfo]) -> None:
        self._release(info.contents.fh)

    def _release(self, handle: int) -> None:
        file = self._files.pop(handle)
        self._fs.release(handle)
        self._names.closed(file.dentry, file.direct)

    def _file(self, info: Pointer[FileInfo]) -> LibfuseFile:
        file = self._files.get(info.contents.fh)
        if file is None:
            raise BadHandle(f"handle {info.contents.fh} is not open")
        return file
