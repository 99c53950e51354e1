"""RetryingStore over a store that fails on script; no time passes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2fs.model.errors import (
    BadCredentials,
    BodyDamaged,
    ObjectMissing,
    PermissionRefused,
    PreconditionFailed,
    Throttled,
    Unavailable,
    UploadMissing,
)
from r2fs.model.ports import THROTTLED_S, Clock, Limits, ObjectStore, SystemClock
from r2fs.model.records import Condition, ObjectInfo, ObjectMeta, Version
from r2fs.store.answers import SignatureRejected, StoredDamaged
from r2fs.store.local.store import LocalDirStore
from r2fs.store.retry import BRIEF, PATIENT, RetryingStore
from tests.support.bodies import BytesBody
from tests.support.clocks import ManualClock
from tests.support.faulty import FaultyStore

META = ObjectMeta("audio/wav", {"mtime": "1.5"})
MINE = ObjectMeta("audio/wav", {"r2fs-attempt": "mine"})
THEIRS = ObjectMeta("audio/wav", {"r2fs-attempt": "theirs"})
LIMITS = Limits(min_part=4, key_write_interval_s=0.0)


@pytest.fixture
def bucket(tmp_path: Path) -> LocalDirStore:
    return LocalDirStore(tmp_path, limits=LIMITS)


@pytest.fixture
def faulty(bucket: LocalDirStore) -> FaultyStore:
    return FaultyStore(bucket)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def with_jitter(inner: ObjectStore, clock: Clock, uniform: Callable[[], float]) -> RetryingStore:
    store = RetryingStore(inner, clock)
    store.uniform = uniform
    return store


@pytest.fixture
def store(faulty: FaultyStore, clock: ManualClock) -> RetryingStore:
    return with_jitter(faulty, clock, lambda: 1.0)


def put(store, key: str, data: bytes = b"data", meta: ObjectMeta = META, **conditions: Any) -> str:
    return store.put(key, BytesBody(data), meta, **conditions)


def read(store, key: str) -> bytes:
    with store.get(key) as download:
        return b"".join(download.chunks(4))


# ------------------------------------------------------------------ how often, how long
def test_delays_double_up_to_a_cap(faulty: FaultyStore, store: RetryingStore, clock: ManualClock):
    faulty.then("!" * 99)
    with pytest.raises(Unavailable):
        store.head("a")
    assert clock.waited == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert len(faulty.calls) == PATIENT.attempts
    assert store.requests().retries == 5


def test_the_jitter_is_full(faulty: FaultyStore, clock: ManualClock):
    draws = iter([0.0, 0.5, 0.999])
    store = with_jitter(faulty, clock, lambda: next(draws))
    put(faulty, "a")
    faulty.then("!!!")
    store.head("a")
    assert clock.waited == pytest.approx([0.0, 0.25, 0.999])


def test_throttled_waits_for_the_keys_second(faulty: FaultyStore, clock: ManualClock):
    store = with_jitter(faulty, clock, lambda: 0.0)
    faulty.then("ttt")
    put(store, "a")
    assert clock.waited == [THROTTLED_S] * 3


def test_slow_failures_end_it_early(faulty: FaultyStore, store: RetryingStore, clock: ManualClock):
    faulty.then("!" * 99)
    faulty.before = lambda verb, key: clock.advance(25.0)  # each attempt runs into a timeout
    begun = clock.monotonic()
    with pytest.raises(Unavailable):
        store.head("a")
    assert len(faulty.calls) == 3
    assert clock.monotonic() - begun < PATIENT.within_s + 25.0


def test_check_does_not_keep_a_person_waiting(faulty: FaultyStore, store: RetryingStore, clock: ManualClock):
    faulty.then("!" * 99)
    with pytest.raises(Unavailable):
        store.check()
    assert len(faulty.calls) == BRIEF.attempts
    assert sum(clock.waited) <= BRIEF.within_s


@pytest.mark.parametrize("step", ["r"])
def test_refusals_are_not_repeated(faulty: FaultyStore, store: RetryingStore, step: str):
    faulty.then(step)
    with pytest.raises(PermissionRefused):
        put(store, "a")
    assert len(faulty.calls) == 1


@pytest.mark.parametrize("step", ["r", "t"])
def test_an_error_tells_that_an_earlier_try_may_have_been_carried_out(
    faulty: FaultyStore, store: RetryingStore, bucket: LocalDirStore, step: str
):
    faulty.then("L" + step * PATIENT.attempts)
    with pytest.raises((PermissionRefused, Throttled)) as caught:
        put(store, "a")
    assert caught.value.unknown
    assert read(bucket, "a") == b"data"
    faulty.then(step * PATIENT.attempts)
    with pytest.raises((PermissionRefused, Throttled)) as caught:
        put(store, "b")
    assert not caught.value.unknown


def test_answers_are_not_repeated(faulty: FaultyStore, store: RetryingStore):
    with pytest.raises(ObjectMissing):
        store.head("a")
    put(store, "a")
    with pytest.raises(PreconditionFailed):
        put(store, "a", condition=Condition.absent())
    assert [call.verb for call in faulty.calls] == ["head", "put", "put"]


def test_a_rejected_signature_has_three_tries(bucket: LocalDirStore, clock: ManualClock):
    class Rejecting(FaultyStore):
        def head(self, key: str) -> ObjectInfo:
            self._next("head", key)
            raise SignatureRejected("check the secret access key")

    faulty = Rejecting(bucket)
    with pytest.raises(BadCredentials):
        RetryingStore(faulty, clock).head("a")
    assert len(faulty.calls) == 3


def test_close_ends_the_waiting(bucket: LocalDirStore):
    asked = threading.Event()
    faulty = FaultyStore(bucket, "!" * 99, before=lambda verb, key: asked.set())
    store = with_jitter(faulty, SystemClock(), lambda: 1.0)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            store.head("a")
        except Unavailable as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(10)
    store.close()
    thread.join(10)
    assert not thread.is_alive()
    assert failed
    assert len(faulty.calls) < 99


def test_every_verb_is_tried_again(faulty: FaultyStore, store: RetryingStore):
    put(store, "a")
    source = store.head("a").version
    upload = store.create_upload("b", META)
    for request in (
        lambda: store.check(),
        lambda: store.list_page(""),
        lambda: store.head("a"),
        lambda: read(store, "a"),
        lambda: put(store, "a"),
        lambda: store.copy(source, "c"),
        lambda: store.create_upload("d", META),
        lambda: store.put_part("b", upload, 1, BytesBody(b"data")),
        lambda: store.copy_part("b", upload, 1, store.head("a").version, 0, 4),
        lambda: store.abort_upload("b", upload),
        lambda: store.delete("c"),
        lambda: store.delete_many(["c"]),
    ):
        before = store.requests().retries
        faulty.then("!b")
        request()
        assert store.requests().retries == before + 2


def test_a_body_is_sent_from_its_start_each_time(faulty: FaultyStore, store: RetryingStore):
    faulty.then("LbL")
    assert put(store, "a", b"the same each time") == store.head("a").etag
    assert read(store, "a") == b"the same each time"


# ------------------------------------------------------------------ put: whose 412 is it
def test_a_lost_put_is_known_by_its_attempt(faulty: FaultyStore, store: RetryingStore):
    faulty.then("L")
    assert put(store, "a", meta=MINE, condition=Condition.absent()) == store.head("a").etag
    assert faulty.verbs()[:3] == ["put", "put", "head"]


def test_a_lost_put_of_another_attempt_is_not_ours(
    faulty: FaultyStore, store: RetryingStore, bucket: LocalDirStore
):
    faulty.then("!")

    def meanwhile(verb: str, key: str) -> None:
        if verb == "put":
            put(bucket, "a", meta=THEIRS)

    faulty.before = meanwhile
    with pytest.raises(PreconditionFailed):
        put(store, "a", meta=MINE, condition=Condition.absent())


def test_without_an_attempt_bytes_and_metadata_must_be_the_same(
    faulty: FaultyStore, store: RetryingStore, bucket: LocalDirStore
):
    faulty.then("L")
    assert put(store, "a", condition=Condition.absent())
    put(bucket, "b", b"data", ObjectMeta("audio/wav", {"mtime": "2.5"}))
    faulty.then("!")
    with pytest.raises(PreconditionFailed):
        put(store, "b", b"data", condition=Condition.absent())


def test_a_lost_put_that_was_deleted_since(faulty: FaultyStore, store: RetryingStore, bucket: LocalDirStore):
    base = put(bucket, "a", b"base")
    faulty.then("L")
    calls: list[str] = []

    def delete_before_the_second(verb: str, key: str) -> None:
        calls.append(verb)
        if calls == ["put", "put"]:
            bucket.delete("a")

    faulty.before = delete_before_the_second
    with pytest.raises(PreconditionFailed):
        put(store, "a", meta=MINE, condition=Condition.matches(base))


def test_what_was_stored_damaged_is_replaced(bucket: LocalDirStore, clock: ManualClock):
    class Damaging(FaultyStore):
        """The first PUT stores other bytes."""

        def put(self, key, body, meta, *, condition=None):
            if self._next("put", key) == "d":
                etag = self.inner.put(key, BytesBody(b"other"), meta, condition=condition)
                raise StoredDamaged("other bytes", etag)
            return self.inner.put(key, body, meta, condition=condition)

    store = RetryingStore(Damaging(bucket, "d"), clock)
    put(store, "a", b"data", condition=Condition.absent())
    assert read(store, "a") == b"data"


# ------------------------------------------------------------------ copy and complete
def test_a_lost_copy(faulty: FaultyStore, store: RetryingStore, bucket: LocalDirStore):
    source = Version("a", put(bucket, "a"), 4)
    faulty.then("L")
    assert store.copy(source, "b", condition=Condition.absent()) == source.etag
    faulty.then("L")
    store.copy(source, "c", meta=MINE, condition=Condition.absent())
    assert dict(store.head("c").metadata or {}) == dict(MINE.metadata)


def test_a_lost_change_of_metadata(faulty: FaultyStore, store: RetryingStore, bucket: LocalDirStore):
    source = Version("a", put(bucket, "a"), 4)
    faulty.then("L")
    store.copy(source, "a", meta=MINE, condition=Condition.matches(source.etag))
    assert dict(store.head("a").metadata or {}) == dict(MINE.metadata)


def test_a_copy_that_lost_is_not_ours(faulty: FaultyStore, store: RetryingStore, bucket: LocalDirStore):
    source = Version("a", put(bucket, "a"), 4)
    put(bucket, "b", b"theirs")
    faulty.then("!")
    with pytest.raises(PreconditionFailed):
        store.copy(source, "b", condition=Condition.absent())


def test_a_lost_complete(faulty: FaultyStore, store: RetryingStore):
    upload = store.create_upload("a", META)
    parts = [store.put_part("a", upload, n, BytesBody(b"data")) for n in (1, 2)]
    faulty.then("L")
    etag = store.complete_upload("a", upload, parts, condition=Condition.absent())
    assert store.head("a").etag == etag


def test_a_complete_of_an_upload_that_is_gone(
    faulty: FaultyStore, store: RetryingStore, bucket: LocalDirStore
):
    upload = store.create_upload("a", META)
    parts = [store.put_part("a", upload, 1, BytesBody(b"data"))]
    store.abort_upload("a", upload)
    put(bucket, "a", b"theirs")
    faulty.then("!")
    with pytest.raises(UploadMissing):
        store.complete_upload("a", upload, parts)


def test_a_large_copy_goes_on_part_by_part(tmp_path: Path, clock: ManualClock):
    bucket = LocalDirStore(tmp_path, limits=Limits(min_part=4, max_copy=4))
    faulty = FaultyStore(bucket, "!!", only=["copy_part"])
    store = RetryingStore(faulty, clock)
    source = Version("a", put(bucket, "a", b"0123456789"), 10)
    store.copy(source, "b")
    assert faulty.verbs().count("copy_part") == 3 + 2
    assert faulty.verbs().count("create_upload") == 1
    assert read(store, "b") == b"0123456789"


def test_a_large_copy_that_is_refused_leaves_no_upload(tmp_path: Path, clock: ManualClock):
    bucket = LocalDirStore(tmp_path, limits=Limits(min_part=4, max_copy=4))
    faulty = FaultyStore(bucket, ".r", only=["copy_part"])
    source = Version("a", put(bucket, "a", b"0123456789"), 10)
    with pytest.raises(PermissionRefused):
        RetryingStore(faulty, clock).copy(source, "b")
    assert faulty.verbs()[-1] == "abort_upload"
    assert list((tmp_path / ".r2fs" / "uploads").iterdir()) == []


# ------------------------------------------------------------------ downloads
def test_a_download_resumes(faulty: FaultyStore, store: RetryingStore):
    data = bytes(range(100))
    put(store, "a", data)
    faulty.then("cc!c")
    assert read(store, "a") == data
    faulty.then("c")
    with store.get("a", start=10, length=50) as download:
        assert b"".join(download.chunks(7)) == data[10:60]
        assert download.info.size == 100


def test_progress_counts_the_attempts_anew(faulty: FaultyStore, store: RetryingStore):
    """A long download over a bad line breaks often, and arrives nevertheless."""
    data = bytes(range(256)) * 8
    put(store, "a", data)
    faulty.then("c" * 8)
    assert read(store, "a") == data


def test_a_download_without_progress_ends(faulty: FaultyStore, store: RetryingStore):
    put(store, "a", b"data")
    with store.get("a") as download:
        faulty.then("!" * 99)
        chunks = download.chunks(4)
        assert next(chunks) == b"data"
        assert list(chunks) == []
    faulty.then("!" * 99)
    with pytest.raises(Unavailable):
        store.get("a")


def test_a_download_of_a_version_that_is_gone(faulty: FaultyStore, store: RetryingStore, bucket):
    put(store, "a", bytes(100))
    faulty.then("c")
    with store.get("a") as download:
        put(bucket, "a", b"n" * 100)
        with pytest.raises(PreconditionFailed):
            b"".join(download.chunks(4))


def test_leaving_a_download_closes_what_is_open(bucket: LocalDirStore, store: RetryingStore):
    put(store, "a", bytes(100))
    with store.get("a") as download:
        next(download.chunks(4))
    assert list(download.info.metadata or {}) == ["mtime"]


class Ring:
    """Keys that somebody replaces: `renew` finds as many new ones as `left` says."""

    def __init__(self, left: int) -> None:
        self.left, self.generation, self.asked = left, 0, 0

    def renew(self, since: int) -> bool:
        self.asked += 1
        if self.generation == since and self.left:
            self.left -= 1
            self.generation += 1
        return self.generation != since


def test_another_key_is_tried_at_once(faulty: FaultyStore, clock: ManualClock):
    ring = Ring(2)
    store = RetryingStore(faulty, clock, keys=ring)
    faulty.then("rr")
    put(store, "a")
    assert (ring.generation, clock.waited) == (2, [])
    faulty.then("r")
    with pytest.raises(PermissionRefused):
        put(store, "b")
    assert ring.asked == 3


def test_a_key_that_another_thread_has_replaced_is_tried(faulty: FaultyStore, clock: ManualClock):
    ring = Ring(0)
    store = RetryingStore(faulty, clock, keys=ring)

    def replaced(verb: str, key: str) -> None:
        ring.generation = 1

    faulty.before = replaced
    faulty.then("r")
    put(store, "a")


def test_errors_keep_their_kind():
    for kind in (Throttled, BodyDamaged, Unavailable):
        assert kind.retry
