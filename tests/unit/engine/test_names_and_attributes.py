"""The engine by its verbs: names that are exchanged or stay here, attributes and where they are kept."""

from __future__ import annotations

import base64
import json
import os
import stat
from urllib.parse import quote

import pytest

from r2fs.model.errors import (
    AccessRefused,
    BadName,
    Exists,
    InvalidArgument,
    NoAttribute,
    NoSpace,
    NotFound,
    NotPermitted,
    NotSupported,
)
from r2fs.model.ports import Caller
from r2fs.model.records import AttributeChange, ObjectMeta
from r2fs.model.verbs import RENAME_EXCHANGE, RENAME_NOREPLACE
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore


# ------------------------------------------------------------------ links
def test_a_link_beside_a_file_of_its_name(make: MakeEngine, store: MemoryStore) -> None:
    """Another tool's: one name, and the file has it."""
    store.set("c", b"a file")
    store.set("c.rclonelink", b"elsewhere")
    engine = make()
    assert engine.tree() == {"c": b"a file"}
    assert engine.fs.queue_view().hidden == 1
    with pytest.raises(BadName):
        engine.write("d.rclonelink", b"a file")


def test_a_link_to_a_name_that_is_not_utf_8_outlives_a_kill(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(upload_delay_s=3600.0)
    target = os.fsdecode(b"caf\xe9")
    engine.fs.symlink(engine.caller, engine.entry("").ino, "link", target)
    engine.kill()
    after = make()
    assert after.fs.readlink(after.caller, after.entry("link").ino) == target
    after.drain()
    assert store.data("link.rclonelink") == b"caf\xe9"


OUT = ["/etc/passwd", "/", "..", "../x", "../../x", "./../x", "d/../x", "e/../../x", ".//..//.."]
IN = {"a": ["x", "./d/x", "d//x", "."], "d/a": ["..", "../x", "./../e/x", "x"], "d/e/a": ["../..", "../../x"]}


@pytest.mark.parametrize("made_here", [False, True], ids=["of the bucket", "made here"])
def test_links_out_of_the_mount(make: MakeEngine, store: MemoryStore, made_here: bool) -> None:
    """`d/../x` too: where d is a link, it leads out of the directory that d is linked to."""
    links = {f"l{number}": target for number, target in enumerate(OUT)}
    inside = {f"{path}{number}": target for path, found in IN.items() for number, target in enumerate(found)}
    deep = {"d/e/out": "../../../x", "d/out": "../../x", "d/e/dots": "x/.."}
    for path, target in {**links, **inside, **deep}.items():
        if not made_here:
            store.set(f"{path}.rclonelink", target.encode())
    engine = make(links="inside")
    if made_here:
        engine.fs.mkdir(engine.caller, engine.entry("").ino, "d", 0o755)
        engine.fs.mkdir(engine.caller, engine.entry("d").ino, "e", 0o755)
        for path, target in {**links, **inside, **deep}.items():
            parent, _, name = path.rpartition("/")
            engine.fs.symlink(engine.caller, engine.entry(parent).ino, name, target)
    for _ in range(2):  # read, and remembered
        for path, target in inside.items():
            assert engine.fs.readlink(engine.caller, engine.entry(path).ino) == target
        for path in (*links, *deep):
            with pytest.raises(AccessRefused, match=f"{path}: a symbolic link out of the mount"):
                engine.fs.readlink(engine.caller, engine.entry(path).ino)
    followed = make("b")
    if not made_here:
        assert followed.fs.readlink(followed.caller, followed.entry("l0").ino) == "/etc/passwd"


def test_a_link_that_moves_is_looked_at_anew(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/link.rclonelink", b"../x")
    engine = make(links="inside")
    assert engine.fs.readlink(engine.caller, engine.entry("d/link").ino) == "../x"
    engine.rename("d/link", "link")
    with pytest.raises(AccessRefused):
        engine.fs.readlink(engine.caller, engine.entry("link").ino)


def test_an_object_of_an_impossible_time_can_be_changed(make: MakeEngine, store: MemoryStore) -> None:
    store.store_version("take.wav", b"a take", ObjectMeta("audio/wav", {"mtime": "1700000000000"}), "etag")
    engine = make(mtime="exact")
    engine.fs.setattr(engine.caller, engine.entry("take.wav").ino, AttributeChange(mode=0o600))
    engine.rename("take.wav", "b.wav")
    engine.drain()
    assert store.keys() == ["b.wav"]


# ------------------------------------------------------------------ RENAME_EXCHANGE
@pytest.mark.parametrize("sent", [False, True], ids=("not sent yet", "in the bucket"))
def test_two_files_exchange_their_names(make: MakeEngine, store: MemoryStore, sent: bool) -> None:
    engine = make(upload_delay_s=0.0 if sent else 3600.0)
    engine.mkdir("d")
    engine.write("one", b"1" * 10)
    engine.write("d/two", b"2" * 20)
    if sent:
        engine.drain()
    numbers = {name: engine.entry(name).ino for name in ("one", "d/two")}
    engine.rename("one", "d/two", RENAME_EXCHANGE)
    assert engine.read("one") == b"2" * 20
    assert engine.read("d/two") == b"1" * 10
    assert {name: engine.entry(name).ino for name in ("d/two", "one")} == {
        "d/two": numbers["one"],
        "one": numbers["d/two"],
    }
    engine.drain()
    assert {key: store.data(key) for key in store.keys()}  # noqa: SIM118 == {"d/": b"", "d/two": b"1" * 10, "one": b"2" * 20}


def test_files_that_exchange_names_over_a_crash(make: MakeEngine, store: MemoryStore) -> None:
    store.set("a", b"first")
    store.set("b", b"second")
    engine = make(upload_delay_s=3600.0)
    engine.rename("a", "b", RENAME_EXCHANGE)
    engine.kill()
    again = make()
    assert (again.read("a"), again.read("b")) == (b"second", b"first")
    again.drain()
    assert (store.data("a"), store.data("b")) == (b"second", b"first")


def test_a_directory_and_a_file_exchange_their_names(make: MakeEngine, store: MemoryStore) -> None:
    store.set("album/01.wav", b"one")
    store.set("album/cd2/02.wav", b"two")
    store.set("other", b"file")
    engine = make()
    engine.rename("album", "other", RENAME_EXCHANGE)
    assert engine.read("other/01.wav") == b"one"
    assert engine.read("other/cd2/02.wav") == b"two"
    assert engine.read("album") == b"file"
    engine.drain()
    assert store.keys() == ["album", "other/01.wav", "other/cd2/02.wav"]
    assert store.data("album") == b"file"


def test_what_cannot_be_exchanged(make: MakeEngine) -> None:
    engine = make()
    engine.mkdir("d")
    engine.write("d/f", b"1")
    with pytest.raises(NotFound):
        engine.rename("d", "missing", RENAME_EXCHANGE)
    with pytest.raises(InvalidArgument):
        engine.rename("d", "d/f", RENAME_EXCHANGE)
    with pytest.raises(InvalidArgument):
        engine.rename("d/f", "d", RENAME_EXCHANGE)
    with pytest.raises(InvalidArgument):
        engine.rename("d", "e", RENAME_EXCHANGE | RENAME_NOREPLACE)
    engine.rename("d/f", "d/f", RENAME_EXCHANGE)
    assert engine.read("d/f") == b"1"


# ------------------------------------------------------------------ extended attributes
def set_(engine: Engine, path: str, name: str, value: bytes, flags: int = 0) -> None:
    engine.fs.setxattr(engine.caller, engine.entry(path).ino, name, value, flags)


def get(engine: Engine, path: str, name: str) -> bytes:
    return engine.fs.getxattr(engine.caller, engine.entry(path).ino, name)


def names(engine: Engine, path: str) -> list[str]:
    return list(engine.fs.listxattr(engine.caller, engine.entry(path).ino))


def test_attributes_are_metadata_that_other_tools_see(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    engine.write("f.wav", b"1")
    set_(engine, "f.wav", "user.artist", "Björk".encode())
    set_(engine, "f.wav", "user.Binary_One", b"\0\xff\n")
    engine.drain()
    metadata = store.head("f.wav").metadata or {}
    assert metadata["artist"] == "Björk"
    assert metadata["xattr"] == quote(
        json.dumps({"user.Binary_One": base64.b64encode(b"\0\xff\n").decode()}, separators=(",", ":")),
        safe="",
    )
    another = make("b")
    assert names(another, "f.wav") == ["user.Binary_One", "user.artist"]
    assert get(another, "f.wav", "user.artist") == "Björk".encode()
    assert get(another, "f.wav", "user.Binary_One") == b"\0\xff\n"


def test_removed_attributes_stay_removed(make: MakeEngine, store: MemoryStore) -> None:
    store.set("f.wav", b"1", artist="Anna", title="Song", md5chksum="abc=")
    engine = make()
    assert names(engine, "f.wav") == [
        "user.mime_type",
        "user.artist",
        "user.title",
    ]  # its type is not by name
    engine.fs.removexattr(engine.caller, engine.entry("f.wav").ino, "user.title")
    engine.drain()
    metadata = store.head("f.wav").metadata or {}
    assert (metadata["artist"], metadata["md5chksum"]) == ("Anna", "abc=")
    assert "title" not in metadata
    engine.write("f.wav", b"22")
    engine.drain()
    assert "md5chksum" not in (store.head("f.wav").metadata or {}), "a checksum of other bytes"


def test_flags_limits_and_refusals(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    engine.write("f", b"1")
    with pytest.raises(NoAttribute):
        set_(engine, "f", "user.a", b"1", flags=2)
    set_(engine, "f", "user.a", b"1", flags=1)
    with pytest.raises(Exists):
        set_(engine, "f", "user.a", b"2", flags=1)
    set_(engine, "f", "user.a", b"2", flags=2)
    assert get(engine, "f", "user.a") == b"2"
    set_(engine, "f", "user.empty", b"")
    assert get(engine, "f", "user.empty") == b""
    with pytest.raises(NoSpace):
        set_(engine, "f", "user.large", bytes(7000))
    assert "user.large" not in names(engine, "f")
    set_(engine, "f", "user.mtime", b"mine")  # not r2fs's own `mtime`
    assert get(engine, "f", "user.mtime") == b"mine"
    for name in ("security.selinux", "trusted.x", "system.posix_acl_access"):
        with pytest.raises(NotSupported):
            set_(engine, "f", name, b"1")
    with pytest.raises(NotPermitted):
        set_(engine, "f", "user.r2fs.etag", b"1")
    with pytest.raises(NoAttribute):
        engine.fs.removexattr(engine.caller, engine.entry("f").ino, "user.none")


def test_the_type_of_the_content(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    engine.write("f.wav", b"1")
    assert get(engine, "f.wav", "user.mime_type") == b"audio/wav"
    assert names(engine, "f.wav") == []
    set_(engine, "f.wav", "user.mime_type", b"audio/vnd.wave")
    assert names(engine, "f.wav") == ["user.mime_type"]
    engine.drain()
    assert store.head("f.wav").content_type == "audio/vnd.wave"
    with pytest.raises(InvalidArgument):
        set_(engine, "f.wav", "user.mime_type", b"no type")
    engine.fs.removexattr(engine.caller, engine.entry("f.wav").ino, "user.mime_type")
    engine.drain()
    assert store.head("f.wav").content_type == "audio/wav"


def test_t4_the_type_of_an_object_that_a_worker_wrote(make: MakeEngine, store: MemoryStore) -> None:
    """By its first bytes, for one GET of a few; nothing is stored."""
    octets = ObjectMeta("application/octet-stream")
    for key, data in (("3f2a", b"RIFF\0\0\0\0WAVEfmt "), ("riddle", b"\0\1\2"), ("named.json", b"{}")):
        store.store_version(key, data, octets)
    store.store_version("told", b"RIFF\0\0\0\0WAVEfmt ", ObjectMeta("audio/x-own"))
    engine = make()
    for _ in range(3):
        assert get(engine, "3f2a", "user.mime_type") == b"audio/wav"
        assert get(engine, "riddle", "user.mime_type") == b"application/octet-stream"
        assert get(engine, "named.json", "user.mime_type") == b"application/octet-stream"
        assert get(engine, "told", "user.mime_type") == b"audio/x-own"
    assert sum(name == "get" for name, _ in store.calls) == 2
    assert names(engine, "3f2a") == []
    engine.drain()
    assert store.head("3f2a").content_type == "application/octet-stream"


def test_a_type_by_name_or_by_the_first_bytes(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    engine.write("take", b"RIFF\x24\x00\x00\x00WAVEfmt ")
    engine.drain()
    assert store.head("take").content_type == "audio/wav"
    assert get(engine, "take", "user.mime_type") == b"audio/wav"
    engine.fs.setattr(engine.caller, engine.entry("take").ino, AttributeChange(mode=0o600))
    engine.drain()
    assert store.head("take").content_type == "audio/wav", "a copy onto itself keeps it"
    engine.write("song.tmp", b"\0\1\2")
    engine.drain()
    assert store.head("song.tmp").content_type == "application/octet-stream"
    engine.rename("song.tmp", "song.flac")
    engine.drain()
    assert store.head("song.flac").content_type == "audio/flac"


def test_what_r2fs_tells_of_a_file(make: MakeEngine, store: MemoryStore) -> None:
    etag = store.set("d/f.wav", b"12345")
    engine = make()
    assert get(engine, "d/f.wav", "user.r2fs.etag").decode() == etag
    assert get(engine, "d/f.wav", "user.r2fs.cached") == b"0"
    engine.read("d/f.wav")
    assert get(engine, "d/f.wav", "user.r2fs.cached") == b"5"
    assert get(engine, "d/f.wav", "user.r2fs.state") == b"clean"
    assert get(engine, "d/f.wav", "user.r2fs.url") == b"s3://bucket/d/f.wav"
    assert not [name for name in names(engine, "d/f.wav") if name.startswith("user.r2fs.")]


def test_what_is_here_of_a_file_is_told_after_its_close(make: MakeEngine, store: MemoryStore) -> None:
    store.set("large.wav", b"x" * 8_000_000)
    engine = make(small_file=1000)
    opened = engine.open("large.wav")
    engine.fs.read(engine.caller, opened.handle, 0, 4096)
    while_open = int(get(engine, "large.wav", "user.r2fs.cached"))
    engine.close(opened)
    engine.retire_idle()
    assert 4096 <= int(get(engine, "large.wav", "user.r2fs.cached")) <= max(while_open, 4_000_000) < 8_000_000


def test_the_state_of_a_file_that_stays_here(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(local_patterns=("*.tmp",))
    engine.write("a.tmp", b"here")
    assert get(engine, "a.tmp", "user.r2fs.state") == b"local"
    engine.rename("a.tmp", "a.wav")
    engine.drain()
    assert get(engine, "a.wav", "user.r2fs.state") == b"clean"
    engine.rename("a.wav", "b.wav")
    engine.drain()
    assert get(engine, "b.wav", "user.r2fs.state") == b"clean"


# ------------------------------------------------------------------ owners, modes and times
def test_a_directory_keeps_its_attributes(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    engine.mkdir("d")
    engine.drain()
    change = AttributeChange(mode=0o2750, uid=1001, gid=1002, mtime_ns=1_234_567_890_123_456_789)
    engine.fs.setattr(engine.caller, engine.entry("d").ino, change)
    set_(engine, "d", "user.note", b"keep")
    engine.drain()
    assert (store.head("d/").metadata or {})["mode"] == "042750"
    another = make("b", mtime="exact")
    found = another.entry("d").attributes
    assert (found.mode, found.uid, found.gid, found.mtime_ns) == (
        0o2750,
        1001,
        1002,
        1_234_567_890_123_456_789,
    )
    another.rename("d", "e")
    another.drain()
    third = make("c")
    third.fs.setattr(third.caller, third.entry("e").ino, AttributeChange(mode=0o700))
    assert get(third, "e", "user.note") == b"keep"
    third.drain()
    metadata = store.head("e/").metadata or {}
    assert (metadata["uid"], metadata["mode"], metadata["note"]) == (
        "1001",
        "040700",
        "keep",
    )


def test_a_directory_that_is_renamed_unseen_keeps_its_attributes(
    make: MakeEngine, store: MemoryStore
) -> None:
    store.set("d/", b"", mode=str(stat.S_IFDIR | 0o700), uid="77")
    engine = make()
    engine.rename("d", "e")
    engine.drain()
    assert store.keys() == ["e/"]
    metadata = store.head("e/").metadata or {}
    assert (metadata["mode"], metadata["uid"]) == ("040700", "77")


def test_links_of_a_directory(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/sub/f", b"1")
    engine = make()
    assert engine.entry("d").attributes.nlink == 1, "nobody has counted yet"
    engine.listdir("d")
    assert engine.entry("d").attributes.nlink == 3
    engine.mkdir("d/new")
    engine.rename("d/new", "new")
    assert engine.entry("d").attributes.nlink == 3
    engine.rmdir("new")
    engine.write("d/file", b"1")
    assert engine.entry("d").attributes.nlink == 3


def test_a_set_group_directory_hands_its_group_on(make: MakeEngine) -> None:
    engine = make()
    engine.mkdir("d")
    engine.fs.setattr(engine.caller, engine.entry("d").ino, AttributeChange(mode=0o2775, gid=4711))
    engine.caller = Caller(uid=1000, gid=1000)
    engine.mkdir("d/sub")
    engine.write("d/f", b"1")
    sub, file = engine.entry("d/sub").attributes, engine.entry("d/f").attributes
    assert (sub.uid, sub.gid, sub.mode) == (1000, 4711, 0o2755)
    assert (file.uid, file.gid, file.mode) == (1000, 4711, 0o644)


def test_access_time_is_what_was_set(make: MakeEngine) -> None:
    engine = make()
    engine.write("f", b"1")
    engine.fs.setattr(engine.caller, engine.entry("f").ino, AttributeChange(atime_ns=5, mtime_ns=10**18))
    found = engine.entry("f").attributes
    assert (found.atime_ns, found.mtime_ns) == (5, 10**18)
    before = found.ctime_ns
    engine.fs.setattr(engine.caller, engine.entry("f").ino, AttributeChange(atime_ns=7))
    assert engine.entry("f").attributes.ctime_ns > before


def test_a_file_that_was_overwritten_and_renamed_keeps_what_other_tools_wrote_beside_it(
    make: MakeEngine, store: MemoryStore
) -> None:
    """A new file at its old name is sent first, and would take the metadata away unasked."""
    store.set("old.wav", b"old", comment="by another tool")
    store.set("new.wav", b"new")
    engine = make(upload_delay_s=0.5)
    opened = engine.open("old.wav", os.O_WRONLY | os.O_TRUNC)
    engine.fs.write(engine.caller, opened.handle, 0, b"overwritten")
    engine.rename("old.wav", "new.wav", RENAME_EXCHANGE)
    engine.drain()
    assert store.data("old.wav") == b"new"
    engine.close(opened)
    engine.drain()
    assert store.data("new.wav") == b"overwritten"
    assert store.objects["new.wav"].meta.metadata["comment"] == "by another tool"
