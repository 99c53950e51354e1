"""Retries over any ObjectStore: exponential backoff with full jitter, and proof of attempts without an answer.

Never:   retries a refusal that a person has to mend (Refused), or an answer (ObjectMissing, 412); retries for ever:
         the engine's schedules do that, with their state in the journal.
Threads: every method is thread-safe; waiting ends at close().
Fails:   the last error of the inner store.

A request that is refused for its key or rights is sent once more if another key is in use by then (`Keys`).

A request without an answer may have been carried out. A second one is then refused because of the first: by 412 for
a PUT, a copy or a Complete, by NoSuchUpload for a Complete. Only after such an attempt a HEAD finds out whether the
object is this host's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Event
from typing import Protocol, TypeVar

from r2fs.model import flow
from r2fs.model.addresses import SignedUrl, UrlRequest
from r2fs.model.errors import (
    BadCredentials,
    ObjectMissing,
    PermissionRefused,
    PreconditionFailed,
    StoreError,
    Throttled,
    Unavailable,
    UploadMissing,
)
from r2fs.model.etags import multipart_etag
from r2fs.model.metadata import ATTEMPT
from r2fs.model.ports import THROTTLED_S, Body, Clock, Download, Limits, ObjectStore
from r2fs.model.records import Condition, ListPage, ObjectInfo, ObjectMeta, Part, Version
from r2fs.store.answers import SignatureRejected, StoredDamaged
from r2fs.store.bigcopy import copy_by_parts
from r2fs.store.counting import RequestCounter, RequestsView
from r2fs.store.health import Health, HealthView
from r2fs.store.resuming import Resuming
from r2fs.store.token_bucket import Bandwidth

SIGNATURE_TRIES = 3  # R2 refuses a right signature now and then; a wrong one is wrong each time

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Policy:
    attempts: int = 6
    base_s: float = 0.25  # the longest first delay; doubles
    cap_s: float = 8.0
    within_s: float = 60.0  # no attempt begins later than this after the first


# Of the request that this thread sends; the log of requests shows it.
attempt_number: ContextVar[int] = ContextVar("attempt_number", default=1)

PATIENT = Policy()
BRIEF = Policy(attempts=3, base_s=0.5, cap_s=1.0, within_s=5.0)  # check(): a person waits


class Keys(Protocol):
    """The key that requests are signed with, which may be replaced while r2fs runs."""

    @property
    def generation(self) -> int: ...

    def renew(self, since: int) -> bool:
        """Read the key again. True if another one is in use now than that of generation `since`."""
        ...


class Tries:
    """The attempts of one call."""

    def __init__(self, store: RetryingStore, policy: Policy) -> None:
        self._store = store
        self._policy = policy
        self._begun_s = self._spent_s()
        self._made = 0
        self._generation = store.keys.generation if store.keys else 0
        self.unknown = False  # an earlier attempt may have been carried out
        attempt_number.set(1)

    def after(self, error: StoreError) -> None:
        """Wait before the next attempt, or raise `error` if there is to be none."""
        self._store.health.failed(error)
        error.unknown = self.unknown
        self._made += 1
        attempt_number.set(self._made + 1)
        if self._has_another_key(error):
            self._store.counter.retried()
            return
        tries = SIGNATURE_TRIES if isinstance(error, SignatureRejected) else self._policy.attempts
        if not (error.retry or isinstance(error, SignatureRejected)) or self._made >= tries:
            raise error
        self.unknown = self.unknown or isinstance(error, Unavailable | StoredDamaged)
        longest = min(self._policy.cap_s, self._policy.base_s * 2 ** (self._made - 1))
        delay = longest * self._store.uniform()
        if isinstance(error, Throttled):
            delay += THROTTLED_S
        elapsed = self._spent_s() - self._begun_s
        if elapsed + delay > self._policy.within_s or self._store.wait_closed(delay):
            raise error
        self._store.counter.retried()

    def _spent_s(self) -> float:
        """Return the time, without that for which a limit of bandwidth has held this flow."""
        return flow.spent_s(self._store.clock.monotonic())

    def _has_another_key(self, error: StoreError) -> bool:
        keys = self._store.keys
        if keys is None or not isinstance(error, BadCredentials | PermissionRefused):
            return False
        if not keys.renew(self._generation):
            return False
        self._generation = keys.generation
        return True


class RetryingStore:
    """`inner` with retries."""

    def __init__(
        self,
        inner: ObjectStore,
        clock: Clock,
        *,
        counter: RequestCounter | None = None,
        policy: Policy = PATIENT,
        keys: Keys | None = None,
    ) -> None:
        # constant
        self.inner = inner
        self.clock = clock
        self.keys = keys
        self.health = Health(clock)
        self.counter = counter or RequestCounter()
        self.bandwidth = Bandwidth(clock)  # replaced by `share`, before the first request
        self.uniform = random.random  # in [0, 1): the jitter of delays
        self._policy = policy
        self._closed = Event()

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def limits(self) -> Limits:
        return self.inner.limits

    def connect_ahead(self, key: str, count: int) -> None:
        self.inner.connect_ahead(key, count)

    def requests(self) -> RequestsView:
        """Return the counts of requests so far."""
        return self.counter.view()

    def listen(self, tell: Callable[[HealthView, str], None], name: str = "") -> None:
        """Call `tell` with each change of the bucket's health, and `name`."""
        self.health.tell = lambda view: tell(view, name)

    def share(self, bandwidth: Bandwidth) -> None:
        """Count the bytes of this bucket among those of others."""
        self.bandwidth = bandwidth

    def wait_closed(self, seconds: float) -> bool:
        return self.clock.wait(self._closed, seconds)

    def tries(self, policy: Policy | None = None) -> Tries:
        return Tries(self, policy or self._policy)

    def _repeat(
        self,
        call: Callable[[], T],
        policy: Policy | None = None,
        prompt: bool = False,
        ours: Callable[[PreconditionFailed | UploadMissing], T | None] | None = None,
    ) -> T:
        """Return the result of `call`, which is repeated after errors that pass.

        prompt  the server answers such a request at once: its silence counts as an outage
        ours    of a request that must be done once: returns the result of an earlier attempt without an answer, if
                that attempt was carried out and this one was refused for it
        """
        tries = self.tries(policy)
        while True:
            if prompt:
                self.health.requested()
            try:
                done = call()
            except StoreError as error:
                if ours is not None and isinstance(error, PreconditionFailed | UploadMissing):
                    self.health.answered()
                    found = ours(error) if tries.unknown else None
                    if found is None:
                        raise
                    return found
                tries.after(error)
            else:
                self.health.answered()
                return done

    # ---- requests that may be sent again
    def check(self) -> None:
        self._repeat(self.inner.check, BRIEF)

    def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> ListPage:
        return self._repeat(
            lambda: self.inner.list_page(
                prefix, delimiter=delimiter, start_after=start_after, token=token, limit=limit
            ),
            prompt=True,
        )

    def head(self, key: str) -> ObjectInfo:
        return self._repeat(lambda: self.inner.head(key), prompt=True)

    def create_upload(self, key: str, meta: ObjectMeta) -> str:
        # Twice leaves an upload behind, which the bucket's default lifecycle rule ends.
        return self._repeat(lambda: self.inner.create_upload(key, meta))

    def put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        held = self.bandwidth.up.sending(body)
        return self._repeat(lambda: self.inner.put_part(key, upload_id, number, held))

    def copy_part(
        self, key: str, upload_id: str, number: int, source: Version, start: int, length: int
    ) -> Part:
        return self._repeat(lambda: self.inner.copy_part(key, upload_id, number, source, start, length))

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._repeat(lambda: self.inner.abort_upload(key, upload_id))

    def presign(self, key: str, request: UrlRequest) -> SignedUrl:
        return self.inner.presign(key, request)

    def delete(self, key: str) -> None:
        self._repeat(lambda: self.inner.delete(key))

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        return self._repeat(lambda: self.inner.delete_many(keys))

    def get(
        self, key: str, *, start: int = 0, length: int | None = None, if_match: str | None = None
    ) -> Download:
        opened = self._repeat(
            lambda: self.inner.get(key, start=start, length=length, if_match=if_match), prompt=True
        )
        stop = opened.info.size if length is None else min(opened.info.size, start + length)
        return Resuming(self, key, start, stop, opened)

    # ---- requests that must be done once
    def put(self, key: str, body: Body, meta: ObjectMeta, *, condition: Condition | None = None) -> str:
        held = self.bandwidth.up.sending(body)

        def send() -> str:
            nonlocal condition
            try:
                return self.inner.put(key, held, meta, condition=condition)
            except StoredDamaged as error:
                if condition is not None:
                    condition = Condition.matches(error.etag)  # the damaged object is ours to replace
                raise

        return self._repeat(send, ours=lambda error: self._ours(key, meta, getattr(body, "md5_hex", None)))

    def copy(
        self,
        source: Version,
        key: str,
        *,
        meta: ObjectMeta | None = None,
        condition: Condition | None = None,
    ) -> str:
        if source.size > self.limits.max_copy:
            return copy_by_parts(self, source, key, meta, condition=condition)

        def ours(error: PreconditionFailed | UploadMissing) -> str | None:
            of_source = isinstance(error, PreconditionFailed) and error.source
            if of_source and key != source.key:  # a self-copy changes the source as well
                return None
            return self._ours(key, meta, source.etag)

        return self._repeat(lambda: self.inner.copy(source, key, meta=meta, condition=condition), ours=ours)

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        condition: Condition | None = None,
    ) -> str:
        def ours(error: PreconditionFailed | UploadMissing) -> str | None:
            expected = multipart_etag(parts)
            found = self._found(key) if expected is not None else None
            return expected if found is not None and found.etag == expected else None

        return self._repeat(
            lambda: self.inner.complete_upload(key, upload_id, parts, condition=condition), ours=ours
        )

    def _ours(self, key: str, meta: ObjectMeta | None, etag: str | None) -> str | None:
        """Return the ETag of the object at `key` if an attempt of this call has stored it.

        The attempt's id proves it; without one, the same bytes and the same metadata.
        """
        found = self._found(key)
        if found is None:
            return None
        stored = dict(found.metadata or {})
        attempt = meta.metadata.get(ATTEMPT) if meta is not None else None
        if attempt is not None:
            return found.etag if stored.get(ATTEMPT) == attempt else None
        same = etag is not None and found.etag == etag and (meta is None or stored == dict(meta.metadata))
        return found.etag if same else None

    def _found(self, key: str) -> ObjectInfo | None:
        """Send a HEAD after an attempt that may have been carried out; its own errors leave that unknown too."""
        try:
            return self.head(key)
        except ObjectMissing:
            return None
        except StoreError as error:
            error.unknown = True
            raise

    def close(self) -> None:
        self._closed.set()
        self.inner.close()
