"""Pinned files are downloaded, stay, and follow the bucket."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from r2fs.engine.content.presence import bytes_here_locked
from r2fs.model.errors import NoSpace, NotFound
from r2fs.model.ports import Caller
from r2fs.model.views import PinsView
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

MIB = 1 << 20


def here(engine: Engine, path: str) -> int:
    node = engine.node(path)
    with engine.lock:
        return bytes_here_locked(engine.core, node)


def until(done: Callable[[], bool], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pin(engine: Engine, *paths: str, session: str | None = None) -> None:
    engine.fs.pins.pin(paths, session, Caller())


def pinned(engine: Engine) -> list[tuple[str, str | None]]:
    return [(pin.path, pin.session) for pin in engine.fs.pins.view()[1]]


def fill_cache(engine: Engine, store: MemoryStore, count: int) -> None:
    """Read other files of a MiB, so that others are evicted."""
    for n in range(count):
        store.set(f"other/{n}.wav", os.urandom(MIB))
        engine.read(f"other/{n}.wav")
    engine.retire_idle()


def test_a_pinned_tree_is_downloaded_and_outlasts_evictions_and_a_restart(
    make: MakeEngine, store: MemoryStore
) -> None:
    for n in range(5):
        store.set(f"kit/{n}.wav", bytes([n]) * 300_000)
    engine = make(cache_size=8 * MIB)
    pin(engine, "kit")
    until(lambda: all(here(engine, f"kit/{n}.wav") == 300_000 for n in range(5)))
    fill_cache(engine, store, 12)
    assert engine.cache.view().evicted > 0
    assert sum(here(engine, f"kit/{n}.wav") for n in range(5)) == 1_500_000
    engine.stop()
    engine = make(cache_size=8 * MIB)
    assert pinned(engine) == [("kit/", None)]
    gets = store.count("get")
    assert [engine.read(f"kit/{n}.wav")[0] for n in range(5)] == [0, 1, 2, 3, 4]
    assert store.count("get") == gets
    fill_cache(engine, store, 12)
    assert sum(here(engine, f"kit/{n}.wav") for n in range(5)) == 1_500_000


def test_a_new_version_is_fetched_when_a_listing_shows_it_and_the_old_one_goes(
    make: MakeEngine, store: MemoryStore
) -> None:
    store.set("kit/a.wav", b"1" * 100_000)
    store.set("kit/b.wav", b"1" * 100_000)
    engine = make(cache_size=8 * MIB)
    pin(engine, "kit")
    until(lambda: here(engine, "kit/b.wav") == 100_000)
    old = engine.node("kit/a.wav").base
    store.set("kit/a.wav", b"2" * 200_000)
    store.set("kit/new.wav", b"3" * 50_000)
    engine.listdir("kit")
    until(lambda: here(engine, "kit/a.wav") == 200_000 and here(engine, "kit/new.wav") == 50_000)
    engine.retire_idle()
    fill_cache(engine, store, 12)
    assert old is not None and not engine.cache.contains(old)
    assert here(engine, "kit/a.wav") == 200_000
    assert engine.read("kit/a.wav") == b"2" * 200_000


def test_a_version_written_here_is_kept_at_once(make: MakeEngine, store: MemoryStore) -> None:
    store.set("kit/a.wav", b"1" * 100_000)
    store.set("other/0.wav", b"1")
    engine = make(cache_size=8 * MIB, freshness_s=3600.0)
    pin(engine, "kit")
    until(lambda: here(engine, "kit/a.wav") == 100_000)
    engine.write("kit/a.wav", b"2" * 200_000)
    engine.drain()
    for n in range(12):
        engine.write(f"other/{n}.wav", os.urandom(MIB))
        engine.drain()
    engine.retire_idle()
    assert engine.cache.view().evicted > 0
    assert here(engine, "kit/a.wav") == 200_000


def test_more_than_its_share_is_refused_with_numbers(make: MakeEngine, store: MemoryStore) -> None:
    store.set("a.wav", os.urandom(4 * MIB))
    store.set("b.wav", os.urandom(4 * MIB))
    engine = make(cache_size=8 * MIB)
    pin(engine, "a.wav")
    with pytest.raises(NoSpace, match=r"would be 8.0 MiB; at most 6.4 MiB .* 80% of cache_size \(8.0 MiB\)"):
        pin(engine, "b.wav")
    assert pinned(engine) == [("a.wav", None)]
    pin(engine, "a.wav")
    assert engine.fs.pins.unpin(["a.wav"]) == 1
    pin(engine, "b.wav")


@pytest.mark.expect_warnings("pinned files are more than")
def test_a_tree_that_grows_beyond_the_share_does_not_fill_the_cache(
    make: MakeEngine, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.set("kit/a.wav", os.urandom(2 * MIB))
    engine = make(cache_size=8 * MIB)
    pin(engine, "kit")
    until(lambda: here(engine, "kit/a.wav") == 2 * MIB)
    store.set("kit/b.wav", os.urandom(5 * MIB))
    engine.listdir("kit")
    until(lambda: "more than 80% of cache_size: kit/b.wav" in caplog.text)
    assert here(engine, "kit/b.wav") == 0


def test_unpinned_files_can_go(make: MakeEngine, store: MemoryStore) -> None:
    store.set("kit/a.wav", os.urandom(MIB))
    engine = make(cache_size=8 * MIB)
    pin(engine, "kit")
    # its last bytes are here before its download has ended
    until(lambda: engine.fs.local_copies.evict([""]).reasons == (("kit/a.wav", "pinned"),))
    assert here(engine, "kit/a.wav") == MIB
    with pytest.raises(NotFound, match="it is pinned by kit/"):
        engine.fs.pins.unpin(["kit/a.wav"])
    with pytest.raises(NotFound, match=r"kit2 is not pinned itself$"):
        engine.fs.pins.unpin(["kit2"])
    engine.fs.pins.unpin(["kit/"])
    assert engine.fs.local_copies.evict([""]).files == 1


def test_a_session_goes_with_its_files_but_for_those_of_another(make: MakeEngine, store: MemoryStore) -> None:
    for name in ("one.rpp", "two.rpp", "kick.wav", "bass.wav"):
        store.set(f"song/{name}", b"1234")
    engine = make()
    pin(engine, "song/one.rpp", "song/kick.wav", "song/bass.wav", session="song/one.rpp")
    pin(engine, "song/two.rpp", "song/kick.wav", session="song/two.rpp")
    pin(engine, "song/bass.wav")
    limit = engine.settings.cache_size * 8 // 10
    until(lambda: engine.fs.pins.summary() == PinsView(1, 2, 5, 16, limit))
    assert engine.fs.pins.unpin(["song/bass.wav"]) == 2
    pin(engine, "song/bass.wav", session="song/one.rpp")
    assert engine.fs.pins.unpin(["song/one.rpp"]) == 3
    assert pinned(engine) == [("song/kick.wav", "song/two.rpp"), ("song/two.rpp", None)]
    assert engine.fs.pins.unpin([""]) == 2


def test_what_is_removed_from_the_bucket_leaves_the_cache(make: MakeEngine, store: MemoryStore) -> None:
    store.set("kit/a.wav", b"1" * 100_000)
    store.set("kit/b.wav", b"1" * 100_000)
    engine = make()
    pin(engine, "kit")
    until(lambda: here(engine, "kit/b.wav") == 100_000)
    version = engine.node("kit/a.wav").base
    assert version is not None
    engine.stop()
    store.remove("kit/a.wav")
    engine = make()
    until(lambda: not engine.cache.contains(version))
    assert here(engine, "kit/b.wav") == 100_000


def test_its_age_does_not_count(make: MakeEngine, store: MemoryStore) -> None:
    store.set("kit/a.wav", b"1" * 100_000)
    store.set("b.wav", b"1" * 100_000)
    engine = make(cache_ttl_s=0.5)
    pin(engine, "kit")
    until(lambda: here(engine, "kit/a.wav") == 100_000)
    engine.read("b.wav")
    time.sleep(0.7)
    engine.sweep()
    gets = store.count("get")
    assert here(engine, "b.wav") == 0
    assert engine.read("kit/a.wav") == b"1" * 100_000
    assert store.count("get") == gets
