"""A file that is open loses its name, and the same version has the name again: two files, each with its own bytes."""

from __future__ import annotations

import os

import pytest

from r2fs.model.records import Opened
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

MIB = 1 << 20
NEW = b"new" * 1000


def read(engine: Engine, opened: Opened, at: int, size: int) -> bytes:
    return engine.fs.read(engine.caller, opened.handle, at, size)


@pytest.fixture
def take(store: MemoryStore) -> bytes:
    data = os.urandom(8 * MIB)
    store.set("take.wav", data)
    return data


def opened_and_back(make: MakeEngine, store: MemoryStore, take: bytes, cached: int) -> tuple[Engine, Opened]:
    """The file is open, of `cached` bytes in the cache; another host has removed it, and put it back."""
    engine = make(small_file=4096)
    opened = engine.open("take.wav")
    for at in range(0, cached, MIB):
        read(engine, opened, at, MIB)
    engine.close(opened)
    opened = engine.open("take.wav")
    store.remove("take.wav")
    assert engine.listdir() == []
    store.set("take.wav", take)
    assert engine.listdir() == ["take.wav"]
    return engine, opened


@pytest.mark.parametrize("cached", [MIB, 8 * MIB])
def test_who_has_the_old_one_open_sees_no_write(
    make: MakeEngine, store: MemoryStore, take: bytes, cached: int
) -> None:
    engine, old = opened_and_back(make, store, take, cached)
    new = engine.open("take.wav", os.O_RDWR)
    engine.fs.write(engine.caller, new.handle, 0, NEW)
    assert read(engine, old, 0, len(NEW)) == take[: len(NEW)]
    assert read(engine, new, 0, len(NEW)) == NEW
    for opened in (old, new):
        engine.close(opened)


def test_what_the_old_one_fetches_takes_no_write_away(
    make: MakeEngine, store: MemoryStore, take: bytes
) -> None:
    engine, old = opened_and_back(make, store, take, MIB)
    new, at = engine.open("take.wav", os.O_RDWR), 4 * MIB
    engine.fs.write(engine.caller, new.handle, at, NEW)
    assert read(engine, old, at, len(NEW)) == take[at : at + len(NEW)]
    for opened in (old, new):
        engine.close(opened)
    engine.drain()
    assert store.data("take.wav") == take[:at] + NEW + take[at + len(NEW) :]


def test_what_one_gives_back_the_other_keeps(make: MakeEngine, store: MemoryStore, take: bytes) -> None:
    engine, old = opened_and_back(make, store, take, MIB)
    new = engine.open("take.wav")
    assert read(engine, new, 0, 1000) == take[:1000]
    for source in engine.open_downloads():
        if source.ino != engine.entry("take.wav").ino:
            assert engine.make_streamed(source)
            assert source.content.release(0, MIB) == MIB
    assert read(engine, new, 0, 1000) == take[:1000]
    assert read(engine, old, 0, 1000) == take[:1000]
    for opened in (old, new):
        engine.close(opened)


def test_a_rename_takes_no_file_along_that_is_in_use(
    make: MakeEngine, store: MemoryStore, take: bytes
) -> None:
    engine, old = opened_and_back(make, store, take, 8 * MIB)
    engine.rename("take.wav", "other.wav")
    engine.drain()
    new = engine.open("other.wav", os.O_RDWR)
    engine.fs.write(engine.caller, new.handle, 0, NEW)
    assert read(engine, old, 0, len(NEW)) == take[: len(NEW)]
    for opened in (old, new):
        engine.close(opened)


def test_what_only_rests_makes_way(make: MakeEngine, store: MemoryStore) -> None:
    """Nobody has it open: its bytes left this disk with the object (T11), and the same version is fetched again."""
    store.set("take.wav", b"take")
    engine = make()
    assert engine.read("take.wav") == b"take"
    store.remove("take.wav")
    assert engine.listdir() == []
    store.set("take.wav", b"take")
    store.calls.clear()
    assert engine.read("take.wav") == b"take"
    assert [name for name, _ in store.calls if name == "get"] == ["get"]
