"""A bucket that is away, refuses, or has no room; and copies that conflicts left: on the engine alone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r2fs.disk import filecalls
from r2fs.engine.writeback import plan as plan_module
from r2fs.model.errors import (
    BadCredentials,
    BucketMissing,
    ClockSkewed,
    PermissionRefused,
    QuotaUsedUp,
    R2fsError,
    ReadFailed,
    Refused,
    Unavailable,
)
from r2fs.model.keys import conflict_name, is_conflict_name
from tests.support.clocks import ManualClock
from tests.support.engine import Engine, MakeEngine, do_at_once
from tests.support.memory_store import MemoryStore


def pump(engine: Engine) -> None:
    """Uploads and deletes that are due, of an engine without threads."""
    engine.run_due()


def refusing(error: type[R2fsError], verb: str = "put") -> Callable[[str, str], None]:
    def refuse(name: str, key: str) -> None:
        if name == verb:
            raise error(f"{key}: no")

    return refuse


# ------------------------------------------------------------------ a bucket that does not answer
@pytest.fixture
def stalling(store: MemoryStore) -> Iterator[threading.Event]:
    """While it is not set, requests hang."""
    going = threading.Event()
    going.set()

    def wait(name: str, key: str) -> None:
        assert going.wait(60)

    store.before = wait
    yield going
    going.set()


def test_what_is_known_is_shown_while_the_bucket_is_silent(
    make: MakeEngine, store: MemoryStore, stalling: threading.Event, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("r2fs.engine.namespace.waits.NEWS_WAIT_S", 0.3)
    monkeypatch.setattr("r2fs.engine.namespace.freshness.STALE_RETRY_S", 0.05)
    store.set("dir/old.wav", b"old")
    engine = make(read_timeout_s=60.0)
    assert engine.listdir("dir") == ["old.wav"]
    stalling.clear()
    store.set("dir/new.wav", b"new")
    begun = time.monotonic()
    assert engine.listdir("dir") == ["old.wav"]
    assert 0.3 <= time.monotonic() - begun < 30
    asked = store.count("list")
    for _ in range(20):  # from now on nobody waits, and no more than one request each hangs
        assert engine.listdir("dir") == ["old.wav"]
    assert store.count("list") - asked <= 2  # of the root and of the directory
    assert engine.freshness.outages.at(engine.inodes.root)
    stalling.set()
    end = time.monotonic() + 30
    while engine.listdir("dir") != ["new.wav", "old.wav"]:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not engine.freshness.outages.at(engine.inodes.root)


def test_an_outage_ends_by_an_answer_and_not_by_what_is_shown_meanwhile(make: MakeEngine, store: MemoryStore):
    store.set("dir/old.wav", b"old")
    clock = ManualClock()
    engine = make(clock=clock, threads=False, freshness_s=10.0)
    assert engine.listdir("dir") == ["old.wav"]
    store.before = refusing(Unavailable, "list")
    for _ in range(3):
        clock.advance(11.0)
        asked = store.count("list")
        assert engine.listdir("dir") == ["old.wav"]
        assert store.count("list") > asked
        assert engine.freshness.outages.at(engine.inodes.root)
    store.before = lambda name, key: None
    clock.advance(11.0)
    engine.listdir("dir")
    assert not engine.freshness.outages.at(engine.inodes.root)


def test_what_is_not_known_is_an_error_in_time(
    make: MakeEngine, store: MemoryStore, stalling: threading.Event
):
    store.set("dir/old.wav", b"old")
    engine = make(read_timeout_s=0.3)
    assert engine.listdir() == ["dir"]
    stalling.clear()
    begun = time.monotonic()
    with pytest.raises(ReadFailed, match="dir"):
        engine.listdir("dir")
    assert time.monotonic() - begun < 30


def test_pages_that_come_one_by_one_are_waited_for(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
):
    """A listing that takes long, but moves, is no outage."""
    for number in range(5001):
        store.set(f"{number:04}", b"x")
    engine = make(freshness_s=0.0)
    assert len(engine.listdir()) == 5001
    monkeypatch.setattr("r2fs.engine.namespace.waits.NEWS_WAIT_S", 1.0)
    store.before = lambda name, key: time.sleep(0.2)  # all pages together take longer than is waited for one
    store.set("zzz", b"new")
    assert engine.listdir()[-1] == "zzz"


@pytest.mark.expect_warnings("not uploaded")
@pytest.mark.parametrize("error", [BadCredentials, PermissionRefused, BucketMissing, ClockSkewed])
def test_what_is_cached_can_be_used_while_everything_is_refused(
    make: MakeEngine, store: MemoryStore, error: type[Refused]
):
    store.set("here.wav", b"cached")
    clock = ManualClock()
    engine = make(threads=False, clock=clock)
    do_at_once(engine.downloads)
    assert engine.read("here.wav") == b"cached"

    def refuse(name: str, key: str) -> None:
        raise error(f"{key}: no")

    store.before = refuse
    assert engine.listdir() == ["here.wav"]
    assert engine.read("here.wav") == b"cached"
    engine.write("new.wav", b"kept")
    pump(engine)
    view = engine.fs.queue_view()
    assert (view.files, view.parked) == (1, 0)
    assert "no" in (view.transfers[0].reason or "")
    store.before = lambda name, key: None
    clock.advance(16)  # nothing is tried less often, however long it lasted
    pump(engine)
    assert store.data("new.wav") == b"kept"


# ------------------------------------------------------------------ parked files, and the end of the cause
@pytest.mark.expect_warnings("parked")
def test_a_full_bucket_is_tried_again_ever_more_seldom(make: MakeEngine, store: MemoryStore):
    clock = ManualClock()
    engine = make(threads=False, clock=clock)
    store.before = refusing(QuotaUsedUp)
    engine.write("a.wav", b"kept")
    pump(engine)
    waits = []
    for _ in range(8):
        due = engine.next_due_s()
        assert due is not None
        assert engine.fs.queue_view().parked == 1
        waits.append(due - clock.monotonic())
        clock.advance(waits[-1])
        pump(engine)
    assert store.count("put") == 9
    assert 45 <= waits[0] <= 60
    assert 2700 <= waits[-1] <= 3600
    store.before = lambda name, key: None
    clock.advance(3600)
    pump(engine)
    assert store.data("a.wav") == b"kept"
    assert engine.fs.queue_view().files == 0


@pytest.mark.expect_warnings("parked", "not uploaded")
def test_a_file_that_alone_may_not_be_written_is_parked(make: MakeEngine, store: MemoryStore):
    """Everything else is written: it is no outage, and nobody asks for ever."""

    def refuse(name: str, key: str) -> None:
        if name == "put" and key == "locked.wav":
            raise PermissionRefused(f"{key}: no")

    store.before = refuse
    clock = ManualClock()
    engine = make(threads=False, clock=clock)
    engine.write("locked.wav", b"kept")
    for number in range(10):
        pump(engine)
        assert engine.fs.queue_view().parked == 0 or number >= 3
        engine.write(f"{number}.wav", b"sent")
        clock.advance(16)
    pump(engine)
    view = engine.fs.queue_view()
    assert (view.files, view.parked) == (1, 1)
    assert len(store.contents()) == 10
    assert engine.read("locked.wav") == b"kept"


@pytest.mark.expect_warnings("parked")
def test_a_person_sends_a_parked_file_once_more(make: MakeEngine, store: MemoryStore):
    store.before = refusing(Refused)
    engine = make()
    engine.mkdir("d")
    engine.write("d/a.wav", b"a")
    engine.write("b.wav", b"b")
    engine.drain()
    assert engine.fs.queue_view().parked == 2 + 1  # the directory's marker, too
    store.before = lambda name, key: None
    engine.drain()
    assert store.keys() == []
    assert engine.fs.retry_parked(["d"]) == 2
    engine.drain()
    assert store.keys() == ["d/", "d/a.wav"]
    assert engine.fs.retry_parked([]) == 1
    engine.drain()
    assert store.data("b.wav") == b"b"


@pytest.mark.expect_warnings("parked")
def test_a_parked_file_goes_out_at_the_next_mount(make: MakeEngine, store: MemoryStore):
    store.before = refusing(Refused)
    engine = make()
    engine.write("a.wav", b"kept")
    engine.drain()
    engine.stop()
    store.before = lambda name, key: None
    make().drain()
    assert store.data("a.wav") == b"kept"


@pytest.mark.expect_warnings("may be torn")
def test_what_may_be_torn_goes_out_only_by_its_name(
    make: MakeEngine, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    engine = make(threads=False)
    engine.write("take.wav", b"perhaps torn")
    engine.kill()
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("another-boot\n")
    monkeypatch.setattr(filecalls, "BOOT_ID", boot_id)
    after = make(threads=False)
    assert after.fs.retry_parked([]) == 0
    after.stop()
    last = make()  # a second mount changes nothing
    last.drain()
    assert store.keys() == []
    assert last.fs.retry_parked(["take.wav"]) == 1
    last.drain()
    assert store.data("take.wav") == b"perhaps torn"


@pytest.mark.expect_warnings("parked")
def test_a_parked_file_that_was_opened_and_not_changed_is_still_tried_again(
    make: MakeEngine, store: MemoryStore
):
    clock = ManualClock()
    engine = make(threads=False, clock=clock)
    store.before = refusing(QuotaUsedUp)
    engine.write("a.wav", b"kept")
    pump(engine)
    opened = engine.open("a.wav", os.O_RDWR)
    clock.advance(100)
    pump(engine)
    engine.close(opened)
    assert engine.fs.queue_view().parked == 1
    store.before = lambda name, key: None
    clock.advance(3600)
    pump(engine)
    assert store.data("a.wav") == b"kept"


# ------------------------------------------------------------------ what conflicts left
def conflicted(make: MakeEngine, store: MemoryStore) -> tuple[Engine, str]:
    """An engine that lost a race, and the name of its copy."""
    engine = make(freshness_s=0.0)
    opened = engine.open("take.wav", os.O_WRONLY | os.O_CREAT)
    engine.fs.write(engine.caller, opened.handle, 0, b"ours")
    store.set("take.wav", b"theirs")
    engine.close(opened)
    engine.drain()
    (copy,) = engine.fs.queue_view().conflicts
    assert store.data(copy) == b"ours"
    return engine, copy


@pytest.mark.expect_warnings("another host wrote it first")
@pytest.mark.parametrize("resolution", ["delete the copy", "take the copy", "another name", "elsewhere"])
def test_a_conflict_is_resolved_by_ordinary_commands(make: MakeEngine, store: MemoryStore, resolution: str):
    engine, copy = conflicted(make, store)
    if resolution == "delete the copy":
        engine.unlink(copy)
        wanted = {"take.wav": b"theirs"}
    elif resolution == "take the copy":
        engine.rename(copy, "take.wav")
        wanted = {"take.wav": b"ours"}
    elif resolution == "another name":
        engine.rename(copy, "take two.wav")
        wanted = {"take.wav": b"theirs", "take two.wav": b"ours"}
    else:  # another client: seen with the next listing
        store.remove(copy)
        wanted = {"take.wav": b"theirs"}
        engine.listdir()
    assert engine.fs.queue_view().conflicts == ()
    engine.drain()
    assert store.contents() == wanted


@pytest.mark.expect_warnings("another host wrote it first")
def test_conflicts_are_shown_on_every_host_and_after_a_restart(make: MakeEngine, store: MemoryStore):
    engine, copy = conflicted(make, store)
    other = make("b")
    other.listdir()
    assert other.fs.queue_view().conflicts == (copy,)
    engine.stop()
    again = make()
    again.listdir()
    assert again.fs.queue_view().conflicts == (copy,)
    again.mkdir("d")
    again.rename(copy, f"d/{copy}")
    again.rename("d", "e")
    assert again.fs.queue_view().conflicts == (f"e/{copy}",)


@pytest.mark.expect_warnings("another host wrote it first")
def test_a_conflict_name_that_is_taken_is_numbered_and_not_nested(make: MakeEngine, store: MemoryStore):
    engine = make(freshness_s=60.0, upload_delay_s=60.0)
    today = conflict_name("take.wav", "studio", time.time())
    engine.write("take.wav", b"ours")
    store.set("take.wav", b"theirs")
    store.set(today, b"of another host that has the same name")
    engine.drain()
    second = conflict_name("take.wav", "studio", time.time(), 2)
    assert store.contents() == {
        "take.wav": b"theirs",
        today: b"of another host that has the same name",
        second: b"ours",
    }
    assert set(engine.fs.queue_view().conflicts) == {today, second}


@pytest.mark.expect_warnings("another host wrote it first")
def test_a_copy_that_got_a_name_of_its_own_is_called_after_it(make: MakeEngine, store: MemoryStore):
    engine = make(threads=False, upload_delay_s=0.0, freshness_s=60.0)
    engine.write("take.wav", b"ours")
    store.set("take.wav", b"theirs")
    engine.run_one_due()
    (first,) = engine.fs.queue_view().conflicts
    engine.rename(first, "mix.wav")
    store.set("mix.wav", b"theirs, too")
    pump(engine)
    copy = conflict_name("mix.wav", "studio", time.time())
    assert store.contents() == {"take.wav": b"theirs", "mix.wav": b"theirs, too", copy: b"ours"}


def test_two_hosts_save_by_the_same_temporary_name(make: MakeEngine, store: MemoryStore):
    """It is taken, and renamed here before that is known: then nobody contests the name that it has."""
    engine = make(threads=False, upload_delay_s=0.0, freshness_s=60.0)
    engine.write("take.wav.tmp", b"ours")
    store.set("take.wav.tmp", b"theirs")
    renamed: list[str] = []

    def rename(name: str, key: str) -> None:
        if name == "head" and not renamed:
            renamed.append(key)
            engine.rename("take.wav.tmp", "take.wav")

    store.before = rename
    pump(engine)
    assert renamed == ["take.wav.tmp"]
    assert engine.read("take.wav") == b"ours"
    assert store.contents() == {"take.wav": b"ours", "take.wav.tmp": b"theirs"}
    assert engine.fs.queue_view().conflicts == ()


@pytest.mark.parametrize(
    "name", ["take.wav", "take", ".hidden", "x" * 255, "ü.flac", "a.b.c", "a." + "x" * 40]
)
def test_conflict_names_are_known_as_such(name: str):
    assert is_conflict_name(conflict_name(name, "Ann's laptop (old)", time.time()))
    assert is_conflict_name(conflict_name(name, "studio", time.time(), 12))
    assert not is_conflict_name(name)
    assert not is_conflict_name("a note (conflict of interest).txt")


def test_an_outage_of_uploads_alone_is_no_outage_of_listings(make: MakeEngine, store: MemoryStore):
    def refuse(name: str, key: str) -> None:
        if name == "put":
            raise Unavailable("no")

    store.before = refuse
    engine = make(threads=False)
    engine.write("a.wav", b"x")
    pump(engine)
    store.set("b.wav", b"y")
    assert engine.listdir() == ["a.wav", "b.wav"]


@pytest.mark.expect_warnings("could not be prepared", "not sent yet")
def test_a_defect_while_an_upload_is_prepared_ends_no_thread(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(upload_threads=1)
    failures = [RuntimeError("a defect")]
    decide = plan_module.plan

    def fail_once(*about: Any) -> object:
        if failures:
            raise failures.pop()
        return decide(*about)

    monkeypatch.setattr(plan_module, "plan", fail_once)
    engine.write("take.wav", b"take")
    engine.drain()
    assert store.data("take.wav") == b"take"
