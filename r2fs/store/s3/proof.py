"""Proofs that a write was carried out: by the answer's ETag, or else by a HEAD.

Owns:    the rules. The ETag of a PUT is the MD5 of the bytes that were sent, that of a Complete is made of its parts',
         that of a copy is its source's. After any other answer the object at the key is compared.
Never:   believes a status alone.
Fails:   MalformedAnswer without a proof: the write may or may not have been done.
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
    """Return the ETag of the object. Sends nothing if it is the MD5 of the bytes."""
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
    """Return the ETag of the completed upload. Sends nothing if it is the one that the parts make."""
    etag, made = etag_of(key, answer), multipart_etag(parts)
    if etag == made:
        return etag
    found = _looked(head, key, sum(part.size for part in parts))
    return _etag(found, found.etag == etag)


def copy(head: Head, key: str, answer: Mapping[str, Any], source: Version) -> str:
    """Return the ETag of the copy. Sends nothing if it is its source's, or if one of both is no MD5."""
    etag = etag_of(key, answer)
    if etag == source.etag or not (is_md5(etag) and is_md5(source.etag)):  # a source in parts has another
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
    except StoreError as error:  # after any error the write may have been done
        raise MalformedAnswer(f"{printable(key)}: whether it was stored is not known: {error}") from error
    _etag(found, found.size == size)
    return found


def _etag(found: ObjectInfo, proved: bool) -> str:
    if not proved:
        raise MalformedAnswer(
            f"{printable(found.key)}: the server's answer cannot be understood: stored, it says, but the key holds"
            " another object"
        )
    return found.etag
