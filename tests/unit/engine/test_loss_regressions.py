"""What few programs do together: renamed, opened, half here, killed, cut; each combination lost something once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from r2fs.disk import filecalls
from r2fs.model.errors import LocalError, NoSpace, Unavailable
from r2fs.model.records import AttributeChange, ObjectMeta
from r2fs.model.verbs import RENAME_EXCHANGE
from tests.support.clocks import ManualClock
from tests.support.engine import Engine, MakeEngine, do_at_once
from tests.support.memory_store import MemoryStore
from tests.support.power import (
    IN_PARTS,
    LATER,
    LOCAL,
    ONE,
    OTHER,
    Power,
    Stop,
    bucket,
    pass_time,
    save,
    send,
    send_until,
    states,
    stop_at,
    without_background,
)

POINTS = [
    "materialised", "bytes_synced", "sync_journalled", "claimed", "sent", "put_committed", "delete_looked", "deleted",
]  # fmt: skip


# ------------------------------------------------------------------ all of it came by a read
@pytest.mark.parametrize("second", [False, True])
def test_what_is_written_after_an_edit_and_a_read(
    make: MakeEngine, store: MemoryStore, large: bytes, second: bool
):
    """Its row lists the edit's range: the next start would have filled the old bytes over what came later."""
    engine = without_background(make(threads=False, **IN_PARTS))
    opened = engine.open("large.wav", os.O_RDWR)
    engine.fs.write(engine.caller, opened.handle, 0, b"HEAD")
    assert engine.read("large.wav") == b"HEAD" + large[4:]
    if second:
        opened = engine.open("large.wav", os.O_RDWR)
    engine.fs.write(engine.caller, opened.handle, 1000, b"WRITTEN")
    engine.kill()
    after = make(**IN_PARTS)
    want = b"HEAD" + large[4:1000] + b"WRITTEN" + large[1007:]
    assert after.read("large.wav") == want
    after.drain()
    assert store.data("large.wav") == want


def test_a_second_writer_opens_a_file_of_which_all_was_read_and_synced(
    make: MakeEngine, store: MemoryStore, large: bytes
):
    """The open was EIO: it took note of writes to come without the lock."""
    engine = without_background(make(threads=False, **IN_PARTS))
    first = engine.open("large.wav", os.O_RDWR)
    assert engine.read("large.wav") == large
    engine.fs.fsync(engine.caller, first.handle, False)
    second = engine.open("large.wav", os.O_RDWR)
    assert second.local is not None
    os.pwrite(second.local, b"HEAD", 0)
    for one in (second, first):
        engine.close(one)
    engine.run_due()
    assert store.data("large.wav") == b"HEAD" + large[4:]


@pytest.mark.parametrize("edited", [False, True])
def test_a_renamed_file_keeps_its_object_while_its_row_counts_on_it(
    make: MakeEngine, store: MemoryStore, large: bytes, edited: bool
):
    engine = without_background(make(threads=False, **IN_PARTS))
    engine.rename("large.wav", "renamed.wav")
    opened = engine.open("renamed.wav", os.O_RDWR)
    want = large
    if edited:
        engine.fs.write(engine.caller, opened.handle, 0, b"HEAD")
        want = b"HEAD" + large[4:]
    assert engine.read("renamed.wav") == want
    save(engine, "large.wav", ONE, sync=False)
    send(engine)
    engine.kill()
    after = make(**IN_PARTS)
    after.drain()
    assert bucket(store) == {"large.wav": ONE, "renamed.wav": want}


@pytest.mark.parametrize("then", ["rename", "chmod", "nothing", "close later", "open again", "kill and open"])
def test_what_was_synced_in_part_and_then_read_whole(
    make: MakeEngine, store: MemoryStore, power: Power, large: bytes, then: str
):
    engine = without_background(make(threads=False, **IN_PARTS, **LATER))
    name, want = "large.wav", b"HEAD" + large[4:]
    opened = engine.open(name, os.O_RDWR)
    engine.fs.write(engine.caller, opened.handle, 0, b"HEAD")
    engine.fs.fsync(engine.caller, opened.handle, False)
    if then != "close later":
        engine.close(opened)
    if then == "kill and open":
        engine.kill()
        engine = without_background(make(threads=False, **IN_PARTS, **LATER))
    assert engine.read(name) == want
    if then == "close later":
        engine.close(opened)
    elif then == "rename":
        engine.rename(name, name := "renamed.wav")
    elif then == "chmod":
        engine.fs.setattr(engine.caller, engine.entry(name).ino, AttributeChange(mode=0o600))
    elif then != "nothing":
        engine.close(engine.open(name, os.O_RDWR))
    power.cut(engine, names=False)
    after = make(**IN_PARTS)
    assert after.read(name) == want
    after.drain()
    assert store.data(name) == want


def test_a_file_synced_in_part_replaces_one_that_was_synced(make: MakeEngine, power: Power, large: bytes):
    engine = without_background(make(threads=False, **IN_PARTS, **LATER))
    save(engine, "take.wav", ONE, sync=True)
    save(engine, "large.wav", b"HEAD", sync=True, flags=os.O_WRONLY)
    want = b"HEAD" + large[4:]
    assert engine.read("large.wav") == want
    engine.rename("large.wav", "take.wav")
    power.cut(engine, names=False)
    assert make(**IN_PARTS).read("take.wav") in (ONE, want)


@pytest.mark.expect_warnings("may be torn")
def test_what_may_be_torn_in_part_is_not_safe_for_having_been_stopped_in_order(
    make: MakeEngine, store: MemoryStore, power: Power, large: bytes
):
    """Its own bytes were synced at the end; the rest, which came after a person released it, was not."""
    engine = without_background(make(threads=False, **IN_PARTS))
    save(engine, "large.wav", b"HEAD", sync=False, flags=os.O_WRONLY)
    power.cut(engine, names=False)
    make(threads=False, **IN_PARTS).stop()
    engine = without_background(make(threads=False, **IN_PARTS))
    assert engine.fs.retry_parked(["large.wav"]) == 1
    send_until(engine, "claimed")
    power.cut(engine, names=False)
    make(**IN_PARTS).fs.drain(3.0)
    assert store.data("large.wav")[8:] == large[8:]


# ------------------------------------------------------------------ open, and not written
@pytest.mark.expect_warnings
@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("size", [10, 300_000])
def test_a_renamed_file_that_is_open_when_its_object_goes(
    make: MakeEngine, store: MemoryStore, power: Power, size: int, closed: bool
):
    data = os.urandom(size)
    store.set("old.wav", data)
    engine = make(threads=False, **IN_PARTS)
    do_at_once(engine.downloads)
    do_at_once(engine.background)
    engine.rename("old.wav", "renamed.wav")
    opened = engine.open("renamed.wav", os.O_RDWR)
    save(engine, "old.wav", OTHER, sync=True)
    send(engine)
    assert store.data("old.wav") == OTHER
    if closed:
        engine.close(opened)
    power.cut(engine, names=False)
    after = make(**IN_PARTS)
    after.fs.drain(3.0)
    assert after.tree() == {"old.wav": OTHER, "renamed.wav": data}


@pytest.mark.expect_warnings
@pytest.mark.parametrize("closed", [False, True])
def test_a_file_that_is_open_when_its_object_goes(
    make: MakeEngine, store: MemoryStore, power: Power, closed: bool
):
    store.set("take.wav", ONE)
    store.set("take.tmp", OTHER)
    engine = make(threads=False, **IN_PARTS)
    do_at_once(engine.downloads)
    do_at_once(engine.background)
    engine.rename("take.wav", "take.tmp", RENAME_EXCHANGE)
    opened = engine.open("take.tmp", os.O_RDWR)
    send(engine)
    if closed:
        engine.close(opened)
    power.cut(engine, names=False)
    after = make(**IN_PARTS)
    after.fs.drain(3.0)
    assert after.tree() == {"take.tmp": ONE, "take.wav": OTHER}


# ------------------------------------------------------------------ a journal that forgets its last commits
@pytest.mark.expect_warnings("was changed|set aside")
@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", POINTS)
def test_the_power_fails_while_an_object_is_given_up(
    make: MakeEngine, store: MemoryStore, power: Power, point: str, nth: int, touched: bool
):
    power.forgets = True
    store.set("a.wav", ONE)
    engine = make(threads=False)
    do_at_once(engine.downloads)
    store.set("b.wav", OTHER)
    engine.rename("a.wav", "b.wav", RENAME_EXCHANGE)
    if touched:
        touch_while_it_is_synced(engine)
    passed = 0

    def stop(name: str) -> None:
        nonlocal passed
        passed += name == point
        if passed == nth:
            raise Stop(name)

    engine.crash_point = stop
    try:
        engine.run_due()
    except Stop:
        pass
    power.cut(engine, names=False)
    after = make()
    after.drain()
    assert sorted(data or b"" for data in after.tree().values()) == sorted([ONE, OTHER])
    assert sorted(bucket(store).values()) == sorted([ONE, OTHER])


def touch_while_it_is_synced(engine: Engine) -> None:
    engine.on_bytes_synced(
        lambda node: engine.fs.setattr(engine.caller, node.ino, AttributeChange(mtime_ns=10**18))
    )


# ------------------------------------------------------------------ doubt
@pytest.mark.expect_warnings
@pytest.mark.parametrize("then", ["kill", "stop", "edit", "rename"])
def test_what_may_be_torn_stays_doubtful(make: MakeEngine, store: MemoryStore, power: Power, then: str):
    store.set("a.wav", ONE)
    engine = make(**LATER)
    save(engine, "a.wav", OTHER, sync=False, flags=os.O_WRONLY | os.O_TRUNC)
    power.cut(engine, names=False)
    engine = make()
    assert states(engine) == ["parked"]
    if then == "edit":
        save(engine, "a.wav", b"T", sync=False, flags=os.O_RDWR)
    elif then == "rename":
        engine.rename("a.wav", "b.wav")
    else:
        engine.open("a.wav", os.O_RDWR)
    if then == "stop":
        engine.stop()
    else:
        engine.kill()
    after = make()
    after.fs.drain(2.0)
    assert states(after) == ["parked"]
    assert bucket(store) == {"a.wav": ONE}
    name = "b.wav" if then == "rename" else "a.wav"
    save(after, name, b"made anew", sync=False, flags=os.O_WRONLY | os.O_TRUNC)
    after.drain()
    assert store.data(name) == b"made anew"


@pytest.mark.expect_warnings
@pytest.mark.parametrize("by", ["kill", "stop"])
def test_a_failed_fsync_outlasts_the_daemon(make: MakeEngine, store: MemoryStore, power: Power, by: str):
    engine = make(**LATER)
    power.fails = 1
    opened = engine.open("take.wav", os.O_WRONLY | os.O_CREAT)
    engine.fs.write(engine.caller, opened.handle, 0, ONE)
    with pytest.raises(LocalError):
        engine.fs.fsync(engine.caller, opened.handle, False)
    engine.close(opened)
    engine.kill() if by == "kill" else engine.stop()
    after = make()
    after.fs.drain(2.0)
    assert states(after) == ["parked"]
    assert not store.keys()
    assert after.read("take.wav") == ONE


# ------------------------------------------------------------------ killed in the midst of a call
@pytest.mark.parametrize("edited", [False, True])
def test_a_file_that_was_being_made_longer(make: MakeEngine, store: MemoryStore, large: bytes, edited: bool):
    """Nobody was told: it is as long as it was, or as it was to become, and nothing of it is missing."""
    engine = without_background(make(threads=False, **IN_PARTS))
    opened = engine.open("large.wav", os.O_RDWR)
    want = large
    if edited:
        engine.fs.write(engine.caller, opened.handle, 0, b"HEAD")
        want = b"HEAD" + large[4:]
    stop_at(engine, "truncated")
    with pytest.raises(Stop):
        engine.truncate("large.wav", 400_000)
    engine.kill()
    after = make(**IN_PARTS, freshness_s=60.0)
    data = after.read("large.wav")
    assert data in (want, want + bytes(100_000))
    assert after.entry("large.wav").attributes.size == len(data)
    after.drain()
    assert store.data("large.wav") == data


def test_a_delete_that_is_taken_over(make: MakeEngine, store: MemoryStore):
    """What the new file is to replace is known with the very commit that makes the delete void."""
    store.set("a.wav", ONE)
    engine = make(threads=False)
    engine.unlink("a.wav")
    away = iter([True])

    def make_anew(name: str, key: str) -> None:
        if name == "delete" and next(away, False):  # while the delete is on its way, which gets no answer
            save(engine, "a.wav", OTHER, sync=False)
            raise Unavailable(f"{key}: no answer")

    store.before = make_anew
    engine.run_one_due()
    engine.end_outage()

    def stop(name: str) -> None:
        if name == "committed":
            raise Stop(name)

    engine.commit_point = stop
    with pytest.raises(Stop):
        engine.run_due()
    engine.kill()
    make().drain()
    assert bucket(store) == {"a.wav": OTHER}


# ------------------------------------------------------------------ answers, room, and who waits
@pytest.mark.expect_warnings("could not be read")
@pytest.mark.parametrize("how", ["lost", "killed"])
def test_an_edit_of_an_object_whose_metadata_copy_has_not_been_heard_of(
    make: MakeEngine, store: MemoryStore, how: str
):
    """The copy has another ETag, where the object had been sent in parts: the rest of the file comes from it."""
    data = os.urandom(300_000)
    store.store_version("large.wav", data, ObjectMeta("audio/wav", {}), "abc-2")
    engine = make(threads=False, **IN_PARTS)
    do_at_once(engine.downloads)
    do_at_once(engine.background)
    engine.fs.setattr(engine.caller, engine.entry("large.wav").ino, AttributeChange(mode=0o600))
    if how == "killed":
        send_until(engine, "sent")
        engine.kill()
        engine = make(threads=False, **IN_PARTS)
        do_at_once(engine.downloads)
        do_at_once(engine.background)
    else:
        lost = iter([True])

        def lose(name: str, key: str) -> None:
            if name == "copy" and next(lost, False):
                raise Unavailable(f"{key}: the answer was lost")

        store.after = lose
        send(engine)
    save(engine, "large.wav", b"HEAD", sync=False, flags=os.O_WRONLY)
    engine.kill()
    make(**IN_PARTS).drain()
    assert store.data("large.wav") == b"HEAD" + data[4:]


@pytest.mark.expect_warnings("will be tried again")
@pytest.mark.parametrize("how", ["truncate", "open"])
def test_a_full_disk_where_a_truncated_file_is_sealed(make: MakeEngine, store: MemoryStore, how: str):
    store.set("a.wav", ONE)
    clock = ManualClock()
    engine = make(threads=False, clock=clock)
    do_at_once(engine.downloads)
    left = iter(range(3 if how == "truncate" else 2))

    def fill(name: str) -> None:
        if name == "commit" and next(left, None) == (2 if how == "truncate" else 1):
            raise NoSpace("the disk is full")

    engine.commit_point = fill
    if how == "truncate":
        engine.truncate("a.wav", 3)
    else:
        engine.close(engine.open("a.wav", os.O_RDONLY | os.O_TRUNC))
    assert not engine.is_all_sent(), "an umount would call it sent"
    clock.advance(2.1)
    send(engine)
    assert engine.is_all_sent()
    assert store.data("a.wav") == (ONE[:3] if how == "truncate" else b"")
    assert not engine.pending_store.inodes


def test_a_delete_does_not_wait_for_a_file_that_stays_here(make: MakeEngine, store: MemoryStore):
    """Of a local name, in the bucket by another host, and changed here when its directory got another name."""
    store.set("d/a.tmp", ONE)
    engine = make(**LOCAL, **LATER)
    save(engine, "d/a.tmp", OTHER, sync=False)
    engine.rename("d", "e")
    engine.drain()
    assert not store.contents()
    assert engine.tree() == {"e/": None, "e/a.tmp": OTHER}


@pytest.mark.expect_warnings("could not be read")
def test_a_file_is_read_while_its_new_metadata_are_on_their_way(make: MakeEngine, store: MemoryStore):
    """The copy is stored, under another ETag, and its answer has not come: the bytes are the same."""
    store.store_version("a.wav", ONE, ObjectMeta("audio/wav", {}), "abc-2")
    engine = make(threads=False)
    do_at_once(engine.downloads)
    read: list[bytes] = []

    def look(name: str, key: str) -> None:
        if name == "copy":
            read.append(engine.read("a.wav"))

    store.after = look
    engine.fs.setattr(engine.caller, engine.entry("a.wav").ino, AttributeChange(mode=0o600))
    send(engine)
    assert read == [ONE]
    assert not engine.pending_store.inodes
    assert engine.read("a.wav") == ONE


# ------------------------------------------------------------------ edited in part, and for this host alone
def test_an_edited_file_that_stays_here_needs_its_object_no_more(
    make: MakeEngine, store: MemoryStore, large: bytes
):
    """Of a local name, in the bucket by another host: edited in part when its directory got another name."""
    clock = ManualClock()
    store.set("d/large.tmp", large)
    engine = without_background(make(threads=False, clock=clock, **IN_PARTS, **LOCAL))
    save(engine, "d/large.tmp", b"HEAD", sync=False, flags=os.O_WRONLY)
    engine.rename("d", "e")
    pass_time(engine, clock)
    assert "d/large.tmp" not in store.objects and not engine.pending_store.deletes.rows
    engine.kill()
    store.set("d/large.tmp", OTHER)
    after = make(read_timeout_s=1.0, **IN_PARTS, **LOCAL)
    assert after.read("e/large.tmp") == b"HEAD" + large[4:]


@pytest.mark.parametrize("name", ["a.tmp", "a.wav"])
def test_a_file_with_a_local_name_keeps_no_descriptor(make: MakeEngine, store: MemoryStore, name: str):
    engine = make(threads=False, **LOCAL)
    save(engine, name, ONE, sync=False)
    engine.rename(name, "b.tmp")
    send(engine)
    (node,) = engine.pending_nodes()
    assert node.content is None


@pytest.mark.expect_warnings
def test_bytes_that_the_disk_could_not_read_are_not_sent_for_a_ring(make: MakeEngine, store: MemoryStore):
    """They were staged first, and the doubt was forgotten at the last close."""
    store.set("a.wav", ONE)
    store.set("b.wav", OTHER)
    clock = ManualClock()
    engine = make(threads=False, clock=clock)
    do_at_once(engine.downloads)
    opened = [engine.open("a.wav"), engine.open("b.wav")]
    for name in ("a.wav", "b.wav"):
        node = engine.node(name)
        assert node.content is not None
        os.pwrite(node.content.fd, b"BAD", 0)
        engine.contents.distrust(node)
    engine.rename("a.wav", "b.wav", RENAME_EXCHANGE)
    send(engine)
    for one in opened:
        engine.close(one)
    pass_time(engine, clock)
    assert bucket(store) == {"a.wav": OTHER, "b.wav": ONE}


# ------------------------------------------------------------------ a copy of our own, or something else
@pytest.fixture
def parts(store: MemoryStore) -> bytes:
    """An object that was sent in parts: a copy of it has another ETag."""
    data = os.urandom(300_000)
    store.store_version("large.wav", data, ObjectMeta("audio/wav", {}), "abc-2")
    return data


@pytest.mark.expect_warnings
def test_a_late_upload_of_the_same_file_is_no_copy_of_it(make: MakeEngine, store: MemoryStore):
    """The rest of an edited file was filled from it: a mixture of two versions was sent."""
    clock = ManualClock()
    engine = make(threads=False, clock=clock, **IN_PARTS)
    do_at_once(engine.downloads)
    one, two, late = b"1" * 300_000, b"2" * 300_000, list[ObjectMeta]()
    save(engine, "k.wav", one, sync=False)

    def unanswered(name: str, key: str) -> None:
        if name == "put":
            (attempt,) = engine.journal.read().attempts
            late.append(ObjectMeta("audio/wav", {"r2fs-attempt": attempt.id}))
            raise Unavailable("no answer; it is on its way yet")

    store.before = unanswered
    send(engine)
    store.before = lambda name, key: None
    save(engine, "k.wav", two, sync=False, flags=os.O_WRONLY)
    pass_time(engine, clock, 2, 5.0)
    assert store.data("k.wav") == two and not states(engine)
    node = engine.node("k.wav")
    assert node.base is not None
    engine.retire_idle()
    engine.cache.drop(node.base)
    without_background(engine)
    opened = engine.open("k.wav", os.O_RDWR)
    engine.fs.write(engine.caller, opened.handle, 0, b"HEAD")
    assert engine.fs.read(engine.caller, opened.handle, 200_000, 10) == b"2" * 10
    engine.close(opened)
    store.store_version("k.wav", one, late[0])
    pass_time(engine, clock)
    assert store.data("k.wav") == one
    assert states(engine) == ["parked"]


@pytest.mark.expect_warnings
def test_no_answer_is_not_taken_for_gone(make: MakeEngine, store: MemoryStore, parts: bytes):
    """New metadata whose answer was lost, an edit in part, and a bucket that does not say what is there now."""
    clock = ManualClock()
    engine = make(threads=False, clock=clock, **IN_PARTS)
    do_at_once(engine.downloads)
    engine.fs.setattr(engine.caller, engine.entry("large.wav").ino, AttributeChange(mode=0o600))
    lost, away = iter([True]), list[bool]()

    def lose(name: str, key: str) -> None:
        if name == "copy" and next(lost, False):
            raise Unavailable("the answer was lost")

    def refuse(name: str, key: str) -> None:
        if name == "head" and away:
            raise Unavailable("no answer")

    store.after, store.before = lose, refuse
    send(engine)
    without_background(engine)
    opened = engine.open("large.wav", os.O_RDWR)
    engine.fs.write(engine.caller, opened.handle, 0, b"HEAD")
    away.append(True)
    engine.complete(engine.node("large.wav"))
    engine.fs.flush(engine.caller, opened.handle)
    engine.close(opened)
    pass_time(engine, clock, 1)
    assert states(engine) == ["queued"]
    away.clear()
    pass_time(engine, clock)
    assert store.data("large.wav") == b"HEAD" + parts[4:]


# ------------------------------------------------------------------ a write that is under way
@pytest.mark.expect_warnings
def test_a_write_that_is_under_way_while_a_part_is_synced(
    make: MakeEngine, store: MemoryStore, power: Power, large: bytes, monkeypatch: pytest.MonkeyPatch
):
    """It had been counted, and was not in the file yet: the fsync was taken for one that covers it."""
    engine = without_background(make(threads=False, **IN_PARTS, **LATER))
    opened = engine.open("large.wav", os.O_RDWR)
    engine.fs.write(engine.caller, opened.handle, 0, b"HEAD")
    at_it, go_on, plain = threading.Event(), threading.Event(), filecalls.write

    def slow_write(fd: int, data: bytes, offset: int, path: Path) -> int:
        if offset == 100_000:
            at_it.set()
            assert go_on.wait(10)
        return plain(fd, data, offset, path)

    monkeypatch.setattr(filecalls, "write", slow_write)
    writer = threading.Thread(
        target=lambda: engine.fs.write(engine.caller, opened.handle, 100_000, b"W" * 1000)
    )
    syncer = threading.Thread(target=lambda: engine.fs.fsync(engine.caller, opened.handle, False))
    writer.start()
    assert at_it.wait(10)
    syncer.start()
    syncer.join(0.3)
    go_on.set()
    writer.join(10)
    syncer.join(10)
    engine.close(opened)
    power.cut(engine, names=False)
    after = make(**IN_PARTS)
    after.fs.drain(3.0)
    written = b"HEAD" + large[4:100_000] + b"W" * 1000 + large[101_000:]
    assert store.data("large.wav") in (large, written)


# ------------------------------------------------------------------ renamed meanwhile
@pytest.fixture
def renamed(make: MakeEngine, store: MemoryStore, parts: bytes) -> tuple[Engine, ManualClock]:
    """Its new metadata are in the bucket without an answer; edited in part since, and renamed."""
    clock = ManualClock()
    engine = make(threads=False, clock=clock, **IN_PARTS)
    do_at_once(engine.downloads)
    engine.fs.setattr(engine.caller, engine.entry("large.wav").ino, AttributeChange(mode=0o600))
    lost = iter([True])

    def lose(name: str, key: str) -> None:
        if name == "copy" and next(lost, False):
            raise Unavailable("the answer was lost")

    store.after = lose
    send(engine)
    without_background(engine)
    save(engine, "large.wav", b"HEAD", sync=False, flags=os.O_WRONLY)
    engine.rename("large.wav", "other.wav")
    return engine, clock


@pytest.mark.expect_warnings
@pytest.mark.parametrize("unanswered", [0, 1, 2])
def test_our_own_copy_at_the_old_name_stays_until_its_rest_is_here(
    store: MemoryStore, parts: bytes, renamed: tuple[Engine, ManualClock], unanswered: int
):
    """Nobody knew whose it was, and it was taken for one that may go: the rest of the file went with it."""
    engine, clock = renamed
    heads = iter(range(100))

    def away(name: str, key: str) -> None:
        if (name, key) == ("head", "large.wav") and next(heads) < unanswered:
            raise Unavailable("no answer")

    store.before = away
    pass_time(engine, clock, 10)
    assert bucket(store) == {"other.wav": b"HEAD" + parts[4:]} and not states(engine)


@pytest.mark.expect_warnings
def test_our_own_copy_stays_while_it_is_asked_for(
    store: MemoryStore, parts: bytes, renamed: tuple[Engine, ManualClock]
):
    engine, clock = renamed
    once = iter([True])

    def meanwhile(name: str, key: str) -> None:
        if (name, key) == ("head", "large.wav") and next(once, False):
            clock.advance(20)
            send(engine)

    store.before = meanwhile
    pass_time(engine, clock, 10)
    assert bucket(store) == {"other.wav": b"HEAD" + parts[4:]} and not states(engine)


@pytest.mark.expect_warnings
def test_a_local_file_whose_rest_will_not_come_is_shown(make: MakeEngine, store: MemoryStore, large: bytes):
    """Its base was forgotten with the object: the start after that could not read the row."""
    store.set("d/large.tmp", large)
    engine = without_background(make(threads=False, **IN_PARTS, **LOCAL))
    save(engine, "d/large.tmp", b"HEAD", sync=False, flags=os.O_WRONLY)
    engine.rename("d", "e")
    engine.kill()
    store.set("d/large.tmp", OTHER)
    for _ in range(2):
        clock = ManualClock()
        engine = without_background(make(threads=False, clock=clock, read_timeout_s=1.0, **IN_PARTS, **LOCAL))
        pass_time(engine, clock)
        assert states(engine) == ["parked"] and engine.fs.queue_view().parked == 1
        engine.kill()
    assert store.data("d/large.tmp") == OTHER
