"""Objects named like links that hold more than any path: files, whatever their size."""

from __future__ import annotations

import os

import pytest

from r2fs.model.keys import MAX_LINK_BYTES
from r2fs.model.records import Kind
from tests.support.engine import MakeEngine
from tests.support.memory_store import MemoryStore

LONG = b"x" * (MAX_LINK_BYTES + 1)


@pytest.mark.parametrize("page", [1000, 2], ids=("listed", "asked for by itself"))
def test_it_is_the_file_that_it_is(make: MakeEngine, store: MemoryStore, page: int) -> None:
    store.set("long.rclonelink", LONG)
    store.set("longest.rclonelink", LONG[:-1])
    for n in range(6):
        store.set(f"{n}", b"")
    store.page = page
    engine = make()
    assert engine.entry("long.rclonelink").attributes.kind is Kind.FILE
    assert engine.entry("longest").attributes.kind is Kind.SYMLINK
    assert engine.listdir("")[-2:] == ["long.rclonelink", "longest"]
    assert engine.read("long.rclonelink") == LONG
    engine.fs.readlink(engine.caller, engine.entry("longest").ino)
    assert ("get", "longest.rclonelink") in store.calls


def test_a_link_is_shown_without_reading_what_is_no_link(make: MakeEngine, store: MemoryStore) -> None:
    store.set("big.rclonelink", b"x" * 5_000_000)
    engine = make()
    assert engine.listdir() == ["big.rclonelink"]
    engine.entry("big.rclonelink")
    assert store.count("get") == 0


@pytest.mark.parametrize("crash", [False, True])
def test_it_is_edited_and_renamed(make: MakeEngine, store: MemoryStore, crash: bool) -> None:
    store.set("d/long.rclonelink", LONG)
    engine = make(upload_delay_s=3600.0 if crash else 0.0)
    engine.write("d/long.rclonelink", b"more", os.O_WRONLY | os.O_APPEND)
    engine.rename("d", "e")
    if crash:
        engine.kill()
        engine = make()
    engine.drain()
    assert store.contents() == {"e/long.rclonelink": LONG + b"more"}
    engine.rename("e/long.rclonelink", "e/file")
    engine.drain()
    assert store.contents() == {"e/file": LONG + b"more"}
