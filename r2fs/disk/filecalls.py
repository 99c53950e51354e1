"""System calls on one file, with errors that name its path; the read lease; renameat2(2).

Fails: NoSpace, DiskReadOnly and LocalError; `open_unless_writable` and `renameat2` OSError.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
from pathlib import Path

from r2fs.disk.durable import claim_blocks, local_error, local_errors, punch_hole, pwrite_all
from r2fs.model.errors import DiskReadOnly

F_SETSIG = 10  # Linux; the fcntl module does not name it
NO_RENAMEAT2 = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # of an old kernel, or of some file systems
WITHOUT_LEASES = (errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES, errno.ENOLCK)

_libc = ctypes.CDLL(None, use_errno=True)


def open_file(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        raise
    except OSError as error:
        raise local_error(error, path) from error


def open_even_readonly(path: Path) -> tuple[int, int]:
    """Open read-write, or read-only on a disk that became read-only; return descriptor and mode."""
    try:
        return open_file(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), os.O_RDWR
    except DiskReadOnly:
        return open_file(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), os.O_RDONLY


def resize(fd: int, size: int, path: Path) -> None:
    with local_errors(path):
        os.ftruncate(fd, size)


def write(fd: int, data: bytes | bytearray | memoryview, offset: int, path: Path) -> int:
    try:
        return pwrite_all(fd, data, offset)
    except OSError as error:
        raise local_error(error, path) from error


def free(fd: int, start: int, stop: int, path: Path) -> bool:
    """Give the blocks of [start, stop) back to the disk. False: the file system has no holes, nothing is changed."""
    try:
        punch_hole(fd, start, stop - start)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise local_error(error, path) from error
        return False
    return True


def allocate(fd: int, start: int, stop: int, path: Path) -> bool:
    """Allocate blocks for [start, stop); what is written there stays. False: the file system cannot. Raises NoSpace.

    By fallocate(2) itself: posix_fallocate(3) writes into each block where the file system cannot.
    """
    try:
        claim_blocks(fd, stop - start, start)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise local_error(error, path) from error
    return True


def zero(fd: int, start: int, stop: int, path: Path) -> None:
    """Make [start, stop) zeros: a hole, or written zeros on a file system without holes."""
    if free(fd, start, stop, path):
        return
    zeros = memoryview(bytes(1 << 20))
    while start < stop:
        start += write(fd, zeros[: stop - start], start, path)


def pread_all(fd: int, size: int, offset: int, path: Path) -> bytes:
    try:
        data = os.pread(fd, size, offset)
        if len(data) == size or not data:
            return data
        pieces = [data]
        got = len(data)
        while got < size and (data := os.pread(fd, size - got, offset + got)):
            pieces.append(data)
            got += len(data)
    except OSError as error:
        raise local_error(error, path) from error
    return b"".join(pieces)


def new_file(path: Path, size: int) -> int:
    """Return a descriptor of a new file of `size` bytes, all of them holes."""
    fd = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    try:
        if size:  # ftruncate to 0 would make ext4 write the file out at close (auto_da_alloc)
            resize(fd, size, path)
    except BaseException:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


def memory_file(path: Path, size: int) -> int:
    """Return a descriptor as `new_file` does, of a file in this process's memory."""
    with local_errors(path):
        fd = os.memfd_create("r2fs", os.MFD_CLOEXEC)
    try:
        resize(fd, size, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


# ------------------------------------------------------------------ read lease
def open_unless_writable(path: Path) -> int | None:
    """Return an O_RDONLY descriptor of a file to which no process can write; None: one may.

    Linux grants a read lease only while no descriptor and no shared mapping anywhere could write to the file
    (fcntl(2), "Leases"). A program that closed its file may still write through a mapping, unseen where the kernel
    passes data through. The lease is given back at once, since the engine's own open for writing would wait for it;
    that open is what ends the proof. On a file system without leases every file counts as not writable.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _is_writable(fd):
            os.close(fd)
            return None
    except OSError:
        os.close(fd)
        raise
    return fd


def _is_writable(fd: int) -> bool:
    try:
        # A lease break is announced by SIGIO, which ends a process; SIGURG is ignored by default.
        fcntl.fcntl(fd, F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EBUSY):
            return True
        if error.errno in WITHOUT_LEASES:
            return False
        raise
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def renameat2(old_fd: int, old: str, new_fd: int, new: str, flags: int) -> bool:
    """renameat2(2); False where kernel, library or file system does not have it."""
    call = getattr(_libc, "renameat2", None)
    if call is None:
        return False
    if call(old_fd, os.fsencode(old), new_fd, os.fsencode(new), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in NO_RENAMEAT2:
        return False
    raise OSError(number, os.strerror(number), new)
