"""C values: Python's values to and from the structures and buffers that libfuse passes."""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING

from r2fs.drivers.libfuse.cshapes import Pointer, Stat, StatVfs, Times, TimeSpec
from r2fs.model.records import TYPE_BITS, Attributes, FileSystemStats

if TYPE_CHECKING:
    from r2fs.drivers.libfuse.cshapes import Bytes

_UNCHANGED_ID = 0xFFFFFFFF  # (uid_t) -1
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2  # utimensat(2)
_BLOCK = 4096  # st_blksize: stdio buffers are of this size, and seeking programs refill them often


def text(path: bytes | None) -> str:
    """Decode a path as os.fsdecode does, whatever the locale."""
    assert path is not None
    return path.decode("utf-8", "surrogateescape")


def fill(out: Stat, attributes: Attributes) -> None:
    """Write a struct stat."""
    out.st_ino = attributes.st_ino
    out.st_mode = TYPE_BITS[attributes.kind] | attributes.mode
    out.st_nlink = attributes.nlink
    out.st_uid = attributes.uid
    out.st_gid = attributes.gid
    out.st_rdev = attributes.rdev
    out.st_size = attributes.size
    out.st_blocks = attributes.blocks
    out.st_blksize = _BLOCK
    for field, when in (
        (out.st_atimespec, attributes.atime_ns),
        (out.st_mtimespec, attributes.mtime_ns),
        (out.st_ctimespec, attributes.ctime_ns),
    ):
        field.tv_sec, field.tv_nsec = divmod(when, 1_000_000_000)


def fill_statfs(out: StatVfs, stats: FileSystemStats) -> None:
    """Write a struct statvfs. Sizes in blocks of `stats.block` bytes."""
    out.f_bsize = out.f_frsize = stats.block
    out.f_blocks = stats.total // stats.block
    out.f_bfree = out.f_bavail = stats.free // stats.block
    out.f_files = stats.files
    out.f_ffree = out.f_favail = stats.files_free
    out.f_namemax = stats.name_max


def memory(pointer: Bytes, size: int) -> ctypes.Array[ctypes.c_char]:
    """View libfuse's buffer: bytes move between it and the local file without a further copy."""
    return (ctypes.c_char * size).from_address(ctypes.addressof(pointer.contents))


def give(value: bytes, out: Bytes, size: int) -> int:
    """Write the value of an extended attribute and return its size; with `size` 0 only the size. -ERANGE if too large."""
    if size == 0:
        return len(value)
    if len(value) > size:
        return -errno.ERANGE
    ctypes.memmove(out, value, len(value))
    return len(value)


def id_of(value: int) -> int | None:
    return None if value == _UNCHANGED_ID else value


def times_of(times: Pointer[Times] | None, now: int) -> tuple[int | None, int | None]:
    """atime and mtime in ns; None leaves the time unchanged. Without `times` both are `now`."""
    if not times:
        return now, now
    return _time(times.contents.actime, now), _time(times.contents.modtime, now)


def _time(when: TimeSpec, now: int) -> int | None:
    if when.tv_nsec == _UTIME_OMIT:
        return None
    if when.tv_nsec == _UTIME_NOW:
        return now
    return int(when.tv_sec) * 1_000_000_000 + int(when.tv_nsec)
