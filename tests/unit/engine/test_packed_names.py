"""Files that no program has looked up since the listing take no node: what they cost, and that nothing else shows it."""

from __future__ import annotations

import gc
import hashlib
import tracemalloc

import pytest

from r2fs.engine.inodes.children import pack, unpack
from r2fs.model.errors import Unavailable
from r2fs.model.records import ListPage, ObjectInfo
from tests.support.clocks import Later
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

MANY = 20_000
MOST_BYTES = 200  # of memory for an object


def children(engine: Engine, path: str) -> tuple[set[str], set[str]]:
    """Names without a node, and with one."""
    with engine.lock:
        found = engine.node(path).children()
        return set(found.packed), {node.name for node in found.nodes()}


@pytest.fixture
def engine(make: MakeEngine, store: MemoryStore) -> Engine:
    for number in range(9):
        store.set(f"d/{number}.wav", b"x" * number)
    store.set("d/e/below.wav", b"below")
    store.set("d/link.rclonelink", b"0.wav")
    store.set("d/0 (conflict of studio, 2026-11-21).wav", b"copy")
    return make(freshness_s=3600.0)


def test_what_a_listing_tells_is_packed_and_unpacked() -> None:
    for etag in ("0" * 32, "=" * 16, "f" * 32 + "-12", "Überall", ""):
        for size in (0, 1, (1 << 32) - 1, 1 << 32, 5 << 40):
            for modified_ns in (0, -1, 1_700_000_000_123_456_789):
                assert unpack(pack(etag, size, modified_ns)) == (etag, size, modified_ns)


def test_files_get_a_node_when_they_are_looked_up(engine: Engine) -> None:
    names = engine.listdir("d")
    packed, nodes = children(engine, "d")
    assert packed == {f"{number}.wav" for number in range(9)}
    assert nodes == set(names) - packed  # a directory, a link, a conflict copy
    assert engine.entry("d/3.wav").attributes.size == 3
    assert engine.read("d/5.wav") == b"xxxxx"
    packed, nodes = children(engine, "d")
    assert {"3.wav", "5.wav"} <= nodes
    assert len(packed) == 7
    assert engine.listdir("d") == names


def test_a_listing_shows_the_numbers_that_stat_shows(engine: Engine) -> None:
    directory = engine.entry("d").ino
    listed = {entry.name: entry.st_ino for entry in engine.fs.readdir(engine.caller, directory)}
    assert listed == {name: engine.entry(f"d/{name}").attributes.st_ino for name in listed}
    assert len(set(listed.values())) == len(listed)


def test_what_this_host_wrote_has_its_number_and_times_in_a_later_mount(
    make: MakeEngine, store: MemoryStore
) -> None:
    first = make()
    first.mkdir("d")
    for number in range(6):
        first.write(f"d/{number}.wav", b"ours")
    first.drain()
    shown = {name: first.entry(f"d/{name}").attributes for name in first.listdir("d")}
    first.stop()
    for number in range(6, 12):
        store.set(f"d/{number}.wav", b"theirs")
    later = make(freshness_s=3600.0)
    listed = {entry.name: entry.st_ino for entry in later.fs.readdir(later.caller, later.entry("d").ino)}
    for name, attributes in shown.items():
        assert listed[name] == attributes.st_ino
        assert later.entry(f"d/{name}").attributes.mtime_ns == attributes.mtime_ns
    assert len(children(later, "d")[0]) == 6


def test_changes_of_another_host_are_seen(make: MakeEngine, store: MemoryStore) -> None:
    clock = Later()
    engine = make(clock=clock, freshness_s=10.0)
    for name in "abcd":
        store.set(f"d/{name}", b"before")
    engine.listdir("d")
    store.set("d/a", b"after")
    store.remove("d/b")
    store.set("d/e", b"new")
    store.remove("d/c")
    store.set("d/c/below", b"a directory now")
    clock.advance(11.0)
    assert engine.listdir("d") == ["a", "c", "d", "e"]
    assert engine.read("d/a") == b"after"
    assert engine.listdir("d/c") == ["below"]
    assert children(engine, "d")[0] == {"d", "e"}


def test_a_directory_is_renamed_with_files_that_were_never_looked_up(
    engine: Engine, store: MemoryStore
) -> None:
    engine.listdir("d")
    engine.listdir("d/e")
    engine.rename("d", "f")
    assert engine.read("f/8.wav") == b"x" * 8
    assert engine.read("f/e/below.wav") == b"below"
    engine.drain()
    assert not any(key.startswith("d/") for key in store.objects)
    assert store.data("f/8.wav") == b"x" * 8


def test_a_directory_stays_while_a_file_in_it_was_never_looked_up(engine: Engine, store: MemoryStore) -> None:
    for number in range(8):
        engine.unlink(f"d/{number}.wav")
    assert children(engine, "d")[0] == {"8.wav"}
    engine.drain()
    assert "d/" not in store.objects  # 8.wav keeps it


def test_they_count_for_the_quota(make: MakeEngine, store: MemoryStore) -> None:
    for number in range(9):
        store.set(f"{number}.wav", b"x" * 1000)
    engine = make(quota=10_000)
    engine.listdir()
    assert engine.fs.statfs(engine.caller).free == 1000


def test_they_are_the_last_known_names_of_a_later_mount(make: MakeEngine, store: MemoryStore) -> None:
    for number in range(9):
        store.set(f"d/{number}.wav", b"x" * number)
    first = make()
    names = first.listdir("d")
    first.stop()

    def away(name: str, key: str) -> None:
        raise Unavailable("the bucket is away")

    store.before = away
    later = make()
    later.fs.assume_away()
    assert later.listdir("d") == names
    assert later.entry("d/7.wav").attributes.size == 7


class Listed(MemoryStore):
    """A directory of MANY objects, as parsed: no page shares a string with another."""

    def list_page(self, prefix: str, *given: object, delimiter: str = "", **named: object) -> ListPage:
        if not prefix and delimiter:
            return ListPage((), ("d/",), None)
        infos = (
            ObjectInfo(
                f"d/segment-{number:08}.wav", number, hashlib.md5(b"%d" % number).hexdigest(), 10**18 + number
            )
            for number in range(MANY)
        )
        return ListPage(tuple(infos), (), None)


def test_an_object_takes_less_than_200_bytes(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(freshness_s=3600.0)
    engine.core.store.list_page = Listed().list_page  # type: ignore[method-assign]
    directory = engine.entry("d").ino
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        assert len(engine.fs.readdir(engine.caller, directory)) == MANY
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / MANY <= MOST_BYTES
