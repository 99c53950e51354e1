"""Shared mappings by mmap(2) itself: Python's own keep a descriptor open, and so hide what a mapping alone does."""

from __future__ import annotations

import ctypes
import mmap
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

MS_SYNC = 4
FAILED = ctypes.c_void_p(-1).value
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16  # fallocate(2)


class Mapping:
    """`length` bytes of a file from `start`, which is a multiple of the page size. Bytes past the end of
    the file are not to be touched: that is SIGBUS."""

    def __init__(self, descriptor: int, start: int, length: int, writable: bool) -> None:
        self.start, self.length, self.writable = start, length, writable
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        at = _libc.mmap(None, length, protection, mmap.MAP_SHARED, descriptor, start)
        if at == FAILED or at is None:
            raise _error("mmap")
        self._at: int = at

    def read(self, offset: int, size: int) -> bytes:
        """`offset` counts from the start of the file."""
        return ctypes.string_at(self._at + offset - self.start, size)

    def write(self, offset: int, data: bytes) -> None:
        ctypes.memmove(self._at + offset - self.start, data, len(data))

    def flush(self) -> None:
        if _libc.msync(self._at, self.length, MS_SYNC):
            raise _error("msync")

    def close(self) -> None:
        if _libc.munmap(self._at, self.length):
            raise _error("munmap")


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """glibc's posix_fallocate writes where the file system cannot: this one is refused then."""
    if _libc.fallocate(descriptor, mode, offset, length):
        raise _error("fallocate")


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")
