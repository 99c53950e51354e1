"""Copies inside the bucket of what is too large for one CopyObject.

Owns:  how such a copy is cut: equal parts, as R2 insists, the last one smaller.
Never: talks to a server itself: it composes the port's own calls, so that over a retrying store
       each part is retried by itself.
"""

from __future__ import annotations

from dataclasses import replace

from r2fs.model.errors import PreconditionFailed, StoreError, Unavailable
from r2fs.model.keys import printable
from r2fs.model.ports import Limits, ObjectStore
from r2fs.model.records import Condition, ObjectInfo, ObjectMeta, Version
from r2fs.model.settings import MIB

COPY_PART = 512 * MIB  # 10,000 of them are more than the largest object; one takes seconds


def copy_by_parts(
    store: ObjectStore,
    source: Version,
    key: str,
    meta: ObjectMeta | None,
    *,
    condition: Condition | None,
) -> str:
    """The new ETag. What is stored beside `source` is kept where `meta` is None."""
    stored = require(store, source)
    if meta is None:
        meta = ObjectMeta(stored.content_type or ObjectMeta().content_type, dict(stored.metadata or {}))
    if meta.headers is None:
        meta = replace(meta, headers=stored.headers)
    upload_id = store.create_upload(key, meta)
    size = part_size(source.size, store.limits)
    try:
        parts = [
            store.copy_part(key, upload_id, number, source, start, min(size, source.size - start))
            for number, start in enumerate(range(0, source.size, size), 1)
        ]
        require(store, source)  # still there after the last part: it was there all the time
        return store.complete_upload(key, upload_id, parts, condition=condition)
    except Unavailable:
        raise  # Complete may have been carried out; else the bucket's lifecycle rule ends the upload
    except StoreError:
        store.abort_upload(key, upload_id)
        raise


def require(store: ObjectStore, source: Version) -> ObjectInfo:
    """HEAD of `source`. Raises PreconditionFailed or ObjectMissing unless it is there in that version."""
    stored = store.head(source.key)
    if stored.etag != source.etag:
        raise PreconditionFailed(
            f"{printable(source.key)}: the object to copy is another version by now", source=True
        )
    return stored


def part_size(size: int, limits: Limits) -> int:
    """As large as one part copy should be, and larger where there would be too many."""
    fewest = -(-size // limits.max_parts)
    return max(limits.min_part, min(COPY_PART, limits.max_copy), fewest)
