"""System calls on files: writes and names that survive a power cut, and calls that Python has no name for.

Fails: OSError of the system, which `local_error` maps to an R2fsError; those under "one file" NoSpace, DiskReadOnly and
       LocalError that name its path.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from r2fs.model.errors import DiskReadOnly, FileTooLarge, LocalError, NoSpace, R2fsError
from r2fs.model.ports import CLOCK_REALTIME_COARSE

F_SETSIG = 10  # Linux; the fcntl module does not name it
NO_RENAMEAT2 = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # of an old kernel, or of some file systems
WITHOUT_LEASES = (errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES, errno.ENOLCK)
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 0x01, 0x02  # fallocate(2)
TICKS_S = 0.1  # file times are stamped by a clock that ticks every 1 to 10 ms: some ticks
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # ioctl_iflags(2), of 64-bit Linux
FS_TOPDIR_FL = 0x20000  # chattr +T
_FLAGS = struct.Struct("l")
BLOCK = 512  # st_blocks counts these whatever the file system's own block is

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.syncfs.argtypes = [ctypes.c_int]


def local_error(error: OSError, name: str | os.PathLike[str]) -> R2fsError:
    """Map an OSError of this host's disk to an R2fsError that names the file."""
    why = f"{os.fspath(name)}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(why)
    if error.errno == errno.EFBIG:
        return FileTooLarge(why)
    if error.errno == errno.EROFS:
        return DiskReadOnly(why)
    return LocalError(why)


@contextmanager
def local_errors(name: str | os.PathLike[str]) -> Iterator[None]:
    """Raise `local_error` in place of an OSError of the block."""
    try:
        yield
    except OSError as error:
        raise local_error(error, name) from error


# ------------------------------------------------------------------ durable names
def fsync_dir(path: Path) -> None:
    """Make names that were added, changed or removed in directory `path` survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader, after a power cut too, sees all of the old or of the new."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            pwrite_all(fd, data, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    fsync_dir(path.parent)


def quarantine(path: Path) -> Path:
    """Rename an unreadable file or directory in place; return the new path. Overwrites nothing."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for number in range(1, 10_000):
        aside = path.with_name(f"{path.name}.damaged-{stamp}" + (f"-{number}" if number > 1 else ""))
        try:
            _move_unless_taken(path, aside)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            continue
        fsync_dir(path.parent)
        return aside
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _move_unless_taken(path: Path, aside: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        if os.path.lexists(aside):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(aside))
        os.rename(path, aside)  # onto a directory that holds something it fails, too
        return
    os.link(path, aside, follow_symlinks=False)  # unlike rename, never replaces
    os.unlink(path)


# ------------------------------------------------------------------ bytes
def pwrite_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> int:
    """Write all of `data` at `offset`; return the bytes written: fewer only where the disk became full."""
    done = os.pwrite(fd, data, offset)
    if done == len(data):
        return done
    rest = memoryview(data)
    while done < len(rest):
        try:
            done += os.pwrite(fd, rest[done:], offset + done)
        except OSError:
            break  # the next write raises it
    return done


def sync_file_system(directory: Path) -> None:
    """Make everything written to the file system of `directory` survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            raise _system_error(directory)
    finally:
        os.close(fd)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give the blocks of a range back: the range reads as zeros, and the size stays."""
    if length > 0 and _libc.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) != 0:
        raise _system_error()


def claim_blocks(fd: int, length: int, offset: int = 0) -> None:
    """Allocate blocks for `length` bytes from `offset` on, past the end too; the size stays."""
    if _libc.fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, length) != 0:
        raise _system_error()


def _system_error(name: Path | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), None if name is None else str(name))


def spread_subdirectories(directory: Path) -> None:
    """Let ext4 put each new subdirectory into a block group with few others (chattr +T); elsewhere without effect.

    A new file's inode is searched for in the group of its directory, past each inode that was freed there in the last
    minutes: 18 µs, and up to 1 ms in a group where any program has just removed thousands of files.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # another file system, or another's directory
            (flags,) = _FLAGS.unpack(fcntl.ioctl(fd, FS_IOC_GETFLAGS, _FLAGS.pack(0)))
            if not flags & FS_TOPDIR_FL:
                fcntl.ioctl(fd, FS_IOC_SETFLAGS, _FLAGS.pack(flags | FS_TOPDIR_FL))
    finally:
        os.close(fd)


def allocated_bytes(fd: int) -> int:
    return os.fstat(fd).st_blocks * BLOCK


def boot_id() -> str:
    """Return the kernel's id of this boot. Bytes written under another id, and not synced, may be torn."""
    return BOOT_ID.read_text(encoding="ascii").strip()


# ------------------------------------------------------------------ times
def outwait_file_time(ctime_ns: int) -> bool:
    """Wait until the clock of file times has passed `ctime_ns`; False: it is too far ahead."""
    deadline = time.monotonic() + TICKS_S
    while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) <= ctime_ns:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


# ------------------------------------------------------------------ one file
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
            os.ftruncate(fd, size)
    except OSError as error:
        os.close(fd)
        os.unlink(path)
        raise local_error(error, path) from error
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
