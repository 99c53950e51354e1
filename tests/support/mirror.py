"""MirrorVerbs: the verbs over an ordinary directory, for tests of a driver alone.

Owns:    inodes with lookup counts, open files, versions. A node keeps an O_PATH descriptor, so it
         outlives its name (open and unlinked files) and its number is not given to another file.
Never:   caches anything: what somebody changes in the directory itself shows at the next call.
Threads: every method is thread-safe.
Locks:   self._lock, over the tables and over create; nothing under it waits.

`stream` names the files that are answered as STREAM; `stuck` holds an Event for each file name
whose STREAM reads are to wait until it is set; `calls` counts the verbs.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from r2fs.model.directory_lines import DirectoryLines
from r2fs.model.errors import (
    AccessRefused,
    BadHandle,
    Busy,
    DirectoryNotEmpty,
    Exists,
    FileError,
    FileTooLarge,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NoAttribute,
    NoSpace,
    NotADirectory,
    NotFound,
    NotPermitted,
    NotSupported,
    ReadFailed,
    ReadOnly,
    Stale,
)
from r2fs.model.keys import check_name
from r2fs.model.ports import Caller, KernelCache, NoKernelCache
from r2fs.model.records import (
    SPECIAL_KINDS,
    AttributeChange,
    Attributes,
    Entry,
    FileSystemStats,
    Kind,
    Opened,
)
from r2fs.model.verbs import ROOT

_ERRORS: dict[int, type[FileError]] = {
    cls.errno: cls
    for cls in (
        AccessRefused, BadHandle, Busy, DirectoryNotEmpty, Exists, FileTooLarge, InvalidArgument,
        IsADirectory, NameTooLong, NoAttribute, NoSpace, NotADirectory, NotFound, NotPermitted,
        NotSupported, ReadFailed, ReadOnly, Stale,
    )
}  # fmt: skip
_ERRORS[errno.ELOOP] = InvalidArgument

POLL_S = 0.05  # how soon a stuck read notices that its caller is interrupted
_OPEN_FLAGS = os.O_ACCMODE | os.O_TRUNC | os.O_DSYNC | os.O_SYNC
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


@contextmanager
def translated(what: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cls = _ERRORS.get(error.errno or 0, ReadFailed)
        raise cls(f"{what}: {os.strerror(error.errno or errno.EIO)}") from error


@dataclass(slots=True)
class Node:
    ino: int
    fd: int  # O_PATH
    kind: Kind
    name: str  # as last looked up: for `stream` and messages
    # guarded by: MirrorVerbs._lock
    lookups: int = 0
    handles: int = 0
    writers: int = 0
    version: int = 0
    proof: tuple[int, int] | None = None  # size and mtime that `version` stands for

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self.fd}"

    def __del__(self) -> None:
        os.close(self.fd)  # when no verb that is under way uses it any more


@dataclass(slots=True)
class File:
    node: Node
    fd: int
    flags: int
    stream: bool
    wrote: bool = False


class MirrorVerbs:
    def __init__(
        self, root: Path, *, stream: Callable[[str], bool] = lambda name: False, valid_s: float = 1.0
    ) -> None:
        # constant
        self.root = root
        self.stream = stream
        self.valid_s = valid_s
        self.stuck: dict[str, threading.Event] = {}
        self.calls: Counter[str] = Counter()
        self.kernel_cache: KernelCache = NoKernelCache()
        self._numbers = itertools.count(1)  # of versions and handles: never given twice
        self._lock = threading.RLock()
        # guarded by: _lock
        self._nodes: dict[int, Node] = {}
        self._files: dict[int, File] = {}
        node = Node(ROOT, os.open(root, os.O_PATH | os.O_DIRECTORY), Kind.DIRECTORY, "", lookups=1)
        self._nodes[ROOT] = node

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                os.close(file.fd)
            self._files.clear()
            self._nodes.clear()

    def set_kernel_cache(self, kernel_cache: KernelCache) -> None:
        self.kernel_cache = kernel_cache

    def known(self) -> dict[int, int]:
        """For tests: how many references each inode has, the root's apart."""
        with self._lock:
            return {ino: node.lookups for ino, node in self._nodes.items() if ino != ROOT}

    def open_handles(self) -> int:
        with self._lock:
            return len(self._files)

    # ---- names
    def lookup(self, caller: Caller, parent: int, name: str) -> Entry:
        self.calls["lookup"] += 1
        return self._lookup(parent, name)

    def _lookup(self, parent: int, name: str) -> Entry:
        directory = self._directory(parent)
        with self._lock:
            try:
                fd = os.open(_name(name), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
            except FileNotFoundError:
                raise NotFound(f"{name}: no such file or directory", self.valid_s) from None
            except OSError as error:
                raise _ERRORS.get(error.errno or 0, ReadFailed)(name) from error
            return Entry(_attributes(self._count_locked(fd, name).fd), self.valid_s)

    def _count_locked(self, fd: int, name: str) -> Node:
        """The node that `fd` shows, with one more reference; takes `fd`."""
        found = os.fstat(fd)
        node = self._nodes.get(found.st_ino)
        if node is None:
            node = Node(found.st_ino, fd, _kind(found.st_mode), name, version=next(self._numbers))
            self._nodes[node.ino] = node
        else:
            os.close(fd)
        node.name = name
        node.lookups += 1
        return node

    def forget(self, ino: int, count: int) -> None:
        self.calls["forget"] += 1
        with self._lock:
            node = self._nodes.get(ino)
            if node is not None and ino != ROOT:
                node.lookups -= count
                assert node.lookups >= 0, f"{node.name}: {-node.lookups} references too many given back"
                self._drop_unused_locked(node)

    def _drop_unused_locked(self, node: Node) -> None:
        if node.lookups == 0 and node.handles == 0:
            del self._nodes[node.ino]

    def mkdir(self, caller: Caller, parent: int, name: str, mode: int) -> Entry:
        self.calls["mkdir"] += 1
        directory = self._directory(parent)
        with translated(name):
            os.mkdir(_name(name), mode, dir_fd=directory.fd)
            os.chmod(_name(name), mode, dir_fd=directory.fd)
            self._give(caller, directory, name)
        return self._lookup(parent, name)

    def symlink(self, caller: Caller, parent: int, name: str, target: str) -> Entry:
        self.calls["symlink"] += 1
        directory = self._directory(parent)
        with translated(name):
            os.symlink(target, _name(name), dir_fd=directory.fd)
            self._give(caller, directory, name)
        return self._lookup(parent, name)

    def mknod(self, caller: Caller, parent: int, name: str, mode: int, device: int) -> Entry:
        self.calls["mknod"] += 1
        directory = self._directory(parent)
        with translated(name):
            os.mknod(_name(name), mode, device, dir_fd=directory.fd)
            self._give(caller, directory, name)
        return self._lookup(parent, name)

    def _give(self, caller: Caller, directory: Node, name: str) -> None:
        if os.geteuid() == 0:
            os.chown(_name(name), caller.uid, caller.gid, dir_fd=directory.fd, follow_symlinks=False)

    def readlink(self, caller: Caller, ino: int) -> str:
        self.calls["readlink"] += 1
        node = self._node(ino)
        with translated(node.name):
            return os.readlink("", dir_fd=node.fd)

    def unlink(self, caller: Caller, parent: int, name: str) -> None:
        self.calls["unlink"] += 1
        with translated(name):
            os.unlink(_name(name), dir_fd=self._directory(parent).fd)

    def rmdir(self, caller: Caller, parent: int, name: str) -> None:
        self.calls["rmdir"] += 1
        with translated(name):
            os.rmdir(_name(name), dir_fd=self._directory(parent).fd)

    def rename(
        self, caller: Caller, parent: int, name: str, new_parent: int, new_name: str, flags: int = 0
    ) -> None:
        self.calls["rename"] += 1
        source, target = self._directory(parent), self._directory(new_parent)
        with translated(name):
            done = _libc.renameat2(
                source.fd, os.fsencode(_name(name)), target.fd, os.fsencode(_name(new_name)), flags
            )
            if done != 0:
                raise OSError(ctypes.get_errno(), "renameat2")

    def readdir(self, caller: Caller, ino: int) -> DirectoryLines:
        self.calls["readdir"] += 1
        node = self._directory(ino)
        with translated(node.name), os.scandir(node.path) as found:
            lines = sorted((entry.name, entry.inode(), entry.stat(follow_symlinks=False)) for entry in found)
        found_lines = [(name, _kind(info.st_mode), number) for name, number, info in lines]
        return DirectoryLines(found_lines, valid_s=self.valid_s)

    def readdir_entry(self, caller: Caller, ino: int, name: str) -> Entry | None:
        self.calls["readdir_entry"] += 1
        try:
            return self._lookup(ino, name)
        except NotFound:
            return None

    def st_ino(self, ino: int) -> int:
        return self._entry(self._node(ino)).attributes.st_ino

    # ---- attributes
    def getattr(self, caller: Caller, ino: int, handle: int | None = None) -> Entry:
        self.calls["getattr"] += 1
        return self._entry(self._node(ino) if handle is None else self._file(handle).node)

    def _entry(self, node: Node) -> Entry:
        attributes = _attributes(node.fd)
        return Entry(_root_attributes(attributes) if node.ino == ROOT else attributes, self.valid_s)

    def setattr(self, caller: Caller, ino: int, change: AttributeChange, handle: int | None = None) -> Entry:
        self.calls["setattr"] += 1
        node = self._node(ino) if handle is None else self._file(handle).node
        if node.kind is Kind.SYMLINK:
            raise NotSupported(f"{node.name}: a symbolic link's attributes cannot be changed")
        with self._own_change(node), translated(node.name):
            if change.size is not None:
                os.truncate(node.path, change.size)
            if change.mode is not None:
                os.chmod(node.path, change.mode)
            if change.uid is not None or change.gid is not None:
                os.chown(node.path, _or(change.uid, -1), _or(change.gid, -1))
            if change.atime_ns is not None or change.mtime_ns is not None:
                now = os.stat(node.path)
                times = (_or(change.atime_ns, now.st_atime_ns), _or(change.mtime_ns, now.st_mtime_ns))
                os.utime(node.path, ns=times)
        return self._entry(node)

    @contextmanager
    def _own_change(self, node: Node) -> Iterator[None]:
        """A change of content through this mount: the version stays."""
        with self._lock:
            before = _proof(node.fd)
            yield
            if node.proof == before:
                node.proof = _proof(node.fd)

    def statfs(self, caller: Caller) -> FileSystemStats:
        self.calls["statfs"] += 1
        now = os.statvfs(self.root)
        return FileSystemStats(
            total=now.f_blocks * now.f_frsize,
            free=now.f_bavail * now.f_frsize,
            files=now.f_files,
            files_free=now.f_ffree,
        )

    def getxattr(self, caller: Caller, ino: int, name: str) -> bytes:
        self.calls["getxattr"] += 1
        node = self._node(ino)
        with translated(node.name):
            return os.getxattr(node.path, name)

    def listxattr(self, caller: Caller, ino: int) -> Sequence[str]:
        self.calls["listxattr"] += 1
        node = self._node(ino)
        with translated(node.name):
            return os.listxattr(node.path)

    def setxattr(self, caller: Caller, ino: int, name: str, value: bytes, flags: int) -> None:
        self.calls["setxattr"] += 1
        node = self._node(ino)
        with translated(node.name):
            os.setxattr(node.path, name, value, flags)

    def removexattr(self, caller: Caller, ino: int, name: str) -> None:
        self.calls["removexattr"] += 1
        node = self._node(ino)
        with translated(node.name):
            os.removexattr(node.path, name)

    # ---- open files
    def create(self, caller: Caller, parent: int, name: str, mode: int, flags: int) -> tuple[Entry, Opened]:
        self.calls["create"] += 1
        directory = self._directory(parent)
        with self._lock:
            try:
                with translated(name):
                    made = os.open(_name(name), os.O_CREAT | os.O_EXCL | os.O_RDWR, mode, dir_fd=directory.fd)
                    os.fchmod(made, mode & 0o7777)
                    os.close(made)
                    self._give(caller, directory, name)
            except Exists:
                if flags & os.O_EXCL:
                    raise
            entry = self._lookup(parent, name)
            try:
                return entry, self._open(entry.ino, flags)
            except FileError:
                self.forget(entry.ino, 1)
                raise

    def open(self, caller: Caller, ino: int, flags: int) -> Opened:
        self.calls["open"] += 1
        return self._open(ino, flags)

    def _open(self, ino: int, flags: int) -> Opened:
        with self._lock:  # until the handle counts: another thread may give the last reference back
            return self._open_locked(self._node(ino), flags)

    def _open_locked(self, node: Node, flags: int) -> Opened:
        if node.kind is Kind.DIRECTORY:
            raise IsADirectory(node.name)
        writes = _writes(flags)
        with translated(node.name):
            now = _proof(node.fd)
            if node.proof != now and not node.writers:
                node.version, node.proof = next(self._numbers), now
            # A writer's descriptor reads too: kernels read what a partial page lacks.
            mode = os.O_RDWR if writes else os.O_RDONLY
            fd = os.open(node.path, flags & _OPEN_FLAGS & ~os.O_ACCMODE | mode | os.O_CLOEXEC)
            if flags & os.O_TRUNC:
                node.proof = _proof(node.fd)
            handle = next(self._numbers)
            file = File(node, fd, flags, self.stream(node.name))
            self._files[handle] = file
            node.handles += 1
            node.writers += writes
            return Opened(handle, None if file.stream else fd, node.version)

    def read(self, caller: Caller, handle: int, offset: int, size: int) -> bytes:
        self.calls["read"] += 1
        file = self._file(handle)
        if file.stream:
            caller.about_to_wait()
            self._wait_if_stuck(caller, file.node.name)
        with translated(file.node.name):
            return os.pread(file.fd, size, offset)

    def _wait_if_stuck(self, caller: Caller, name: str) -> None:
        stuck = self.stuck.get(name)
        while stuck is not None and not stuck.wait(POLL_S):
            caller.about_to_wait()  # raises Interrupted

    def write(
        self, caller: Caller, handle: int, offset: int, data: bytes | memoryview, paged: bool = False
    ) -> int:
        self.calls["write"] += 1
        file = self._file(handle)
        file.wrote = True
        with translated(file.node.name):
            if file.flags & os.O_APPEND and not paged:
                with self._lock:
                    return os.pwrite(file.fd, data, os.fstat(file.fd).st_size)
            return os.pwrite(file.fd, data, offset)

    def wrote(self, handle: int) -> None:
        self.calls["wrote"] += 1
        self._file(handle).wrote = True

    def copy_file_range(
        self, caller: Caller, handle: int, offset: int, target: int, target_offset: int, length: int
    ) -> int:
        self.calls["copy_file_range"] += 1
        caller.about_to_wait()
        one, other = self._file(handle), self._file(target)
        with translated(other.node.name):
            return os.copy_file_range(one.fd, other.fd, length, offset, target_offset)

    def fallocate(self, caller: Caller, handle: int, mode: int, offset: int, length: int) -> None:
        self.calls["fallocate"] += 1
        file = self._file(handle)
        file.wrote = True
        with translated(file.node.name):
            if _libc.fallocate(file.fd, mode, offset, length) != 0:
                raise OSError(ctypes.get_errno(), "fallocate")

    def lseek(self, caller: Caller, handle: int, offset: int, whence: int, paged: bool = False) -> int:
        self.calls["lseek"] += 1
        file = self._file(handle)
        try:
            if paged and _writes(file.flags):  # all of it may be data
                found, end = os.lseek(file.fd, offset, os.SEEK_SET), os.fstat(file.fd).st_size
                if found >= end:
                    raise OSError(errno.ENXIO, "past the end")
                return found if whence == os.SEEK_DATA else end
            return os.lseek(file.fd, offset, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise _NoMoreData(file.node.name) from None
            raise ReadFailed(file.node.name) from error

    def flush(self, caller: Caller, handle: int) -> None:
        self.calls["flush"] += 1
        self._settle(self._file(handle))

    def _settle(self, file: File) -> None:
        """What was written through this mount (perhaps by the kernel itself) is this version."""
        if _writes(file.flags):
            with self._lock:
                file.node.proof = _proof(file.node.fd)

    def fsync(self, caller: Caller, handle: int, data_only: bool) -> None:
        self.calls["fsync"] += 1
        file = self._file(handle)
        caller.about_to_wait()
        with translated(file.node.name):
            (os.fdatasync if data_only else os.fsync)(file.fd)

    def fsync_directory(self, caller: Caller, ino: int) -> None:
        self.calls["fsync_directory"] += 1
        node = self._directory(ino)
        caller.about_to_wait()
        with translated(node.name):
            fd = os.open(node.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def release(self, handle: int) -> None:
        self.calls["release"] += 1
        with self._lock:
            file = self._files.pop(handle)
            self._settle(file)
            os.close(file.fd)
            node = file.node
            node.handles -= 1
            node.writers -= _writes(file.flags)
            self._drop_unused_locked(node)

    # ---- tables
    def _node(self, ino: int) -> Node:
        with self._lock, suppress(KeyError):
            return self._nodes[ino]
        raise Stale(f"inode {ino} is gone")

    def _directory(self, ino: int) -> Node:
        node = self._node(ino)
        if node.kind is not Kind.DIRECTORY:
            raise NotADirectory(node.name)
        return node

    def _file(self, handle: int) -> File:
        with self._lock, suppress(KeyError):
            return self._files[handle]
        raise BadHandle(f"handle {handle} is not open")


class _NoMoreData(FileError):
    errno = errno.ENXIO


def _name(name: str) -> str:
    return check_name(name)


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _writes(flags: int) -> bool:
    return flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)


def _kind(mode: int) -> Kind:
    if stat.S_ISDIR(mode):
        return Kind.DIRECTORY
    if stat.S_ISLNK(mode):
        return Kind.SYMLINK
    return SPECIAL_KINDS.get(stat.S_IFMT(mode), Kind.FILE)


def _proof(fd: int) -> tuple[int, int]:
    now = os.fstat(fd)
    return now.st_size, now.st_mtime_ns


def _attributes(fd: int) -> Attributes:
    now = os.fstat(fd)
    return Attributes(
        ino=now.st_ino,
        kind=_kind(now.st_mode),
        size=now.st_size,
        mode=stat.S_IMODE(now.st_mode),
        uid=now.st_uid,
        gid=now.st_gid,
        mtime_ns=now.st_mtime_ns,
        ctime_ns=now.st_ctime_ns,
        atime_ns=now.st_atime_ns,
        nlink=now.st_nlink,
        blocks=now.st_blocks,
        st_ino=now.st_ino,
    )


def _root_attributes(attributes: Attributes) -> Attributes:
    return attributes._replace(ino=ROOT, st_ino=ROOT)
