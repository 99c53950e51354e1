"""Buckets: anything that is an ObjectStore. See `model/ports.py` for the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from r2fs.model.ports import Clock, Limits
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.buckets import Buckets
from r2fs.store.counting import RequestCounter
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


def each_bucket(bucket: Bucket, clock: Clock) -> Sequence[Bucket]:
    """The buckets of a mount of several, those of the account by one request; else the bucket itself."""
    if not bucket.every:
        return bucket.members or (bucket,)
    from r2fs.store.s3 import admin

    return [bucket.member(name) for name in admin.bucket_names(bucket, clock, RequestCounter(), None)]


def open_buckets(
    bucket: Bucket, clock: Clock, credentials: Callable[[str], Credentials] | None = None
) -> RetryingStore | Buckets:
    """The bucket, or the several buckets, that the settings name. `credentials` reads those of a bucket anew, by its name."""

    def reading(name: str) -> Callable[[], Credentials] | None:
        return None if credentials is None else lambda: credentials(name)

    if not bucket.several:
        return open_store(bucket, clock, credentials=reading(bucket.name))
    from r2fs.store.s3 import admin, services
    from r2fs.store.s3 import store as s3

    counter = RequestCounter()
    return Buckets(
        bucket,
        counter,
        lambda one: s3.connect(
            one, clock, credentials=reading(one.name), counter=counter.of_bucket(one.name)
        ),
        lambda: admin.bucket_names(bucket, clock, counter, reading("")),
        services.service_of(bucket.endpoint_url).limits,
    )
