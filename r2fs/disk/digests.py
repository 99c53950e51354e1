"""Digests of parts of a file: equal ones are equal bytes.

Owns:  the choice of the hash: one that nobody can make collide, since equal parts are not sent.
Never: holds more than one read in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

READ = 1 << 20
_BYTES = 20  # a collision by chance or by intent takes 2**80 tries

Pread = Callable[[int, int, int], bytes]  # os.pread, or one that may refuse: (fd, size, offset)


def part_digest(pread: Pread, fd: int, start: int, length: int) -> str:
    """Of [start, start + length); of what there is, where the file ends earlier."""
    digest = hashlib.blake2b(digest_size=_BYTES)
    stop = start + length
    while start < stop and (data := pread(fd, min(READ, stop - start), start)):
        digest.update(data)
        start += len(data)
    return digest.hexdigest()
