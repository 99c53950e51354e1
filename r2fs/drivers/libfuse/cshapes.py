"""Types of libfuse's structures: the fields in use, whichever package defines them.

Owns:  names and types of fields. mfusepy and fusepy own the layouts.
Never: allocates or converts values.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

T_co = TypeVar("T_co", covariant=True)

if TYPE_CHECKING:
    Bytes: TypeAlias = ctypes._Pointer[ctypes.c_byte]


class Pointer(Protocol[T_co]):
    """A ctypes pointer. It is false where it is NULL."""

    @property
    def contents(self) -> T_co: ...


class TimeSpec(Protocol):
    tv_sec: int
    tv_nsec: int


class Times(Protocol):
    """struct timespec[2]."""

    actime: TimeSpec
    modtime: TimeSpec


class Stat(Protocol):
    st_ino: int
    st_mode: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_rdev: int
    st_size: int
    st_blocks: int
    st_blksize: int
    st_atimespec: TimeSpec
    st_mtimespec: TimeSpec
    st_ctimespec: TimeSpec


class StatVfs(Protocol):
    f_bsize: int
    f_frsize: int
    f_blocks: int
    f_bfree: int
    f_bavail: int
    f_files: int
    f_ffree: int
    f_favail: int
    f_namemax: int


class FileInfo(Protocol):
    """struct fuse_file_info."""

    flags: int
    writepage: int
    fh: int
    keep_cache: int
    direct_io: int


class Connection(Protocol):
    """struct fuse_conn_info."""

    want: int
    max_readahead: int
    max_background: int
    congestion_threshold: int


class Config(Protocol):
    """struct fuse_config, of libfuse 3."""

    use_ino: int
    nullpath_ok: int


Fill: TypeAlias = Callable[..., int]  # fuse_fill_dir_t: (buffer, name, stat, offset[, flags])
