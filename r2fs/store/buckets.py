"""Several buckets as one ObjectStore, whose keys begin with the bucket's name: `audiobooks/u/j/f` is `u/j/f` in `audiobooks`.

Owns:    the choice of a request's bucket, and the listing of the buckets, which takes a request only with `every`.
Never:   retries or counts (each bucket's RetryingStore does); copies from one bucket to another; stores an object in
         place of a bucket's directory.
Threads: every method is thread-safe.
Locks:   self._lock, a leaf, held while a bucket is opened for the first time: that sends nothing.
Fails:   as the bucket does. Reads in a bucket that is not one of these find no object; writes raise BucketMissing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Self

from r2fs.model.addresses import SignedUrl, UrlRequest
from r2fs.model.errors import (
    BucketMissing,
    NotImplementedThere,
    ObjectMissing,
    Refused,
    Retryable,
    StoreError,
)
from r2fs.model.keys import printable
from r2fs.model.ports import Body, Download, Limits, SystemClock
from r2fs.model.records import Condition, ListPage, ObjectInfo, ObjectMeta, Part, Version
from r2fs.model.settings import Bucket
from r2fs.store.counting import RequestCounter, RequestsView
from r2fs.store.health import HealthView
from r2fs.store.retry import RetryingStore
from r2fs.store.token_bucket import Bandwidth

log = logging.getLogger(__name__)

Open = Callable[[Bucket], RetryingStore]
Names = Callable[[], Sequence[str]]
UNKNOWN = Limits()


@dataclass(frozen=True, slots=True)
class BucketsHealthView:
    answers: bool  # True if each bucket in use does
    for_s: float  # the longest outage
    reason: str | None  # of that
    buckets: Mapping[str, HealthView]  # those without an answer


class BucketsHealth:
    def __init__(self, opened: Callable[[], Mapping[str, RetryingStore]]) -> None:
        self._opened = opened

    def view(self) -> BucketsHealthView:
        views = {name: store.health.view() for name, store in self._opened().items()}
        silent = {name: view for name, view in views.items() if not view.answers}
        if not silent:
            return BucketsHealthView(True, 0.0, None, {})
        name = max(silent, key=lambda one: silent[one].for_s)
        return BucketsHealthView(False, silent[name].for_s, f"{name}: {silent[name].reason}", silent)


class BucketsKeys:
    """The keys of all buckets, looked for again together."""

    generation = 0

    def __init__(self, opened: Callable[[], Mapping[str, RetryingStore]]) -> None:
        self._opened = opened

    def renew(self, since: int) -> bool:
        """True if a bucket has another key by now."""
        keys = [store.keys for store in self._opened().values() if store.keys is not None]
        renewed = [one.renew(one.generation) for one in keys]
        return any(renewed)


class Buckets:
    """`bucket` names the members, or is `every`: then `listed` asks the service for their names.

    `limits`: of its buckets before the first one is used.
    """

    def __init__(
        self,
        bucket: Bucket,
        counter: RequestCounter,
        open_bucket: Open,
        listed: Names,
        limits: Limits = UNKNOWN,
    ) -> None:
        # constant
        self._bucket = bucket
        self.counter = counter
        self._open = open_bucket
        self._listed = listed
        self._unopened = limits
        self.url = bucket.url
        self.health = BucketsHealth(self._all)
        self.keys = BucketsKeys(self._all)
        # guarded by: _lock
        self._lock = Lock()
        self._opened: dict[str, RetryingStore] = {}
        self.bandwidth = Bandwidth(SystemClock())  # replaced by `share`, before the first request
        self._names: tuple[str, ...] = tuple(member.name for member in bucket.members)
        self._tell: Callable[[HealthView, str], None] = lambda view, name: None
        if not bucket.every:  # a setting that makes no store is an error at once
            for name in self._names:
                self._at(name)
        else:
            self._names = ()

    @property
    def limits(self) -> Limits:
        """Limits that hold for each of the buckets: their services may differ."""
        return together([store.limits for store in self._all().values()] or [self._unopened])

    @property
    def names(self) -> tuple[str, ...]:
        """The buckets, as last listed."""
        return self._names

    def requests(self) -> RequestsView:
        return self.counter.view()

    def listen(self, tell: Callable[[HealthView, str], None]) -> None:
        """Call `tell` with each change of a bucket's health, and its name."""
        with self._lock:
            self._tell = tell
        for name, store in self._all().items():
            store.listen(tell, name)

    def connect_ahead(self, key: str, count: int) -> None:
        bucket, _, below = key.partition("/")
        for store in [store for name, store in self._all().items() if bucket in ("", name)]:
            store.connect_ahead(below, count)

    def share(self, bandwidth: Bandwidth) -> None:
        """Hold all buckets together to these limits."""
        with self._lock:
            self.bandwidth = bandwidth
        for store in self._all().values():
            store.share(bandwidth)

    # ------------------------------------------------------------------ the buckets
    def _all(self) -> Mapping[str, RetryingStore]:
        with self._lock:
            return dict(self._opened)

    def _has(self, name: str) -> bool:
        return bool(name) and (self._bucket.every or name in self._names)

    def _at(self, name: str) -> RetryingStore:
        """The bucket's own store. BucketMissing for a name that is none of these buckets."""
        if (found := self._opened.get(name)) is not None:
            return found
        if not self._has(name):
            raise BucketMissing(f"{printable(name)}: not one of the buckets of {self.url}")
        with self._lock:
            if (found := self._opened.get(name)) is None:
                found = self._opened[name] = self._open(self._bucket.member(name))
                found.share(self.bandwidth)
                found.listen(self._tell, name)
        return found

    def _find(self, key: str) -> tuple[RetryingStore, str, str]:
        """The bucket's store, its name, and the key in it, of an object. Refused for a bucket's own directory."""
        name, _, below = key.partition("/")
        if not below:
            raise Refused(f"{printable(key)}: a bucket's directory, which is no object")
        return self._at(name), name, below

    def check(self) -> None:
        """Check each named bucket. Raises an error only if none can be used; else the log names those that cannot.

        A server that does not answer for one bucket gets no request for its others.
        """
        if self._bucket.every:
            self.refresh()
            return
        failed: dict[str, StoreError] = {}
        silent: dict[str | None, StoreError] = {}
        for name in self._names:
            try:
                if (endpoint := self._bucket.member(name).endpoint_url) in silent:
                    raise silent[endpoint]
                self._at(name).check()
            except StoreError as error:
                failed[name] = error
                if isinstance(error, Retryable):
                    silent[endpoint] = error
        if failed and len(failed) == len(self._names):
            raise next((e for e in failed.values() if e.retry), next(iter(failed.values())))
        for name, why in failed.items():
            self._at(name).health.lost(why)
            log.warning("%s cannot be used now, and its directory gives errors: %s", name, why)

    def refresh(self) -> tuple[str, ...]:
        """The names of the buckets, in the order of their keys; with `every` by one request."""
        if self._bucket.every:
            self._names = tuple(self._listed())
        return tuple(sorted(self._names, key=lambda name: f"{name}/"))

    # ------------------------------------------------------------------ listings
    def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> ListPage:
        name, slash, below = prefix.partition("/")
        if slash:
            after = _below(name, start_after)
            if after is None or not self._has(name):
                return ListPage((), (), None)
            page = self._at(name).list_page(
                below, delimiter=delimiter, start_after=after, token=token, limit=limit
            )
            return _named(page, name)
        names = [one for one in self.refresh() if one.startswith(prefix)]
        if delimiter == "/":
            return ListPage((), tuple(f"{one}/" for one in names if f"{one}/" > start_after), None)
        return self._through(names, delimiter, start_after, token, limit)

    def _through(
        self, names: Sequence[str], delimiter: str, start_after: str, token: str | None, limit: int
    ) -> ListPage:
        """One page of all keys of these buckets, one bucket after the other. A token is `NAME/TOKEN`."""
        at, _, inner = (token or "").partition("/")
        for number, name in enumerate(names):
            after = _below(name, start_after)
            if (token and f"{name}/" < f"{at}/") or after is None:
                continue
            page = self._at(name).list_page(
                "",
                delimiter=delimiter,
                start_after="" if token else after,
                token=inner if token and name == at and inner else None,
                limit=limit,
            )
            following = f"{names[number + 1]}/" if number + 1 < len(names) else None
            if page.token is not None:
                following = f"{name}/{page.token}"
            if page.objects or page.prefixes or following is None:
                return replace(_named(page, name), token=following)
            token, (at, _, inner) = following, following.partition("/")
        return ListPage((), (), None)

    # ------------------------------------------------------------------ one object
    def head(self, key: str) -> ObjectInfo:
        store, name, below = self._find_there(key)
        return _renamed(store.head(below), name)

    def _find_there(self, key: str) -> tuple[RetryingStore, str, str]:
        name, _, below = key.partition("/")
        if not below or not self._has(name):
            raise ObjectMissing(f"{printable(key)}: there is no such object")
        return self._at(name), name, below

    def get(
        self, key: str, *, start: int = 0, length: int | None = None, if_match: str | None = None
    ) -> Download:
        store, name, below = self._find_there(key)
        return _Named(store.get(below, start=start, length=length, if_match=if_match), name)

    def put(self, key: str, body: Body, meta: ObjectMeta, *, condition: Condition | None = None) -> str:
        store, _, below = self._find(key)
        return store.put(below, body, meta, condition=condition)

    def delete(self, key: str) -> None:
        store, _, below = self._find(key)
        store.delete(below)

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        """One request for each bucket. Where that fails as a whole, each of its keys fails, if there are other buckets."""
        by_bucket: dict[str, list[str]] = {}
        for key in keys:
            _, name, below = self._find(key)
            by_bucket.setdefault(name, []).append(below)
        failed: dict[str, StoreError] = {}
        for name, within in by_bucket.items():
            try:
                found = self._at(name).delete_many(within)
            except StoreError as error:
                if len(by_bucket) == 1:
                    raise
                found = dict.fromkeys(within, error)
            failed |= {f"{name}/{key}": error for key, error in found.items()}
        return failed

    # ------------------------------------------------------------------ multipart
    def create_upload(self, key: str, meta: ObjectMeta) -> str:
        store, _, below = self._find(key)
        return store.create_upload(below, meta)

    def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        store, _, below = self._find(key)
        return store.put_part(below, upload_id, number, body)

    def copy_part(
        self, key: str, upload_id: str, number: int, source: Version, start: int, length: int
    ) -> Part:
        store, name, below = self._find(key)
        return store.copy_part(below, upload_id, number, _source(source, name), start, length)

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[Part], *, condition: Condition | None = None
    ) -> str:
        store, _, below = self._find(key)
        return store.complete_upload(below, upload_id, parts, condition=condition)

    def abort_upload(self, key: str, upload_id: str) -> None:
        store, _, below = self._find(key)
        store.abort_upload(below, upload_id)

    def copy(
        self,
        source: Version,
        key: str,
        *,
        meta: ObjectMeta | None = None,
        condition: Condition | None = None,
    ) -> str:
        """NotImplementedThere for a copy from another bucket: the buckets may be of different services and keys."""
        store, name, below = self._find(key)
        return store.copy(_source(source, name), below, meta=meta, condition=condition)

    def presign(self, key: str, request: UrlRequest) -> SignedUrl:
        store, _, below = self._find(key)
        return store.presign(below, request)

    def close(self) -> None:
        for store in self._all().values():
            store.close()


def together(limits: Sequence[Limits]) -> Limits:
    """The limits that hold for each of several buckets."""
    return Limits(
        min_part=max(one.min_part for one in limits),
        max_part=min(one.max_part for one in limits),
        max_parts=min(one.max_parts for one in limits),
        max_put=min(one.max_put for one in limits),
        max_copy=min(one.max_copy for one in limits),
        delete_batch=min(one.delete_batch for one in limits),
        max_metadata=min(one.max_metadata for one in limits),
        key_write_interval_s=max(one.key_write_interval_s for one in limits),
        r2_copies=all(one.r2_copies for one in limits),
        conditional_complete=all(one.conditional_complete for one in limits),
        conditional_put=all(one.conditional_put for one in limits),
        part_copies=all(one.part_copies for one in limits),
    )


# ---- keys
def _below(name: str, start_after: str) -> str | None:
    """`start_after` in the bucket `name`: empty where that begins after it; None where all its keys are before it."""
    start = f"{name}/"
    if start_after.startswith(start):
        return start_after.removeprefix(start)
    return None if start_after > start else ""


def _source(source: Version, name: str) -> Version:
    bucket, _, below = source.key.partition("/")
    if bucket != name:
        raise NotImplementedThere(f"{printable(source.key)}: no copy inside a bucket can take it to {name}")
    return replace(source, key=below)


def _renamed(info: ObjectInfo, name: str) -> ObjectInfo:
    return replace(info, key=f"{name}/{info.key}")


def _named(page: ListPage, name: str) -> ListPage:
    objects = tuple(_renamed(info, name) for info in page.objects)
    return ListPage(objects, tuple(f"{name}/{one}" for one in page.prefixes), page.token)


class _Named:
    """A download whose object has the bucket's name before its key."""

    def __init__(self, download: Download, name: str) -> None:
        self._download = download
        self.info = _renamed(download.info, name)

    def chunks(self, size: int = 262144) -> Iterator[bytes]:
        return self._download.chunks(size)

    def __enter__(self) -> Self:
        self._download.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._download.__exit__(*exc)
