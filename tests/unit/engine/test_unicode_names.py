"""Names that another tool stored in NFD, on a server that tells spellings apart and on one that does not."""

from __future__ import annotations

import unicodedata

import pytest

from r2fs.model.records import AttributeChange
from tests.support.engine import MakeEngine
from tests.support.memory_store import MemoryStore


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.fixture(params=[True, False], ids=("told apart", "one name"))
def bucket(store: MemoryStore, request: pytest.FixtureRequest) -> MemoryStore:
    store.tells_spellings_apart = request.param
    store.set(nfd("Bjö/Möß/einß"), b"one")
    store.set(nfd("Bjö/zwü"), b"two")
    store.set(nfd("Bjö/leer/"), b"")
    return store


TREE = {"Bjö/": None, "Bjö/Möß/": None, "Bjö/Möß/einß": b"one", "Bjö/leer/": None, "Bjö/zwü": b"two"}


@pytest.mark.parametrize("freshness_s", [0.0, 3600.0])
def test_what_it_holds_is_listed_and_read(make: MakeEngine, bucket: MemoryStore, freshness_s: float) -> None:
    engine = make(freshness_s=freshness_s)
    assert engine.tree() == TREE
    assert engine.tree() == TREE
    assert engine.fs.queue_view().hidden == 0


def test_a_name_is_found_without_a_listing(make: MakeEngine, bucket: MemoryStore) -> None:
    """In a directory of many pages it is asked for by itself."""
    bucket.page = 2
    for n in range(9):
        bucket.set(f"{n}", b"x")
    engine = make(freshness_s=0.0)
    engine.listdir("")
    for node in list(engine.inodes.root.children().nodes()):
        if node.is_dir:
            with engine.lock:
                engine.inodes.detach(node)
    assert engine.read("Bjö/Möß/einß") == b"one"


@pytest.mark.parametrize("crash", [False, True])
def test_a_rename_takes_everything_along(make: MakeEngine, bucket: MemoryStore, crash: bool) -> None:
    engine = make(upload_delay_s=3600.0 if crash else 0.0)
    engine.rename("Bjö", "Björk")
    if crash:
        engine.kill()
        engine = make()
    assert engine.tree() == {path.replace("Bjö", "Björk"): data for path, data in TREE.items()}
    engine.drain()
    assert {unicodedata.normalize("NFC", key) for key in bucket.objects} == {
        "Björk/leer/",
        "Björk/zwü",
        "Björk/Möß/einß",
    }
    assert make("b").tree() == engine.tree()


def test_what_is_written_there_stays_in_it(make: MakeEngine, bucket: MemoryStore) -> None:
    engine = make()
    engine.write("Bjö/Möß/new", b"new")
    engine.mkdir("Bjö/sub")
    engine.write("Bjö/zwü", b"edited")
    engine.fs.setattr(engine.caller, engine.entry("Bjö/leer").ino, AttributeChange(mode=0o700))
    engine.drain()
    shown = TREE | {"Bjö/Möß/new": b"new", "Bjö/sub/": None, "Bjö/zwü": b"edited"}
    assert engine.tree() == shown
    assert make("b").tree() == shown
    assert engine.fs.queue_view().hidden == 0


def test_it_is_removed(make: MakeEngine, bucket: MemoryStore) -> None:
    engine = make()
    for path in sorted(TREE, reverse=True):
        engine.rmdir(path) if path.endswith("/") else engine.unlink(path)
    engine.drain()
    assert bucket.keys() == []


def test_after_a_restart_with_a_file_not_sent(make: MakeEngine, bucket: MemoryStore) -> None:
    engine = make(upload_delay_s=3600.0)
    engine.write("Bjö/Möß/new", b"new")
    engine.kill()
    engine = make()
    engine.drain()
    assert engine.tree() == TREE | {"Bjö/Möß/new": b"new"}


def test_both_spellings(make: MakeEngine, store: MemoryStore) -> None:
    """One is shown, and the other is counted and left alone."""
    store.tells_spellings_apart = True
    store.set("ü/a", b"composed")
    store.set(nfd("ü/a"), b"apart")
    engine = make()
    assert engine.tree() == {"ü/": None, "ü/a": b"composed"}
    assert engine.fs.queue_view().hidden == 1
    engine.rename("ü", "new")
    engine.drain()
    assert store.contents() == {"new/a": b"composed", nfd("ü/a"): b"apart"}
    assert engine.tree() == {"new/": None, "new/a": b"composed", "ü/": None, "ü/a": b"apart"}
