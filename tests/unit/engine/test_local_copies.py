"""Warm and evict: what is downloaded, what stays, and why."""

from __future__ import annotations

import os
from threading import Event

import pytest

from r2fs.engine.content.presence import bytes_here_locked
from r2fs.model.errors import Interrupted, NotFound, Unavailable
from r2fs.model.ports import Caller
from r2fs.model.records import Version
from r2fs.model.views import WarmView
from tests.support.clocks import Later
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

MIB = 1 << 20


def warm(engine: Engine, *paths: str, caller: Caller | None = None) -> WarmView:
    return engine.fs.local_copies.warm(paths, caller or Caller(), lambda view: None)


def here(engine: Engine, path: str) -> int:
    node = engine.node(path)
    with engine.lock:
        return bytes_here_locked(engine.core, node)


def test_a_tree_is_downloaded_once(make: MakeEngine, store: MemoryStore) -> None:
    for n in range(40):
        store.set(f"kit/{n % 4}/{n:02}.wav", bytes([n]) * 5000)
    store.set("kit/large.wav", os.urandom(20 * MIB))
    store.set("other.wav", b"x")
    engine = make(small_file=MIB)
    view = warm(engine, "kit")
    assert (view.files, view.fetched, view.here, view.failures, view.stopped) == (41, 41, 0, 0, None)
    assert view.bytes == view.fetched_bytes == 20 * MIB + 200_000
    assert here(engine, "kit/large.wav") == 20 * MIB and here(engine, "other.wav") == 0
    gets = store.count("get")
    again = warm(engine, "kit", "kit/1")
    assert (again.files, again.fetched, again.here, again.here_bytes) == (41, 0, 41, view.bytes)
    assert engine.read("kit/1/01.wav") == b"\1" * 5000
    assert store.count("get") == gets


def test_the_rest_of_a_file_is_downloaded_and_a_later_mount_goes_on(
    make: MakeEngine, store: MemoryStore
) -> None:
    data = os.urandom(40 * MIB)
    store.set("large.wav", data)
    engine = make(small_file=0, read_ahead=0)
    opened = engine.open("large.wav")
    engine.fs.read(engine.caller, opened.handle, 0, 4096)
    engine.close(opened)
    engine.retire_idle()
    before = here(engine, "large.wav")
    engine.stop()
    engine = make(small_file=0)
    view = warm(engine, "large.wav")
    assert view.fetched_bytes == len(data) - before < len(data)
    assert engine.read("large.wav") == data


def test_it_stops_at_the_limit_of_the_cache_and_evicts_what_is_older(
    make: MakeEngine, store: MemoryStore
) -> None:
    for name in ("old", "a", "b", "c", "d", "e"):
        store.set(f"{name}/1.wav", os.urandom(2 * MIB))
    engine = make(cache_size=8 * MIB)
    engine.read("old/1.wav")
    view = warm(engine, "a", "b", "c", "d", "e")
    assert (view.stopped, view.fetched, view.files) == ("cache", 4, 5)
    assert [here(engine, f"{name}/1.wav") > 0 for name in ("old", "a", "b", "c", "d", "e")] == [
        False, True, True, True, True, False,
    ]  # fmt: skip
    assert warm(engine, "e").fetched == 1, "another run may evict the first one's"


def test_a_file_larger_than_the_cache_is_named_and_the_others_come(
    make: MakeEngine, store: MemoryStore
) -> None:
    store.set("d/a.wav", os.urandom(9 * MIB))
    store.set("d/b.wav", b"1234")
    view = warm(make(cache_size=8 * MIB), "d")
    assert (view.fetched, view.failures) == (1, 1)
    assert view.failed[0][0] == "d/a.wav" and "cache_size" in view.failed[0][1]


def test_one_that_fails_does_not_end_the_run(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/a.wav", b"1234")
    store.set("d/b.wav", b"1234")
    engine = make(read_timeout_s=1.0)
    engine.listdir("d")
    plain = store.get

    def get(key: str, **given: object) -> object:
        if key == "d/a.wav":
            raise Unavailable("away")
        return plain(key, **given)  # type: ignore[arg-type]

    store.get = get  # type: ignore[assignment,method-assign]
    view = warm(engine, "d")
    assert (view.fetched, [path for path, _ in view.failed]) == (1, ["d/a.wav"])


def test_a_mount_that_stops_ends_it(make: MakeEngine, store: MemoryStore) -> None:
    for n in range(20):
        store.set(f"d/{n:02}.wav", b"1234")
    engine = make()
    engine.listdir("d")
    engine.core.stopping = True
    view = warm(engine, "d")
    assert (view.stopped, view.fetched) == ("stop", 0)
    engine.core.stopping = False


def test_a_client_that_leaves_ends_it(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/a.wav", b"1234")
    gone = Event()
    gone.set()
    with pytest.raises(Interrupted):
        warm(make(), "d", caller=Caller(cancelled=gone))
    with pytest.raises(NotFound):
        warm(make("b"), "none")


def test_what_can_go_goes_and_the_rest_is_named(make: MakeEngine, store: MemoryStore) -> None:
    for name in ("clean", "idle", "open", "dirty"):
        store.set(f"d/{name}.wav", b"12345678")
    engine = make(upload_delay_s=60.0)
    for name in ("clean", "idle", "open", "dirty"):
        engine.read(f"d/{name}.wav")
    engine.retire_idle()
    engine.read("d/idle.wav")
    opened = engine.open("d/open.wav")
    engine.write("d/dirty.wav", b"new")
    engine.write("d/new.wav", b"new")
    view = engine.fs.local_copies.evict(["d"])
    assert sorted(view.reasons) == [
        ("d/dirty.wav", "not in the bucket yet"),
        ("d/new.wav", "not in the bucket yet"),
        ("d/open.wav", "open"),
    ]
    assert (view.files, view.kept) == (2, 3) and view.bytes >= 16
    assert [here(engine, f"d/{name}.wav") for name in ("clean", "idle", "open", "dirty", "new")] == [
        0,
        0,
        8,
        3,
        3,
    ]
    assert engine.fs.read(engine.caller, opened.handle, 0, 8) == b"12345678"
    engine.close(opened)
    assert engine.read("d/dirty.wav") == b"new"
    assert engine.read("d/clean.wav") == b"12345678"


def test_what_an_earlier_mount_cached_goes_without_a_request(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/deep/a.wav", b"12345")
    store.set("dd.wav", b"12345")
    engine = make()
    engine.read("d/deep/a.wav"), engine.read("dd.wav")
    engine.stop()
    engine = make()
    view = engine.fs.local_copies.evict(["d"])
    assert view.files == 1
    assert (here(engine, "d/deep/a.wav"), here(engine, "dd.wav")) == (0, 5)


def test_a_file_that_stays_open_between_its_uses_counts_as_used_again(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small files stay open after their last close: their uses reach the cache all the same, once a minute."""
    store.set("daily.wav", b"x" * 100)
    clock = Later()
    engine = make(cache_size=2 * MIB, clock=clock)
    engine.read("daily.wav")
    engine.retire_idle()
    noted: list[Version | None] = []
    count_hit = engine.cache.count_hit

    def noting(version: Version | None = None) -> None:
        noted.append(version)
        count_hit(version)

    monkeypatch.setattr(engine.cache, "count_hit", noting)
    for _ in range(3):
        engine.read("daily.wav")
    clock.advance(3600.0)
    for _ in range(3):
        engine.read("daily.wav")
    assert [version is not None for version in noted] == [False, False, True, False, False]
