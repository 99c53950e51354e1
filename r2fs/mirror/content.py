"""Comparison of a file with an object by their bytes.

Never: changes the file's position; holds more than a piece in memory.
Fails: StoreError of a download; OSError of the disk.
"""

from __future__ import annotations

import hashlib
import os
import re

from r2fs.model.ports import ObjectStore
from r2fs.model.records import ObjectInfo

PIECE = 1 << 20
_OF_PARTS = re.compile(r"([0-9a-f]{32})-(\d{1,5})")


def md5_of(fd: int, start: int = 0, length: int | None = None) -> bytes:
    """MD5 of the file, or of a part of it."""
    digest = hashlib.md5(usedforsecurity=False)
    at, stop = start, os.fstat(fd).st_size if length is None else start + length
    while at < stop and (data := os.pread(fd, min(PIECE, stop - at), at)):
        digest.update(data)
        at += len(data)
    return digest.digest()


def is_known_to_be(fd: int, size: int, info: ObjectInfo, part_size: int) -> bool | None:
    """True if the file has the object's bytes, by their digests. None: the ETag does not tell.

    An object of several parts is compared as one of parts of `part_size`.
    """
    if size != info.size:
        return False
    if info.md5 is not None:
        return md5_of(fd).hex() == info.md5
    found = _OF_PARTS.fullmatch(info.etag)
    if found is None:
        return None
    count = -(-size // part_size)
    if count != int(found[2]):
        return None
    parts = b"".join(md5_of(fd, n * part_size, min(part_size, size - n * part_size)) for n in range(count))
    return True if hashlib.md5(parts, usedforsecurity=False).hexdigest() == found[1] else None


def is_same(store: ObjectStore, fd: int, size: int, info: ObjectInfo, part_size: int) -> bool:
    """Compare by digests, else by a download."""
    known = is_known_to_be(fd, size, info, part_size)
    if known is not None:
        return known
    at = 0
    with store.get(info.key, if_match=info.etag) as download:
        for data in download.chunks():
            if os.pread(fd, len(data), at) != data:
                return False
            at += len(data)
    return at == size
