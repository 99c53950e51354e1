"""What happens between two steps of a call: an answer, another program, the last byte, a failing disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from r2fs.engine.writeback.worker import Worker
from r2fs.model.errors import LocalError, NoSpace, Throttled, Unavailable
from r2fs.model.records import AttributeChange, ObjectMeta
from r2fs.model.verbs import RENAME_EXCHANGE
from tests.support.clocks import ManualClock
from tests.support.engine import MakeEngine, do_at_once
from tests.support.memory_store import MemoryStore
from tests.support.power import (
    IN_PARTS,
    LATER,
    ONE,
    OTHER,
    Power,
    Stop,
    bucket,
    save,
    send,
    states,
    stop_at,
    without_background,
)


@pytest.fixture
def large(store: MemoryStore) -> bytes:
    """An object that was sent in parts: a copy of it has another ETag."""
    data = os.urandom(300_000)
    store.store_version("large.wav", data, ObjectMeta("audio/wav", {}), "abc-2")
    return data


def beside(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Another program: its thread, and what came of it."""
    got: list[object] = []

    def run() -> None:
        try:
            got.append(work())
        except Exception as error:
            got.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, got


# ------------------------------------------------------------------ an upload on its way
@pytest.mark.expect_warnings
def test_an_fsync_fails_while_the_file_is_sent(make: MakeEngine, store: MemoryStore, power: Power):
    """And the upload gets no answer: what it says does not take the place of the doubt."""
    engine = make(threads=False)
    save(engine, "a.wav", ONE, sync=False)

    def fail(name: str, key: str) -> None:
        if name == "put":
            store.before = lambda name, key: None
            opened = engine.open("a.wav")
            power.fails = 1
            with pytest.raises(LocalError):
                engine.fs.fsync(engine.caller, opened.handle, False)
            engine.close(opened)
            raise Unavailable(f"{key}: no answer")

    store.before = fail
    engine.run_one_due()
    engine.kill()
    after = make()
    after.fs.drain(3.0)
    assert states(after) == ["parked"]
    assert not store.keys()


@pytest.mark.parametrize("by", ["unlink", "rename"])
def test_a_lost_answer_and_then_another_error(make: MakeEngine, store: MemoryStore, by: str):
    """The error says that an earlier try may have been carried out: what it left is found and goes."""
    tries = iter(range(2))

    def lose(name: str, key: str) -> None:
        if name == "put" and key == "a.wav" and next(tries, 1) == 0:
            error = Throttled(f"{key}: too many requests, after an answer that was lost")
            error.unknown = True
            raise error

    store.after = lose
    clock = ManualClock()
    engine = make(threads=False, clock=clock)
    save(engine, "a.wav", ONE, sync=False)
    send(engine)
    assert store.data("a.wav") == ONE
    if by == "unlink":
        engine.unlink("a.wav")
    else:
        engine.rename("a.wav", "b.wav")
    for _ in range(40):
        clock.advance(30.0)
        send(engine)
    assert bucket(store) == ({} if by == "unlink" else {"b.wav": ONE})


@pytest.mark.parametrize("by", ["chmod", "touch", "write"])
def test_a_file_changes_while_its_upload_is_created(make: MakeEngine, store: MemoryStore, by: str):
    """Its metadata were sent with that request, and nobody sends them later."""
    engine = make(threads=False, multipart_threshold=4000, part_size=1000)
    do_at_once(engine.parts)
    data = os.urandom(6000)
    save(engine, "large.wav", data, sync=False)
    ino, first = engine.entry("large.wav").ino, iter([True])

    def change(name: str, key: str) -> None:
        if name == "create_upload" and next(first, False):
            if by == "chmod":
                engine.fs.setattr(engine.caller, ino, AttributeChange(mode=0o600))
            elif by == "touch":
                engine.fs.setattr(engine.caller, ino, AttributeChange(mtime_ns=10**18))
            else:
                save(engine, "large.wav", b"HEAD", sync=False, flags=os.O_RDWR)

    store.before = change
    send(engine)
    stored = store.objects["large.wav"]
    assert stored.data == (b"HEAD" + data[4:] if by == "write" else data)
    assert by != "chmod" or stored.meta.metadata["mode"] == "0100600"
    assert by != "touch" or stored.meta.metadata["mtime"] == "1000000000.000000000"
    assert not engine.pending_store.inodes


@pytest.mark.expect_warnings("unexpected error")
def test_a_defect_of_an_upload_ends_the_attempt(make: MakeEngine, store: MemoryStore):
    """The file is sent again, and a drain does not wait for ever."""
    first = iter([True])

    def fail(name: str, key: str) -> None:
        if name == "put" and next(first, False):
            raise KeyError("ETag")

    store.before = fail
    engine = make()
    save(engine, "a.wav", ONE, sync=False)
    engine.drain()
    assert bucket(store) == {"a.wav": ONE}


# ------------------------------------------------------------------ a copy whose answer is not known
@pytest.mark.expect_warnings("could not be read")
def test_the_answer_comes_while_a_reader_asks_for_it(make: MakeEngine, store: MemoryStore, large: bytes):
    engine = make(threads=False, **IN_PARTS)
    do_at_once(engine.downloads)
    sender, asking, go_on = threading.current_thread(), threading.Event(), threading.Event()
    reader: list[tuple[threading.Thread, list[object]]] = []

    def wait(name: str, key: str) -> None:
        if name == "head" and threading.current_thread() is not sender:
            asking.set()
            assert go_on.wait(30)

    def read(name: str, key: str) -> None:
        if name == "copy":
            reader.append(beside(lambda: engine.read("large.wav")))
            assert asking.wait(30)

    store.before, store.after = wait, read
    engine.fs.setattr(engine.caller, engine.entry("large.wav").ino, AttributeChange(mode=0o600))
    send(engine)
    go_on.set()
    ((thread, got),) = reader
    thread.join(30)
    assert got == [large]


@pytest.mark.expect_warnings("could not be read")
@pytest.mark.parametrize("edited", [False, True])
def test_two_find_it_at_once(make: MakeEngine, store: MemoryStore, large: bytes, edited: bool):
    engine = make(threads=False, **IN_PARTS)
    do_at_once(engine.downloads)
    engine.fs.setattr(engine.caller, engine.entry("large.wav").ino, AttributeChange(mode=0o600))
    lost, second = iter([True]), iter([True])

    def lose(name: str, key: str) -> None:
        if name == "copy" and next(lost, False):
            raise Unavailable(f"{key}: the answer was lost")

    store.after = lose
    send(engine)
    (node,) = engine.pending_nodes()
    before = node.base
    assert before is not None
    if edited:
        engine.background.submit = lambda job, priority=0: True  # type: ignore[method-assign]
        save(engine, "large.wav", b"HEAD", sync=False, flags=os.O_WRONLY)

    def find_too(name: str, key: str) -> None:
        if name == "head" and next(second, False):
            missing = node.base
            assert missing is not None
            thread, _ = beside(lambda: engine.own_copies.find(node, missing))
            thread.join(30)

    store.before = find_too
    if edited:
        engine.end_outage()
        engine.hasten()
        send(engine)
        assert "parked" not in states(engine)
    else:
        assert engine.read("large.wav") == large
        asked = len(store.calls)
        assert node.base != before and engine.own_copies.find(node, before), "by a GET that was sent before"
        assert len(store.calls) == asked


# ------------------------------------------------------------------ the last byte, and the last close
@pytest.mark.parametrize("names", [False, True])
def test_the_rest_comes_while_a_part_is_synced(
    make: MakeEngine, store: MemoryStore, power: Power, large: bytes, names: bool
):
    engine = without_background(make(threads=False, **IN_PARTS, **LATER))
    opened = engine.open("large.wav", os.O_RDWR)
    node = engine.node("large.wav")
    engine.fs.write(engine.caller, opened.handle, 0, b"HEAD")
    once = iter([True])

    def rest(synced: object) -> None:
        if next(once, False):
            engine.read("large.wav")
            engine.complete(node)

    engine.on_bytes_synced(rest)
    engine.fs.fsync(engine.caller, opened.handle, False)
    engine.close(opened)
    power.cut(engine, names=names)
    after = make(**IN_PARTS)
    assert after.read("large.wav") == b"HEAD" + large[4:]
    after.drain()
    assert store.data("large.wav") == b"HEAD" + large[4:]


# ------------------------------------------------------------------ what a row still says
@pytest.mark.expect_warnings("may be torn|never reached the disk")
def test_a_doubt_goes_with_the_bytes_that_it_was_about(make: MakeEngine, store: MemoryStore, power: Power):
    """A second power cut takes the torn file itself: what is left is the rename of a good object."""
    store.set("a.wav", ONE)
    engine = make(threads=False, **LATER)
    do_at_once(engine.downloads)
    save(engine, "a.wav", OTHER, sync=False, flags=os.O_WRONLY)
    power.cut(engine, names=False)
    engine = make(threads=False, **LATER)
    assert states(engine) == ["parked"]
    engine.rename("a.wav", "b.wav")
    power.cut(engine, names=True)
    engine = make(threads=False, **LATER)
    engine.kill()
    make().drain()
    assert bucket(store) == {"b.wav": ONE}


@pytest.mark.parametrize("changed", ["a.wav", "b.wav"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("point", ["materialised", "sent", "put_committed"])
def test_exchanged_files_of_the_same_bytes_keep_their_modes(
    make: MakeEngine, store: MemoryStore, point: str, times: int, changed: str
):
    """Killed when the first had arrived at the other's name: its ETag there says nothing of whose it is."""
    engine = make(threads=False)
    do_at_once(engine.downloads)
    save(engine, "a.wav", b"", sync=False)
    save(engine, "b.wav", b"", sync=False)
    engine.fs.setattr(engine.caller, engine.entry(changed).ino, AttributeChange(mode=0o755))
    send(engine)
    engine.rename("a.wav", "b.wav", RENAME_EXCHANGE)
    for _ in range(times):
        stop_at(engine, point)
        with suppress(Stop):
            engine.run_due()
        engine.kill()
        engine = make(threads=False)
        do_at_once(engine.downloads)
    send(engine)
    engine.kill()
    again = make(mtime="exact")
    modes = {name: again.entry(name).attributes.mode & 0o777 for name in ("a.wav", "b.wav")}
    other = {"a.wav": "b.wav", "b.wav": "a.wav"}[changed]
    assert modes == {changed: 0o644, other: 0o755}


# ------------------------------------------------------------------ pages, times, and a disk that cannot read
def test_pages_that_find_no_room_are_an_error(make: MakeEngine, monkeypatch: pytest.MonkeyPatch):
    """Of pages the kernel takes an error alone: told of a smaller number, it would forget the rest."""
    engine = make(**LATER)
    opened = engine.open("a.wav", os.O_RDWR | os.O_CREAT)
    monkeypatch.setattr(engine.files.pressure, "write", lambda caller, content, offset, data: 4)
    assert engine.fs.write(engine.caller, opened.handle, 0, b"8 bytes.", False) == 4
    with pytest.raises(NoSpace):
        engine.fs.write(engine.caller, opened.handle, 0, b"8 bytes.", True)
    monkeypatch.undo()
    engine.close(opened)


def test_small_files_that_are_sent_at_once_are_two_commits(make: MakeEngine, store: MemoryStore):
    engine = make(threads=False)
    for number in range(5):
        engine.write(f"{number}.wav", b"take %d" % number)
    engine.hasten()
    commits: list[str] = []
    engine.commit_point = commits.append
    engine.send_at_once()
    assert commits == ["commit", "committed"] * 2, "claims, and answers"
    assert engine.is_all_sent() and not states(engine)
    assert bucket(store) == {f"{number}.wav": b"take %d" % number for number in range(5)}
    assert all(engine.read(path) == data for path, data in bucket(store).items())


def test_only_the_thread_that_holds_the_lock_passes_assert_held(make: MakeEngine):
    """Another thread's holding it does not count."""
    core = make().core
    with pytest.raises(AssertionError, match="not held"):
        core.assert_held()
    with core.lock:
        core.assert_held()
        thread, got = beside(core.assert_held)
        thread.join()
    assert isinstance(got[0], AssertionError)


def test_large_files_leave_threads_for_small_ones(make: MakeEngine, monkeypatch: pytest.MonkeyPatch):
    """Of large files a few are sent at once, and the next when one has ended; a small one does not wait for them."""
    monkeypatch.setattr("r2fs.engine.writeback.queue.LARGE", 100)
    engine = make(threads=False)
    for number in range(6):
        engine.write(f"film-{number}.mov", bytes(100))
    engine.write("take.wav", b"small")
    engine.hasten()
    on_their_way = []
    while (task := engine.take_due()) is not None:
        on_their_way.append(task)
    assert len(on_their_way) == 5, "four films and the take"
    for task in on_their_way:
        task()
    engine.run_due()
    assert engine.is_all_sent()


def test_an_upload_wakes_no_thread_without_a_task(make: MakeEngine, monkeypatch: pytest.MonkeyPatch):
    plain, asking = Worker.take_due, []

    def take_due(worker: Worker) -> Callable[[], None] | None:
        asking.append(threading.current_thread().name)
        return plain(worker)

    monkeypatch.setattr(Worker, "take_due", take_due)
    engine = make(upload_threads=8)
    for number in range(5):  # one after the other
        engine.write(f"{number}.wav", b"x")
        engine.drain()
    assert len(asking) == 5, "an idle thread looks at the due times, and at no item"
