"""A disk that has no room, or fails, between two steps of one thing: nothing is lost, nothing torn is sent."""

from __future__ import annotations

import errno
import itertools
import os
from contextlib import suppress

import pytest

from r2fs.engine.recovery.replay import Replay
from r2fs.model.errors import LocalError, NoSpace
from r2fs.model.records import AttributeChange
from r2fs.model.verbs import RENAME_EXCHANGE
from tests.support.clocks import ManualClock
from tests.support.engine import Engine, MakeEngine, do_at_once
from tests.support.memory_store import MemoryStore
from tests.support.power import (
    IN_PARTS,
    LATER,
    ONE,
    OTHER,
    Power,
    Stop,
    bucket,
    fail_commit,
    fail_link,
    pass_time,
    save,
    send,
    states,
    without_background,
)

pytestmark = pytest.mark.expect_warnings


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def staged_descriptors(engine: Engine) -> int:
    """Number of this process's descriptors of the engine's staged files."""
    data, found = f"{engine.settings.state_dir}/", 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            link = os.readlink(f"/proc/self/fd/{name}")
            found += link.startswith(data) and "/staging/" in link
    return found


# ------------------------------------------------------------------ the name of a file that is open
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_what_was_stored_stays_in_the_bucket(
    make: MakeEngine, store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, error: int
):
    """Its row had gone, and the answer that came again was taken for one of a file that is unlinked."""
    engine = make(threads=False, clock=clock)
    save(engine, "a.wav", ONE, sync=True)
    reader = engine.open("a.wav")
    fail_link(monkeypatch, error)
    pass_time(engine, clock)
    assert bucket(store) == {"a.wav": ONE}
    assert engine.read("a.wav") == ONE and not states(engine)
    engine.close(reader)
    pass_time(engine, clock)
    engine.stop()
    after = make()
    assert after.read("a.wav") == ONE
    assert bucket(store) == {"a.wav": ONE}


def test_an_answer_that_cannot_be_recorded_holds_up_no_other(
    make: MakeEngine, store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    """They came together, and their one transaction failed."""
    engine = make(threads=False, clock=clock)
    for path in ("a.wav", "b.wav", "c.wav"):
        save(engine, path, ONE, sync=True)
    reader = engine.open("b.wav")
    engine.hasten()
    fail_link(monkeypatch, times=2)
    engine.send_at_once()
    assert [path for path in engine.tree() if engine.node(path).pending is not None] == ["b.wav"]
    assert engine.read("a.wav") == ONE
    pass_time(engine, clock)
    engine.close(reader)
    assert engine.is_all_sent() and bucket(store) == dict.fromkeys(("a.wav", "b.wav", "c.wav"), ONE)


@pytest.mark.parametrize(("failures", "sent"), [(1, 3), (2, 2), (9, 0)])
def test_claims_that_the_disk_has_no_room_for(
    make: MakeEngine, store: MemoryStore, clock: ManualClock, failures: int, sent: int
):
    """Made in one transaction: each alone where that fails, and later where there is no room for one."""
    engine = make(threads=False, clock=clock)
    for path in ("a.wav", "b.wav", "c.wav"):
        save(engine, path, ONE, sync=True)
    engine.hasten()
    descriptors, left = staged_descriptors(engine), iter(range(failures))

    def fill(name: str) -> None:
        if name == "commit" and next(left, None) is not None:
            raise NoSpace("the disk is full")

    engine.commit_point = fill
    engine.run_due()
    assert len(bucket(store)) == sent
    assert staged_descriptors(engine) == descriptors
    engine.commit_point = lambda name: None
    pass_time(engine, clock)
    assert engine.is_all_sent() and bucket(store) == dict.fromkeys(("a.wav", "b.wav", "c.wav"), ONE)


@pytest.mark.parametrize("there", [False, True])
def test_an_atomic_save_over_an_open_file(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, there: bool
):
    """The journal had renamed it, the tree had not: the program's tidying removed both files."""
    if there:
        store.set("a.wav", b"what the bucket has")
    engine = make(threads=False, **LATER)
    do_at_once(engine.downloads)
    save(engine, "a.wav", ONE, sync=True, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    reader = engine.open("a.wav")
    save(engine, "t", OTHER, sync=True)
    fail_link(monkeypatch)
    engine.rename("t", "a.wav")
    assert engine.fs.read(engine.caller, reader.handle, 0, 100) == ONE
    assert engine.tree() == {"a.wav": OTHER}
    engine.close(reader)
    engine.stop()
    after = make()
    assert after.tree() == {"a.wav": OTHER}
    after.drain()
    assert bucket(store) == {"a.wav": OTHER}


@pytest.mark.parametrize("rename", [False, True])
def test_the_next_start_shows_the_same_names(make: MakeEngine, monkeypatch: pytest.MonkeyPatch, rename: bool):
    engine = make(threads=False, **LATER)
    opened = engine.open("a.wav", os.O_RDWR | os.O_CREAT)
    engine.fs.write(engine.caller, opened.handle, 0, ONE)
    save(engine, "t", OTHER, sync=False)
    fail_link(monkeypatch)
    if rename:
        engine.rename("t", "a.wav")
    else:
        engine.unlink("a.wav")
    shown = engine.tree()
    engine.kill()
    assert make(**LATER).tree() == shown


# ------------------------------------------------------------------ what is in doubt
@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_start_that_ends_while_it_sets_a_torn_file_aside(
    make: MakeEngine, store: MemoryStore, power: Power, monkeypatch: pytest.MonkeyPatch, kill: bool, nth: int
):
    """The row was of this boot already, and not of a file that is set aside: the next start sent the zeros."""
    store.set("a.wav", ONE)
    engine = make(**LATER)
    save(engine, "a.wav", OTHER, sync=False, flags=os.O_WRONLY | os.O_TRUNC)
    power.cut(engine, names=False)
    plain, commits, boots = Replay.run, iter(range(1, 1000)), list[Replay]()

    def run(boot: Replay) -> None:
        boots.append(boot)
        plain(boot)

    def stop(name: str) -> None:
        if name == "commit" and boots and next(commits) == nth:
            raise Stop(name) if kill else NoSpace("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Replay, "run", run)
        with suppress(Stop, NoSpace):
            make(crash_point=stop).kill()
    assert len(boots) == 1
    after = make()
    after.fs.drain(2.0)
    assert bucket(store) == {"a.wav": ONE}


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_torn_file_that_is_edited_stays_set_aside(
    make: MakeEngine, store: MemoryStore, power: Power, clock: ManualClock, nth: int
):
    store.set("a.wav", ONE)
    engine = make(**LATER)
    save(engine, "a.wav", OTHER, sync=False, flags=os.O_WRONLY | os.O_TRUNC)
    power.cut(engine, names=False)
    engine = make(threads=False, clock=clock)
    opened = engine.open("a.wav", os.O_RDWR)
    engine.fs.write(engine.caller, opened.handle, 0, b"T")
    fail_commit(engine, nth)
    engine.close(opened)
    pass_time(engine, clock)
    assert bucket(store) == {"a.wav": ONE}
    assert states(engine) == ["parked"]


@pytest.mark.parametrize("nth", [1, 2])
def test_a_file_that_failed_to_store_is_parked_in_the_end(make: MakeEngine, clock: ManualClock, nth: int):
    """Claimed, and not refused, it waited for an answer that nobody had asked for."""
    engine = make(threads=False, clock=clock)
    save(engine, "a.wav", ONE, sync=False)
    engine.node("a.wav").sync_failed = True
    fail_commit(engine, nth)
    pass_time(engine, clock)
    assert states(engine) == ["parked"]


def test_a_file_whose_rest_will_not_come_is_parked_in_the_end(
    make: MakeEngine, store: MemoryStore, clock: ManualClock, large: bytes
):
    engine = without_background(make(threads=False, clock=clock, **IN_PARTS))
    save(engine, "large.wav", b"HEAD", sync=False, flags=os.O_WRONLY)
    store.set("large.wav", b"another host's")
    fail_commit(engine, 1)
    pass_time(engine, clock)
    assert states(engine) == ["parked"]


def test_a_staged_file_in_parts_that_is_shorter_than_its_row(
    make: MakeEngine, store: MemoryStore, large: bytes
):
    engine = without_background(make(threads=False, **IN_PARTS, **LATER))
    save(engine, "large.wav", b"HEAD", sync=True, flags=os.O_WRONLY)
    engine.kill()
    for path in engine.staged_files():
        if path.stat().st_size:
            os.truncate(path, 100_000)
    after = make(**IN_PARTS)
    after.fs.drain(3.0)
    assert bucket(store) == {"large.wav": large}
    assert states(after) == ["parked"]


def test_a_synced_file_that_is_shorter_than_its_row(make: MakeEngine, store: MemoryStore):
    store.set("a.wav", ONE)
    engine = make(threads=False, **LATER)
    do_at_once(engine.downloads)
    save(engine, "a.wav", OTHER, sync=True, flags=os.O_WRONLY | os.O_TRUNC)
    engine.kill()
    for path in engine.staged_files():
        os.truncate(path, 2) if path.stat().st_size else None
    after = make()
    after.fs.drain(3.0)
    assert bucket(store) == {"a.wav": ONE}
    assert states(after) == ["parked"]


def test_an_open_that_fails_leaves_a_synced_file_safe(make: MakeEngine, store: MemoryStore, power: Power):
    engine = make(threads=False, **LATER)
    save(engine, "a.wav", ONE, sync=True)
    fail_commit(engine, 2)
    with pytest.raises(NoSpace):
        engine.open("a.wav", os.O_RDWR)
    power.cut(engine, names=False)
    after = make()
    after.fs.drain(2.0)
    assert bucket(store) == {"a.wav": ONE}


# ------------------------------------------------------------------ cut, and not sealed
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("size", [0, 2])
def test_a_file_that_was_cut_is_sent(
    make: MakeEngine, store: MemoryStore, clock: ManualClock, nth: int, size: int
):
    """Whatever the program was told: here and in the bucket it is the same, before anybody opens it again."""
    store.set("a.wav", ONE)
    engine = make(threads=False, clock=clock)
    do_at_once(engine.downloads)
    engine.read("a.wav")
    fail_commit(engine, nth)
    with suppress(NoSpace):
        engine.truncate("a.wav", size)
    pass_time(engine, clock)
    assert engine.read("a.wav") == store.data("a.wav") and not states(engine)


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_file_that_was_cut_by_an_open_is_sent(
    make: MakeEngine, store: MemoryStore, clock: ManualClock, large: bytes, nth: int
):
    engine = make(threads=False, clock=clock, **IN_PARTS)
    do_at_once(engine.downloads)
    reader = engine.open("large.wav")
    fail_commit(engine, nth)
    with suppress(NoSpace):
        engine.close(engine.open("large.wav", os.O_WRONLY | os.O_TRUNC))
    pass_time(engine, clock)
    assert engine.read("large.wav") == store.data("large.wav") and not states(engine)
    engine.close(reader)


# ------------------------------------------------------------------ in staging, and no room for the row
@pytest.fixture
def settling(make: MakeEngine, store: MemoryStore, clock: ManualClock, why: str) -> Engine:
    """Clean files that have to be sent from here: for a ring of renames, or for a copy whose source is gone."""
    store.set("a.wav", ONE)
    store.set("b.wav", OTHER)
    engine = make(threads=False, clock=clock)
    do_at_once(engine.downloads)
    opened = [engine.open("a.wav"), engine.open("b.wav")]
    if why == "ring":
        engine.rename("a.wav", "b.wav", RENAME_EXCHANGE)
    else:
        engine.rename("a.wav", "c.wav")
        store.remove("a.wav")
    for one in opened:
        engine.close(one)
    return engine


@pytest.mark.parametrize("nth", range(1, 8))
@pytest.mark.parametrize("why", ["ring", "source gone"])
def test_what_found_no_room_for_its_row_leaves_staging(
    settling: Engine, store: MemoryStore, clock: ManualClock, why: str, nth: int
):
    """It stayed there for nothing, and under another name each time that it was tried again."""
    fail_commit(settling, nth)
    send(settling)
    rows = {row.staged for row in settling.journal.read().inodes} | settling.staging_garbage()
    assert {path.name for path in settling.staged_files() if path.stat().st_size} <= rows
    pass_time(settling, clock)
    assert bucket(store) == (
        {"a.wav": OTHER, "b.wav": ONE} if why == "ring" else {"b.wav": OTHER, "c.wav": ONE}
    )
    assert not states(settling)


@pytest.mark.parametrize("nth", range(1, 8))
@pytest.mark.parametrize("why", ["ring", "source gone"])
def test_what_found_no_room_for_its_row_is_no_quarantine(
    make: MakeEngine, settling: Engine, clock: ManualClock, nth: int
):
    fail_commit(settling, nth)
    send(settling)
    settling.kill()
    after = make(threads=False, clock=clock)
    assert not after.core.staging.orphan_dir.exists()


@pytest.mark.parametrize("is_open", [False, True])
def test_a_time_that_found_no_room_is_not_shown(
    make: MakeEngine, store: MemoryStore, clock: ManualClock, is_open: bool
):
    """The staged file had it already: stat showed it, though the program was told that it was not set."""
    engine = make(threads=False, clock=clock)
    opened = engine.open("a.wav", os.O_WRONLY | os.O_CREAT)
    engine.fs.write(engine.caller, opened.handle, 0, ONE)
    if not is_open:
        engine.close(opened)
    before = engine.entry("a.wav")
    fail_commit(engine, 1)
    with pytest.raises(NoSpace):
        engine.fs.setattr(engine.caller, before.attributes.ino, AttributeChange(mtime_ns=10**18))
    assert engine.entry("a.wav").attributes == before.attributes
    if is_open:
        engine.close(opened)
    pass_time(engine, clock)
    assert store.metadata("a.wav").get("mtime") != f"{10**9}.000000000"
    assert bucket(store) == {"a.wav": ONE}


def test_a_delete_that_found_no_room_for_its_end_takes_no_later_object(
    make: MakeEngine, store: MemoryStore, clock: ManualClock
):
    """Another host stored the same bytes meanwhile: the same ETag, and the delete was sent again."""
    store.set("a.wav", ONE)
    engine = make(threads=False, clock=clock)
    do_at_once(engine.downloads)
    engine.unlink("a.wav")

    def fill(name: str, key: str) -> None:
        if name == "delete":
            store.after = lambda name, key: None
            fail_commit(engine, 1)

    store.after = fill
    send(engine)
    assert bucket(store) == {} and engine.deletes()
    store.set("a.wav", ONE)
    pass_time(engine, clock)
    assert bucket(store) == {"a.wav": ONE}
    assert not engine.deletes()
    assert engine.read("a.wav") == ONE


# ------------------------------------------------------------------ another file's trouble
def replaces_a_file_without_bytes(make: MakeEngine, store: MemoryStore, clock: ManualClock) -> Engine:
    """k.wav is saved anew, and began as what l.wav is now, of which nothing but that object is left."""
    store.set("k.wav", ONE)
    engine = make(**LATER)
    engine.rename("k.wav", "l.wav")
    save(engine, "l.wav", b"edited", sync=False, flags=os.O_WRONLY)
    engine.kill()
    for path in engine.staged_files():
        path.unlink()
    engine = make(threads=False, clock=clock)
    save(engine, "k.wav", OTHER, sync=False)
    return engine


def test_what_is_left_of_a_file_without_bytes_is_not_replaced(
    make: MakeEngine, store: MemoryStore, clock: ManualClock
):
    """Its object is the last there is of it: that goes when the file does."""
    engine = replaces_a_file_without_bytes(make, store, clock)
    pass_time(engine, clock)
    assert bucket(store) == {"k.wav": ONE}
    assert any("l.wav began as the object" in (one.reason or "") for one in engine.fs.queue_view().transfers)
    engine.unlink("l.wav")
    pass_time(engine, clock)
    assert bucket(store) == {"k.wav": OTHER}


def test_deletes_do_not_wait_for_a_file_that_failed_to_store(
    make: MakeEngine, store: MemoryStore, power: Power, clock: ManualClock
):
    for name in ("k.wav", "x.wav", "y.wav"):
        store.set(name, ONE)
    engine = make(threads=False, clock=clock)
    do_at_once(engine.downloads)
    engine.rename("k.wav", "l.wav")
    opened = engine.open("l.wav", os.O_WRONLY)
    engine.fs.write(engine.caller, opened.handle, 0, b"edited")
    power.fails = 1
    with pytest.raises(LocalError):
        engine.fs.fsync(engine.caller, opened.handle, False)
    engine.close(opened)
    save(engine, "k.wav", OTHER, sync=False)
    for name in ("k.wav", "x.wav", "y.wav"):
        engine.unlink(name)
    pass_time(engine, clock)
    assert bucket(store) == {"k.wav": ONE}


def test_what_an_object_says_is_asked_again_where_the_row_could_not_be_told(
    make: MakeEngine, store: MemoryStore
):
    store.set("k.wav", ONE)
    engine = make(threads=False, **LATER)
    do_at_once(engine.downloads)
    engine.rename("k.wav", "l.wav")
    save(engine, "l.wav", OTHER, sync=False, flags=os.O_WRONLY | os.O_TRUNC)
    node = engine.node("l.wav")
    fail_commit(engine, 1)
    with pytest.raises(NoSpace):
        engine.try_kept_metadata("k.wav")
    assert not node.metadata_known
    engine.try_kept_metadata("k.wav")
    assert node.metadata_known


# ------------------------------------------------------------------ opened, and not written
def puts(store: MemoryStore) -> list[str]:
    """Names of requests that store something, from now on."""
    made = list[str]()
    store.before = lambda name, key: made.append(name) if name in ("put", "copy") else None
    return made


@pytest.mark.parametrize("another", [False, True])
def test_a_file_that_was_not_written_is_not_sent(
    make: MakeEngine, store: MemoryStore, clock: ManualClock, another: bool
):
    """What the journal could not take may not change the times that prove it."""
    store.set("a.wav", ONE)
    engine = make(threads=False, clock=clock)
    do_at_once(engine.downloads)
    engine.read("a.wav")
    opened = engine.open("a.wav", os.O_RDWR)
    if another:
        store.set("a.wav", OTHER)
    sent = puts(store)
    fail_commit(engine, 1)
    engine.close(opened)
    pass_time(engine, clock)
    assert not sent and not states(engine)
    assert bucket(store) == {"a.wav": OTHER if another else ONE}


def test_a_file_that_was_not_written_needs_no_name(
    make: MakeEngine, store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    store.set("a.wav", ONE)
    engine = make(threads=False, clock=clock)
    do_at_once(engine.downloads)
    reader, opened = engine.open("a.wav"), engine.open("a.wav", os.O_RDWR)
    sent = puts(store)
    fail_link(monkeypatch)
    engine.close(opened)
    pass_time(engine, clock)
    assert not sent and not states(engine)
    assert engine.fs.read(engine.caller, reader.handle, 0, 100) == ONE
    engine.close(reader)
    assert engine.read("a.wav") == ONE


def test_an_upload_is_counted_once(make: MakeEngine, clock: ManualClock, monkeypatch: pytest.MonkeyPatch):
    engine = make(threads=False, clock=clock)
    save(engine, "a.wav", ONE, sync=True)
    reader = engine.open("a.wav")
    fail_link(monkeypatch)
    pass_time(engine, clock)
    view = engine.fs.queue_view()
    assert (view.uploaded, view.uploaded_bytes) == (1, len(ONE))
    engine.close(reader)


def test_an_upload_that_is_not_begun_leaves_no_attempt(
    make: MakeEngine, store: MemoryStore, clock: ManualClock
):
    """Each of them was waited for, as one that may have been stored."""
    engine = replaces_a_file_without_bytes(make, store, clock)
    pass_time(engine, clock, 10, 400.0)
    assert not engine.journal.read().attempts


# ------------------------------------------------------------------ nothing stays open for nobody
def test_an_open_that_fails_leaves_nothing_open(make: MakeEngine, store: MemoryStore):
    store.set("a.wav", ONE)
    engine = make(threads=False)
    do_at_once(engine.downloads)
    engine.entry("a.wav")
    fail_commit(engine, 1)
    with pytest.raises(NoSpace):
        engine.open("a.wav", os.O_RDWR)
    engine.retire_idle()
    assert engine.node("a.wav").content is None
    assert not engine.open_files()


# ------------------------------------------------------------------ a rename whose source has another version by now
@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
def test_a_rename_of_what_another_host_replaces_outlasts_a_full_disk_and_a_kill(
    make: MakeEngine, store: MemoryStore, clock: ManualClock, nth: int, kill: bool
):
    """The row of the newer version came after the end of the older one's: between them the rename was forgotten."""
    store.set("a.wav", ONE)
    engine = make(threads=False, clock=clock)
    engine.rename("a.wav", "b.wav")
    store.set("a.wav", OTHER)
    if kill:
        numbers = itertools.count(1)

        def stop(name: str) -> None:
            if name == "commit" and next(numbers) == nth:
                raise Stop(name)

        engine.commit_point = stop
        with suppress(Stop):
            engine.run_due()
        engine.commit_point = lambda name: None
        engine.kill()
        engine = make(threads=False, clock=clock)
    else:
        fail_commit(engine, nth)
    do_at_once(engine.downloads)
    pass_time(engine, clock)
    assert store.data("b.wav") == engine.read("b.wav") == OTHER
