"""Copies inside the bucket of objects that are too large for one CopyObject: in parts of equal size, as R2 demands.

The calls are those of the port ObjectStore, so that a retrying store retries each part by itself.
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
    """Return the new ETag. `meta` None: the source's are kept."""
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
    """Return the answer to HEAD of `source`. PreconditionFailed or ObjectMissing unless it is that version."""
    stored = store.head(source.key)
    if stored.etag != source.etag:
        raise PreconditionFailed(
            f"{printable(source.key)}: the object to copy is another version by now", source=True
        )
    return stored


def part_size(size: int, limits: Limits) -> int:
    """Return COPY_PART, or more if there would be too many parts."""
    fewest = -(-size // limits.max_parts)
    return max(limits.min_part, min(COPY_PART, limits.max_copy), fewest)
