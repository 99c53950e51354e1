"""What HTTP says of an object besides its type is kept, whatever writes the object again."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable

import pytest

from r2fs.model.errors import InvalidArgument, NoAttribute, NotPermitted
from r2fs.model.records import AttributeChange, ObjectMeta
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

HEADERS = {
    "cache-control": "max-age=60",
    "content-disposition": "attachment",
    "content-language": "de",
    "expires": "0",
    "storage-class": "STANDARD_IA",
}
MIB = 1 << 20
Act = Callable[[Engine], object]


def stored(store: MemoryStore, key: str, data: bytes, headers: dict[str, str]) -> None:
    store.store_version(key, data, ObjectMeta("audio/wav", {"note": "x"}, headers))


def _append(engine: Engine) -> None:
    engine.write("a.wav", b"more", os.O_WRONLY | os.O_APPEND)


def _change(change: AttributeChange) -> Act:
    return lambda engine: engine.fs.setattr(engine.caller, engine.entry("a.wav").ino, change)


ACTS: dict[str, Act] = {
    "append": _append,
    "overwrite": lambda engine: engine.write("a.wav", b"new"),
    "edit": lambda engine: engine.write("a.wav", b"x", os.O_WRONLY, at=3),
    "truncate": lambda engine: engine.truncate("a.wav", 4),
    "chmod": _change(AttributeChange(mode=0o600)),
    "utime": _change(AttributeChange(mtime_ns=1)),
    "setxattr": lambda e: e.fs.setxattr(e.caller, e.entry("a.wav").ino, "user.mime_type", b"audio/flac", 0),
    "rename": lambda engine: engine.rename("a.wav", "b.wav"),
    "rename and append": lambda engine: (
        engine.rename("a.wav", "b.wav"),
        engine.write("b.wav", b"x", os.O_WRONLY),
    ),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
@pytest.mark.parametrize("size", [10, 3 * MIB], ids=("one PUT", "parts"))
@pytest.mark.parametrize("crash", [False, True], ids=("", "kill -9"))
@pytest.mark.parametrize("read", [False, True], ids=("", "read before"))
def test_headers_are_kept(
    make: MakeEngine, store: MemoryStore, act: Act, size: int, crash: bool, read: bool
) -> None:
    stored(store, "a.wav", os.urandom(size), HEADERS)
    settings = {"multipart_threshold": MIB, "part_size": MIB, "small_file": MIB}
    engine = make(upload_delay_s=3600.0 if crash else 0.0, **settings)
    if read:
        engine.read("a.wav")
    act(engine)
    if crash:
        engine.kill()
        engine = make(**settings)
    engine.drain()
    (key,) = store.keys()
    assert store.objects[key].meta.headers == HEADERS
    assert store.objects[key].meta.metadata["note"] == "x"


@pytest.mark.expect_warnings("conflict")
def test_a_conflicts_copy_has_them(make: MakeEngine, store: MemoryStore) -> None:
    stored(store, "a.wav", b"first", HEADERS)
    engine = make(upload_delay_s=3600.0)
    engine.read("a.wav")
    _append(engine)
    store.set("a.wav", b"somebody else's")
    engine.drain()
    copy = next(key for key in store.keys() if "conflict of" in key)  # noqa: SIM118
    assert store.objects[copy].meta.headers == HEADERS


@pytest.mark.parametrize("known", [False, True])
def test_a_content_encoding_stays_while_it_is_true(make: MakeEngine, store: MemoryStore, known: bool) -> None:
    packed = gzip.compress(b"a take" * 100)
    for key in ("edited", "packed anew", "written plain"):
        stored(store, key, packed, {"content-encoding": "gzip", "cache-control": "no-cache"})
    engine = make()
    if known:
        engine.listdir()
        for key in store.keys():  # noqa: SIM118
            engine.read(key)
    engine.write("edited", b"\0", os.O_WRONLY, at=20)
    engine.write("packed anew", gzip.compress(b"another"))
    engine.write("written plain", b"a take")
    engine.drain()
    assert {key: one.meta.headers for key, one in store.objects.items()} == {
        "edited": {"content-encoding": "gzip", "cache-control": "no-cache"},
        "packed anew": {"content-encoding": "gzip", "cache-control": "no-cache"},
        "written plain": {"cache-control": "no-cache"},
    }


def test_they_can_be_read(make: MakeEngine, store: MemoryStore) -> None:
    stored(store, "a.wav", b"first", HEADERS)
    engine = make()
    ino = engine.entry("a.wav").ino
    assert engine.fs.getxattr(engine.caller, ino, "user.r2fs.cache-control") == b"max-age=60"
    assert engine.fs.getxattr(engine.caller, ino, "user.r2fs.expires") == b"0"
    assert engine.fs.listxattr(engine.caller, ino) == ["user.note"]


@pytest.mark.parametrize("crash", [False, True], ids=("", "kill -9"))
def test_some_can_be_set_and_removed(make: MakeEngine, store: MemoryStore, crash: bool) -> None:
    """R12, R26."""
    stored(store, "a.wav", b"first", HEADERS)
    engine = make(upload_delay_s=3600.0 if crash else 0.0)
    ino, caller = engine.entry("a.wav").ino, engine.caller
    engine.fs.setxattr(caller, ino, "user.r2fs.cache-control", b"no-store", 0)
    engine.fs.removexattr(caller, ino, "user.r2fs.content-language")
    assert engine.fs.getxattr(caller, ino, "user.r2fs.cache-control") == b"no-store"
    assert engine.fs.listxattr(caller, ino) == ["user.note"]
    with pytest.raises(NoAttribute):
        engine.fs.removexattr(caller, ino, "user.r2fs.content-language")
    with pytest.raises(NotPermitted):
        engine.fs.setxattr(caller, ino, "user.r2fs.storage-class", b"STANDARD", 0)
    for value in (b"", b"a\r\nX-Evil: 1", "ü".encode(), b"x" * 2000):
        with pytest.raises(InvalidArgument):
            engine.fs.setxattr(caller, ino, "user.r2fs.content-disposition", value, 0)
    if crash:
        engine.kill()
        engine = make()
    engine.drain()
    meta = store.objects["a.wav"].meta
    changed = {name: value for name, value in HEADERS.items() if name != "content-language"}
    assert meta.headers == {**changed, "cache-control": "no-store"}
    assert meta.metadata["note"] == "x"
    assert store.data("a.wav") == b"first"
    engine.write("a.wav", b"second")
    engine.drain()
    assert store.objects["a.wav"].meta.headers == meta.headers


def test_a_directory_keeps_them(make: MakeEngine, store: MemoryStore) -> None:
    stored(store, "d/", b"", HEADERS)
    engine = make()
    engine.fs.setattr(engine.caller, engine.entry("d").ino, AttributeChange(mode=0o700))
    engine.drain()
    engine.rename("d", "e")
    engine.drain()
    assert store.objects["e/"].meta.headers == HEADERS
