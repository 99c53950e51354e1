"""Past the budget of the month nothing is fetched ahead of need, and reading costs fewer requests, not more."""

from __future__ import annotations

import os

import pytest

from r2fs.model.ports import Caller
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

MIB = 1 << 20
READ = 128 << 10  # bytes: the kernel's


def read_through(engine: Engine, name: str, size: int) -> bytes:
    opened = engine.open(name)
    found = b"".join(engine.fs.read(engine.caller, opened.handle, at, READ) for at in range(0, size, READ))
    engine.close(opened)
    return found


@pytest.mark.parametrize(
    "name", ["take.bin", "take.wav"], ids=["", "media, whose end is fetched with its begin"]
)
def test_a_sequential_reader_costs_fewer_requests(make: MakeEngine, store: MemoryStore, name: str) -> None:
    data = os.urandom(40 * MIB)
    store.set(f"a/{name}", data)
    store.set(f"b/{name}", data)
    engine = make()
    assert read_through(engine, f"a/{name}", len(data)) == data
    before = store.count("get")
    engine.fs.set_frugal(True)
    assert read_through(engine, f"b/{name}", len(data)) == data
    frugal = store.count("get") - before
    assert frugal <= 1 + 40 // 8 + 1 < before, "a first read, then GETs of 8 MiB"


def test_a_header_is_one_request(make: MakeEngine, store: MemoryStore) -> None:
    store.set("take.wav", os.urandom(40 * MIB))
    engine = make()
    engine.fs.set_frugal(True)
    opened = engine.open("take.wav")
    engine.fs.read(engine.caller, opened.handle, 0, 4096)
    engine.close(opened)
    assert store.count("get") == 1, "and not another for its end"


def test_no_sibling_is_fetched_until_the_budget_allows_it(make: MakeEngine, store: MemoryStore) -> None:
    for n in range(30):
        store.set(f"kit/{n:02}.wav", b"x" * 4096)
    engine = make(freshness_s=3600.0)
    engine.fs.set_frugal(True)
    for n in range(10):
        engine.read(f"kit/{n:02}.wav")
    assert store.count("get") == 10
    assert not any(engine.fetched_ahead())
    engine.fs.set_frugal(False)
    for n in range(10, 20):
        engine.read(f"kit/{n:02}.wav")
    assert store.count("get") > 20


def test_warm_says_so_and_downloads_nothing(make: MakeEngine, store: MemoryStore) -> None:
    store.set("kit/a.wav", b"x" * 4096)
    engine = make()
    engine.fs.set_frugal(True)
    copies = engine.fs.local_copies
    engine.node("kit")
    view = copies.warm(["kit"], Caller(), lambda view: None)
    assert (view.stopped, view.fetched, store.count("get")) == ("budget", 0, 0)
    engine.fs.set_frugal(False)
    assert copies.warm(["kit"], Caller(), lambda view: None).fetched == 1
