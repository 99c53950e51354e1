"""How much of a file is on this host, in each place where its bytes can be."""

from __future__ import annotations

from r2fs.engine.content.presence import bytes_here_locked
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore


def here(engine: Engine, path: str) -> int:
    node = engine.node(path)
    with engine.lock:
        return bytes_here_locked(engine.core, node)


def test_bytes_are_counted_wherever_they_are(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/clean.wav", b"12345")
    engine = make("one", upload_delay_s=60.0)
    assert (here(engine, "d"), here(engine, "d/clean.wav")) == (0, 0)
    engine.read("d/clean.wav")
    assert here(engine, "d/clean.wav") == 5, "open and idle"
    engine.retire_idle()
    assert here(engine, "d/clean.wav") == 5, "an entry of the cache"
    engine.write("new.wav", b"123")
    assert here(engine, "new.wav") == 3, "staged"
    engine.drain()
    assert here(engine, "new.wav") == 3, "sent"


def test_a_part_counts_with_its_bytes(make: MakeEngine, store: MemoryStore) -> None:
    store.set("large.wav", b"x" * 8_000_000)
    engine = make("one", small_file=0, read_ahead=0)
    opened = engine.open("large.wav")
    engine.fs.read(engine.caller, opened.handle, 0, 4096)
    assert 4096 <= here(engine, "large.wav") < 8_000_000
    engine.close(opened)
    assert 4096 <= here(engine, "large.wav") < 8_000_000
