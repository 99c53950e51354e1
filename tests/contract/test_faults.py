"""What the S3 store does when the way to the bucket fails: a real server behind a faulty proxy.

`bare` is the store without retries, `store` as the engine gets it; neither waits in real time.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from r2fs.model.errors import (
    BadCredentials,
    BodyDamaged,
    ObjectMissing,
    PermissionRefused,
    PreconditionFailed,
    StoreError,
    Throttled,
    Unavailable,
)
from r2fs.model.ports import ObjectStore, SystemClock
from r2fs.model.records import Condition, ObjectMeta, Version
from r2fs.model.settings import Bucket, Credentials
from r2fs.store import open_store
from r2fs.store.counting import RequestCounter
from r2fs.store.retry import RetryingStore
from r2fs.store.s3.store import S3Store
from tests.support.bodies import BytesBody
from tests.support.clocks import ManualClock
from tests.support.faulty import (
    Fault,
    FaultyProxy,
    answer,
    cut_answer,
    cut_request,
    drop,
    lose_answer,
    stall,
    stall_answer,
)
from tests.support.servers import Endpoint

META = ObjectMeta("audio/wav", {"mtime": "1.5"})
TIMEOUT_S = 1.0  # of the stores below: a stall is not waited for
DATA = os.urandom(2 << 20)


def attempt() -> ObjectMeta:
    return ObjectMeta("audio/wav", {"mtime": "1.5", "r2fs-attempt": uuid.uuid4().hex})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(time.time())


@pytest.fixture
def bare(seaweedfs: Endpoint, proxy: FaultyProxy, clock: ManualClock) -> Iterator[S3Store]:
    store = S3Store(
        replace(seaweedfs.settings(url=proxy.url), request_timeout_s=TIMEOUT_S),
        clock=clock,
        counter=RequestCounter(),
    )
    yield store
    store.close()


@pytest.fixture
def store(bare: S3Store, clock: ManualClock) -> RetryingStore:
    return RetryingStore(bare, clock)


@pytest.fixture
def other(seaweedfs: Endpoint) -> Iterator[ObjectStore]:
    """Another host, with a good connection."""
    store = open_store(seaweedfs.settings(), SystemClock())
    yield store
    store.close()


@pytest.fixture
def key() -> str:
    return f"faults/{uuid.uuid4().hex}"


def read(store: ObjectStore, key: str) -> bytes:
    with store.get(key) as download:
        return b"".join(download.chunks(65536))


# ------------------------------------------------------------------ what counts as a request
def test_a_request_counts_when_it_has_reached_a_server(
    bare: S3Store, store: RetryingStore, proxy: FaultyProxy, key: str
):
    proxy.script(lose_answer(), answer(503, "ServiceUnavailable"))
    store.put(key, BytesBody(b"data"), META)
    assert bare._counter.view().total == len(proxy.seen) == 3


@pytest.mark.parametrize("scheme", ["http", "https"])  # nobody listens; somebody does, and speaks no TLS
def test_a_request_without_a_server_costs_nothing(seaweedfs: Endpoint, scheme: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    where = f"http://127.0.0.1:{port}" if scheme == "http" else seaweedfs.url.replace("http:", "https:")
    keys = Credentials(access_key_id="id", secret_access_key="a-secret-of-tests")
    bare = S3Store(Bucket("s3", "b", endpoint_url=where, credentials=keys), clock=SystemClock())
    counter = bare._counter
    try:
        for call in (lambda: bare.put("k", BytesBody(b"data"), META), lambda: bare.list_page("")):
            with pytest.raises(Unavailable):
                call()
    finally:
        bare.close()
    assert (counter.view().total, counter.view().sent_bytes) == (0, 0)


# ------------------------------------------------------------------ what a fault is, without retries
STATUSES: list[tuple[Fault, type[StoreError]]] = [
    (answer(500, "InternalError"), Unavailable),
    (answer(503, "ServiceUnavailable"), Unavailable),
    (answer(503, "SlowDown"), Throttled),
    (answer(429, "TooManyRequests"), Throttled),
    (answer(409, "ConditionalRequestConflict"), Throttled),
    (answer(400, "IncompleteBody"), BodyDamaged),
    (answer(400, "BadDigest"), BodyDamaged),
    (answer(403, "AccessDenied"), PermissionRefused),
    (answer(502, "Whatever"), Unavailable),
    (drop(), Unavailable),
    (stall(), Unavailable),
    (lose_answer(), Unavailable),
]


@pytest.mark.parametrize(
    ("fault", "error"), STATUSES, ids=[f"{f.kind.value}-{f.status}-{f.code}" for f, _ in STATUSES]
)
def test_what_a_put_raises(
    bare: S3Store, proxy: FaultyProxy, key: str, fault: Fault, error: type[StoreError]
):
    proxy.script(fault)
    with pytest.raises(error, match=key):
        bare.put(key, BytesBody(b"data"), META)
    assert len(proxy.seen) == 1, "nothing below us retries"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (answer(500), Unavailable),
        (answer(503), Unavailable),
        (answer(429), Throttled),
        (answer(403), PermissionRefused),
        (answer(404), ObjectMissing),
        (answer(401), BadCredentials),
        (answer(412), PreconditionFailed),
    ],
)
def test_what_a_head_raises_by_its_status_alone(
    bare: S3Store, proxy: FaultyProxy, key: str, fault: Fault, error: type[StoreError]
):
    bare.list_page(key)  # so that a 404 is not taken for the bucket's
    proxy.script(fault)
    with pytest.raises(error, match=key):
        bare.head(key)


@pytest.mark.parametrize("after", [0, 1, 65_536, len(DATA) - 1])
def test_a_put_that_is_cut_publishes_nothing(
    bare: S3Store, proxy: FaultyProxy, other: ObjectStore, key: str, after: int
):
    other.put(key, BytesBody(b"old"), META)
    proxy.script(cut_request(after))
    with pytest.raises((Unavailable, BodyDamaged)):
        bare.put(key, BytesBody(DATA), META)
    assert read(other, key) == b"old"


@pytest.mark.parametrize("after", [0, 1, 65_536, 100_000, len(DATA) - 1])
def test_an_answer_that_is_cut(bare: S3Store, proxy: FaultyProxy, other: ObjectStore, key: str, after: int):
    other.put(key, BytesBody(DATA), META)
    proxy.script(cut_answer(after))
    got = b""
    with bare.get(key) as download, pytest.raises(BodyDamaged, match=key):
        for data in download.chunks(65536):
            got += data
    assert got == DATA[: len(got)], "what did arrive is right"


def test_an_answer_that_stalls(bare: S3Store, proxy: FaultyProxy, other: ObjectStore, key: str):
    other.put(key, BytesBody(DATA), META)
    proxy.script(stall_answer(100_000))
    begun = time.monotonic()
    with bare.get(key) as download, pytest.raises(Unavailable, match=key):
        b"".join(download.chunks(65536))
    assert time.monotonic() - begun < 20 * TIMEOUT_S


def test_a_bad_etag_is_noticed(bare: S3Store, key: str):
    """As if the server had stored other bytes than it was sent."""

    class Lying(BytesBody):
        def read(self, size: int = -1, /) -> bytes:
            data = super().read(size)
            self.md5_hex = "0" * 32
            return data

    with pytest.raises(BodyDamaged, match="other bytes"):
        bare.put(key, Lying(b"data"), META)


# ------------------------------------------------------------------ what goes on by itself
HARMLESS = [
    answer(500, "InternalError"),
    answer(503, "SlowDown"),
    answer(429, "TooManyRequests"),
    drop(),
    lose_answer(),
]
HARMLESS_IDS = ["500", "503", "429", "drop", "lost"]


def put_(store: ObjectStore, key: str) -> None:
    store.put(key, BytesBody(b"data"), META)


def multipart(store: ObjectStore, key: str) -> None:
    upload = store.create_upload(key, META)
    part = store.put_part(key, upload, 1, BytesBody(b"data"))
    store.complete_upload(key, upload, [part])


def copy_(store: ObjectStore, key: str) -> None:
    store.copy(store.head("faults/source").version, key)


REQUESTS: dict[str, tuple[Callable[[ObjectStore, str], object], int]] = {
    # how many requests it takes when all is well
    "list": (lambda store, key: store.list_page(key), 1),
    "head": (lambda store, key: store.head("faults/source"), 1),
    "get": (lambda store, key: read(store, "faults/source"), 1),
    "put": (put_, 1),
    "multipart": (multipart, 3),
    "copy": (copy_, 2),
    "delete": (lambda store, key: store.delete(key), 1),
    "delete_many": (lambda store, key: store.delete_many([key]), 1),
}


@pytest.mark.parametrize("fault", HARMLESS, ids=HARMLESS_IDS)
@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_passing_fault_is_not_noticed(
    store: RetryingStore,
    proxy: FaultyProxy,
    other: ObjectStore,
    key: str,
    request_name: str,
    fault: Fault,
):
    """Each request of the operation fails once."""
    other.put("faults/source", BytesBody(b"data"), META)
    run, count = REQUESTS[request_name]
    for number in range(count):
        proxy.clear()
        proxy.script(*[None] * number, fault)
        run(store, f"{key}-{number}")
        assert len(proxy.seen) >= count + 1
    if request_name in ("put", "multipart", "copy"):
        for number in range(count):
            assert read(other, f"{key}-{number}") == b"data"


def test_a_stall_is_not_noticed(store: RetryingStore, proxy: FaultyProxy, key: str):
    proxy.script(stall())
    store.put(key, BytesBody(b"data"), META)


def test_a_cut_upload_is_sent_again(store: RetryingStore, proxy: FaultyProxy, other: ObjectStore, key: str):
    proxy.script(cut_request(100_000), cut_request(0))
    store.put(key, BytesBody(DATA), META, condition=Condition.absent())
    assert read(other, key) == DATA


def test_an_outage_ends_in_an_error_after_a_while(
    store: RetryingStore, proxy: FaultyProxy, clock: ManualClock, key: str
):
    proxy.rule(answer(503, "ServiceUnavailable"), times=None)
    begun = clock.monotonic()
    with pytest.raises(Unavailable):
        store.head(key)
    assert 1 < len(proxy.seen) <= 10
    assert clock.monotonic() - begun <= 60


def test_after_429_the_key_has_a_second(
    store: RetryingStore, proxy: FaultyProxy, clock: ManualClock, key: str
):
    proxy.script(answer(429, "TooManyRequests"), answer(429, "TooManyRequests"))
    store.put(key, BytesBody(b"data"), META)
    assert len(clock.waited) == 2
    assert min(clock.waited) >= 1.0


def test_a_refusal_is_not_repeated(store: RetryingStore, proxy: FaultyProxy, key: str):
    proxy.script(answer(403, "AccessDenied"))
    with pytest.raises(PermissionRefused):
        store.put(key, BytesBody(b"data"), META)
    assert len(proxy.seen) == 1


def test_a_signature_is_refused_once_in_a_while(store: RetryingStore, proxy: FaultyProxy, key: str):
    proxy.script(answer(403, "SignatureDoesNotMatch"))
    store.put(key, BytesBody(b"data"), META)
    proxy.clear()
    proxy.rule(answer(403, "SignatureDoesNotMatch"), times=None)
    with pytest.raises(BadCredentials, match="secret access key"):
        store.put(key, BytesBody(b"data"), META)
    assert len(proxy.seen) == 3


@pytest.mark.parametrize("request_name", ["copy", "complete"])
def test_an_error_inside_a_200_is_one(
    bare: S3Store, store: RetryingStore, proxy: FaultyProxy, other: ObjectStore, key: str, request_name: str
):
    """S3 begins its answer to long requests before it knows how they end."""
    other.put("faults/source", BytesBody(b"data"), META)
    source = other.head("faults/source").version
    upload = other.create_upload(key, META)
    part = other.put_part(key, upload, 1, BytesBody(b"data"))

    def run(store: ObjectStore) -> None:
        if request_name == "copy":
            store.copy(source, key)
        else:
            store.complete_upload(key, upload, [part])

    proxy.script(answer(200, "InternalError"))
    with pytest.raises(Unavailable):
        run(bare)
    proxy.script(answer(200, "InternalError"))
    run(store)
    assert read(other, key) == b"data"


# ------------------------------------------------------------------ downloads that go on
def test_a_cut_download_goes_on_where_it_broke_off(
    store: RetryingStore, proxy: FaultyProxy, other: ObjectStore, key: str
):
    etag = other.put(key, BytesBody(DATA), META)
    proxy.script(cut_answer(700_000), cut_answer(300_000), drop(), stall_answer(200_000))
    assert read(store, key) == DATA
    asked = [seen.headers.get("range") for seen in proxy.seen]
    assert asked[0] is None
    # urllib3 hands on whole chunks: what came after the last of them is asked for again.
    starts = [int(text.removeprefix("bytes=").split("-")[0]) for text in asked[1:] if text]
    assert starts == sorted(starts)
    assert starts[0] > 600_000
    assert all(seen.headers["if-match"] == f'"{etag}"' for seen in proxy.seen[1:])


def test_a_download_never_mixes_versions(
    store: RetryingStore, proxy: FaultyProxy, other: ObjectStore, key: str
):
    other.put(key, BytesBody(DATA), META)
    proxy.script(cut_answer(700_000))
    with store.get(key) as download:
        chunks = download.chunks(65536)
        got = next(chunks)
        other.put(key, BytesBody(DATA[::-1]), META)
        with pytest.raises(PreconditionFailed):
            for data in chunks:
                got += data
    assert got == DATA[: len(got)]


def test_a_range_goes_on_within_its_bounds(
    store: RetryingStore, proxy: FaultyProxy, other: ObjectStore, key: str
):
    other.put(key, BytesBody(DATA), META)
    proxy.script(cut_answer(200_000))
    with store.get(key, start=100_000, length=500_000) as download:
        assert b"".join(download.chunks(65536)) == DATA[100_000:600_000]


# ------------------------------------------------------------------ lost answers
CONDITIONS = ["if_absent", "if_match"]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("meta", [META, None], ids=["by its bytes", "by its attempt"])
def test_a_put_whose_answer_was_lost_is_known_as_ours(
    store: RetryingStore,
    proxy: FaultyProxy,
    other: ObjectStore,
    key: str,
    condition: str,
    meta: ObjectMeta | None,
):
    base = other.put(key, BytesBody(b"base"), META) if condition == "if_match" else None
    meta = meta or attempt()
    proxy.script(lose_answer())
    etag = store.put(key, BytesBody(b"mine"), meta, condition=Condition(base))
    info = other.head(key)
    assert (info.etag, dict(info.metadata or {})) == (etag, dict(meta.metadata))
    assert [seen.method for seen in proxy.seen] == ["PUT", "PUT", "HEAD"]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_put_that_lost_is_not_taken_for_ours(
    store: RetryingStore, proxy: FaultyProxy, other: ObjectStore, key: str, condition: str
):
    """The request never arrived, and another host was faster: with the same bytes even."""
    base = other.put(key, BytesBody(b"base"), META) if condition == "if_match" else None
    proxy.script(drop())
    theirs: list[str] = []

    class Meanwhile(BytesBody):
        def seek(self, offset: int, whence: int = 0, /) -> int:
            if len(proxy.seen) == 1 and not theirs:
                theirs.append(other.put(key, BytesBody(b"mine"), attempt()))
            return super().seek(offset, whence)

    body = Meanwhile(b"mine")
    with pytest.raises(PreconditionFailed):
        store.put(key, body, attempt(), condition=Condition(base))
    assert theirs
    assert other.head(key).etag == theirs[0]


def test_a_412_without_a_lost_answer_costs_no_head(
    store: RetryingStore, proxy: FaultyProxy, other: ObjectStore, key: str
):
    other.put(key, BytesBody(b"theirs"), META)
    with pytest.raises(PreconditionFailed):
        store.put(key, BytesBody(b"mine"), META, condition=Condition.absent())
    assert [seen.method for seen in proxy.seen] == ["PUT"]


@pytest.mark.parametrize("condition", [*CONDITIONS, "none"])
def test_a_complete_whose_answer_was_lost(
    store: RetryingStore, proxy: FaultyProxy, other: ObjectStore, key: str, condition: str
):
    base = other.put(key, BytesBody(b"base"), META) if condition == "if_match" else None
    upload = store.create_upload(key, META)
    part = store.put_part(key, upload, 1, BytesBody(DATA))
    proxy.rule(lose_answer(), method="POST", path="uploadId")
    etag = store.complete_upload(key, upload, [part], condition=Condition(base))
    assert other.head(key).etag == etag
    assert read(other, key) == DATA


@pytest.mark.parametrize("condition", [*CONDITIONS, "none"])
@pytest.mark.parametrize("meta", [META, None], ids=["with metadata", "without"])
def test_a_copy_whose_answer_was_lost(
    store: RetryingStore,
    proxy: FaultyProxy,
    other: ObjectStore,
    key: str,
    condition: str,
    meta: ObjectMeta | None,
):
    source = Version(key + "-s", other.put(key + "-s", BytesBody(DATA), attempt()), len(DATA))
    base = other.put(key, BytesBody(b"base"), META) if condition == "if_match" else None
    proxy.rule(lose_answer(), method="PUT")
    etag = store.copy(source, key, meta=meta, condition=Condition(base))
    assert other.head(key).etag == etag == source.etag


def test_a_change_of_metadata_whose_answer_was_lost(
    store: RetryingStore, proxy: FaultyProxy, other: ObjectStore, key: str
):
    source = Version(key, other.put(key, BytesBody(DATA), META), len(DATA))
    proxy.rule(lose_answer(), method="PUT")
    meta = attempt()
    store.copy(source, key, meta=meta, condition=Condition.matches(source.etag))
    assert dict(other.head(key).metadata or {}) == dict(meta.metadata)


# ------------------------------------------------------------------ the proxy itself
def test_latency(bare: S3Store, proxy: FaultyProxy, key: str):
    bare.list_page(key)
    proxy.latency_s = 0.2
    begun = time.monotonic()
    bare.list_page(key)
    assert time.monotonic() - begun >= 0.2


def test_a_rule_is_for_what_it_names(bare: S3Store, proxy: FaultyProxy, key: str):
    proxy.rule(answer(503), method="PUT", path=key, times=2)
    bare.put("faults/other", BytesBody(b"x"), META)
    for _ in range(2):
        with pytest.raises(Unavailable):
            bare.put(key, BytesBody(b"x"), META)
    bare.put(key, BytesBody(b"x"), META)
    assert [seen.status for seen in proxy.seen] == [200, 503, 503, 200]
