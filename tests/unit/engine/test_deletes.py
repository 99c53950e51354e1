"""Deletes: what a flush waits for, what the bucket refuses for good, and what is said of either."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping

import pytest

from r2fs.engine.writeback.deletes import MANY
from r2fs.engine.writeback.queue import QUIET_S
from r2fs.model.errors import (
    BadCredentials,
    NoSpace,
    NotFound,
    NotImplementedThere,
    PermissionRefused,
    Refused,
    StoreError,
    Unavailable,
)
from tests.support.clocks import ManualClock
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore
from tests.unit.engine.test_outages import pump

LOCKED = "it is locked"


@pytest.fixture
def engine_settings() -> Mapping[str, object]:
    return {"upload_delay_s": 60.0}  # nothing goes before it is asked for


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r2fs.engine.writeback.deleter.REFUSED_AGAIN_S", 0.01)


def parked(engine: Engine) -> dict[str, str | None]:
    return {t.path: t.reason for t in engine.fs.queue_view().transfers if t.state == "parked"}


def send(engine: Engine, clock: ManualClock, seconds: float = 30.0) -> None:
    """What is due within so many seconds, by this thread."""
    end = clock.monotonic() + seconds
    with engine.hurried():
        while clock.monotonic() < end:
            pump(engine)
            due = engine.next_due_s()
            clock.advance(max(0.1, min(end, due if due is not None else end) - clock.monotonic()))


# ------------------------------------------------------------------ what a flush waits for
def held_back(store: MemoryStore, *names: str) -> threading.Event:
    """Requests of these names wait until the event is set."""
    go = threading.Event()

    def before(name: str, key: str) -> None:
        if name in names:
            assert go.wait(20)

    store.before = before
    return go


def as_it_is_when(engine: Engine, store: MemoryStore, path: str) -> list[str]:
    """The bucket's keys at the moment when a flush of `path` has returned."""
    assert engine.fs.flush_paths([path], 20.0)
    return store.keys()


@pytest.mark.parametrize("named", ["d", "d/a", "", "d/sub/.."])
def test_a_flush_of_a_path_waits_for_deletes_below_it(make: MakeEngine, store: MemoryStore, named: str):
    store.set("d/a", b"a")
    store.set("d/b", b"b")
    engine = make()
    engine.unlink("d/a")
    named = named.replace("d/sub/..", "d/")
    assert as_it_is_when(engine, store, named) == ["d/b"]


def test_a_flush_does_not_wait_for_deletes_elsewhere(make: MakeEngine, store: MemoryStore):
    for key in ("d/a", "dd/a", "e"):
        store.set(key, b"x")
    engine = make(threads=False)  # nothing is ever carried out
    engine.unlink("dd/a")
    engine.unlink("e")
    assert engine.fs.flush_paths(["d"], 0.0)
    assert not engine.fs.flush_paths(["dd"], 0.0)
    assert not engine.fs.flush_paths(["d", "e"], 0.0)


@pytest.mark.parametrize("named", ["there", "here"])
def test_a_flush_waits_for_both_halves_of_a_rename(make: MakeEngine, store: MemoryStore, named: str):
    for key in ("here/a", "here/b", "there/c"):
        store.set(key, key.encode())
    engine = make()
    engine.rename("here/a", "there/a")
    assert as_it_is_when(engine, store, named) == ["here/b", "there/a", "there/c"]


def test_a_flush_of_a_directory_that_was_removed_waits_for_its_end(make: MakeEngine, store: MemoryStore):
    store.set("d/a", b"a")
    store.set("d/", b"")
    engine = make()
    engine.unlink("d/a")
    engine.rmdir("d")
    assert as_it_is_when(engine, store, "d") == []
    assert engine.fs.flush_paths(["d"], 0.0), "it is as it should be, however often it is asked"
    with pytest.raises(NotFound):
        engine.fs.flush_paths(["never"], 0.0)
    assert engine.fs.parked_at(["never"]) == (), "asked after a flush: it may have gone meanwhile"


def test_a_flush_waits_for_what_was_removed_while_it_was_on_its_way(make: MakeEngine, store: MemoryStore):
    engine = make(upload_delay_s=0.0)
    engine.mkdir("d")
    engine.drain()
    go = held_back(store, "put")
    engine.write("d/a", b"a")
    while not engine.fs.queue_view().active:
        pass
    engine.unlink("d/a")
    threading.Timer(0.2, go.set).start()
    assert as_it_is_when(engine, store, "d") == ["d/"]


# ------------------------------------------------------------------ refused for good
@pytest.mark.expect_warnings("its delete is parked")
@pytest.mark.parametrize("count", [1, 3, 8])  # one by one by HEAD, and in a batch by LIST
def test_a_delete_that_is_refused_is_parked_and_the_others_are_done(
    make: MakeEngine, store: MemoryStore, count: int
):
    names = [f"{n}.wav" for n in range(count)]
    for name in names:
        store.set(name, name.encode())
    store.locked |= {"0.wav"}
    clock = ManualClock()
    engine = make(threads=False, clock=clock)
    for name in names:
        engine.unlink(name)
    engine.write("new.wav", b"goes meanwhile")
    send(engine, clock)
    assert store.keys() == ["0.wav", "new.wav"]
    view = engine.fs.queue_view()
    assert (view.files, view.deletes, view.parked) == (0, 1, 1)
    (transfer,) = view.transfers
    assert (transfer.path, transfer.verb, transfer.state) == ("0.wav", "delete", "parked")
    assert LOCKED in (transfer.reason or "")
    asked = store.count("delete") + store.count("delete_many")
    send(engine, clock, 4000.0)
    assert store.count("delete") + store.count("delete_many") == asked, "nobody asks for ever"
    assert engine.listdir() == ["0.wav", "new.wav"], "what the bucket has is shown again"


@pytest.mark.expect_warnings("its delete is parked")
def test_nobody_waits_for_a_parked_delete(make: MakeEngine, store: MemoryStore):
    store.set("d/locked", b"kept")
    store.locked |= {"d/locked"}
    engine = make()
    engine.unlink("d/locked")
    assert engine.fs.flush_paths([], 20.0)
    assert engine.fs.flush_paths(["d"], 0.0)
    assert [t.path for t in engine.fs.parked_at(["d"])] == ["d/locked"]
    assert [t.path for t in engine.fs.parked_at([])] == ["d/locked"]
    assert engine.listdir("d") == ["locked"]
    assert engine.read("d/locked") == b"kept"


@pytest.mark.expect_warnings("its delete is parked")
def test_a_parked_delete_goes_when_a_person_says_so_and_at_the_next_mount(
    make: MakeEngine, store: MemoryStore
):
    for key in ("d/a", "e/b"):
        store.set(key, b"x")
    store.locked |= {"d/a", "e/b"}
    engine = make()
    engine.unlink("d/a")
    engine.unlink("e/b")
    assert engine.fs.flush_paths([], 20.0)
    store.locked.clear()
    assert engine.fs.retry_parked(["d"]) == 1
    assert engine.fs.flush_paths([], 20.0)
    assert store.keys() == ["d/", "e/", "e/b"]
    assert engine.listdir("d") == []
    engine.stop()
    after = make()
    assert after.fs.flush_paths([], 20.0)
    assert store.keys() == ["d/", "e/"]


@pytest.mark.expect_warnings("its delete is parked")
def test_the_old_name_of_a_rename_that_may_not_go_is_parked(make: MakeEngine, store: MemoryStore):
    store.set("old.wav", b"take")
    store.locked |= {"old.wav"}
    engine = make()
    engine.rename("old.wav", "new.wav")
    assert engine.fs.flush_paths([], 20.0)
    assert parked(engine) == {"old.wav": f"old.wav: {LOCKED}"}
    assert engine.tree() == {"new.wav": b"take", "old.wav": b"take"}
    assert store.contents() == engine.tree()


@pytest.mark.expect_warnings("its delete is parked")
def test_a_directory_that_may_not_go_is_shown_again(make: MakeEngine, store: MemoryStore):
    store.set("d/", b"")
    store.set("e/", b"")
    store.set("e/locked", b"x")
    store.locked |= {"d/", "e/locked"}
    engine = make()
    engine.rmdir("d")
    engine.unlink("e/locked")
    engine.rmdir("e")
    assert engine.fs.flush_paths([], 20.0)
    assert engine.tree() == {"d/": None, "e/": None, "e/locked": b"x"}
    assert parked(engine) == {"d/": f"d/: {LOCKED}", "e/locked": f"e/locked: {LOCKED}"}


@pytest.mark.expect_warnings("its delete is parked")
def test_a_name_that_is_shown_again_and_used_is_not_deleted_any_more(make: MakeEngine, store: MemoryStore):
    for key in ("appended", "moved", "removed"):
        store.set(key, b"x")
    store.locked |= {"appended", "moved", "removed"}
    engine = make()
    for key in list(store.contents()):
        engine.unlink(key)
    assert engine.fs.flush_paths([], 20.0)
    store.locked.clear()
    engine.write("appended", b"y", os.O_WRONLY, at=1)
    engine.rename("moved", "elsewhere")
    engine.unlink("removed")
    assert engine.fs.queue_view().parked == 0
    engine.stop()
    after = make()  # where what is parked goes out once more
    assert after.fs.flush_paths([], 20.0)
    assert store.contents() == {"appended": b"xy", "elsewhere": b"x"}


@pytest.mark.expect_warnings("its delete is parked")
def test_a_late_upload_that_may_not_be_removed_is_parked_and_the_watch_ends(
    make: MakeEngine, store: MemoryStore
):
    clock = ManualClock()
    engine = make(threads=False, clock=clock, upload_delay_s=0.0)

    def lose_the_answer(name: str, key: str) -> None:
        raise Unavailable(f"{key}: no answer")

    store.after = lose_the_answer
    engine.write("take.wav", b"late")
    pump(engine)
    store.after = lambda name, key: None
    store.locked |= {"take.wav"}
    engine.unlink("take.wav")
    assert engine.fs.queue_view().watched == 1
    send(engine, clock, 900.0)
    view = engine.fs.queue_view()
    assert (view.watched, view.deletes, view.parked) == (0, 1, 1)
    assert store.count("delete") == 3
    assert engine.listdir() == ["take.wav"]
    store.locked.clear()
    assert engine.fs.retry_parked([]) == 1
    send(engine, clock)
    assert store.keys() == []


@pytest.mark.expect_warnings("its delete is parked")
def test_without_the_right_to_delete_each_is_parked_after_a_few_requests(
    make: MakeEngine, store: MemoryStore
):
    """The batch is refused as a whole, and so is each of it."""
    for number in range(100):
        store.set(f"{number:02}", b"x")

    def refuse(name: str, key: str) -> None:
        if name.startswith("delete"):
            raise PermissionRefused("no right")

    store.before = refuse
    clock = ManualClock()
    engine = make(threads=False, clock=clock)
    for name in engine.listdir():
        engine.unlink(name)
    send(engine, clock)
    assert engine.fs.queue_view().parked == 100
    assert len(engine.listdir()) == len(store.keys()) == 100
    assert store.count("delete") + store.count("delete_many") <= 12


def test_a_server_that_takes_no_batches_gets_one_delete_for_each(make: MakeEngine, store: MemoryStore):
    for number in range(20):
        store.set(f"{number:02}", b"x")

    def refuse(name: str, key: str) -> None:
        if name == "delete_many":
            raise NotImplementedThere("no batches")

    store.before = refuse
    engine = make()
    for name in engine.listdir():
        engine.unlink(name)
    assert engine.fs.flush_paths([], 20.0)
    assert store.keys() == []


@pytest.mark.parametrize("error", [Unavailable, BadCredentials])
def test_what_says_nothing_of_the_object_parks_nothing(
    make: MakeEngine, store: MemoryStore, error: type[StoreError]
):
    store.set("take.wav", b"x")

    def refuse(name: str, key: str) -> None:
        if name == "delete":
            raise error(f"{key}: no")

    store.before = refuse
    clock = ManualClock()
    engine = make(threads=False, clock=clock)
    engine.unlink("take.wav")
    send(engine, clock, 600.0)
    assert engine.fs.queue_view().parked == 0
    assert engine.listdir() == []
    store.before = lambda name, key: None
    send(engine, clock)
    assert store.keys() == []


# ------------------------------------------------------------------ a flush and a bucket that refuses
def refusing_puts(error: Callable[[str], StoreError]) -> Callable[[str, str], None]:
    def before(name: str, key: str) -> None:
        if name == "put":
            raise error(f"{key}: refused")

    return before


@pytest.mark.expect_warnings("not uploaded")
def test_a_flush_tells_at_once_that_the_bucket_refuses(make: MakeEngine, store: MemoryStore):
    store.before = refusing_puts(PermissionRefused)
    clock = ManualClock()
    engine = make(threads=False, clock=clock, upload_delay_s=0.0)
    engine.write("take.wav", b"kept")
    began = clock.monotonic()
    stepping(engine, clock)
    assert not engine.fs.flush_paths([], 3600.0)
    assert clock.monotonic() - began < 5.0
    assert str(engine.fs.refusal()) == "take.wav: refused"
    began, asked = clock.monotonic(), store.count("put")
    assert not engine.fs.flush_paths([], 3600.0)
    assert store.count("put") == asked + 1, "it is asked again: the cause may be mended"
    assert clock.monotonic() - began < 1.0
    store.before = lambda name, key: None
    assert engine.fs.flush_paths([], 3600.0)
    assert engine.fs.refusal() is None


def stepping(engine: Engine, clock: ManualClock) -> None:
    """Who waits for a change does what is due, and lets a moment pass."""

    def step() -> None:
        pump(engine)
        clock.advance(0.05)

    engine.on_wait_for_change(step)


@pytest.mark.expect_warnings("parked")
def test_what_is_parked_is_told_for_the_paths_that_are_asked_for(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
):
    """However much else there is: a view shows the first hundred alone."""
    monkeypatch.setattr("r2fs.engine.writeback.progress.SHOWN", 3)
    engine = make()
    engine.mkdir("d")
    engine.drain()
    store.before = refusing_puts(Refused)
    for number in range(5):
        engine.write(f"{number}", b"x")
    engine.write("d/last", b"x")
    assert engine.fs.flush_paths(["d"], 20.0)
    assert [t.path for t in engine.fs.parked_at(["d"])] == ["d/last"]
    assert engine.fs.flush_paths([], 20.0)
    assert len(engine.fs.parked_at([])) == 6


# ------------------------------------------------------------------ the last error
@pytest.mark.expect_warnings("not uploaded")
def test_the_last_error_has_a_time_and_goes_with_its_cause(make: MakeEngine, store: MemoryStore):
    clock = ManualClock()
    engine = make(threads=False, clock=clock, upload_delay_s=0.0)
    store.before = refusing_puts(Unavailable)
    engine.write("a.wav", b"x")
    engine.write("b.wav", b"x")
    pump(engine)
    view = engine.fs.queue_view()
    assert (view.last_error_at_s, view.failed) == (clock.time(), 2)  # claimed together
    assert view.last_error is not None
    path = view.last_error.partition(":")[0]
    store.before = lambda name, key: None
    engine.unlink(path)
    assert engine.fs.queue_view().last_error is None
    send(engine, clock)
    assert engine.fs.queue_view().last_error is None


def test_a_watch_is_no_owed_delete(make: MakeEngine, store: MemoryStore, caplog: pytest.LogCaptureFixture):
    clock = ManualClock()
    engine = make(threads=False, clock=clock, upload_delay_s=0.0)

    def lose_the_answer(name: str, key: str) -> None:
        raise Unavailable(f"{key}: no answer")

    store.after = lose_the_answer
    engine.write("take-9.wav", b"fine")
    pump(engine)
    store.after = lambda name, key: None
    engine.rename("take-9.wav", "take.wav")
    engine.kill()
    with caplog.at_level("INFO", "r2fs"):
        after = make(threads=False, clock=clock)
        store.before = lambda name, key: lose_the_answer(name, key)
        send(after, clock)
    said = [record.getMessage() for record in caplog.records]
    assert any("a late upload is looked for" in line for line in said)
    assert "still to be sent, of an earlier mount: 1 file (4 B)" in said
    assert "watching for a late upload of an earlier mount at 1 key" in said
    assert not any("delet" in line for line in said), said
    view = after.fs.queue_view()
    assert (view.files, view.deletes, view.watched) == (1, 0, 1)


def test_a_delete_of_the_version_that_an_upload_replaced_ends_with_the_upload(
    make: MakeEngine, store: MemoryStore
):
    """As added where a late attempt of another inode is found at the key during the request (tests/crash, 4b0843f4)."""
    clock = ManualClock()
    engine = make(threads=False, clock=clock, upload_delay_s=0.0)
    engine.write("a.wav", b"old")
    send(engine, clock)
    base = engine.node("a.wav").base
    assert base is not None

    def found(name: str, key: str) -> None:
        if name == "put":
            with engine.lock:
                engine.pending_store.deletes.add("a.wav", base.etag)

    store.before = found
    engine.write("a.wav", b"new")
    send(engine, clock)
    assert engine.deletes() == []
    assert store.data("a.wav") == b"new"


def test_a_row_with_a_later_number_is_as_parked_as_before_and_a_full_disk_changes_nothing(make: MakeEngine):
    engine = make(threads=False)
    deletes = engine.pending_store.deletes
    with engine.lock:
        row = deletes.add("d/a.wav", "0" * 32)
        deletes.park(row.seq, LOCKED)
        with pytest.raises(NoSpace), engine.pending_store.transaction:
            deletes.renumber(row)
            raise NoSpace("the disk is full")
        assert (dict(deletes.rows), list(deletes.parked)) == ({row.seq: row}, [row.seq])
        latest = deletes.renumber(row)
        assert latest == row._replace(seq=latest.seq) and latest.seq > row.seq
        assert (dict(deletes.rows), list(deletes.parked)) == ({latest.seq: latest}, [latest.seq])
        assert not deletes.any_below("d/", 0)
    assert list(engine.journal.read().deletes) == [latest]


# ------------------------------------------------------------------ sent together
@pytest.mark.parametrize(("names", "waits"), [(MANY - 1, True), (MANY, False), (3 * MANY, False)])
def test_many_names_go_at_the_first_pause(make: MakeEngine, store: MemoryStore, names: int, waits: bool):
    for number in range(names):
        store.set(f"{number:03}", b"x")
    clock = ManualClock()
    engine = make(threads=False, clock=clock, upload_delay_s=60.0, freshness_s=600.0)
    engine.listdir()
    store.calls.clear()
    for number in range(names):
        engine.unlink(f"{number:03}")
        pump(engine)
        clock.advance(QUIET_S / 4)
    assert not store.count("delete_many"), "the program has not paused"
    clock.advance(QUIET_S)
    pump(engine)
    assert store.count("delete_many") == (not waits)
    clock.advance(60.0)
    pump(engine)
    assert (store.count("delete_many"), store.count("list")) == (1, 1)
    assert not store.keys()


@pytest.mark.parametrize(("names", "requests"), [(12, 1), (40, 2)])
def test_names_removed_one_after_another_go_once_the_program_pauses_or_after_twice_the_delay(
    make: MakeEngine, store: MemoryStore, names: int, requests: int
):
    for number in range(names):
        store.set(f"{number:02}", b"x")
    clock = ManualClock()
    engine = make(threads=False, clock=clock, upload_delay_s=0.5, freshness_s=60.0)
    engine.listdir()
    for number in range(names):
        engine.unlink(f"{number:02}")
        pump(engine)
        clock.advance(QUIET_S / 2)
    assert store.count("delete_many") == requests - 1
    clock.advance(QUIET_S)
    pump(engine)
    assert store.count("delete_many") == requests
    assert not store.keys()
