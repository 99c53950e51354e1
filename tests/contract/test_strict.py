"""R2's own rules, enforced by the strict double: r2fs lives with each, and breaks none.

`double` notes what r2fs must never send; every test fails where it has noted something. The engine is
the real one, over the real store, over a socket.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r2fs.engine.writeback.queue import QUIET_S
from r2fs.model.errors import BadCredentials, NameTooLong, ObjectMissing, Refused
from r2fs.model.ports import Limits, ObjectStore, SystemClock
from r2fs.model.records import AttributeChange, ObjectMeta, Version
from r2fs.model.settings import Credentials
from r2fs.store import open_store
from r2fs.store.health import HealthView
from r2fs.store.retry import RetryingStore
from r2fs.store.s3.services import service_of
from tests.contract.test_wire import everything
from tests.mount.daemons import until
from tests.support.bodies import BreakingBody, BytesBody
from tests.support.engine import Engine
from tests.support.faulty import FaultyProxy, answer, cut_request, lose_answer
from tests.support.servers import BUCKET
from tests.support.strict import StrictR2

PART = 64 << 10  # of the tests' own, so that many are quick
META = ObjectMeta("audio/wav", {"mtime": "1.5"})
MakeEngine = Callable[..., Engine]


@pytest.fixture
def r2() -> Iterator[StrictR2]:
    with StrictR2(min_part=PART) as server:
        yield server
    assert server.faults == []


@pytest.fixture
def line(r2: StrictR2) -> Iterator[FaultyProxy]:
    """A way to it that can be cut."""
    with FaultyProxy(r2.url) as proxy:
        yield proxy


@pytest.fixture
def store(r2: StrictR2) -> Iterator[RetryingStore]:
    store = open_store(r2.endpoint.settings(), SystemClock())
    yield store
    store.close()


@pytest.fixture
def make(r2: StrictR2, tmp_path: Path) -> Iterator[MakeEngine]:
    made: list[tuple[Engine, ObjectStore]] = []

    def make_engine(name: str = "a", url: str | None = None, **changes: object) -> Engine:
        store = open_store(r2.endpoint.settings(url=url), SystemClock())
        values = {"part_size": PART, "multipart_threshold": 2 * PART, **changes}
        engine = Engine(tmp_path / name, store, **values)  # type: ignore[arg-type]
        made.append((engine, store))
        return engine

    yield make_engine
    for engine, store in made:
        engine.end()
        store.close()


# ------------------------------------------------------------------ the double itself
def request(r2: StrictR2, method: str, path: str, body: bytes = b"", **heads: str) -> int:
    """As a careless client would send it; the status."""
    connection = http.client.HTTPConnection(r2.url.removeprefix("http://"), timeout=30)
    signed = {"Authorization": f"AWS4-HMAC-SHA256 Credential={r2.endpoint.access_key}/x"}
    try:
        names = {name.replace("_", "-"): value for name, value in heads.items()}
        connection.request(method, f"/{BUCKET}{path}", body, signed | names)
        return connection.getresponse().status
    finally:
        connection.close()


def deleting(count: int) -> bytes:
    return b"<Delete>" + b"<Object><Key>k</Key></Object>" * count + b"</Delete>"


CARELESS = {
    "Expect": (200, "PUT", "/k", b"x", {"Expect": "100-continue"}),
    "a trailer": (501, "PUT", "/k", b"x", {"x_amz_trailer": "x-amz-checksum-crc32"}),
    "Content-Encoding": (501, "PUT", "/k", b"x", {"Content_Encoding": "aws-chunked"}),
    "two checksums": (400, "PUT", "/k", b"x", {"Content_MD5": "x", "x_amz_checksum_crc32": "y"}),
    "an ACL": (501, "PUT", "/k", b"x", {"x_amz_acl": "private"}),
    "tagging": (501, "GET", "/k?tagging", b"", {}),
    "versions": (501, "GET", "?versions", b"", {}),
    "a long key": (400, "PUT", "/" + "k" * 1025, b"x", {}),
    "much metadata": (400, "PUT", "/k", b"x", {"x_amz_meta_a": "x" * 8192}),
    "1,001 deletes": (400, "POST", "?delete", deleting(1001), {"Content_MD5": "x"}),
    "no XML": (400, "POST", "?delete", b"<Delete><Key>\x01", {"Content_MD5": "x"}),
    "deletes without a checksum": (400, "POST", "?delete", deleting(1), {}),
}


@pytest.mark.parametrize("careless", CARELESS)
def test_the_double_notes_what_must_not_be_sent(careless: str):
    status, method, path, body, heads = CARELESS[careless]
    with StrictR2() as r2:
        assert request(r2, method, path, body, **heads) == status
        assert len(r2.faults) == 1, r2.faults


def test_the_double_notes_parts_that_do_not_fit():
    with StrictR2(min_part=10) as r2:
        store = open_store(r2.endpoint.settings(), SystemClock())
        for sizes in ((20, 21, 1), (20, 20, 21), (9, 9)):
            upload = store.create_upload("big", META)
            parts = [store.put_part("big", upload, n, BytesBody(bytes(s))) for n, s in enumerate(sizes, 1)]
            before = len(r2.faults)
            with suppress(Exception):
                store.complete_upload("big", upload, parts)
            assert len(r2.faults) == before + 1
        store.close()


@pytest.mark.parametrize(("path", "status"), [("/k", 404), ("?list-type=2", 200)])
def test_the_double_counts_a_request_before_it_answers(path: str, status: int):
    with StrictR2() as r2:
        answered, early = threading.Event(), list[bool]()
        count = r2.count

        def watched(operation: str, refused: str = "") -> None:
            early.append(not answered.wait(0.1))
            count(operation, refused)

        r2.count = watched  # type: ignore[method-assign]
        assert request(r2, "GET", path) == status
        answered.set()
        assert early == [True]


# ------------------------------------------------------------------ rules
def test_every_request_is_one_that_r2_takes(r2: StrictR2, store: RetryingStore):
    store.check()
    everything(store)
    assert r2.requests.total() >= 16
    assert set(r2.refusals) <= {"NoSuchKey", "TooManyRequests"}  # "wire/b" is written twice in a second


def test_a_key_is_written_once_a_second(r2: StrictR2, make: MakeEngine):
    """Somebody saves several times a second: the last content arrives, and nothing is sent to be refused."""
    engine = make(upload_delay_s=0.0)
    for number in range(16):
        engine.write("mix.wav", b"take %d" % number)
        time.sleep(1.5 * QUIET_S)
    engine.drain()
    assert r2.bucket.data("mix.wav") == b"take 15"
    assert r2.requests["put"] >= 2
    assert r2.refusals["TooManyRequests"] == 0


def test_a_file_that_is_hurried_waits_for_its_keys_second(r2: StrictR2, make: MakeEngine):
    engine = make()
    for content in (b"one", b"two", b"three"):
        engine.write("mix.wav", content)
        engine.drain()
        assert r2.bucket.data("mix.wav") == content
    engine.rename("mix.wav", "final.wav")
    engine.rename("final.wav", "mix.wav")
    engine.drain()
    assert r2.bucket.contents() == {"mix.wav": b"three"}
    assert r2.refusals["TooManyRequests"] == 0


def test_parts_are_equal(r2: StrictR2, make: MakeEngine):
    engine = make()
    data = os.urandom(5 * PART + 17)
    engine.write("big.wav", data)
    engine.write("even.wav", data[: 4 * PART])
    engine.drain()
    assert r2.bucket.data("big.wav") == data
    assert r2.bucket.data("even.wav") == data[: 4 * PART]
    assert r2.requests["complete"] == 2


def test_a_part_is_lost_when_its_second_upload_fails(r2: StrictR2, line: FaultyProxy, make: MakeEngine):
    """The first arrives, and its answer is lost; the second is cut in the middle: R2 then has neither."""
    engine = make(url=line.url, part_threads=1)
    line.rule(lose_answer(), method="PUT", path="partNumber=2")
    line.rule(cut_request(1000), method="PUT", path="partNumber=2")
    data = os.urandom(4 * PART)
    engine.write("big.wav", data)
    engine.drain()
    assert r2.bucket.data("big.wav") == data
    assert r2.requests["complete"] == 1


def test_parts_that_were_lost_there_are_sent_again(r2: StrictR2, make: MakeEngine):
    """The journal says that they arrived, and the bucket knows nothing of them."""
    engine = make()
    data, lost = os.urandom(4 * PART), threading.Event()

    def lose(name: str, key: str) -> None:
        if name == "complete_upload" and not lost.is_set():
            lost.set()
            for upload in r2.bucket.uploads.values():
                upload.parts.pop(3)

    r2.bucket.before = lose
    engine.write("big.wav", data)
    engine.drain()
    assert lost.is_set()
    assert r2.bucket.data("big.wav") == data
    assert r2.refusals["InvalidPart"] == 1


def test_what_another_host_deleted_while_it_was_edited(r2: StrictR2, make: MakeEngine):
    """If-Match on a missing key is 412 on R2: the name is free, and the edit gets it."""
    r2.bucket.set("take.wav", b"theirs")
    engine = make()
    opened = engine.open("take.wav", os.O_RDWR)
    assert engine.fs.read(engine.caller, opened.handle, 0, 100) == b"theirs"
    engine.fs.write(engine.caller, opened.handle, 0, b"OURS")
    r2.bucket.remove("take.wav")
    engine.close(opened)
    engine.drain()
    assert r2.bucket.data("take.wav") == b"OURSrs"
    assert r2.refusals["PreconditionFailed"] == 1


def test_two_spellings_are_one_key(r2: StrictR2, make: MakeEngine):
    r2.bucket.set("Pa\u0308d.wav", b"decomposed")
    engine = make()
    engine.write("P\u00e4d.wav", b"composed")
    engine.drain()
    assert len(r2.bucket.keys()) == 1
    engine.rename("P\u00e4d.wav", "x.wav")
    engine.rename("x.wav", "Pa\u0308d.wav")
    engine.drain()
    assert engine.listdir() == ["P\u00e4d.wav"]
    engine.unlink("Pa\u0308d.wav")
    engine.drain()
    assert r2.bucket.keys() == []


def test_deletes_go_by_the_thousand(r2: StrictR2, make: MakeEngine):
    for number in range(2100):
        r2.bucket.set(f"many/{number:04}", b"")
    # Nothing is due before all are unlinked, however slow the machine is: drain makes it so.
    engine = make(upload_delay_s=3600.0, upload_deadline_s=3600.0, freshness_s=60.0)
    for name in engine.listdir("many"):
        engine.unlink(f"many/{name}")
    engine.drain()
    assert r2.bucket.contents() == {}
    assert 3 <= r2.requests["delete_many"] <= 10


@pytest.mark.expect_warnings("its delete is parked")
# DeleteObject, and an error for one key in the answer to DeleteObjects
@pytest.mark.parametrize("count", [1, 20])
def test_a_locked_object_is_told_and_the_others_go(
    r2: StrictR2, make: MakeEngine, count: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("r2fs.engine.writeback.deleter.REFUSED_AGAIN_S", 0.01)
    for number in range(count):
        r2.bucket.set(f"d/{number:02}", b"")
    r2.bucket.set("d/stays", b"")
    r2.bucket.locked.add("d/00")
    engine = make(upload_delay_s=3600.0, upload_deadline_s=3600.0)
    for number in range(count):
        engine.unlink(f"d/{number:02}")
    assert engine.fs.flush_paths(["d"], 20.0)
    assert r2.bucket.keys() == ["d/00", "d/stays"]
    (transfer,) = engine.fs.parked_at(["d"])
    assert (transfer.path, transfer.verb) == ("d/00", "delete")
    assert "the object is locked" in (transfer.reason or "")
    assert engine.listdir("d") == ["00", "stays"]
    assert r2.requests["delete"] + r2.requests["delete_many"] <= 3


@pytest.mark.expect_warnings("parked")
def test_a_locked_object_is_not_replaced_and_the_new_bytes_are_kept(r2: StrictR2, make: MakeEngine):
    r2.bucket.set("take.wav", b"old")
    engine = make()
    engine.write("take.wav", b"new", os.O_WRONLY | os.O_TRUNC)
    r2.bucket.locked.add("take.wav")
    assert engine.fs.flush_paths([], 20.0)
    (transfer,) = engine.fs.parked_at([])
    assert "the object is locked" in (transfer.reason or "")
    assert r2.bucket.data("take.wav") == b"old"
    assert engine.read("take.wav") == b"new"


def test_an_answer_that_is_lost_where_everything_is_locked_at_once(
    r2: StrictR2, line: FaultyProxy, make: MakeEngine
):
    """A lock rule for new objects: the upload that is sent again meets its own."""
    r2.bucket.locked.add("take.wav")
    engine = make(url=line.url)
    line.rule(lose_answer(), method="PUT", path="take.wav")
    engine.write("take.wav", b"new")
    engine.drain()
    assert r2.bucket.data("take.wav") == b"new"
    assert engine.fs.queue_view().parked == 0


@pytest.mark.expect_warnings("another host wrote it first")
def test_another_hosts_locked_object_is_a_conflict(r2: StrictR2, make: MakeEngine):
    engine = make(upload_delay_s=3600.0, upload_deadline_s=3600.0)
    engine.write("take.wav", b"ours")
    r2.bucket.set("take.wav", b"theirs")
    r2.bucket.locked.add("take.wav")
    engine.drain()
    assert sorted(r2.bucket.contents().values()) == [b"ours", b"theirs"]


@pytest.mark.expect_warnings("its delete is parked")
def test_a_key_without_the_right_to_delete_is_no_outage(
    r2: StrictR2, line: FaultyProxy, make: MakeEngine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("r2fs.engine.writeback.deleter.REFUSED_AGAIN_S", 0.01)
    for number in range(10):
        r2.bucket.set(f"{number}", b"")
    line.rule(answer(403, "AccessDenied"), method="DELETE", times=None)
    line.rule(answer(403, "AccessDenied"), path="?delete", times=None)
    engine = make(url=line.url, upload_delay_s=3600.0, upload_deadline_s=3600.0)
    assert isinstance(engine.store, RetryingStore)
    told: list[HealthView] = []
    engine.store.health.tell = told.append
    for number in range(10):
        engine.unlink(f"{number}")
    assert engine.fs.flush_paths([], 20.0)
    assert len(engine.fs.parked_at([])) == 10
    assert len(r2.bucket.keys()) == 10
    assert told == []


def test_names_up_to_the_limit_and_none_past_it(r2: StrictR2, make: MakeEngine):
    engine = make()
    deep = ""
    for _ in range(4):
        deep += "d" * 200 + "/"
        engine.mkdir(deep)
    longest = deep + "n" * (1024 - len(deep))
    engine.write(longest, b"long")
    with pytest.raises(NameTooLong):
        engine.write(longest + "n", b"longer")
    with pytest.raises(NameTooLong):
        engine.rename("d" * 200, "d" * 201)  # of what is below it one key would be too long
    engine.drain()
    assert r2.bucket.data(longest) == b"long"
    assert engine.read(longest) == b"long"


@pytest.mark.expect_warnings("another host wrote it first")
def test_a_conflict_of_the_longest_name_keeps_to_the_limit(r2: StrictR2, make: MakeEngine):
    name = "/".join(["d" * 200] * 4 + ["n" * 220])
    engine = make()
    opened = None
    for depth in range(1, 5):
        engine.mkdir("/".join(["d" * 200] * depth))
    opened = engine.open(name, os.O_WRONLY | os.O_CREAT)
    engine.fs.write(engine.caller, opened.handle, 0, b"ours")
    r2.bucket.set(name, b"theirs")
    engine.close(opened)
    engine.drain()
    assert sorted(r2.bucket.contents().values()) == [b"ours", b"theirs"]


@pytest.mark.expect_warnings("parked")
def test_metadata_past_the_limit_is_refused_here(r2: StrictR2, make: MakeEngine):
    """What others stored with it fills the limit, and ours does not fit beside: nothing is sent, or lost."""
    r2.bucket.set("take.wav", b"theirs", comment="x" * 8180)
    engine = make()
    opened = engine.open("take.wav", os.O_RDWR)
    engine.fs.read(engine.caller, opened.handle, 0, 10)
    engine.fs.write(engine.caller, opened.handle, 0, b"ours")
    engine.close(opened)
    engine.drain()
    (transfer,) = engine.fs.queue_view().transfers
    assert transfer.state == "parked"
    assert "metadata" in (transfer.reason or "")
    assert r2.bucket.data("take.wav") == b"theirs"
    assert engine.read("take.wav") == b"oursrs"


def test_a_body_that_is_called_off_publishes_nothing(r2: StrictR2, store: RetryingStore):
    r2.bucket.set("a", b"old")  # not by a PUT: the next would have to wait for the key's second
    with pytest.raises(OSError, match="off"):
        store.put("a", BreakingBody(b"n" * 500_000, 200_000, lambda: OSError("called off")), META)
    assert r2.bucket.data("a") == b"old"


@pytest.mark.parametrize("conditions", [True, False], ids=["heeded", "ignored"])
@pytest.mark.expect_warnings("another host wrote it first")
def test_a_complete_never_takes_what_was_there_before_it(tmp_path: Path, conditions: bool):
    """Whether R2 heeds a condition on Complete or not."""
    with StrictR2(min_part=PART, conditions=conditions) as r2:
        store = open_store(r2.endpoint.settings(), SystemClock())
        engine = Engine(tmp_path, store, part_size=PART, multipart_threshold=PART)
        opened = engine.open("big.wav", os.O_WRONLY | os.O_CREAT)
        engine.fs.write(engine.caller, opened.handle, 0, b"m" * 3 * PART)
        r2.bucket.set("big.wav", b"theirs")
        engine.close(opened)
        engine.drain()
        (copy,) = engine.fs.queue_view().conflicts
        assert (r2.bucket.data("big.wav"), r2.bucket.data(copy)) == (b"theirs", b"m" * 3 * PART)
        engine.stop()
        store.close()
        assert r2.faults == []


# ------------------------------------------------------------------ copies as R2 has them
@pytest.fixture
def as_r2(r2: StrictR2, tmp_path: Path) -> Iterator[Engine]:
    """An engine that knows the double for R2; it has sent one file."""
    store = open_store(r2.endpoint.settings(), SystemClock(), Limits(min_part=PART, r2_copies=True))
    engine = Engine(tmp_path / "a", store, freshness_s=60.0)
    engine.write("take.wav", b"take")
    engine.drain()  # a change during the upload would leave an attempt to look for, which takes a HEAD
    engine.fs.setxattr(engine.caller, engine.entry("take.wav").ino, "user.colour", b"red", 0)
    engine.drain()
    r2.requests.clear()
    yield engine
    engine.end()
    store.close()


def chmod(engine: Engine, mode: int = 0o700) -> None:
    engine.fs.setattr(engine.caller, engine.entry("take.wav").ino, AttributeChange(mode=mode))
    engine.drain()


def test_only_an_endpoint_of_r2_is_taken_for_r2():
    for host, is_r2 in (
        ("https://acc.r2.cloudflarestorage.com", True),
        ("https://acc.eu.r2.cloudflarestorage.com", True),
        ("https://r2.cloudflarestorage.com.example.com", False),
        ("http://127.0.0.1:8787", False),
        (None, False),
    ):
        assert service_of(host).limits.r2_copies is is_r2


# ------------------------------------------------------------------ an edit in place of a file of four parts
EDITED: dict[str, Any] = {"part_size": PART, "multipart_threshold": PART, "part_threads": 1, "small_file": 0}


@contextmanager
def edited(r2: StrictR2, path: Path, limits: Limits) -> Iterator[tuple[Engine, bytes]]:
    """An engine that has one byte of the second part changed, and nothing sent of it."""
    data = os.urandom(4 * PART)
    etag = r2.bucket.set("long.wav", data)
    store = open_store(r2.endpoint.settings(), SystemClock(), limits)
    engine = Engine(path, store, upload_delay_s=60.0, freshness_s=60.0, **EDITED)
    assert engine.read("long.wav") == data
    until("digests", lambda: engine.cache.recall_parts(Version("long.wav", etag, len(data))))
    opened = engine.open("long.wav", os.O_RDWR)
    engine.fs.write(engine.caller, opened.handle, PART, b"!")
    engine.close(opened)
    r2.requests.clear()
    yield engine, data[:PART] + b"!" + data[PART + 1 :]
    engine.end()
    store.close()


@pytest.mark.parametrize(("conditional", "heads"), [(True, 1), (False, 3)])
def test_an_edit_in_place_costs_its_parts_and_three_requests(tmp_path: Path, conditional: bool, heads: int):
    """One HEAD is for metadata that another host may have changed alone. On other servers one more proves the version
    that all parts were copied from, and one stands for the condition."""
    with StrictR2(min_part=PART, conditions=conditional) as r2:
        limits = Limits(min_part=PART, conditional_complete=conditional)
        with edited(r2, tmp_path, limits) as (engine, want):
            engine.drain()
            assert r2.bucket.data("long.wav") == want
            assert r2.requests == {
                "head": heads,
                "create_upload": 1,
                "put_part": 1,
                "copy_part": 3,
                "complete": 1,
            }
        assert r2.faults == []


def test_where_parts_cannot_be_copied_all_are_sent(tmp_path: Path):
    """Google Cloud Storage has no UploadPartCopy: none is tried."""
    with StrictR2(min_part=PART) as r2:
        limits = Limits(min_part=PART, part_copies=False)
        with edited(r2, tmp_path, limits) as (engine, want):
            engine.drain()
            assert r2.bucket.data("long.wav") == want
            assert (r2.requests["put_part"], r2.requests["copy_part"]) == (4, 0)
        assert r2.faults == []


@pytest.mark.expect_warnings
@pytest.mark.parametrize("conditional", [True, False])
def test_parts_of_two_versions_are_never_one_object(tmp_path: Path, conditional: bool):
    with StrictR2(min_part=PART, conditions=conditional) as r2:
        limits = Limits(min_part=PART, conditional_complete=conditional)
        with edited(r2, tmp_path, limits) as (engine, want):
            theirs = b"t" * 4 * PART

            def replace(name: str, key: str) -> None:
                if name == "put_part":  # of the second part: the third and the fourth are copied after it
                    r2.bucket.set("long.wav", theirs)

            r2.bucket.before = replace
            engine.drain()
            (copy,) = engine.fs.queue_view().conflicts
            assert (r2.bucket.data("long.wav"), r2.bucket.data(copy)) == (theirs, want)


@pytest.mark.expect_warnings
def test_parts_of_a_base_that_was_replaced_are_sent(tmp_path: Path):
    """Of a file with a new name no condition tells: the HEAD after the last part does."""
    with StrictR2(min_part=PART, conditions=True) as r2:
        limits = Limits(min_part=PART, conditional_complete=True)
        with edited(r2, tmp_path, limits) as (engine, want):
            engine.rename("long.wav", "other.wav")
            theirs = b"t" * 4 * PART

            def replace(name: str, key: str) -> None:
                if name == "put_part" and r2.bucket.data("long.wav") != theirs:
                    r2.bucket.set("long.wav", theirs)

            r2.bucket.before = replace
            engine.drain()
            assert r2.bucket.contents() == {"long.wav": theirs, "other.wav": want}


def test_new_attributes_are_one_request(r2: StrictR2, as_r2: Engine):
    chmod(as_r2)
    touched = AttributeChange(mtime_ns=1_700_000_000_250_000_000)
    as_r2.fs.setattr(as_r2.caller, as_r2.entry("take.wav").ino, touched)
    as_r2.drain()
    as_r2.fs.setxattr(as_r2.caller, as_r2.entry("take.wav").ino, "user.take", b"7", 0)
    as_r2.drain()
    stored = r2.bucket.metadata("take.wav")
    assert (stored["mode"], stored["mtime"]) == ("0100700", "1700000000.250000000")
    assert r2.bucket.head("take.wav").content_type == "audio/wav"
    assert len([name for name in stored if name.endswith(("colour", "take"))]) == 2
    assert r2.requests["copy MERGE"] == r2.requests["copy"] == 3
    assert r2.requests["head"] == r2.requests["put"] == 0


def test_a_rename_is_one_copy_and_the_delete_of_the_old_name(r2: StrictR2, as_r2: Engine):
    as_r2.rename("take.wav", "best.wav")
    as_r2.drain()
    assert r2.bucket.contents() == {"best.wav": b"take"}
    assert (r2.requests["copy MERGE"], r2.requests["head"], r2.requests["delete"]) == (1, 1, 1)


def test_metadata_that_another_host_adds_at_the_same_moment_stay(r2: StrictR2, as_r2: Engine):
    r2.bucket.set_metadata("take.wav", **r2.bucket.metadata("take.wav"), theirs="kept")
    chmod(as_r2)
    assert r2.bucket.metadata("take.wav")["theirs"] == "kept"
    assert r2.requests["copy MERGE"] == 1


def test_what_is_removed_is_gone(r2: StrictR2, as_r2: Engine):
    """MERGE removes nothing: all metadata are sent, with a look at those that are there."""
    as_r2.fs.removexattr(as_r2.caller, as_r2.entry("take.wav").ino, "user.colour")
    as_r2.drain()
    assert not [name for name in r2.bucket.metadata("take.wav") if name.endswith("colour")]
    assert (r2.requests["copy MERGE"], r2.requests["copy REPLACE"]) == (0, 1)


def test_where_the_directive_is_refused_all_metadata_are_sent(r2: StrictR2, as_r2: Engine):
    r2.merges = False
    chmod(as_r2)
    assert r2.bucket.metadata("take.wav")["mode"] == "0100700"
    assert (r2.requests["copy MERGE"], r2.requests["copy REPLACE"]) == (0, 1)


@pytest.mark.expect_warnings("changed in the bucket while its attributes were changed here")
def test_new_attributes_are_not_given_to_another_hosts_bytes(r2: StrictR2, as_r2: Engine):
    r2.bucket.set("take.wav", b"theirs")
    chmod(as_r2)
    assert r2.bucket.contents() == {"take.wav": b"theirs"}
    assert "mode" not in r2.bucket.metadata("take.wav")
    assert as_r2.read("take.wav") == b"theirs", "shown at once"


def test_a_server_that_is_not_known_for_r2_is_asked_by_head(r2: StrictR2, make: MakeEngine):
    engine = make(freshness_s=60.0)
    engine.write("take.wav", b"take")
    engine.drain()
    r2.requests.clear()
    chmod(engine)
    assert (r2.requests["copy MERGE"], r2.requests["copy REPLACE"], r2.requests["head"]) == (0, 1, 2)


# ------------------------------------------------------------------ keys
def test_a_replaced_key_is_taken_up(r2: StrictR2):
    current = Credentials("old-id", "old-secret")
    r2.keys = {"old-id": None}
    settings = r2.endpoint.settings()
    settings = replace(settings, credentials=current)
    store = open_store(settings, SystemClock(), credentials=lambda: current)
    store.put("a", BytesBody(b"1"), META)
    r2.keys = {"new-id": "token"}
    with pytest.raises(BadCredentials):
        store.put("b", BytesBody(b"2"), META)  # nobody has told us of another
    current = Credentials("new-id", "new-secret", "token")
    threads = [threading.Thread(target=store.put, args=(f"c{n}", BytesBody(b"3"), META)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(r2.bucket.contents()) == 1 + 8
    store.close()


@pytest.mark.expect_warnings("cannot be read again")
def test_a_profile_is_read_again(r2: StrictR2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    file.write_text("[studio]\naws_access_key_id = old-id\naws_secret_access_key = old\n")
    r2.keys = {"old-id": None}
    settings = r2.endpoint.settings()
    settings = replace(settings, credentials=Credentials(profile="studio"))
    store = open_store(settings, SystemClock())
    store.put("a", BytesBody(b"1"), META)
    r2.keys = {"new-id": None}
    file.write_text("[other]\n")  # somebody is about to write it
    with pytest.raises(BadCredentials):
        store.head("a")
    file.write_text("[studio]\naws_access_key_id = new-id\naws_secret_access_key = new\n")
    assert store.head("a").size == 1
    store.close()


def test_a_bucket_that_was_refused_says_so_once(r2: StrictR2, store: RetryingStore):
    told: list[bool] = []
    store.health.tell = lambda view: told.append(view.answers)
    for there in (True, False, False, False, False, True, True):
        r2.there = there
        with suppress(Refused):
            store.list_page("")
        if not there:
            assert store.health.view().answers == (r2.refusals["NoSuchBucket"] < 3)
    assert told == [False, True]


# ------------------------------------------------------------------ what is noted of each request
@pytest.mark.parametrize("transport", ["auto", "boto3"])
def test_each_request_is_noted_with_its_key_and_its_answer(r2: StrictR2, transport: str) -> None:
    store = open_store(replace(r2.endpoint.settings(), transport=transport), SystemClock())
    try:
        etag = store.put("a/b.wav", BytesBody(b"x"), META)
        with store.get("a/b.wav") as download:
            b"".join(download.chunks())
        with pytest.raises(ObjectMissing):
            store.head("a/none.wav")
        store.copy(Version("a/b.wav", etag, 1), "c/d.wav")
        store.list_page("c/", delimiter="/")
        store.delete_many(["c/d.wav", "a/b.wav"])
    finally:
        store.close()
    noted = [(sent.verb, sent.key, sent.status) for sent in store.counter.recent()]
    assert [one for one in noted if not one[0].startswith("Head")] == [
        ("PutObject", "a/b.wav", 200), ("GetObject", "a/b.wav", 200), ("CopyObject", "c/d.wav", 200),
        ("ListObjectsV2", "c/", 200), ("DeleteObjects", "c/d.wav", 200),
    ]  # fmt: skip
    assert ("HeadObject", "a/none.wav", 404) in noted
    assert all(sent.took_s is not None for sent in store.counter.recent())
