"""Proofs that a write was carried out: what its answer must say to be believed, and a HEAD where it does not.

Owns:    the rules. A PUT is proved by the MD5 of the bytes that were sent as its ETag, a Complete by the ETag
         that its parts make, a copy by its source's ETag. Any other answer is compared with what the key holds.
Never:   believes a status alone: what is called stored is dropped here.
Fails:   MalformedAnswer where there is no proof: the write may or may not have been done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from r2fs.model.errors import MalformedAnswer, ObjectMissing, StoreError
from r2fs.model.etags import is_md5, multipart_etag
from r2fs.model.keys import printable
from r2fs.model.metadata import ATTEMPT
from r2fs.model.records import ObjectInfo, ObjectMeta, Part, Version
from r2fs.store.bodies import Outgoing
from r2fs.store.s3.values import etag_of, verified

Head = Callable[[str], ObjectInfo]


def put(
    head: Head, key: str, answer: Mapping[str, Any], outgoing: Outgoing, meta: ObjectMeta, md5_etags: bool
) -> str:
    """The ETag of what was put. No request where it is the MD5 of the bytes."""
    etag = verified(key, answer, outgoing, md5_etags) if answer.get("ETag") else None
    if etag is not None and etag == outgoing.md5_hex:
        return etag
    found = _looked(head, key, len(outgoing))
    if etag is not None:
        proved = found.etag == etag
    else:
        attempt = meta.metadata.get(ATTEMPT)
        stored = (found.metadata or {}).get(ATTEMPT)
        proved = found.etag == outgoing.md5_hex or (attempt is not None and stored == attempt)
    return _etag(found, proved)


def complete(head: Head, key: str, answer: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """The ETag of the completed upload. No request where it is the one that the parts make."""
    etag, made = etag_of(key, answer), multipart_etag(parts)
    if etag == made:
        return etag
    found = _looked(head, key, sum(part.size for part in parts))
    return _etag(found, found.etag == etag)


def copy(head: Head, key: str, answer: Mapping[str, Any], source: Version) -> str:
    """The ETag of the copy. No request where it is its source's, or where one of them is no MD5 of the bytes."""
    etag = etag_of(key, answer)
    if etag == source.etag or not (
        is_md5(etag) and is_md5(source.etag)
    ):  # of what came in parts it is another
        return etag
    found = _looked(head, key, source.size)
    return _etag(found, found.etag == etag)


def _looked(head: Head, key: str, size: int) -> ObjectInfo:
    try:
        found = head(key)
    except ObjectMissing as error:
        raise MalformedAnswer(
            f"{printable(key)}: the server's answer cannot be understood: stored, it says, but there is no such object"
        ) from error
    except StoreError as error:  # whatever it is: the write may have been done
        raise MalformedAnswer(f"{printable(key)}: whether it was stored is not known: {error}") from error
    return _etag_sized(found, size)


def _etag_sized(found: ObjectInfo, size: int) -> ObjectInfo:
    _etag(found, found.size == size)
    return found


def _etag(found: ObjectInfo, proved: bool) -> str:
    if not proved:
        raise MalformedAnswer(
            f"{printable(found.key)}: the server's answer cannot be understood: stored, it says, but the key holds"
            " another object"
        )
    return found.etag
