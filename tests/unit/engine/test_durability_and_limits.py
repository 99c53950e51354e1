"""SEMANTICS.md, row by row, on the engine: what a power cut, a full limit or a refusing bucket leave."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from r2fs.disk import filecalls
from r2fs.engine.writeback.preparation import CLOSED_S
from r2fs.engine.writeback.queue import BURST_S, GIVE_WAY_S, QUIET_S
from r2fs.model.errors import DirectoryNotEmpty, NoSpace, NotFound, ReadFailed, Refused, Unavailable
from r2fs.model.keys import conflict_name
from tests.support.clocks import ManualClock
from tests.support.engine import MakeEngine
from tests.support.memory_store import MemoryStore


def another_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has started anew since: what was not synced may be torn."""
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("another-boot\n")
    monkeypatch.setattr(filecalls, "BOOT_ID", boot_id)


def away(name: str, key: str) -> None:
    raise Unavailable(f"{key}: no answer")


# ------------------------------------------------------------------ power cuts
def test_what_was_synced_goes_out_after_a_power_cut(
    make: MakeEngine, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    engine = make(threads=False)
    opened = engine.open("take.wav", os.O_WRONLY | os.O_CREAT)
    engine.fs.write(engine.caller, opened.handle, 0, b"synced")
    engine.fs.fsync(engine.caller, opened.handle, False)
    engine.close(opened)
    engine.kill()
    another_boot(tmp_path, monkeypatch)
    make().drain()
    assert store.data("take.wav") == b"synced"


@pytest.mark.expect_warnings("may be torn")
@pytest.mark.parametrize("killed_before", [False, True])
def test_what_was_still_open_at_a_power_cut_is_kept_and_not_sent(
    make: MakeEngine, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_before: bool
):
    """What was written after the fsync may be on the disk in part; nothing tells whether there was any."""
    store.set("take.wav", b"good")
    engine = make(upload_delay_s=3600.0, upload_deadline_s=3600.0)
    opened = engine.open("take.wav", os.O_RDWR)
    engine.fs.write(engine.caller, opened.handle, 0, b"synced, and then")
    engine.fs.fsync(engine.caller, opened.handle, False)
    engine.kill()
    if killed_before:
        make(threads=False).kill()
    another_boot(tmp_path, monkeypatch)
    after = make()
    after.drain()
    assert store.data("take.wav") == b"good"
    assert [t.state for t in after.fs.queue_view().transfers] == ["parked"]
    assert after.read("take.wav") == b"synced, and then"


@pytest.mark.expect_warnings("may be torn")
def test_what_was_not_synced_is_set_aside_after_a_power_cut(
    make: MakeEngine, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store.set("take.wav", b"good")
    engine = make(threads=False)
    engine.write("take.wav", b"perhaps torn")
    engine.kill()
    another_boot(tmp_path, monkeypatch)
    after = make()
    after.drain()
    assert store.data("take.wav") == b"good"
    (transfer,) = after.fs.queue_view().transfers
    assert (transfer.path, transfer.state) == ("take.wav", "parked")
    assert transfer.reason is not None
    assert "may be torn" in transfer.reason
    assert after.read("take.wav") == b"perhaps torn"


@pytest.mark.expect_warnings("never reached the disk")
def test_an_edit_that_never_reached_the_disk_leaves_what_was_renamed(
    make: MakeEngine, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And its old name is not deleted before the new one has the bytes."""
    store.set("old.wav", b"the good take")
    engine = make(upload_delay_s=3600.0, upload_deadline_s=3600.0)
    engine.rename("old.wav", "new.wav")
    engine.write("new.wav", b"lost edit of", os.O_RDWR)
    (staged,) = filter(None, map(engine.staged_path, engine.pending_nodes()))
    engine.kill()
    staged.unlink()  # its name was not on the disk yet
    another_boot(tmp_path, monkeypatch)
    after = make()
    assert after.read("new.wav") == b"the good take"
    after.drain()
    assert store.keys() == ["new.wav"]
    assert store.data("new.wav") == b"the good take"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_copy_is_on_the_disk_before_its_source_goes(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, replaced: bool
):
    """Else a power cut leaves a rename that is still owed, and nothing, or something else, to take it from."""
    store.set("old.wav", b"the good take")
    store.set("other.wav", b"")
    engine = make(upload_delay_s=0.0)
    engine.unlink("other.wav")
    engine.drain()  # an engine's first request of that kind always waits for the disk
    done: list[tuple[str, str]] = []
    store.before = lambda name, key: done.append((name, key))
    barrier = engine.journal.barrier
    monkeypatch.setattr(engine.journal, "barrier", lambda: (done.append(("barrier", "")), barrier()))
    engine.rename("old.wav", "new.wav")
    if replaced:
        engine.write("old.wav", b"another take")
    engine.drain()
    assert store.data("new.wav") == b"the good take"
    gone = done.index(("put", "old.wav") if replaced else ("delete", "old.wav"))
    assert ("barrier", "") in done[done.index(("copy", "new.wav")) : gone]


def test_after_kill_9_alone_nothing_is_torn(make: MakeEngine, store: MemoryStore):
    engine = make(threads=False)
    engine.write("take.wav", b"written and closed")
    engine.kill()
    make().drain()
    assert store.data("take.wav") == b"written and closed"


# ------------------------------------------------------------------ limits and refusals
@pytest.mark.expect_warnings("made to wait")
def test_past_the_dirty_limit_writers_wait_then_get_no_space(make: MakeEngine, store: MemoryStore):
    store.before = lambda name, key: away(name, key) if name == "put" else None
    engine = make(dirty_limit=1000, dirty_wait_s=0.2)
    engine.write("a.wav", b"x" * 2000)
    begun = time.monotonic()
    with pytest.raises(NoSpace, match="dirty_limit"):
        engine.write("b.wav", b"y")
    assert time.monotonic() - begun >= 0.2
    assert engine.read("a.wav") == b"x" * 2000
    store.before = lambda name, key: None
    engine.drain()
    engine.write("b.wav", b"y")
    engine.drain()
    assert store.keys() == ["a.wav", "b.wav"]


def test_a_file_that_is_still_held_for_writing_is_sent_soon_after(make: MakeEngine, store: MemoryStore):
    """The kernel drops its own descriptor a moment after close(); a mapping stays, and is not looked at all the time."""
    clock = ManualClock()
    engine = make(threads=False, clock=clock, upload_delay_s=0.0)
    engine.write("a.wav", b"take")
    [staged] = [path for path in engine.staged_files() if path.stat().st_size == 4]
    held = os.open(staged, os.O_WRONLY)
    engine.run_due()
    os.close(held)
    clock.advance(2 * CLOSED_S)
    engine.run_due()
    assert store.data("a.wav") == b"take"

    engine.write("a.wav", b"take 2")
    [staged] = [path for path in engine.staged_files() if path.stat().st_size == 6]
    held, looks, end_s = os.open(staged, os.O_WRONLY), 0, clock.monotonic() + 10.0
    while clock.monotonic() < end_s:
        engine.run_due()
        looks += 1
        due_s = engine.next_due_s()
        assert due_s is not None
        clock.advance(due_s - clock.monotonic())
    os.close(held)
    assert looks <= 10 + 10, "at twice the time each, then each second"
    assert store.data("a.wav") == b"take"


@pytest.mark.expect_warnings("parked")
def test_a_refused_file_is_parked_and_the_others_go_on(make: MakeEngine, store: MemoryStore):
    def refuse(name: str, key: str) -> None:
        if name == "put" and key == "bad.wav":
            raise Refused(f"{key}: the bucket does not take this name")

    store.before = refuse
    engine = make()
    engine.write("bad.wav", b"kept")
    engine.write("good.wav", b"sent")
    engine.drain()
    view = engine.fs.queue_view()
    assert (view.files, view.parked) == (1, 1)
    assert view.transfers[0].reason is not None
    assert "does not take this name" in view.transfers[0].reason
    assert store.keys() == ["good.wav"]
    assert engine.read("bad.wav") == b"kept"
    store.before = lambda name, key: None
    engine.write("bad.wav", b"written anew")
    engine.drain()
    assert store.data("bad.wav") == b"written anew"


# ------------------------------------------------------------------ a bucket that is away
@pytest.mark.expect_warnings("could not be read")
def test_a_bucket_that_is_away(make: MakeEngine, store: MemoryStore):
    store.set("here.wav", b"cached")
    store.set("there.wav", b"not cached" * 1000)
    engine = make(freshness_s=0.0, read_timeout_s=1.0)
    assert engine.read("here.wav") == b"cached"
    store.before = away
    assert engine.listdir() == ["here.wav", "there.wav"]
    assert engine.read("here.wav") == b"cached"
    with pytest.raises(ReadFailed):
        engine.read("there.wav")
    engine.write("new.wav", b"queued")
    store.before = lambda name, key: None
    engine.drain()
    assert store.data("new.wav") == b"queued"
    assert len(engine.read("there.wav")) == 10_000


def test_what_another_host_does_is_seen_when_the_listing_is_older_than_freshness(
    make: MakeEngine, store: MemoryStore
):
    store.set("old.wav", b"1")
    engine = make(freshness_s=0.3)
    assert engine.listdir() == ["old.wav"]
    store.set("new.wav", b"2")
    store.remove("old.wav")
    end = time.monotonic() + 5
    while engine.listdir() != ["new.wav"]:
        assert time.monotonic() < end
        time.sleep(0.02)
    with pytest.raises(NotFound):
        engine.read("old.wav")


def test_a_temporary_file_that_is_deleted_before_its_turn_costs_nothing(make: MakeEngine, store: MemoryStore):
    engine = make(upload_delay_s=60.0)
    engine.write("render.tmp", b"x")
    engine.unlink("render.tmp")
    engine.drain()
    assert [name for name, _ in store.calls if name not in ("list", "check")] == []


# ------------------------------------------------------------------ names
@pytest.mark.parametrize("key", ["dir//b", "dir/../b", "dir/./b", "dir/" + "x" * 256, "dir/a\0b"])
def test_keys_that_cannot_be_names_are_hidden_and_harm_nothing(
    make: MakeEngine, store: MemoryStore, key: str
):
    store.set(key, b"odd")
    store.set("dir/fine.wav", b"fine")
    engine = make()
    assert engine.listdir("dir") == ["fine.wav"]
    assert engine.fs.queue_view().hidden == 1
    assert engine.read("dir/fine.wav") == b"fine"
    engine.unlink("dir/fine.wav")
    with pytest.raises(DirectoryNotEmpty):
        engine.rmdir("dir")
    engine.drain()
    assert store.data(key) == b"odd"


def test_beside_a_directory_the_object_of_its_name_is_hidden(make: MakeEngine, store: MemoryStore):
    store.set("foo", b"object")
    store.set("foo/bar", b"below")
    engine = make()
    assert engine.tree() == {"foo/": None, "foo/bar": b"below"}


def test_two_spellings_are_one_file(make: MakeEngine, store: MemoryStore):
    store.set("Pa\u0308d.wav", b"decomposed")
    engine = make()
    assert engine.listdir() == ["P\u00e4d.wav"]
    assert engine.read("Pa\u0308d.wav") == engine.read("P\u00e4d.wav") == b"decomposed"
    engine.write("P\u00e4d.wav", b"again")
    engine.drain()
    assert len(store.keys()) == 1


@pytest.mark.expect_warnings("another host wrote it first")
def test_conflicts_are_shown(make: MakeEngine, store: MemoryStore):
    engine = make(freshness_s=60.0, upload_delay_s=60.0)
    today = conflict_name("take.wav", "studio", time.time())
    engine.write("take.wav", b"ours")
    store.set("take.wav", b"theirs")
    engine.drain()
    assert store.data("take.wav") == b"theirs"
    assert store.data(today) == b"ours"
    assert engine.fs.queue_view().conflicts == (today,)


@pytest.mark.expect_warnings("never reached the disk")
def test_a_row_whose_file_never_reached_the_disk_takes_nothing_from_the_bucket(
    make: MakeEngine, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The journal was on the disk before the directory of staging was: a power cut may leave that."""
    store.set("take.wav", b"good")
    lost = iter([True])

    def stored_and_lost(name: str, key: str) -> None:
        if name == "put" and next(lost, False):
            raise Unavailable(f"{key}: stored, but the answer was lost")

    store.after = stored_and_lost
    engine = make(threads=False, freshness_s=60.0)
    engine.write("take.wav", b"sent, and nobody was told")
    engine.run_one_due()
    engine.kill()
    for path in engine.staged_files():
        path.unlink()
    another_boot(tmp_path, monkeypatch)
    after = make()
    assert after.read("take.wav") == b"sent, and nobody was told"
    after.drain()
    assert store.data("take.wav") == b"sent, and nobody was told"
    assert not after.fs.queue_view().transfers


def test_an_upload_that_a_power_cut_made_us_forget_is_no_conflict(
    make: MakeEngine, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its row was on the disk, and what came of it was not: the bytes are in the bucket already."""
    store.set("take.wav", b"good", tag="1")
    engine = make(threads=False)
    opened = engine.open("take.wav", os.O_WRONLY | os.O_TRUNC)
    engine.fs.write(engine.caller, opened.handle, 0, b"synced")
    engine.fs.fsync(engine.caller, opened.handle, False)
    engine.close(opened)
    state = engine.settings.state_dir
    shutil.copytree(state, tmp_path / "on the disk")
    engine.run_one_due()
    assert store.data("take.wav") == b"synced"
    engine.kill()
    shutil.rmtree(state)
    (tmp_path / "on the disk").rename(state)
    another_boot(tmp_path, monkeypatch)
    after = make()
    after.drain()
    assert store.keys() == ["take.wav"]
    assert store.data("take.wav") == b"synced"
    assert store.head("take.wav").metadata["tag"] == "1"  # type: ignore[index]
    assert not after.fs.queue_view().transfers


# ------------------------------------------------------------------ programs first
def test_uploads_give_way_to_a_program_that_makes_file_after_file_but_not_for_ever(make: MakeEngine):
    clock = ManualClock()
    engine = make(threads=False, clock=clock)

    def made(count: int, step_s: float = BURST_S / 2) -> list[bool]:
        """After each of so many files, closed one shortly after the other: do uploads give way?"""
        gave_way = []
        for number in range(count):
            engine.write(f"{clock.monotonic()}-{number}.wav", b"take")
            gave_way.append(engine.quiet_until_s() is not None)
            clock.advance(step_s)
        return gave_way

    assert not any(made(3, QUIET_S / 2)), "too slow for a burst"
    clock.advance(QUIET_S)
    shown = made(2) + made(round(GIVE_WAY_S / QUIET_S * 2) + 8, QUIET_S / 2)
    assert not shown[0]
    assert all(shown[1:-9])
    assert not any(shown[-8:])
    clock.advance(QUIET_S)  # a pause: a file alone is no burst, and the second begins another one
    assert made(2) == [False, True]
    until = engine.quiet_until_s()
    assert until is not None
    clock.advance(until - clock.monotonic())
    assert engine.quiet_until_s() is None
    assert made(2) == [False, True]
    with engine.hurried():
        assert engine.quiet_until_s() is None


def test_an_upload_thread_waits_until_it_need_not_give_way(make: MakeEngine, monkeypatch: pytest.MonkeyPatch):
    clock = ManualClock()
    engine = make(threads=False, clock=clock)
    waits = []

    def wait(seconds: float | None) -> None:
        assert seconds is not None
        waits.append(seconds)
        clock.advance(seconds)

    engine.write("one.wav", b"take")
    engine.write("two.wav", b"take")
    assert engine.next_task(wait) is not None
    assert waits == [pytest.approx(QUIET_S)]
