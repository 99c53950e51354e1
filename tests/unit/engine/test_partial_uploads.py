"""Edits inside large objects: the parts that changed are sent, the others are copied in the bucket."""

from __future__ import annotations

import errno
import os
import random

import pytest

from r2fs.engine.content.jobs import Job
from r2fs.model.errors import NotImplementedThere, Unavailable
from r2fs.model.records import Version
from tests.mount.daemons import until
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

PART = 1000
LARGE: dict[str, object] = {
    "multipart_threshold": 4 * PART,
    "part_size": PART,
    "small_file": 100,
    "upload_delay_s": 0.0,
}


@pytest.fixture
def engine_settings() -> dict[str, object]:
    return LARGE


def pattern(parts: float) -> bytes:
    return random.Random(7).randbytes(int(parts * PART))


def cached(engine: Engine, store: MemoryStore, key: str, data: bytes) -> None:
    """There, read here to its end, and known part by part."""
    etag = store.set(key, data)
    assert engine.read(key) == data
    known(engine, key, etag, data)


def known(engine: Engine, key: str, etag: str, data: bytes) -> None:
    until("digests", lambda: engine.cache.recall_parts(Version(key, etag, len(data))))


def edit(engine: Engine, path: str, at: int, data: bytes, direct: bool = True) -> None:
    """As a program does it: through the descriptor that it was given, where there is one."""
    opened = engine.open(path, os.O_RDWR)
    try:
        if direct and opened.local is not None:
            assert os.pwrite(opened.local, data, at) == len(data)
            engine.fs.wrote(opened.handle)
        else:
            engine.fs.write(engine.caller, opened.handle, at, data)
    finally:
        engine.close(opened)


def sent(store: MemoryStore) -> tuple[int, int]:
    """Parts that were sent, and parts that were copied."""
    return store.count("put_part"), store.count("copy_part")


def test_an_upload_does_not_wait_until_the_digests_have_been_taken(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their descriptor could write: it looked like a program that still has the file mapped."""
    engine, jobs = make(), list[Job]()
    monkeypatch.setattr(engine.background, "submit", lambda job, priority: jobs.append(job) or True)
    store.set("song.wav", pattern(10.5))
    engine.read("song.wav")
    assert jobs, "no digests were to be taken"
    edit(engine, "song.wav", 3500, b"TAG")
    engine.drain()
    assert store.data("song.wav")[3500:3503] == b"TAG"
    for job in jobs:
        job()


def test_a_cached_file_sends_the_part_that_changed(make: MakeEngine, store: MemoryStore) -> None:
    data = pattern(10.5)
    engine = make()
    cached(engine, store, "song.wav", data)
    edit(engine, "song.wav", 3500, b"TAG")
    engine.drain()
    assert sent(store) == (1, 10)
    assert store.count("put") == 0
    assert store.data("song.wav") == data[:3500] + b"TAG" + data[3503:]
    edit(engine, "song.wav", 0, b"RIFF")  # its own upload told what is there
    engine.drain()
    assert sent(store) == (2, 20)
    assert store.data("song.wav") == b"RIFF" + data[4:3500] + b"TAG" + data[3503:]


def test_a_file_that_was_written_here_is_known_after_a_restart(make: MakeEngine, store: MemoryStore) -> None:
    data = pattern(8)
    engine = make()
    engine.write("a", data)
    engine.drain()
    assert sent(store) == (8, 0)
    known(engine, "a", store.head("a").etag, data)
    engine.stop()
    again = make()
    edit(again, "a", 7999, b"!")
    again.drain()
    assert sent(store) == (9, 7)
    assert store.data("a") == data[:-1] + b"!"


def test_a_file_that_was_not_here_sends_what_was_written(make: MakeEngine, store: MemoryStore) -> None:
    data = pattern(12)
    store.set("song.wav", data)
    engine = make()
    edit(engine, "song.wav", 5990, b"over the edge", direct=False)
    engine.drain()
    assert sent(store) == (2, 10)
    assert store.data("song.wav") == data[:5990] + b"over the edge" + data[6003:]


def test_longer_and_shorter(make: MakeEngine, store: MemoryStore) -> None:
    data = pattern(9.5)
    engine = make()
    cached(engine, store, "a", data)
    edit(engine, "a", len(data), b"x" * 2000)
    engine.drain()
    assert sent(store) == (3, 9)  # the short last part is another now
    assert store.data("a") == data + b"x" * 2000
    engine.truncate("a", 5200)
    engine.drain()
    assert store.data("a") == data[:5200]
    assert sent(store) == (4, 14)
    engine.truncate("a", 7000)
    engine.drain()
    assert store.data("a") == data[:5200] + bytes(1800)
    assert sent(store) == (6, 19)


def test_what_shifts_everything_sends_everything(make: MakeEngine, store: MemoryStore) -> None:
    data = pattern(6)
    engine = make()
    cached(engine, store, "a", data)
    engine.write("a", b"front" + data)
    engine.drain()
    assert sent(store) == (7, 0)
    assert store.data("a") == b"front" + data


def test_a_renamed_and_edited_file_is_copied_from_its_old_key(make: MakeEngine, store: MemoryStore) -> None:
    data = pattern(6)
    engine = make(upload_delay_s=0.5)
    cached(engine, store, "a", data)
    engine.rename("a", "b")
    edit(engine, "b", 10, b"!")
    engine.drain()
    assert store.keys() == ["b"]
    assert store.data("b") == data[:10] + b"!" + data[11:]
    assert store.count("put_part") == 1


def test_a_server_that_copies_no_parts_gets_them_all(make: MakeEngine, store: MemoryStore) -> None:
    def refuse(name: str, key: str) -> None:
        if name == "copy_part":
            raise NotImplementedThere(key)

    store.before = refuse
    data = pattern(6)
    engine = make()
    cached(engine, store, "a", data)
    edit(engine, "a", 10, b"!")
    engine.drain()
    assert store.count("put_part") == 6
    assert store.data("a") == data[:10] + b"!" + data[11:]


@pytest.mark.expect_warnings
def test_another_host_replaces_the_base_meanwhile(make: MakeEngine, store: MemoryStore) -> None:
    data = pattern(6)
    engine = make(upload_delay_s=0.2)
    cached(engine, store, "a", data)
    edit(engine, "a", 10, b"!")
    store.set("a", b"theirs")
    engine.drain()
    assert store.data("a") == b"theirs"
    (mine,) = set(store.keys()) - {"a"}
    assert store.data(mine) == data[:10] + b"!" + data[11:]


@pytest.mark.expect_warnings("not deleted")
def test_the_base_is_replaced_between_two_parts(make: MakeEngine, store: MemoryStore) -> None:
    data = pattern(6)
    engine = make(part_threads=1)
    cached(engine, store, "a", data)
    engine.rename("a", "b")  # so that what becomes of `a` is no conflict

    def replace(name: str, key: str) -> None:
        if name == "copy_part" and store.count("copy_part") == 3:
            store.set("a", b"theirs")

    store.before = replace
    edit(engine, "b", 10, b"!")
    engine.drain()
    assert store.data("b") == data[:10] + b"!" + data[11:]


def test_an_upload_of_parts_goes_on_after_a_crash(make: MakeEngine, store: MemoryStore) -> None:
    data = pattern(8)
    engine = make(part_threads=1)
    cached(engine, store, "a", data)
    down = False

    def fail(name: str, key: str) -> None:
        if down or (name == "copy_part" and store.count("copy_part") > 4):
            raise Unavailable("the test cuts it here")

    store.before = fail
    edit(engine, "a", 10, b"!")
    until("some parts", lambda: store.count("copy_part") > 4)
    down = True
    engine.kill()
    down, store.before = False, lambda name, key: None
    again = make()
    again.drain()
    assert store.data("a") == data[:10] + b"!" + data[11:]
    assert store.count("put_part") == 1


@pytest.mark.parametrize("seed", range(12))
def test_random_edits_arrive(seed: int, make: MakeEngine, store: MemoryStore) -> None:
    rng = random.Random(seed)
    want = bytearray(rng.randbytes(rng.randrange(4 * PART, 12 * PART)))
    store.set("a", bytes(want))
    engine = make()
    for _ in range(8):
        for _ in range(rng.randrange(1, 3)):
            at, data = rng.randrange(len(want) + 500), rng.randbytes(rng.choice([1, 40, 1500]))
            if rng.random() < 0.2:
                size = rng.randrange(1, 14 * PART)
                engine.truncate("a", size)
                want = want[:size] + bytes(max(0, size - len(want)))
            else:
                edit(engine, "a", at, data, direct=rng.random() < 0.5)
                want += bytes(max(0, at - len(want)))
                want[at : at + len(data)] = data
        if rng.random() < 0.3:
            engine.stop()
            engine = make()
        if rng.random() < 0.8:
            engine.drain()
            assert store.data("a") == bytes(want)
        if rng.random() < 0.3:
            assert engine.read("a") == bytes(want)
    engine.drain()
    assert store.data("a") == bytes(want)


def test_an_upload_ends_without_a_free_descriptor_for_its_digests(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()

    def none_left(fd: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "dup", none_left)
    data = pattern(6)
    engine.write("new.wav", data)
    engine.drain()
    assert store.objects["new.wav"].data == data
    engine.write("new.wav", data[::-1])  # the first attempt is over: the next one is sent
    engine.drain()
    assert store.objects["new.wav"].data == data[::-1]
