"""Back-pressure on the engine: who is slowed, who waits, who gets ENOSPC, and what is kept."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from r2fs.disk import filecalls
from r2fs.engine.content.disk_space import Disk, DiskSpace
from r2fs.engine.files import backpressure
from r2fs.model.errors import LocalError, NoSpace, Unavailable, WouldWait
from r2fs.model.ports import Caller
from r2fs.model.records import AttributeChange
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

KIB = 1024
LIMIT = 1000 * KIB


@pytest.fixture
def engine_settings() -> dict[str, object]:
    return {"dirty_limit": LIMIT, "dirty_wait_s": 0.2}


@pytest.fixture
def away(store: MemoryStore) -> MemoryStore:
    """No upload gets through."""

    def refuse(name: str, key: str) -> None:
        if name == "put":
            raise Unavailable(f"{key}: no answer")

    store.before = refuse
    return store


def back(store: MemoryStore) -> None:
    store.before = lambda name, key: None


def level(engine: Engine) -> str:
    return engine.fs.room_view().writers


def create(engine: Engine, path: str) -> tuple[int, int | None]:
    opened = engine.open(path, os.O_WRONLY | os.O_CREAT)
    return opened.handle, opened.local


# ------------------------------------------------------------------ the dirty limit
@pytest.mark.expect_warnings("made to wait")
def test_first_free_then_slowed_then_waiting(make: MakeEngine, away: MemoryStore):
    engine = make()
    handle, local = create(engine, "free.wav")
    assert local is not None, "far below the limit the descriptor is handed out"
    os.pwrite(local, bytes(850 * KIB), 0)  # as the kernel does: nobody is told
    view = engine.fs.room_view()
    assert (view.dirty, view.writers) == (850 * KIB, "slowed"), "what is being written counts"
    slowed, none = create(engine, "slowed.wav")
    assert none is None, "above 80 % writes come through us"
    engine.fs.flush(engine.caller, handle)
    engine.fs.release(handle)
    begun = time.monotonic()
    assert engine.fs.write(engine.caller, slowed, 0, bytes(10 * KIB)) == 10 * KIB
    assert time.monotonic() - begun >= 0.9, "its pause has the cap's length"
    with pytest.raises(NoSpace, match="dirty_limit"):
        engine.fs.write(engine.caller, slowed, 10 * KIB, bytes(200 * KIB))
    assert engine.fs.read(engine.caller, slowed, 0, 1 << 20) == bytes(10 * KIB), "earlier bytes are kept"
    back(away)
    engine.fs.flush(engine.caller, slowed)
    engine.fs.release(slowed)
    engine.drain()
    assert level(engine) == "free"
    assert {key: len(away.data(key)) for key in sorted(away.keys())} == {
        "free.wav": 850 * KIB,
        "slowed.wav": 10 * KIB,
    }


def test_an_edit_in_place_is_not_slowed(make: MakeEngine, away: MemoryStore):
    engine = make()
    engine.write("a.wav", bytes(900 * KIB))
    opened = engine.open("a.wav", os.O_RDWR)
    assert opened.local is None
    for at in range(0, 900 * KIB, 100 * KIB):
        engine.fs.write(Caller(may_wait=False), opened.handle, at, b"x" * 100 * KIB)
    engine.close(opened)


@pytest.mark.expect_warnings("made to wait")
def test_a_file_larger_than_the_limit_is_possible(make: MakeEngine, store: MemoryStore):
    """Nothing but itself is dirty: there is nothing to wait for, and the disk is its bound."""
    engine = make()
    handle, _ = create(engine, "long.wav")
    for at in range(0, 3 * LIMIT, LIMIT // 2):
        engine.fs.write(engine.caller, handle, at, bytes(LIMIT // 2))
    engine.fs.flush(engine.caller, handle)
    engine.fs.release(handle)
    engine.drain()
    assert len(store.data("long.wav")) == 3 * LIMIT


@pytest.mark.expect_warnings("made to wait")
def test_a_file_can_be_made_shorter_past_the_limit(make: MakeEngine, away: MemoryStore):
    """A program that takes room first and cuts what it did not need: waiting would not have helped."""
    engine = make()
    handle, _ = create(engine, "long.wav")
    ino = engine.entry("long.wav").ino
    engine.fs.setattr(engine.caller, ino, AttributeChange(size=LIMIT - 1), handle)
    engine.fs.write(engine.caller, handle, 0, b"all of it")
    engine.fs.setattr(engine.caller, ino, AttributeChange(size=2 * LIMIT), handle)
    engine.fs.setattr(Caller(may_wait=True), ino, AttributeChange(size=LIMIT + 1), handle)
    with pytest.raises(NoSpace):
        engine.fs.setattr(engine.caller, ino, AttributeChange(size=2 * LIMIT), handle)
    engine.truncate("long.wav", 9)
    engine.fs.release(handle)
    assert engine.read("long.wav") == b"all of it"
    assert level(engine) == "free"
    back(away)


@pytest.mark.expect_warnings("made to wait")
def test_closing_waits_and_succeeds(make: MakeEngine, away: MemoryStore):
    engine = make()
    first, _ = create(engine, "first.wav")
    second, local = create(engine, "second.wav")
    assert local is not None
    os.pwrite(local, bytes(2 * LIMIT), 0)
    begun = time.monotonic()
    engine.fs.flush(Caller(may_wait=False), second)  # its own bytes cannot be sent before it is closed
    with pytest.raises(WouldWait):
        engine.fs.flush(Caller(may_wait=False), first)
    engine.fs.flush(engine.caller, first)
    assert time.monotonic() - begun >= 0.2
    for handle in (first, second):
        engine.fs.release(handle)
    back(away)
    engine.drain()
    assert len(away.data("second.wav")) == 2 * LIMIT


@pytest.mark.expect_warnings("made to wait")
def test_who_waits_goes_on_when_there_is_room(make: MakeEngine, away: MemoryStore):
    engine = make(dirty_wait_s=60.0)
    engine.write("a.wav", bytes(LIMIT))
    done = threading.Event()
    writer = threading.Thread(target=lambda: (engine.write("b.wav", b"y"), done.set()), daemon=True)
    writer.start()
    assert not done.wait(0.3)
    back(away)
    assert done.wait(30)
    engine.drain()
    assert away.keys() == ["a.wav", "b.wav"]


# ------------------------------------------------------------------ a full disk
class FullDisk:
    """Of `room` bytes for staging; what is evicted makes more."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        real, evict = filecalls.pwrite_all, engine.cache.evict

        def write(fd: int, data: bytes | memoryview, offset: int) -> int:
            growth = max(0, offset + len(data) - os.fstat(fd).st_size)
            if growth > self.room:
                if not self.room:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                data = memoryview(data)[: len(data) - growth + self.room]
                growth = self.room
            self.room -= growth
            return real(fd, data, offset)

        def freeing(size: int) -> int:
            freed = evict(size)
            self.room += freed
            return freed

        monkeypatch.setattr(filecalls, "pwrite_all", write)
        monkeypatch.setattr(engine.cache, "evict", freeing)
        monkeypatch.setattr(DiskSpace, "disk", lambda room: Disk(self.room, 4096))


@pytest.mark.expect_warnings("is full")  # where the watcher looks just before there is room again
def test_clean_content_goes_before_a_writer_gets_no_space(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
):
    engine = make()
    engine.write("old.wav", bytes(400 * KIB))
    engine.drain()
    assert engine.fs.cache_view().entries == 1
    disk = FullDisk(engine, monkeypatch, 10 * KIB)
    handle, local = create(engine, "new.wav")
    assert local is None, "near the end of the disk writes come through us"
    assert engine.fs.write(engine.caller, handle, 0, b"x" * 100 * KIB) == 100 * KIB
    assert engine.fs.cache_view().entries == 0
    assert disk.room >= 300 * KIB
    engine.fs.flush(engine.caller, handle)
    engine.fs.release(handle)
    monkeypatch.undo()
    engine.drain()
    assert store.data("new.wav") == b"x" * 100 * KIB
    assert engine.read("old.wav") == bytes(400 * KIB), "fetched again"


@pytest.mark.expect_warnings("is full")
def test_on_a_full_disk_a_write_says_how_much_it_wrote(
    make: MakeEngine, away: MemoryStore, monkeypatch: pytest.MonkeyPatch
):
    """Never "all of it" where it was less: those bytes would be lost in silence."""
    engine = make()
    FullDisk(engine, monkeypatch, 10 * KIB)
    handle, _ = create(engine, "new.wav")
    assert engine.fs.write(engine.caller, handle, 0, b"x" * 100 * KIB) == 10 * KIB
    with pytest.raises(NoSpace):
        engine.fs.write(engine.caller, handle, 10 * KIB, b"y" * 90 * KIB)
    engine.fs.flush(engine.caller, handle)
    engine.fs.release(handle)
    monkeypatch.undo()
    back(away)
    engine.drain()
    assert away.data("new.wav") == b"x" * 10 * KIB


@pytest.mark.expect_warnings("is full")
def test_an_append_on_a_full_disk_says_how_much_it_wrote(
    make: MakeEngine, away: MemoryStore, monkeypatch: pytest.MonkeyPatch
):
    engine = make()
    FullDisk(engine, monkeypatch, 10 * KIB)
    opened = engine.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    assert engine.fs.write(engine.caller, opened.handle, 0, b"x" * 100 * KIB) == 10 * KIB
    engine.close(opened)


@pytest.mark.expect_warnings("is full")
def test_pages_of_a_mapping_are_not_refused_where_room_can_be_made(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
):
    """The dispatcher wrote some of them and may not wait: a lane makes room and writes all, at the same place."""
    engine = make()
    engine.write("old.wav", bytes(400 * KIB))
    engine.drain()
    FullDisk(engine, monkeypatch, 10 * KIB)
    opened = engine.open("new.wav", os.O_WRONLY | os.O_CREAT)
    data = b"x" * 100 * KIB
    with pytest.raises(WouldWait):
        engine.fs.write(Caller(may_wait=False, may_fetch=False), opened.handle, 0, data, paged=True)
    assert engine.fs.write(engine.caller, opened.handle, 0, data, paged=True) == len(data)
    engine.close(opened)


def test_the_last_part_lasts_about_a_minute():
    """The pauses of a writer that fills it, whatever the limit is, as `pace` computes them."""
    for limit in (1 << 20, 1 << 34):
        left, paused, write = limit * (1 - backpressure.SLOW_FROM), 0.0, limit // 1000
        while left > write:
            paused += min(backpressure.PAUSE_CAP_S, write * backpressure.LAST_PART_S / left)
            left -= write
        assert 60 < paused < 240


# ------------------------------------------------------------------ a disk that fails
@pytest.mark.expect_warnings("may be damaged")
def test_what_could_not_be_synced_is_parked(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
):
    """The kernel tells of a failed write-back once; a second fsync says that all is well."""
    store.set("take.wav", b"good")
    engine = make()
    opened = engine.open("take.wav", os.O_RDWR)
    engine.fs.write(engine.caller, opened.handle, 0, b"what the disk did not take")
    failing = [OSError(errno.EIO, os.strerror(errno.EIO))]
    real = os.fsync

    def fsync(fd: int) -> None:
        if failing:
            raise failing.pop()
        real(fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(LocalError):
            engine.fs.fsync(engine.caller, opened.handle, False)
    engine.close(opened)
    engine.drain()
    assert store.data("take.wav") == b"good"
    view = engine.fs.queue_view()
    assert (view.parked, view.transfers[0].reason) == (
        1,
        "may be damaged: this disk failed to store its bytes",
    )
    engine.kill()
    engine = make()
    engine.drain()
    assert store.data("take.wav") == b"good", "nor by a new start"
    engine.write("take.wav", b"written anew")
    engine.drain()
    assert store.data("take.wav") == b"written anew"


@pytest.mark.parametrize(("code", "parked"), [(errno.EIO, True), (errno.EROFS, False), (errno.ENOSPC, False)])
@pytest.mark.expect_warnings("may be damaged")
def test_an_upload_whose_file_cannot_be_synced(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, code: int, parked: bool
):
    engine = make()
    failing = [OSError(code, os.strerror(code))]
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        if failing:
            raise failing.pop()
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    engine.write("take.wav", b"bytes")
    engine.drain()
    assert engine.fs.queue_view().parked == parked
    assert store.keys() == ([] if parked else ["take.wav"])


def test_what_the_disk_cannot_read_is_fetched_again(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
):
    store.set("take.wav", b"good" * KIB)
    engine = make()
    assert engine.read("take.wav") == b"good" * KIB
    real, failing = filecalls.pread_all, [1, 1]

    def pread(fd: int, size: int, offset: int, path: Path) -> bytes:
        if failing:
            failing.pop()
            raise LocalError(f"{path}: Input/output error")
        return real(fd, size, offset, path)

    monkeypatch.setattr(filecalls, "pread_all", pread)
    for _ in range(2):  # resting, and then fetched anew
        with pytest.raises(LocalError):
            engine.read("take.wav")
    before = [name for name, _ in store.calls].count("get")
    assert engine.read("take.wav") == b"good" * KIB
    assert [name for name, _ in store.calls].count("get") == before + 1
    assert engine.read("take.wav") == b"good" * KIB
    assert [name for name, _ in store.calls].count("get") == before + 1, "it is trusted again"
