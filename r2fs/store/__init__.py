"""Buckets: anything that is an ObjectStore. See `model/ports.py` for the contract."""

from __future__ import annotations

from collections.abc import Callable

from r2fs.model.ports import Clock, Limits
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.retry import RetryingStore


def open_store(
    bucket: Bucket,
    clock: Clock,
    limits: Limits | None = None,
    credentials: Callable[[], Credentials] | None = None,
) -> RetryingStore:
    """The bucket that the settings name. Imports boto3 only where it is behind an S3 API.

    `credentials` reads them anew where they came from: asked when the bucket refuses the ones in use.
    """
    if bucket.scheme == "file":
        from r2fs.store.local import store as local

        return local.connect(bucket, clock, limits)
    from r2fs.store.s3 import store as s3

    return s3.connect(bucket, clock, limits, credentials)
