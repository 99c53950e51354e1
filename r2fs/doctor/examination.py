"""Examination: the checks of a bucket, of a directory in place of one, or of this host alone, causes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from r2fs.doctor import disk, endpoint, host, mounts
from r2fs.doctor.findings import Finding, Level, of_error
from r2fs.doctor.rights import BucketChecks
from r2fs.model.errors import R2fsError
from r2fs.model.ports import SystemClock
from r2fs.model.settings import Bucket, Settings
from r2fs.store import each_bucket, open_store


def examine(
    settings: Settings | None, environ: Mapping[str, str], run_dir: Path | None, write_test: bool = False
) -> Iterator[Finding]:
    """All findings. `settings`: of the bucket to be checked; None: of this host alone."""
    yield host.fuse(settings is not None and settings.allow_other)
    yield from host.kernel(settings)
    if settings is not None:
        yield from host.directories(settings)
        yield from _buckets(settings.bucket, write_test)
        yield disk.journal(settings)
        yield disk.cache(settings)
    source = settings.bucket.url if settings is not None else None
    yield from mounts.look(environ, run_dir, source).findings
    yield from disk.unsent(environ, (settings.state_dir.parent,) if settings is not None else ())


def _buckets(bucket: Bucket, write_test: bool) -> Iterator[Finding]:
    """Checks of the bucket; of several, each finding names its own."""
    if not bucket.several:
        yield from _bucket(bucket, write_test)
        return
    try:
        for member in each_bucket(bucket, SystemClock()):
            for finding in _bucket(member, write_test):
                yield replace(finding, text=f"{member.name}: {finding.text}")
    except R2fsError as error:
        yield of_error("bucket", error)


def _bucket(bucket: Bucket, write_test: bool) -> Iterator[Finding]:
    """Checks of the way to the bucket, and of the bucket if the way is open."""
    way = None
    try:
        if bucket.scheme != "file":
            from r2fs.store.s3.reach import Endpoint

            way = Endpoint(bucket)
            found = list(endpoint.checks(way))
            yield from found
            if any(each.level is Level.FAILED for each in found):
                return
        store = open_store(bucket, SystemClock())
    except R2fsError as error:
        yield of_error("settings", error)
        return
    with closing(store):
        yield from BucketChecks(bucket, store, way).run(write_test)
