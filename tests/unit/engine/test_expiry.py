"""T11: what somebody else removes, a lifecycle rule as a rule, vanishes here: the name, and the bytes on this disk."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from r2fs.model.errors import NotFound
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

FRESHNESS_S = 0.0

LOOKS: dict[str, Callable[[Engine], object]] = {
    "listing": lambda engine: engine.fs.readdir(engine.caller, engine.entry("d").ino),
    "stat": lambda engine: engine.entry("d/a.wav"),
    "open": lambda engine: engine.open("d/a.wav"),
}


def bytes_on_disk(engine: Engine) -> int:
    """In the cache, and in files that were closed a moment ago."""
    kept = engine.settings.state_dir, engine.settings.cache_dir
    files = [path for top in kept for path in top.rglob("*") if path.is_file()]
    return sum(b"take by take" in path.read_bytes() for path in files)


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
@pytest.mark.parametrize("size", [1, 300], ids=("small", "large"))
def test_name_and_bytes_are_gone(
    make: MakeEngine, store: MemoryStore, look: Callable[[Engine], object], size: int
) -> None:
    data = b"take by take" * 1000 * size
    store.set("d/a.wav", data)
    store.set("d/b.wav", b"stays")
    engine = make(freshness_s=FRESHNESS_S, small_file=1 << 20)
    assert engine.read("d/a.wav") == data
    assert bytes_on_disk(engine) == 1
    store.remove("d/a.wav")
    if look is LOOKS["listing"]:
        look(engine)
    else:
        with pytest.raises(NotFound):
            look(engine)
    assert bytes_on_disk(engine) == 0
    assert engine.read("d/b.wav") == b"stays"
    with pytest.raises(NotFound):
        engine.entry("d/a.wav")


def test_a_whole_directory(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/e/a.wav", b"take by take")
    engine = make(freshness_s=FRESHNESS_S)
    engine.read("d/e/a.wav")
    store.remove("d/e/a.wav")
    assert list(engine.fs.readdir(engine.caller, engine.entry("").ino)) == []
    assert bytes_on_disk(engine) == 0


def test_who_has_it_open_reads_what_is_here(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/a.wav", b"take by take")
    engine = make(freshness_s=FRESHNESS_S)
    opened = engine.open("d/a.wav")
    assert engine.fs.read(engine.caller, opened.handle, 0, 4) == b"take"
    store.remove("d/a.wav")
    assert list(engine.fs.readdir(engine.caller, engine.entry("").ino)) == []
    assert engine.fs.read(engine.caller, opened.handle, 5, 7) == b"by take"
    engine.close(opened)
    assert bytes_on_disk(engine) == 0


def test_unsent_changes_are_no_copies(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/a.wav", b"old")
    engine = make(freshness_s=FRESHNESS_S, upload_delay_s=60.0)
    engine.read("d/a.wav")
    engine.write("d/a.wav", b"take by take")
    store.remove("d/a.wav")
    engine.fs.readdir(engine.caller, engine.entry("d").ino)
    assert engine.read("d/a.wav") == b"take by take"
