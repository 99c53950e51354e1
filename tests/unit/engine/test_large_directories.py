"""Directories of many pages: what one name costs there, and that no work grows with the count."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2fs.engine.inodes import inode
from r2fs.engine.inodes.children import Children
from r2fs.engine.inodes.inode import walk_nodes
from r2fs.engine.writeback.progress import PROGRESS_S
from r2fs.model.errors import NotFound
from tests.support.clocks import ManualClock
from tests.support.engine import Engine
from tests.support.memory_store import MemoryStore

PAGE, PAGES = 10, 20
FILES = PAGE * PAGES
FRESH_S = 10.0
STEP_S = 0.01  # from one call of a program to the next
LOCAL = ("*.local",)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore(page=PAGE)
    for number in range(FILES):
        store.set(f"d/{number:06}", b"x")
    return store


@pytest.fixture
def engine(tmp_path: Path, store: MemoryStore, clock: ManualClock) -> Iterator[Engine]:
    """A caller does by itself what it waits for."""
    engine = Engine(tmp_path, store, clock=clock, threads=False, freshness_s=FRESH_S, local_patterns=LOCAL)
    yield engine
    engine.end()


def asked(store: MemoryStore) -> Counter[str]:
    return Counter(verb for verb, _ in store.calls)


@pytest.mark.parametrize("seen_before", [True, False])
@pytest.mark.parametrize("what", ["create", "stat", "unlink"])
def test_many_names_cost_no_request_each(
    engine: Engine, store: MemoryStore, clock: ManualClock, what: str, seen_before: bool
) -> None:
    if seen_before:
        engine.listdir("d")
        clock.advance(FRESH_S + 1)
    store.calls.clear()
    for number in range(FILES):
        match what:
            case "create":
                engine.write(f"d/new{number}", b"new")
            case "stat":
                assert engine.entry(f"d/{number:06}").attributes.size == 1
            case "unlink":
                engine.unlink(f"d/{number:06}")
        clock.advance(STEP_S)
    assert asked(store).total() <= 6 * PAGES  # each by itself: 200 to 800
    left = 0 if what == "unlink" else FILES
    assert len(engine.listdir("d")) == left + (FILES if what == "create" else 0)


def test_one_name_costs_no_list_of_it_all(engine: Engine, store: MemoryStore, clock: ManualClock) -> None:
    engine.listdir("d")
    for number in range(5):
        clock.advance(FRESH_S + 1)
        store.calls.clear()
        assert engine.entry(f"d/{number:06}").attributes.size == 1
        assert asked(store) == {"head": 1, "list": 1}  # the list is of the root, for `d`
        with pytest.raises(NotFound):
            engine.entry(f"d/none{number}")
        assert asked(store) == {"head": 1, "list": 2}


def test_a_list_that_is_stale_when_it_is_complete_is_not_made_for_names(
    engine: Engine, store: MemoryStore, clock: ManualClock
) -> None:
    def slow(verb: str, key: str) -> None:
        if verb == "list" and key == "d/":
            clock.advance(2 * FRESH_S / PAGES)

    store.before = slow
    engine.listdir("d")
    store.calls.clear()
    for number in range(FILES):
        engine.entry(f"d/{number:06}")
        clock.advance(STEP_S)
    assert asked(store)["list"] <= 2  # of the root
    assert asked(store)["head"] == FILES


def test_what_another_host_makes_is_seen_by_its_name(
    engine: Engine, store: MemoryStore, clock: ManualClock
) -> None:
    engine.listdir("d")
    clock.advance(FRESH_S + 1)
    store.set("d/file", b"four")
    store.set("d/link.rclonelink", b"target")
    store.set("d/below/x", b"x")
    store.set("d/marked/", b"")
    store.set("d/\u00e9t\u00e9", b"fifteen")
    for number in range(2 * PAGE):  # more than one page of keys that begin like `far`, before `far/`
        store.set(f"d/far-{number}", b"x")
    store.set("d/far/x", b"x")
    store.remove("d/000003")
    store.set("d/000004", b"another")
    kinds = {
        name: engine.entry(f"d/{name}").attributes.kind.value
        for name in ("file", "link", "below", "marked", "far")
    }
    assert kinds == {"file": "file", "link": "symlink", "below": "directory", "marked": "directory", "far": "directory"}  # fmt: skip
    assert engine.entry("d/file").attributes.size == 4
    assert engine.entry("d/\u00e9t\u00e9").attributes.size == len(b"fifteen")
    assert engine.entry("d/000004").attributes.size == len(b"another")
    for gone in ("000003", "fil", "lin", "belo", "fa"):
        with pytest.raises(NotFound):
            engine.entry(f"d/{gone}")


def test_a_directory_that_was_removed_stays_so_while_its_deletes_are_pending(
    engine: Engine, store: MemoryStore, clock: ManualClock
) -> None:
    store.set("d/sub/x", b"x")
    engine.listdir("d")
    engine.unlink("d/sub/x")
    engine.rmdir("d/sub")
    for _ in range(3):
        clock.advance(FRESH_S + 1)
        with pytest.raises(NotFound):
            engine.entry("d/sub")
    assert store.data("d/sub/x") == b"x", "the deletes were to be pending"
    store.set("d/sub/y", b"another host's")
    clock.advance(FRESH_S + 1)
    assert engine.listdir("d/sub") == ["y"]


def test_making_and_removing_one_name_goes_through_no_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dict that has lost its first entries is slow to give its first: removing all was quadratic."""
    engine.listdir("d")

    def refuse(children: Children) -> Iterator[str]:
        raise AssertionError("all children were gone through for one name")

    for way in ("__iter__", "keys", "values", "items", "nodes"):
        monkeypatch.setattr(Children, way, refuse)
    for number in range(20):
        engine.unlink(f"d/{number:06}")
        engine.write(f"d/new{number}", b"x")
        engine.write(f"d/new{number}.local", b"x")
        engine.rename(f"d/new{number}", f"d/renamed{number}")
        engine.unlink(f"d/new{number}.local")
    monkeypatch.undo()  # the fixture goes through all


def test_a_listing_leaves_what_is_pending_alone_without_going_below(
    engine: Engine, store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred thousand files that are being made are merged with every listing meanwhile."""
    for number in range(30):
        engine.write(f"d/new{number}", b"x")
        engine.write(f"d/new{number}.local", b"x")
    below = list[str]()
    monkeypatch.setattr(inode, "walk_nodes", lambda node: (below.append(node.name), walk_nodes(node))[1])
    clock.advance(FRESH_S + 1)
    store.remove("d/000007")
    store.set("d/000008", b"another")
    assert len(engine.listdir("d")) == FILES + 59
    assert set(below) == {"000007"}, "only of what a listing does not show, and nothing is known to be owed"
    assert engine.entry("d/000008").attributes.size == len(b"another")


def test_who_waits_is_not_told_of_each_upload(tmp_path: Path) -> None:
    """What is told takes a look at all that is owed: of 95,000 files 5 a second were sent meanwhile."""
    engine = Engine(tmp_path, MemoryStore(), upload_delay_s=60.0)
    try:
        for number in range(300):
            engine.write(f"{number:03}", b"x")
        told, began = list[int](), time.monotonic()
        engine.fs.drain(60.0, lambda view: told.append(view.files))
        assert len(engine.fs.queue_view().transfers) == 0
        assert len(told) <= 2 + (time.monotonic() - began) / PROGRESS_S
    finally:
        engine.end()
