"""ETags, as S3 and R2 make them: the MD5 of the bytes (a single PUT), or the MD5 of the parts' MD5s and their number (a
completed multipart upload). Other servers and other encryptions make others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from r2fs.model.records import Part

EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"  # of no bytes
_MD5 = re.compile(r"[0-9a-f]{32}\Z")


def bare(etag: str) -> str:
    """Without quotes, and without the mark of a weak one."""
    return etag.removeprefix("W/").strip('"')


def is_md5(etag: str) -> bool:
    """True for the form of an MD5: of the object's bytes, if one PUT made it, on most servers."""
    return _MD5.match(etag) is not None


def multipart_etag(parts: Sequence[Part]) -> str | None:
    """Of the completed upload; None where the parts' own ETags are not MD5s."""
    if not all(is_md5(part.etag) for part in parts):
        return None
    digests = b"".join(bytes.fromhex(part.etag) for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
