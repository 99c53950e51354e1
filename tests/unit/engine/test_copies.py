"""copy_file_range inside the mount: what is missing is downloaded once, and nothing is uploaded that the bucket can copy."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable

import pytest

from r2fs.engine.files.copy_range import PIECE
from r2fs.engine.writeback.upload import COPIED_FROM
from r2fs.model.errors import BadHandle, NotSupported, Refused
from r2fs.model.records import Opened
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

SIZE = 2 * COPIED_FROM + 17
HELD = 3600.0  # until a test has prepared the bucket


@pytest.fixture
def data(store: MemoryStore) -> bytes:
    data = os.urandom(SIZE)
    store.set("source.wav", data)
    return data


@pytest.fixture
def engine(make: MakeEngine, data: bytes) -> Engine:
    return make(upload_delay_s=HELD, freshness_s=HELD)


def copy_all(engine: Engine, source: Opened, target: Opened) -> None:
    """As cp does: until nothing is left."""
    at = 0
    while done := engine.fs.copy_file_range(engine.caller, source.handle, at, target.handle, at, 1 << 30):
        at += done


def cp(
    engine: Engine, source: str, target: str, then: Callable[[Opened], None] = lambda opened: None
) -> None:
    one = engine.open(source)
    other = engine.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    copy_all(engine, one, other)
    then(other)
    engine.close(one)
    engine.close(other)


def sent(store: MemoryStore) -> Counter[str]:
    return Counter(verb for verb, _ in store.calls if verb in ("put", "copy", "put_part", "copy_part"))


@pytest.mark.parametrize("here", [False, True])
def test_a_copy_is_a_copy_in_the_bucket(engine: Engine, store: MemoryStore, data: bytes, here: bool) -> None:
    if here:
        engine.read("source.wav")
    store.calls.clear()
    cp(engine, "source.wav", "target.wav")
    assert engine.read("target.wav") == data
    engine.drain()
    assert sent(store) == {"copy": 1}
    assert store.data("target.wav") == data
    assert store.metadata("target.wav")["mtime"]
    assert sum(verb == "get" for verb, _ in store.calls) == (0 if here else 1)


def test_a_copy_that_was_changed_is_sent(engine: Engine, store: MemoryStore, data: bytes) -> None:
    def change(opened: Opened) -> None:
        engine.fs.write(engine.caller, opened.handle, 100, b"changed")

    cp(engine, "source.wav", "target.wav", change)
    engine.drain()
    assert sent(store) == {"put": 1}
    assert store.data("target.wav") == data[:100] + b"changed" + data[107:]


@pytest.mark.parametrize("what", ["removed", "replaced", "refused"])
def test_a_copy_outlives_its_source(engine: Engine, store: MemoryStore, data: bytes, what: str) -> None:
    cp(engine, "source.wav", "target.wav")
    if what == "removed":
        store.remove("source.wav")
    elif what == "replaced":
        store.set("source.wav", b"of another host")

    def refuse(name: str, key: str) -> None:
        if name == "copy" and what == "refused":
            raise Refused("no copies here")

    store.before = refuse
    engine.drain()
    assert sent(store)["put"] == 1
    assert store.data("target.wav") == data


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_where_the_disk_refuses_the_kernel_reads_and_writes(
    engine: Engine, store: MemoryStore, data: bytes, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A write makes room where a copy has none, and a read of a bad sector fetches the file again."""

    def refuse(*args: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    with pytest.raises(NotSupported):
        cp(engine, "source.wav", "target.wav")


def test_a_copy_of_a_part_is_sent(engine: Engine, store: MemoryStore, data: bytes) -> None:
    one, other = engine.open("source.wav"), engine.open("target.wav", os.O_WRONLY | os.O_CREAT)
    assert engine.fs.copy_file_range(engine.caller, one.handle, 10, other.handle, 0, 1000) == 1000
    engine.close(one)
    engine.close(other)
    engine.drain()
    assert sent(store) == {"put": 1}
    assert store.data("target.wav") == data[10:1010]


@pytest.mark.expect_warnings
def test_another_host_has_made_the_name_meanwhile(engine: Engine, store: MemoryStore, data: bytes) -> None:
    cp(engine, "source.wav", "target.wav")
    store.set("target.wav", b"theirs")
    engine.drain()
    assert store.data("target.wav") == b"theirs"
    (copy,) = (key for key in store.objects if "conflict" in key)
    assert store.data(copy) == data


def test_after_a_kill_the_copy_is_sent(
    make: MakeEngine, engine: Engine, store: MemoryStore, data: bytes
) -> None:
    cp(engine, "source.wav", "target.wav")
    engine.kill()
    later = make()
    later.drain()
    assert store.data("target.wav") == data


def test_a_large_file_in_parts(make: MakeEngine, store: MemoryStore) -> None:
    """Its ETag is no MD5: the digests of its parts, known since this host has sent it, prove the bytes."""
    engine = make(multipart_threshold=1 << 20, part_size=1 << 19)
    data = os.urandom(5 << 19)
    engine.write("source.wav", data)
    engine.drain()
    store.calls.clear()
    cp(engine, "source.wav", "target.wav")
    engine.drain()
    assert sent(store) == {"copy": 1}
    assert store.data("target.wav") == data


def test_a_piece_at_a_time_is_downloaded(make: MakeEngine, store: MemoryStore) -> None:
    data = os.urandom(PIECE + 1000)
    store.set("long.wav", data)
    engine = make(upload_delay_s=HELD)
    one, other = engine.open("long.wav"), engine.open("target.wav", os.O_WRONLY | os.O_CREAT)
    assert engine.fs.copy_file_range(engine.caller, one.handle, 0, other.handle, 0, 1 << 30) == PIECE
    copy_all(engine, one, other)
    with pytest.raises(BadHandle):
        engine.fs.copy_file_range(engine.caller, other.handle, 0, one.handle, 0, 10)
    engine.close(one)
    engine.close(other)
    assert engine.read("target.wav") == data
