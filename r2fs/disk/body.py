"""Bodies of requests: a region of a file or bytes in memory, with the MD5 of what was read; and digests of parts.

Never:   closes the descriptor, which is the caller's.
Threads: a body belongs to its request's thread. A Gate is shared by all bodies of an upload; any thread may close it.
Locks:   Gate._idle (leaf), not held while reading.
Fails:   BodyWithdrawn when the gate is closed or the file became shorter: the connection breaks, and the bytes sent so
         far publish no object.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from threading import Condition

from r2fs.model.errors import BodyWithdrawn
from r2fs.model.records import PartDigests

READ_ALL_MAX = 32 << 20  # read() without a size above this is a defect, and would fill the memory
DIGEST_READ = 1 << 20
DIGEST_BYTES = 20  # a collision by chance or by intent takes 2**80 tries

Pread = Callable[[int, int, int], bytes]  # os.pread, or Gate.pread: (fd, size, offset)


class Gate:
    """Open until closed. When close() has returned, no byte is read through the gate any more."""

    def __init__(self) -> None:
        self._idle = Condition()
        # guarded by: _idle
        self._readers = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Stop reads, and wait for reads under way (of page cache or disk, never of the network)."""
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: self._readers == 0)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """Call os.pread while the gate is open; raise BodyWithdrawn after."""
        with self._idle:
            if self.closed:
                raise BodyWithdrawn("the file was opened for writing while it was being sent")
            self._readers += 1
        try:
            return os.pread(fd, size, offset)
        finally:
            with self._idle:
                self._readers -= 1
                if self._closed:
                    self._idle.notify_all()


class _Positioned:
    """Position, length and the MD5 of one pass in order, shared by both bodies."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._at = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hashed: int | None = 0  # bytes in _md5; None after a read out of order

    def __len__(self) -> int:
        return self._length

    def __bool__(self) -> bool:
        return True  # an empty body is a body

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError("position before the beginning of the body")
        self._at = base + offset
        return self._at

    @property
    def md5_hex(self) -> str | None:
        """MD5 of the whole body, once read in order to its end; None before."""
        return self._md5.hexdigest() if self._hashed == self._length else None

    def _advance(self, data: bytes) -> None:
        if self._at == 0:  # a new pass: the hash of an earlier pass is void
            self._md5 = hashlib.md5(usedforsecurity=False)
            self._hashed = 0
        if self._hashed == self._at:
            self._md5.update(data)
            self._hashed += len(data)
        elif data:
            self._hashed = None
        self._at += len(data)


class FileBody(_Positioned):
    """`length` bytes of `fd` from `start` on.

    `on_read(n)` gets the distance that the reading position moved since the last read: the sum is
    the bytes read in the current pass (n is negative when a request is sent again).
    """

    def __init__(
        self,
        fd: int,
        start: int,
        length: int,
        gate: Gate | None = None,
        on_read: Callable[[int], object] | None = None,
    ) -> None:
        super().__init__(length)
        self._fd = fd
        self._start = start
        self._pread = os.pread if gate is None else gate.pread
        self._on_read = on_read
        self._told = 0

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._length - self._at)
        if size < 0:
            size = left
            if left > READ_ALL_MAX:
                raise ValueError(f"{left} bytes of a body asked for at once")
        size = min(size, left)
        if size == 0:
            return b""
        data = self._pread(self._fd, size, self._start + self._at)
        if len(data) < size:
            data = self._read_on(data, size)
        self._advance(data)
        if self._on_read is not None:
            self._on_read(self._at - self._told)
            self._told = self._at
        return data

    def _read_on(self, data: bytes, size: int) -> bytes:
        """Read the rest after a short read; an empty read means that the file became shorter."""
        pieces, got = [data], len(data)
        while got < size:
            piece = self._pread(self._fd, size - got, self._start + self._at + got)
            if not piece:
                raise BodyWithdrawn(f"the file ended {size - got} bytes early while it was being sent")
            pieces.append(piece)
            got += len(piece)
        return b"".join(pieces)


class MemoryBody(_Positioned):
    def __init__(self, data: bytes) -> None:
        super().__init__(len(data))
        self._data = data

    def read(self, size: int = -1, /) -> bytes:
        stop = self._length if size < 0 else self._at + size
        data = self._data[self._at : stop]
        self._advance(data)
        return data


def part_digest(pread: Pread, fd: int, start: int, length: int) -> str:
    """Return the digest of [start, start + length), or of the bytes up to an earlier end, in hex."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    stop = start + length
    while start < stop and (data := pread(fd, min(DIGEST_READ, stop - start), start)):
        digest.update(data)
        start += len(data)
    return digest.hexdigest()


def has_digests(pread: Pread, fd: int, size: int, digests: PartDigests | str) -> bool:
    """True if the first `size` bytes of a file have the digests of their parts, or this MD5, in hex."""
    if isinstance(digests, PartDigests):
        starts = range(0, size, digests.part_size)
        return len(digests.digests) == len(starts) and all(
            part_digest(pread, fd, start, min(digests.part_size, size - start)) == digest
            for start, digest in zip(starts, digests.digests, strict=True)
        )
    md5, at = hashlib.md5(usedforsecurity=False), 0
    while at < size and (data := pread(fd, min(DIGEST_READ, size - at), at)):
        md5.update(data)
        at += len(data)
    return md5.hexdigest() == digests
