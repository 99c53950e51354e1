"""What the engine keeps in memory of names that are gone: nothing, once its regular work was done."""

from __future__ import annotations

import gc

import pytest

from r2fs.engine.inodes.inode import Node
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore


def nodes_in_memory() -> int:
    gc.collect()
    return sum(isinstance(one, Node) for one in gc.get_objects())


def another_host_makes_and_removes(engine: Engine, store: MemoryStore, keys: list[str], times: int) -> None:
    for _ in range(times):
        for key in keys:
            store.set(key, b"bytes")
        engine.listdir()
        for path in sorted({key.partition("/")[0] for key in keys if "/" in key}):
            engine.listdir(path)
        for key in keys:
            store.remove(key)
        assert engine.listdir() == []


@pytest.mark.expect_warnings("at the key of a directory")
@pytest.mark.parametrize("keys", [["f"], ["d/f"], ["d/"], ["d/", "d/e/", "d/f"]], ids=" ".join)
def test_names_that_other_hosts_remove(make: MakeEngine, store: MemoryStore, keys: list[str]) -> None:
    engine = make()
    another_host_makes_and_removes(engine, store, keys, 5)
    engine.sweep()
    before = nodes_in_memory()
    another_host_makes_and_removes(engine, store, keys, 20)
    engine.sweep()
    assert nodes_in_memory() <= before
