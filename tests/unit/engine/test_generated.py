"""Buckets of many objects that nobody stores: what their listings cost, in requests, nodes and bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from r2fs.engine.inodes import children
from r2fs.engine.inodes.inode import listing_of
from r2fs.engine.namespace import waits
from tests.support.engine import Engine
from tests.support.generated import Generated, GeneratedStore
from tests.support.memory_store import MemoryStore

MANY = 5_000


def test_the_first_names_come_without_the_numbers_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = list[str]()
    derived_of = children.derived_of
    monkeypatch.setattr(
        children,
        "derived_of",
        lambda key, name, etag: (computed.append(name), derived_of(key, name, etag))[1],
    )
    engine = Engine(tmp_path, GeneratedStore(Generated((MANY,))), threads=False, freshness_s=3600.0)
    try:
        listed = engine.fs.readdir(engine.caller, 1)
        first = next(listed.raw(0))
        assert (len(listed), first[0]) == (MANY, b"f0000.wav")
        assert 1 <= len(computed) <= 200
        assert not list(engine.inodes.root.children().nodes()), "a name alone needs no node"
        assert first[1] == engine.entry("f0000.wav").attributes.st_ino
    finally:
        engine.end()


# ------------------------------------------------------------------ a later mount
class Held(GeneratedStore):
    """LISTs wait for `answered`."""

    def __init__(self, generated: Generated) -> None:
        super().__init__(generated)
        self.answered = Event()
        self.answered.set()
        self.before = self._hold

    def _hold(self, verb: str, key: str) -> None:
        self.answered.wait(30.0)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[Engine, Held]]:
    """A later mount of 30 directories of 10 files, beside one large directory; LISTs are not answered."""
    store = Held(Generated((30, 10)))
    store.generated.added |= {f"large/{number:04}": 1 for number in range(MANY)}
    first = Engine(tmp_path, store, freshness_s=3600.0)
    for name in first.listdir():
        first.listdir(name)
    first.stop()
    store.generated.requests.clear()
    store.answered.clear()
    later = Engine(tmp_path, store, freshness_s=3600.0)
    yield later, store
    store.answered.set()
    later.end()


def test_a_saved_tree_is_shown_while_its_lists_follow_one_by_one(tree: tuple[Engine, Held]) -> None:
    engine, store = tree
    directories = [name for name in engine.listdir() if name.startswith("d")]
    assert len(directories) == 30
    for name in directories:
        assert len(engine.listdir(name)) == 10
    store.answered.set()
    for _ in range(1000):
        if not any(listing_of(engine.node(name)).provisional for name in directories):
            break
        time.sleep(0.01)
    assert not any(listing_of(engine.node(name)).provisional for name in directories)
    assert store.generated.requests["LIST"] <= 8, "one by one: one a directory"


def test_a_large_saved_directory_is_not_waited_for(
    tree: tuple[Engine, Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = tree
    large = engine.entry("large").ino
    monkeypatch.setattr(waits, "PAUSE_S", -1.0)
    monkeypatch.setattr(waits, "SAVED_WAIT_S", 3600.0)
    assert len(engine.fs.readdir(engine.caller, large)) == MANY
    children = engine.inodes.get(large).children()
    assert (len(children.packed), len(list(children.nodes()))) == (MANY, 0)


def test_what_another_host_did_meanwhile_is_seen_when_the_list_has_ended(tree: tuple[Engine, Held]) -> None:
    engine, store = tree
    store.generated.added["large/new"] = 7
    del store.generated.added["large/0003"]
    store.generated.added["large/0004"] = 44
    assert len(engine.listdir("large")) == MANY
    store.answered.set()
    for _ in range(1000):
        if "new" in engine.listdir("large"):
            break
        time.sleep(0.01)
    names = engine.listdir("large")
    assert "new" in names
    assert "0003" not in names
    assert engine.entry("large/0004").attributes.size == 44


# ------------------------------------------------------------------ the double itself
@pytest.mark.parametrize("prefix", ["", "d1/", "d1/d2/", "d1/d2", "none"])
@pytest.mark.parametrize("delimiter", ["", "/"])
def test_arithmetic_lists_as_a_bucket_that_holds_the_objects(prefix: str, delimiter: str) -> None:
    generated = Generated((3, 4, 5), added={"d1/zz": 3, "a": 1, "d2": 4, "d1/d2": 1})
    store = MemoryStore(page=7)
    for number in range(generated.count):
        store.set(generated.key(number), b"")
    for key in generated.added:
        store.set(key, b"")
    token = None
    while True:
        wanted = store.list_page(prefix, delimiter=delimiter, token=token)
        page = generated.page(prefix, delimiter, token=token, limit=7)
        assert [info.key for info in page.objects] == [info.key for info in wanted.objects]
        assert (page.prefixes, page.token) == (wanted.prefixes, wanted.token)
        token = page.token
        if token is None:
            return
