"""Transfer of whole files to and from a bucket, without a mount or a journal.

Owns:   the choice of one PUT or parts, and the order of a download's bytes.
Never:  opens or names a file; caches.
Fails:  StoreError of the bucket. A failed upload leaves neither object nor parts; a failed download has written a
        part of the bytes, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from r2fs.disk.body import FileBody
from r2fs.model.errors import StoreError
from r2fs.model.ports import ObjectStore
from r2fs.model.records import ObjectInfo, ObjectMeta
from r2fs.model.settings import Settings


def upload(
    store: ObjectStore, key: str, fd: int, start: int, size: int, meta: ObjectMeta, settings: Settings
) -> str:
    """Store `size` bytes of `fd` from `start` on; returns the ETag."""
    if size < settings.multipart_threshold:
        return store.put(key, FileBody(fd, start, size), meta)
    part_size = store.limits.part_size(size, settings.part_size)
    upload_id = store.create_upload(key, meta)
    try:
        parts = [
            store.put_part(
                key, upload_id, number, FileBody(fd, start + at, min(part_size, size - at))
            )
            for number, at in enumerate(range(0, size, part_size), 1)
        ]  # fmt: skip
        return store.complete_upload(key, upload_id, parts)
    except BaseException:
        with suppress(StoreError):  # the bucket's own rule ends it
            store.abort_upload(key, upload_id)
        raise


def download(store: ObjectStore, key: str, write: Callable[[bytes], object]) -> ObjectInfo:
    """Hand the object's bytes to `write`, in order. PreconditionFailed if it is replaced meanwhile."""
    with store.get(key) as answer:
        for chunk in answer.chunks():
            write(chunk)
        return answer.info
