"""`r2fs refresh`: names and attributes are forgotten, of a path and below it, in the engine and in the kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from r2fs.model.errors import NotFound, Unavailable
from r2fs.model.ports import Caller
from r2fs.model.views import RefreshView
from tests.support.kernel import Mount
from tests.support.memory_store import MemoryStore

HOUR = 3600.0


@pytest.fixture
def engine_settings() -> Mapping[str, object]:
    return {"freshness_s": HOUR}


@pytest.fixture
def known(mount: Mount, store: MemoryStore) -> Mount:
    """A tree that engine and kernel know, for an hour."""
    for key in ("top.wav", "d/one.wav", "d/e/two.wav", "f/three.wav"):
        store.set(key, b"before")
    for path in ("", "d", "d/e", "f"):
        mount.kernel.listdir(path)
    for path in ("top.wav", "d/one.wav", "d/e/two.wav", "f/three.wav"):
        mount.kernel.stat(path)
    for path in ("new.wav", "d/new.wav"):
        with pytest.raises(NotFound):
            mount.kernel.stat(path)
    store.calls.clear()
    return mount


def forget(mount: Mount, path: str) -> RefreshView:
    return mount.engine.fs.refreshing.forget(path)


def asked(store: MemoryStore) -> Counter[str]:
    counted = Counter(verb for verb, _ in store.calls)
    store.calls.clear()
    return counted


def test_a_tree_is_forgotten_and_nothing_beside_it(known: Mount, store: MemoryStore) -> None:
    for key in ("d/one.wav", "d/e/two.wav", "f/three.wav", "d/new.wav"):
        store.set(key, b"after, and longer")
    assert forget(known, "d") == RefreshView(directories=2, files=2)
    assert not store.calls  # asked at the next use
    for path in ("d/one.wav", "d/e/two.wav", "d/new.wav"):
        assert known.kernel.stat(path).size == 17
    assert known.kernel.listdir("d") == ["e", "new.wav", "one.wav"]
    assert known.kernel.stat("f/three.wav").size == 6
    assert asked(store) == {"list": 3}  # d's parent, d and d/e, one each


def test_a_file_and_a_name_that_is_absent(known: Mount, store: MemoryStore) -> None:
    store.set("top.wav", b"after, and longer")
    assert forget(known, "top.wav") == RefreshView(directories=0, files=1)
    assert known.kernel.stat("top.wav").size == 17
    store.set("new.wav", b"after, and longer")
    assert forget(known, "new.wav") == RefreshView(directories=0, files=0)
    assert known.kernel.stat("new.wav").size == 17


def test_the_whole_mount(known: Mount, store: MemoryStore) -> None:
    store.remove("d/e/two.wav")
    store.set("f/three.wav", b"after, and longer")
    assert forget(known, "") == RefreshView(directories=4, files=4)
    assert known.kernel.stat("f/three.wav").size == 17
    with pytest.raises(NotFound):
        known.kernel.stat("d/e/two.wav")


def test_waiting_asks_at_once_and_for_all_below_if_wanted(known: Mount, store: MemoryStore) -> None:
    store.set("d/e/two.wav", b"after, and longer")
    store.set("d/new.wav", b"x")
    refreshing = known.engine.fs.refreshing
    forget(known, "d")
    assert refreshing.ask(Caller(), "d", recursive=False) == RefreshView(directories=1, files=2)
    assert asked(store) == {"list": 2}
    forget(known, "d")
    assert refreshing.ask(Caller(), "d", recursive=True) == RefreshView(directories=2, files=3)
    assert asked(store)["list"] <= 3
    assert known.kernel.stat("d/e/two.wav").size == 17
    assert not store.calls
    with pytest.raises(NotFound):
        refreshing.ask(Caller(), "d/none.wav", recursive=False)


def test_a_listing_from_before_does_not_count(known: Mount, store: MemoryStore) -> None:
    """A LIST was on its way when the directory was forgotten: what it says may be older."""
    forget(known, "d")

    def meanwhile(name: str, key: str) -> None:
        if key != "d/":
            return
        store.before = lambda name, key: None
        known.clock.advance(0.001)
        forget(known, "d")

    store.before = meanwhile
    known.kernel.listdir("d")
    store.set("d/new.wav", b"x")
    assert "new.wav" in known.kernel.listdir("d")


def test_what_is_not_sent_yet_stays(known: Mount, store: MemoryStore) -> None:
    known.kernel.create("d/ours.wav", b"ours")
    forget(known, "")
    assert known.kernel.read("d/ours.wav") == b"ours"
    assert "ours.wav" in known.kernel.listdir("d")


def test_without_the_bucket_names_stay_and_waiting_is_an_error(known: Mount, store: MemoryStore) -> None:
    def away(name: str, key: str) -> None:
        raise Unavailable("the bucket is away")

    store.before = away
    forget(known, "d")
    assert known.kernel.listdir("d") == ["e", "one.wav"]
    forget(known, "d")
    with pytest.raises(Unavailable, match="does not answer"):
        known.engine.fs.refreshing.ask(Caller(), "d", recursive=False)
    store.before = lambda name, key: None
    store.set("d/new.wav", b"x")
    forget(known, "d")
    known.engine.fs.refreshing.ask(Caller(), "d", recursive=False)
    assert "new.wav" in known.kernel.listdir("d")
