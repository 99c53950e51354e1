"""Digests of parts of a file: equal digests mean equal bytes.

Owns:  the choice of the hash: one that nobody can make collide, since equal parts are not sent.
Never: holds more than one read in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

READ = 1 << 20
_BYTES = 20  # a collision by chance or by intent takes 2**80 tries

Pread = Callable[[int, int, int], bytes]  # os.pread, or Gate.pread: (fd, size, offset)


def part_digest(pread: Pread, fd: int, start: int, length: int) -> str:
    """Return the digest of [start, start + length), or of the bytes up to an earlier end, in hex."""
    digest = hashlib.blake2b(digest_size=_BYTES)
    stop = start + length
    while start < stop and (data := pread(fd, min(READ, stop - start), start)):
        digest.update(data)
        start += len(data)
    return digest.hexdigest()
