"""FIFOs, sockets and devices: empty objects with their type in the `mode` metadata."""

from __future__ import annotations

import os
import stat

import pytest

from r2fs.model.errors import BadName, Exists, InvalidArgument, IsADirectory, NotPermitted
from r2fs.model.records import AttributeChange, Kind, ObjectMeta
from r2fs.model.verbs import ROOT
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

DISK = os.makedev(259, 70_000)  # a minor number of more than 8 bits
KINDS = {
    "pipe": (stat.S_IFIFO, Kind.FIFO, 0),
    "socket": (stat.S_IFSOCK, Kind.SOCKET, 0),
    "null": (stat.S_IFCHR, Kind.CHARACTER_DEVICE, os.makedev(1, 3)),
    "disk": (stat.S_IFBLK, Kind.BLOCK_DEVICE, DISK),
}


def mknod(engine: Engine, path: str, mode: int, device: int = 0) -> None:
    entry = engine.fs.mknod(engine.caller, *engine.parent(path), mode, device)
    engine.fs.forget(entry.ino, 1)


def make_all(engine: Engine) -> None:
    for name, (bits, _, device) in KINDS.items():
        mknod(engine, name, bits | 0o640, device)


def shown(engine: Engine) -> dict[str, tuple[Kind, int, int, int]]:
    found = {name: engine.entry(name).attributes for name in engine.listdir()}
    return {name: (a.kind, a.mode, a.size, a.rdev) for name, a in found.items()}


EXPECTED = {name: (kind, 0o640, 0, device) for name, (_, kind, device) in KINDS.items()}


def test_shown_at_once_and_stored_as_s3fs_stores_them(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    make_all(engine)
    assert shown(engine) == EXPECTED
    engine.drain()
    assert shown(engine) == EXPECTED
    for name, (bits, _, device) in KINDS.items():
        info = store.head(name)
        assert store.data(name) == b"" and info.metadata is not None
        assert info.metadata["mode"] == f"0{bits | 0o640:o}"
        assert int(info.metadata.get("rdev", "0"), 16) == device


def test_a_default_mode_is_stored_all_the_same(make: MakeEngine, store: MemoryStore) -> None:
    """Without `mode` another host would see an empty file."""
    engine = make()
    mknod(engine, "pipe", stat.S_IFIFO | 0o644)
    engine.drain()
    assert (store.head("pipe").metadata or {})["mode"] == "010644"


@pytest.mark.parametrize("drained", [False, True])
def test_they_outlive_a_kill(make: MakeEngine, drained: bool) -> None:
    engine = make()
    if drained:
        make_all(engine)
        engine.drain()
    else:
        engine = make("slow", upload_delay_s=3600.0)
        make_all(engine)
    engine.kill()
    assert shown(make() if drained else make("slow")) == EXPECTED


def test_another_host_sees_them_once_it_asks(make: MakeEngine) -> None:
    first = make("first")
    make_all(first)
    first.drain()
    assert shown(make("second", mtime="exact")) == EXPECTED


def test_what_a_host_took_for_a_file_becomes_one_with_its_first_look(
    make: MakeEngine, store: MemoryStore
) -> None:
    first, second = make("first"), make("second")
    make_all(first)
    first.drain()
    assert {kind for kind, *_ in shown(second).values()} == {Kind.FILE}
    for name in KINDS:
        second.fs.listxattr(second.caller, second.entry(name).ino)  # asks what is stored
    assert shown(second) == EXPECTED


def test_renamed_changed_and_removed_like_any_name(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    make_all(engine)
    engine.drain()
    engine.mkdir("dir")
    for name in KINDS:
        engine.rename(name, f"dir/{name}")
        engine.fs.setattr(
            engine.caller, engine.entry(f"dir/{name}").ino, AttributeChange(mode=0o600, mtime_ns=10**18)
        )
    engine.drain()
    assert list(store.contents()) == sorted(f"dir/{name}" for name in KINDS)
    other = make("other", mtime="exact")
    for name, (_, kind, device) in KINDS.items():
        found = other.entry(f"dir/{name}").attributes
        assert (found.kind, found.mode, found.rdev, found.mtime_ns) == (kind, 0o600, device, 10**18)
        engine.unlink(f"dir/{name}")
    engine.drain()
    assert store.keys() == ["dir/"]


@pytest.mark.expect_warnings("another host wrote it first")
def test_two_hosts_make_one_name(make: MakeEngine, store: MemoryStore) -> None:
    one, two = make("one", upload_delay_s=3600.0), make("two", freshness_s=3600.0)
    mknod(one, "pipe", stat.S_IFIFO | 0o644)
    two.write("pipe", b"a take")
    two.drain()
    with_warning = one.fs.drain(20.0)
    assert not with_warning.transfers
    assert store.data("pipe") == b"a take"
    assert len(store.keys()) == 2


def test_an_object_with_bytes_is_a_file_whatever_its_mode_says(make: MakeEngine, store: MemoryStore) -> None:
    store.set("take.wav", b"a take", mode=str(stat.S_IFIFO | 0o644))
    engine = make(mtime="exact")
    assert engine.entry("take.wav").attributes.kind is Kind.FILE
    assert engine.read("take.wav") == b"a take"


@pytest.mark.parametrize("number", ["", "-1", "1g", "fffffffff", "0x103", "1" * 400])
def test_a_device_number_that_cannot_be(make: MakeEngine, store: MemoryStore, number: str) -> None:
    meta = ObjectMeta("application/octet-stream", {"mode": str(stat.S_IFCHR | 0o644), "rdev": number})
    store.store_version("device", b"", meta, "etag")
    engine = make(mtime="exact")
    found = engine.entry("device").attributes
    assert found.kind is Kind.CHARACTER_DEVICE and found.rdev == 0


def test_refused(make: MakeEngine) -> None:
    engine = make()
    mknod(engine, "pipe", stat.S_IFIFO | 0o644)
    with pytest.raises(Exists):
        mknod(engine, "pipe", stat.S_IFSOCK | 0o644)
    with pytest.raises(NotPermitted):
        mknod(engine, "dir", stat.S_IFDIR | 0o755)
    with pytest.raises(BadName):
        mknod(engine, "x.rclonelink", stat.S_IFIFO | 0o644)
    with pytest.raises(BadName):
        engine.rename("pipe", "x.rclonelink")
    ino = engine.entry("pipe").ino
    with pytest.raises(IsADirectory):
        engine.fs.open(engine.caller, ino, os.O_RDONLY)  # the kernel opens it by itself
    with pytest.raises(InvalidArgument):
        engine.fs.setattr(engine.caller, ino, AttributeChange(size=0))


def test_the_device_number_is_no_attribute_of_a_program(make: MakeEngine) -> None:
    engine = make()
    mknod(engine, "null", stat.S_IFCHR | 0o644, os.makedev(1, 3))
    ino = engine.entry("null").ino
    assert engine.fs.listxattr(engine.caller, ino) == []
    engine.fs.setxattr(engine.caller, ino, "user.rdev", b"ff", 0)
    assert engine.fs.getxattr(engine.caller, ino, "user.rdev") == b"ff"
    assert engine.entry("null").attributes.rdev == os.makedev(1, 3)
    assert engine.fs.readdir(engine.caller, ROOT)[0].kind is Kind.CHARACTER_DEVICE
