"""`consistency = "close-to-open"`: what another host has closed is seen by the next open, at one request each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

import pytest

from r2fs.engine.inodes.core import RECENT_S
from r2fs.engine.namespace.close_to_open import ANSWER_S
from r2fs.model.errors import NotFound, ReadFailed, Stale, Unavailable, WouldWait
from r2fs.model.ports import Caller
from r2fs.model.records import AttributeChange
from r2fs.model.verbs import ROOT
from tests.support.clocks import Later
from tests.support.engine import Engine, MakeEngine
from tests.support.kernel import Mount
from tests.support.memory_store import MemoryStore

HOUR = 3600.0
SMALL = 1000


@pytest.fixture
def engine_settings() -> Mapping[str, object]:
    return {"consistency": "close-to-open", "freshness_s": HOUR, "small_file": SMALL}


@pytest.fixture
def clock() -> Later:
    return Later()


@pytest.fixture
def engine(make: MakeEngine, store: MemoryStore, clock: Later) -> Engine:
    """Knows every name, for an hour."""
    store.set("large.wav", os.urandom(2 * SMALL))
    store.set("small.wav", b"small")
    engine = make(clock=clock)
    engine.listdir()
    store.calls.clear()
    return engine


def asked(store: MemoryStore) -> Counter[str]:
    counted = Counter(verb for verb, _ in store.calls)
    store.calls.clear()
    return counted


def opened(engine: Engine, path: str) -> bytes:
    """What open(2) and read(2) get: the kernel looks a name up again after ESTALE."""
    try:
        return engine.read(path)
    except Stale:
        return engine.read(path)


# ------------------------------------------------------------------ what is seen
@pytest.mark.parametrize("name", ["large.wav", "small.wav"])
@pytest.mark.parametrize("read_before", [False, True])
def test_new_bytes_are_seen_at_the_next_open(
    engine: Engine, store: MemoryStore, clock: Later, name: str, read_before: bool
) -> None:
    if read_before:
        opened(engine, name)
        clock.advance(1)
    store.set(name, b"of another host")
    assert opened(engine, name) == b"of another host"


def test_the_open_handle_keeps_its_version(engine: Engine, store: MemoryStore) -> None:
    engine.read("small.wav")
    handle = engine.open("small.wav")
    store.set("small.wav", b"later")
    assert opened(engine, "small.wav") == b"later"
    assert engine.fs.read(engine.caller, handle.handle, 0, 100) == b"small"
    engine.close(handle)


@pytest.mark.parametrize("key", ["new.wav", "new.wav.rclonelink", "new.wav/below"])
def test_a_new_name_is_seen_at_the_next_lookup(engine: Engine, store: MemoryStore, key: str) -> None:
    with pytest.raises(NotFound) as absent:
        engine.entry("new.wav")
    assert absent.value.valid_s == 0  # else the kernel would not ask
    store.set(key, b"new")
    assert engine.entry("new.wav").attributes.ino


@pytest.mark.parametrize("name", ["large.wav", "small.wav"])
def test_a_deleted_file_cannot_be_opened(engine: Engine, store: MemoryStore, name: str) -> None:
    engine.read(name)
    store.remove(name)
    with pytest.raises(NotFound):
        opened(engine, name)


def test_a_write_begins_from_the_newest_version(engine: Engine, store: MemoryStore) -> None:
    store.set("small.wav", b"theirs, and longer")
    with pytest.raises(Stale):
        engine.write("small.wav", b"ours", os.O_WRONLY | os.O_TRUNC)
    engine.write("small.wav", b"ours", os.O_WRONLY | os.O_TRUNC)
    engine.drain()
    assert store.keys() == ["large.wav", "small.wav"]  # no conflict
    assert store.data("small.wav") == b"ours"


def test_what_waits_here_is_the_newer_version(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(upload_delay_s=HOUR)
    engine.write("take.wav", b"ours")
    store.set("take.wav", b"theirs")
    store.calls.clear()
    assert engine.read("take.wav") == b"ours"
    assert not store.calls


# ------------------------------------------------------------------ what it costs
def test_an_open_is_one_request(engine: Engine, store: MemoryStore, clock: Later) -> None:
    engine.close(engine.open("large.wav"))
    assert asked(store) == {"head": 1}
    engine.read("small.wav")  # its GET asks
    assert asked(store) == {"get": 1}
    engine.read("small.wav")
    assert asked(store) == {"head": 1}


@pytest.mark.parametrize(("pause_s", "heads"), [(0.0, 1), (RECENT_S + 0.01, 2)])
def test_a_rewrite_that_is_sent_at_once_looks_once(
    make: MakeEngine, store: MemoryStore, clock: Later, pause_s: float, heads: int
) -> None:
    """The HEAD of the open also shows what another host has changed beside the bytes: it is kept."""
    engine = make(clock=clock, threads=False, upload_delay_s=0.0)
    engine.write("take.wav", b"first")
    engine.run_due()
    clock.advance(1.0)
    store.set_metadata("take.wav", **{**store.metadata("take.wav"), "colour": "blue"})
    asked(store)
    opened = engine.open("take.wav", os.O_WRONLY | os.O_TRUNC)
    engine.fs.write(engine.caller, opened.handle, 0, b"second")
    engine.close(opened)
    clock.advance(pause_s)
    engine.run_due()
    assert asked(store) == {"head": heads, "put": 1}
    assert (store.data("take.wav"), store.metadata("take.wav")["colour"]) == (b"second", "blue")


def test_a_look_before_this_hosts_own_change_is_not_taken_for_another_hosts(
    make: MakeEngine, store: MemoryStore, clock: Later
) -> None:
    """A copy with new attributes keeps the ETag: the HEAD of the open shows those before it."""
    engine = make(clock=clock, threads=False, upload_delay_s=0.0)
    engine.write("take.wav", b"first")
    engine.run_due()
    clock.advance(1.0)
    assert engine.read("take.wav") == b"first"
    engine.fs.setattr(engine.caller, engine.entry("take.wav").ino, AttributeChange(mode=0o600))
    engine.run_due()
    engine.truncate("take.wav", 3)
    engine.run_due()
    assert store.data("take.wav") == b"fir"
    assert engine.entry("take.wav").attributes.mode & 0o777 == 0o600
    assert store.metadata("take.wav")["mode"] == "0100600"


def test_another_hosts_new_file_is_one_list_and_one_get(engine: Engine, store: MemoryStore) -> None:
    store.set("new.wav", b"new")
    engine.read("new.wav")
    assert asked(store) == {"list": 1, "get": 1}
    store.set("long.wav", os.urandom(2 * SMALL))
    engine.close(engine.open("long.wav"))
    assert asked(store) == {"list": 1}


def test_an_answer_serves_one_open_and_not_long(engine: Engine, store: MemoryStore, clock: Later) -> None:
    store.set("long.wav", os.urandom(2 * SMALL))
    ino = engine.fs.lookup(engine.caller, ROOT, "long.wav").ino
    asked(store)
    engine.close(engine.fs.open(engine.caller, ino, os.O_RDONLY))
    assert not asked(store)
    engine.close(engine.fs.open(engine.caller, ino, os.O_RDONLY))
    assert asked(store) == {"head": 1}
    store.set("longer.wav", os.urandom(2 * SMALL))
    ino = engine.fs.lookup(engine.caller, ROOT, "longer.wav").ino
    clock.advance(2 * ANSWER_S)
    asked(store)
    engine.close(engine.fs.open(engine.caller, ino, os.O_RDONLY))
    assert asked(store) == {"head": 1}


def test_a_name_in_a_directory_that_was_never_listed_is_one_request(
    make: MakeEngine, store: MemoryStore
) -> None:
    for number in range(3000):
        store.set(f"d/{number:06}", b"x")
    engine = make()
    directory = engine.entry("d").ino
    store.calls.clear()
    engine.fs.lookup(engine.caller, directory, "001500")
    with pytest.raises(NotFound):
        engine.fs.lookup(engine.caller, directory, "none")
    assert asked(store) == {"list": 2}


def test_names_that_stay_here_are_not_asked_for(engine: Engine, store: MemoryStore) -> None:
    with pytest.raises(NotFound):
        engine.entry("book.db-journal")
    assert not store.calls


def test_a_caller_who_may_not_wait_learns_that_first(engine: Engine, store: MemoryStore) -> None:
    ino = engine.entry("large.wav").ino
    for _ in range(2):
        with pytest.raises(WouldWait):
            engine.fs.open(Caller(may_wait=False), ino, os.O_RDONLY)
    assert not store.calls


# ------------------------------------------------------------------ the bucket is away
def cut(store: MemoryStore) -> None:
    def away(name: str, key: str) -> None:
        raise Unavailable("the bucket is away")

    store.before = away


def test_while_the_bucket_is_away_names_are_as_known(engine: Engine, store: MemoryStore) -> None:
    engine.read("small.wav")
    cut(store)
    assert engine.read("small.wav") == b"small"
    with pytest.raises(NotFound):
        engine.entry("new.wav")
    engine.write("new.wav", b"waits")
    assert engine.read("new.wav") == b"waits"


def test_when_the_bucket_is_back_it_is_asked_again(engine: Engine, store: MemoryStore) -> None:
    engine.read("small.wav")
    cut(store)
    engine.read("small.wav")
    store.before = lambda name, key: None
    store.set("small.wav", b"meanwhile")
    engine.read("small.wav")  # finds out that the bucket answers
    engine.listings.submit(lambda: None)
    for _ in range(500):
        if opened(engine, "small.wav") == b"meanwhile":
            return
    pytest.fail("not asked again")


def test_a_directory_of_which_nothing_is_known_is_an_error(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(read_timeout_s=0.2)
    cut(store)
    with pytest.raises(ReadFailed):
        engine.entry("any.wav")


# ------------------------------------------------------------------ the kernel's caches
def test_the_kernel_keeps_no_absent_name(mount: Mount) -> None:
    mount.store.set("d/other.wav", b"other")
    mount.kernel.listdir("d")
    with pytest.raises(NotFound):
        mount.kernel.stat("d/take.wav")
    mount.store.set("d/take.wav", b"theirs")
    assert mount.kernel.read("d/take.wav") == b"theirs"


def test_the_kernel_opens_what_is_there_now(mount: Mount) -> None:
    mount.store.set("d/take.wav", b"before")
    assert mount.kernel.read("d/take.wav") == b"before"
    mount.store.set("d/take.wav", b"theirs")
    assert mount.kernel.read("d/take.wav") == b"theirs"
    mount.store.remove("d/take.wav")
    with pytest.raises(NotFound):
        mount.kernel.read("d/take.wav")
