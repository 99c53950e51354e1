"""A mount of several buckets, on the engine alone: what one bucket does leaves the others alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from r2fs.engine.writeback.schedule import REFUSALS
from r2fs.engine.writeback.verdict import OWN_REFUSALS
from r2fs.model.errors import (
    BucketMissing,
    NameTooLong,
    NeedsCopy,
    NotPermitted,
    PermissionRefused,
    ReadFailed,
    ReadOnly,
    Unavailable,
)
from r2fs.model.keys import MAX_KEY_BYTES
from r2fs.model.ports import Caller
from r2fs.model.records import Version
from r2fs.model.reports import BulkReport
from r2fs.model.settings import Bucket
from r2fs.model.verbs import RENAME_EXCHANGE
from r2fs.store.buckets import Buckets
from r2fs.store.counting import RequestCounter
from r2fs.store.retry import Policy, RetryingStore
from tests.support.clocks import ManualClock
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

BOOKS, TEXTS = "audiobooks", "manuscripts"
PLACE = Bucket(
    "s3",
    "",
    given="r2://",
    members=(Bucket("s3", BOOKS), Bucket("s3", TEXTS), Bucket("s3", "shelf", read_only=True)),
)


@pytest.fixture
def inner() -> dict[str, MemoryStore]:
    return {member.name: MemoryStore() for member in PLACE.members}


@pytest.fixture
def store(inner: dict[str, MemoryStore]) -> Iterator[Buckets]:
    once = Policy(attempts=1)

    def open_one(bucket: Bucket) -> RetryingStore:
        return RetryingStore(inner[bucket.name], ManualClock(), policy=once)

    made = Buckets(PLACE, RequestCounter(), open_one, list)
    yield made
    made.close()


@pytest.fixture
def engine_settings() -> Mapping[str, object]:
    return {"bucket": PLACE}


def refuse(store: MemoryStore, error: Exception, *verbs: str) -> None:
    def before(verb: str, key: str) -> None:
        if not verbs or verb in verbs:
            raise error

    store.before = before


def test_the_names_are_those_of_the_buckets_even_if_empty(make: MakeEngine, inner: dict[str, MemoryStore]):
    inner[BOOKS].set("u/f", b"x")
    engine = make(threads=False)
    assert engine.listdir() == [BOOKS, TEXTS, "shelf"]
    engine.unlink(f"{BOOKS}/u/f")
    engine.rmdir(f"{BOOKS}/u")
    engine.kill()  # before the deletes are sent: all that the bucket has is to go
    again = make(threads=False)
    assert again.listdir() == [BOOKS, TEXTS, "shelf"]
    again.run_due()
    assert inner[BOOKS].keys() == []


def test_a_key_may_be_as_long_as_in_the_bucket_alone(make: MakeEngine, inner: dict[str, MemoryStore]):
    engine = make(threads=False)
    above = "/".join(["d" * 200] * 4)
    rest = MAX_KEY_BYTES - len(above) - 1
    for number in range(4):
        engine.mkdir(f"{BOOKS}/" + "/".join(["d" * 200] * (number + 1)))
    engine.write(f"{BOOKS}/{above}/{'f' * rest}", b"x")
    with pytest.raises(NameTooLong):
        engine.write(f"{BOOKS}/{above}/{'g' * (rest + 1)}", b"x")
    with pytest.raises(NameTooLong):
        engine.rename(f"{BOOKS}/{above}/{'f' * rest}", f"{BOOKS}/{above}/{'g' * (rest + 1)}")
    engine.run_due()
    assert inner[BOOKS].data(f"{above}/{'f' * rest}") == b"x"


def test_a_directory_without_files_gets_an_object_and_a_bucket_none(
    make: MakeEngine, inner: dict[str, MemoryStore]
):
    engine = make(threads=False)
    engine.write(f"{BOOKS}/d/f".replace("d/", ""), b"x")
    engine.mkdir(f"{TEXTS}/d")
    engine.write(f"{TEXTS}/d/f", b"x")
    engine.run_due()
    engine.unlink(f"{BOOKS}/f")
    engine.unlink(f"{TEXTS}/d/f")
    engine.run_due()
    assert inner[BOOKS].keys() == []
    assert inner[TEXTS].keys() == ["d/"]


def test_what_may_not_be_done(make: MakeEngine, inner: dict[str, MemoryStore]):
    inner["shelf"].set("kept", b"x")
    engine = make(threads=False)
    engine.write(f"{BOOKS}/f", b"x")
    engine.write(f"{TEXTS}/g", b"x")
    with pytest.raises(NeedsCopy):
        engine.rename(f"{BOOKS}/f", f"{TEXTS}/f")
    with pytest.raises(NeedsCopy):
        engine.rename(f"{BOOKS}/f", f"{TEXTS}/g", RENAME_EXCHANGE)
    with pytest.raises(NotPermitted):
        engine.rename(BOOKS, TEXTS, RENAME_EXCHANGE)
    with pytest.raises(NotPermitted):
        engine.rename(f"{BOOKS}/f", "f")
    with pytest.raises(ReadOnly):
        engine.rename(f"{BOOKS}/f", "shelf/f")
    with pytest.raises(ReadOnly):
        engine.rename("shelf/kept", f"{BOOKS}/kept")
    with pytest.raises(ReadOnly):
        engine.truncate("shelf/kept", 0)
    assert inner["shelf"].keys() == ["kept"]


def test_r2fs_rm_empties_a_bucket_and_keeps_its_directory(make: MakeEngine, inner: dict[str, MemoryStore]):
    for bucket, store in inner.items():
        store.set("u/f", bucket.encode())
    engine = make(threads=False)
    assert engine.listdir(BOOKS) == ["u"]
    for path, error in (("", NotPermitted), ("shelf/u", ReadOnly)):
        with pytest.raises(error):
            engine.fs.removal.run(
                path, BulkReport(), recursive=True, dry_run=False, cancelled=threading.Event()
            )
    report = BulkReport()
    engine.fs.removal.run(BOOKS, report, recursive=True, dry_run=False, cancelled=threading.Event())
    assert (report.found, report.done, report.failed) == (1, 1, 0)
    assert [store.keys() for store in inner.values()] == [[], ["u/f"], ["u/f"]]
    assert engine.listdir() == [BOOKS, TEXTS, "shelf"]
    assert engine.listdir(BOOKS) == []


# ------------------------------------------------------------------ one bucket fails
def test_a_bucket_that_is_silent_is_known_as_it_was_and_the_others_are_fresh(
    make: MakeEngine, inner: dict[str, MemoryStore]
):
    for store in inner.values():
        store.set("f", b"x")
    engine = make(threads=False)
    assert engine.listdir(BOOKS) == engine.listdir(TEXTS) == ["f"]
    refuse(inner[TEXTS], Unavailable("no answer"))
    inner[BOOKS].set("new", b"x")
    assert engine.listdir(TEXTS) == ["f"]  # as it was
    assert engine.listdir(BOOKS) == ["f", "new"]
    with pytest.raises(ReadFailed):
        make("b", threads=False).listdir(TEXTS)


def test_uploads_to_one_do_not_wait_for_those_to_another(make: MakeEngine, inner: dict[str, MemoryStore]):
    going = threading.Event()

    def hang(verb: str, key: str) -> None:
        if verb == "put":
            assert going.wait(60)

    inner[TEXTS].before = hang
    engine = make(upload_threads=4)
    try:
        for number in range(10):
            engine.write(f"{TEXTS}/{number}", b"waits")
        for number in range(10):
            engine.write(f"{BOOKS}/{number}", b"goes")
        assert engine.fs.flush_paths([BOOKS], 20.0)
        assert len(inner[BOOKS].keys()) == 10
        assert not inner[TEXTS].keys()
    finally:
        going.set()
    engine.drain()
    assert len(inner[TEXTS].keys()) == 10


def test_deletes_of_one_do_not_wait_for_those_of_another(make: MakeEngine, inner: dict[str, MemoryStore]):
    for store in (inner[TEXTS], inner[BOOKS]):
        for number in range(5):
            store.set(f"{number}", b"x")
    engine = make()
    for bucket in (TEXTS, BOOKS):
        engine.listdir(bucket)
    refuse(inner[TEXTS], Unavailable("no answer"))
    for number in range(5):
        engine.unlink(f"{TEXTS}/{number}")
        engine.unlink(f"{BOOKS}/{number}")
    assert engine.fs.flush_paths([BOOKS], 20.0)
    assert not inner[BOOKS].keys()
    inner[TEXTS].before = lambda verb, key: None
    engine.drain()
    assert not inner[TEXTS].keys()


@pytest.mark.expect_warnings("will be tried again")
def test_a_bucket_that_refuses_everything_is_told_and_its_files_are_not_parked(
    make: MakeEngine, inner: dict[str, MemoryStore]
):
    refuse(inner[TEXTS], PermissionRefused("not allowed"), "put")
    engine: Engine = make(threads=False)
    engine.write(f"{TEXTS}/f", b"x")
    for number in range(OWN_REFUSALS + REFUSALS + 1):
        engine.write(f"{BOOKS}/{number}", b"x")  # taken: proves nothing of the other
        engine.run_due()
        engine.end_outage()
        engine.hasten()
    assert len(inner[BOOKS].keys()) == OWN_REFUSALS + REFUSALS + 1
    assert engine.fs.queue_view().parked == 0
    assert str(engine.fs.refusal([f"{TEXTS}/f"])) == str(engine.fs.refusal()) == "not allowed"
    assert engine.fs.refusal([BOOKS]) is None
    inner[TEXTS].before = lambda verb, key: None
    engine.end_outage()
    engine.hasten()
    engine.run_due()
    assert inner[TEXTS].data("f") == b"x"
    assert engine.fs.refusal() is None


def test_pins_of_one_bucket_do_not_wait_for_another(make: MakeEngine, inner: dict[str, MemoryStore]):
    for bucket in (BOOKS, TEXTS):
        inner[bucket].set("d/f", b"x" * 10)
    engine = make()
    engine.fs.pins.pin([f"{BOOKS}/d", f"{TEXTS}/d"], None, Caller())
    for bucket in (BOOKS, TEXTS):
        until_cached(engine, inner_version(inner[bucket], bucket, "d/f"))
    engine.stop()
    refuse(inner[TEXTS], PermissionRefused("not allowed"))
    inner[BOOKS].set("d/later", b"y" * 10)
    until_cached(make(), inner_version(inner[BOOKS], BOOKS, "d/later"))


def test_copies_of_the_root_do_not_end_at_a_bucket_that_cannot_be_listed(
    make: MakeEngine, inner: dict[str, MemoryStore]
):
    for bucket in (BOOKS, "shelf"):
        inner[bucket].set("d/f", b"x" * 10)
    refuse(inner[TEXTS], BucketMissing("there is no such bucket"))
    engine = make()
    view = engine.fs.local_copies.warm([""], Caller(), lambda view: None)
    assert (view.fetched, view.failures, [path for path, _ in view.failed]) == (2, 1, [TEXTS])
    assert view.files == 3
    engine.fs.pins.pin([""], None, Caller())
    inner[BOOKS].set("d/later", b"y" * 10)
    engine.fs.pins.pin([f"{BOOKS}/d"], None, Caller())  # looks again at all that is pinned
    until_cached(engine, inner_version(inner[BOOKS], BOOKS, "d/later"))


def test_the_root_shows_no_bucket_of_an_earlier_mount(make: MakeEngine, store: Buckets, monkeypatch):
    engine = make(threads=False)
    assert engine.listdir() == [BOOKS, TEXTS, "shelf"]
    engine.stop()

    def refresh() -> tuple[str, ...]:
        raise Unavailable("no answer")

    monkeypatch.setattr(store, "refresh", refresh)
    every = make(threads=False, bucket=replace(PLACE, members=(), every=True))
    with pytest.raises(ReadFailed):
        every.listdir()


def until_cached(engine: Engine, version: Version) -> None:
    deadline = time.monotonic() + 20
    while not engine.cache.contains(version):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def inner_version(store: MemoryStore, bucket: str, key: str) -> Version:
    info = store.head(key)
    return Version(f"{bucket}/{key}", info.etag, info.size)


# ------------------------------------------------------------------ commands on the root, with a bucket that is missing
def test_commands_on_the_root_go_on_without_a_bucket_that_is_missing(
    make: MakeEngine, inner: dict[str, MemoryStore]
) -> None:
    for store in inner.values():
        store.set("d/f", b"four")
    engine = make()
    for bucket in inner:
        engine.listdir(f"{bucket}/d")
    refuse(inner[TEXTS], BucketMissing("manuscripts: there is no such bucket"))
    inner["shelf"].set("d/g", b"g")

    view = engine.fs.refreshing.ask(Caller(), "", recursive=True)
    assert [name for name, _ in view.failed] == [TEXTS]
    assert (view.directories, view.files) == (5, 3), "the root, two buckets, a directory in each"
    assert engine.listdir("shelf/d") == ["f", "g"]

    stored = engine.fs.file_views.listed(lambda view: None)
    assert (stored.objects, stored.bytes) == (3, 9)
    assert stored.failed == ((TEXTS, "manuscripts: there is no such bucket"),)

    inner[BOOKS].set("d/f", b"other")
    receipt = engine.fs.receipts.check([""])
    assert (receipt.checked, [path for path, _ in receipt.differing]) == (3, [f"{BOOKS}/d/f"])
    assert [path for path, _ in receipt.failed] == [TEXTS]
    engine.fs.refreshing.forget(TEXTS)
    with pytest.raises((ReadFailed, Unavailable)):
        engine.fs.refreshing.ask(Caller(), TEXTS, recursive=True)
