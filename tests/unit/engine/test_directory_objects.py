"""Objects that hold bytes at the key of a directory: other tools make them, and nothing here may lose them."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from r2fs.engine.inodes.protected import OBJECT_NAME
from r2fs.model.errors import Busy, DirectoryNotEmpty, Exists, NotFound, NotPermitted, Unavailable
from r2fs.model.records import AttributeChange, ObjectMeta
from r2fs.model.settings import Bucket
from r2fs.model.verbs import RENAME_EXCHANGE
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

pytestmark = pytest.mark.expect_warnings(
    "at the key of a directory", "not deleted: the bucket holds another version", "another object is at"
)

BYTES = b"a rendered short" * 100
Act = Callable[[Engine, str], object]


def _setattr(change: AttributeChange) -> Act:
    return lambda engine, path: engine.fs.setattr(engine.caller, engine.entry(path).ino, change)


ATTRIBUTES = {
    "chmod": _setattr(AttributeChange(mode=0o700)),
    "utime": _setattr(AttributeChange(mtime_ns=1_700_000_000_000_000_000)),
    "chown": _setattr(AttributeChange(uid=1234)),
    "setxattr": lambda e, path: e.fs.setxattr(e.caller, e.entry(path).ino, "user.album", b"one", 0),
}


@pytest.mark.parametrize("act", ATTRIBUTES.values(), ids=ATTRIBUTES.keys())
@pytest.mark.parametrize("path", ["d", "a/b/d"])
@pytest.mark.parametrize("listed", [False, True], ids=("never listed", "listed"))
def test_attributes_of_its_directory_keep_the_bytes(
    make: MakeEngine, store: MemoryStore, act: Act, path: str, listed: bool
) -> None:
    store.set(f"{path}/", BYTES, other="a tool's")
    store.set(f"{path}/f", b"file")
    engine = make()
    if listed:
        engine.listdir(path)
    act(engine, path)
    engine.drain()
    assert store.data(f"{path}/") == BYTES
    metadata = store.objects[f"{path}/"].meta.metadata
    assert metadata["other"] == "a tool's"
    assert {"mode", "mtime", "uid", "album"} & metadata.keys()


def test_attributes_that_were_known_of_an_empty_marker_keep_the_bytes(
    make: MakeEngine, store: MemoryStore
) -> None:
    """The marker is filled after this host has looked: its condition refuses the PUT."""
    engine = make(freshness_s=3600.0)
    engine.mkdir("d")
    engine.drain()
    engine.listdir("d")
    store.set("d/", BYTES)
    ATTRIBUTES["chmod"](engine, "d")
    engine.drain()
    assert store.data("d/") == BYTES
    assert int(store.objects["d/"].meta.metadata["mode"], 8) & 0o777 == 0o700


@pytest.mark.parametrize("inside", [False, True], ids=("seemingly empty", "with a file"))
@pytest.mark.parametrize("crash", [False, True], ids=("", "kill -9"))
def test_a_rename_takes_the_bytes_along(
    make: MakeEngine, store: MemoryStore, inside: bool, crash: bool
) -> None:
    store.store_version("old/", BYTES, ObjectMeta("video/mp4", {"other": "a tool's"}))
    if inside:
        store.set("old/f", b"file")
    engine = make(upload_delay_s=3600.0 if crash else 0.0)
    engine.rename("old", "new")
    if crash:
        engine.kill()
        engine = make()
    engine.drain()
    assert store.keys() == (["new/", "new/f"] if inside else ["new/"])
    assert store.data("new/") == BYTES
    assert store.objects["new/"].meta.content_type == "video/mp4"
    assert store.objects["new/"].meta.metadata["other"] == "a tool's"
    assert engine.read(f"new/{OBJECT_NAME}") == BYTES


def test_a_rename_of_a_directory_above_takes_the_bytes_along(make: MakeEngine, store: MemoryStore) -> None:
    store.set("top/a/b/", BYTES)
    engine = make()
    engine.rename("top", "other")
    engine.drain()
    assert store.keys() == ["other/a/b/"]
    assert store.data("other/a/b/") == BYTES


def test_renames_one_after_the_other_lose_nothing(make: MakeEngine, store: MemoryStore) -> None:
    store.set("one/", b"first")
    store.set("two/", b"second")
    engine = make(upload_delay_s=3600.0)
    with pytest.raises(Busy):
        engine.rename("one", "two", RENAME_EXCHANGE)
    engine.rename("one", "t")
    engine.rename("t", "u")
    with pytest.raises(Busy):
        engine.rename("two", "one")
    engine.mkdir("one")
    engine.drain()
    assert {key: store.data(key) for key in store.keys()} == {  # noqa: SIM118
        "one/": b"",
        "two/": b"second",
        "u/": b"first",
    }


def test_at_the_new_name_is_another_tools_object(make: MakeEngine, store: MemoryStore) -> None:
    """Neither is overwritten; the directory's bytes stay where they are, and a person is told."""
    store.set("old/", BYTES)
    engine = make(freshness_s=3600.0)
    engine.listdir("old")
    store.set("new/", b"others")
    engine.rename("old", "new")
    engine.fs.drain(1.0)
    assert (store.data("old/"), store.data("new/")) == (BYTES, b"others")
    assert [transfer.state for transfer in engine.fs.queue_view().transfers] == ["parked"]


def test_at_the_new_name_is_an_empty_marker_by_then(make: MakeEngine, store: MemoryStore) -> None:
    store.set("old/", BYTES)
    engine = make(freshness_s=3600.0)
    engine.listdir("old")
    store.set("new/", b"")
    engine.rename("old", "new")
    engine.drain()
    assert (store.keys(), store.data("new/")) == (["new/"], BYTES)


def test_the_answer_to_a_rename_is_lost(make: MakeEngine, store: MemoryStore) -> None:
    store.set("old/", BYTES)
    engine = make()
    lost = [True]

    def after(name: str, key: str) -> None:
        if name == "copy" and lost and lost.pop():
            raise Unavailable("the answer was lost")

    store.after = after
    engine.rename("old", "new")
    engine.drain()
    assert (store.keys(), store.data("new/")) == (["new/"], BYTES)


def test_its_directory_cannot_be_removed(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/", BYTES)
    store.set("e/f", b"file")
    engine = make()
    assert engine.listdir("d") == []
    with pytest.raises(DirectoryNotEmpty, match=OBJECT_NAME):
        engine.rmdir("d")
    with pytest.raises(DirectoryNotEmpty):
        engine.rename("e", "d")
    engine.drain()
    assert store.data("d/") == BYTES


def test_a_directory_made_over_it_keeps_it(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(freshness_s=3600.0)
    engine.listdir()
    store.set("d/", BYTES)
    engine.mkdir("d")
    engine.drain()
    engine.write("d/f", b"file")
    engine.drain()
    engine.unlink("d/f")
    with pytest.raises(DirectoryNotEmpty):
        engine.rmdir("d")
    engine.drain()
    assert store.contents() | {"d/": store.data("d/")} == {"d/": BYTES}


def test_a_directory_that_only_its_files_made_is_filled_meanwhile(
    make: MakeEngine, store: MemoryStore
) -> None:
    """Its last file goes, and its marker is refused."""
    store.set("d/f", b"file")
    engine = make(freshness_s=3600.0)
    engine.listdir("d")
    store.set("d/", BYTES)
    engine.unlink("d/f")
    engine.drain()
    assert store.data("d/") == BYTES
    with pytest.raises(DirectoryNotEmpty):
        engine.rmdir("d")


@pytest.mark.parametrize("many", [1, 10], ids=("by a HEAD", "by a LIST"))
def test_markers_that_were_filled_since_are_not_deleted(
    make: MakeEngine, store: MemoryStore, many: int, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"d{n}" for n in range(many)]
    engine = make(freshness_s=3600.0, upload_delay_s=3600.0)
    for name in names:
        store.set(f"{name}/", b"")
    for name in names:
        engine.rmdir(name)
    for name in names:
        store.set(f"{name}/", BYTES)
    engine.drain()
    assert all(store.data(f"{name}/") == BYTES for name in names)
    assert "not deleted: the bucket holds another version" in caplog.text


def test_it_is_deleted_elsewhere(make: MakeEngine, store: MemoryStore) -> None:
    """Then its directory is one like any other."""
    store.set("d/", BYTES)
    store.set("d/f", b"file")
    engine = make()
    ATTRIBUTES["chmod"](engine, "d")
    engine.drain()
    store.remove("d/")
    engine.unlink("d/f")
    engine.drain()
    engine.rmdir("d")
    engine.drain()
    assert store.keys() == []
    assert engine.fs.queue_view().hidden == 0


def test_it_is_deleted_elsewhere_before_a_rename_gets_there(make: MakeEngine, store: MemoryStore) -> None:
    store.set("old/", BYTES)
    store.set("old/f", b"file")
    engine = make(upload_delay_s=3600.0)
    engine.rename("old", "new")
    store.remove("old/")
    engine.drain()
    assert {key: store.data(key) for key in store.keys()} == {"new/": b"", "new/f": b"file"}  # noqa: SIM118


@pytest.mark.parametrize("now", [b"newer bytes", b""], ids=("other bytes", "emptied"))
@pytest.mark.parametrize("renamed", [False, True])
def test_it_is_replaced_elsewhere_before_a_change_gets_there(
    make: MakeEngine, store: MemoryStore, now: bytes, renamed: bool
) -> None:
    store.set("old/", BYTES)
    engine = make(upload_delay_s=3600.0)
    if renamed:
        engine.rename("old", "new")
    else:
        ATTRIBUTES["chmod"](engine, "old")
    store.set("old/", now)
    engine.drain()
    assert store.data("new/" if renamed else "old/") == now


# ------------------------------------------------------------------ seen and read
def test_it_is_reported(make: MakeEngine, store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    store.set("d/", BYTES)
    store.set("e/", b"")
    engine = make()
    for _ in range(3):
        engine.listdir("d")
        engine.listdir("e")
    view = engine.fs.queue_view()
    assert view.hidden == 1
    assert [(found.key, found.size) for found in view.directory_objects] == [("d/", len(BYTES))]
    assert caplog.text.count("at the key of a directory") == 1


def test_the_mounts_own_prefix(make: MakeEngine, store: MemoryStore) -> None:
    store.set("studio/", BYTES)
    engine = make(bucket=Bucket("s3", "bucket", prefix="studio/"))
    assert engine.listdir() == []
    engine.write("f", b"file")
    ATTRIBUTES["chmod"](engine, "")
    engine.unlink("f")
    engine.drain()
    assert store.data("studio/") == BYTES
    assert engine.fs.queue_view().directory_objects[0].key == "studio/"
    assert engine.read(OBJECT_NAME) == BYTES


def test_its_bytes_are_read_by_a_name_that_no_listing_has(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/", BYTES)
    engine = make()
    path = f"d/{OBJECT_NAME}"
    assert engine.listdir("d") == []
    assert engine.read(path) == BYTES
    assert engine.entry(path).attributes.size == len(BYTES)
    assert engine.entry(path).ino == engine.entry(path).ino
    store.set("d/", b"newer")
    assert engine.read(path) == b"newer"
    store.set("d/", b"")
    with pytest.raises(NotFound):
        engine.read(path)


def test_the_name_is_read_only(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/", BYTES)
    engine = make()
    path = f"d/{OBJECT_NAME}"
    for act in (
        lambda: engine.write(path, b"x", os.O_WRONLY),
        lambda: engine.open(path, os.O_RDONLY | os.O_TRUNC),
        lambda: engine.truncate(path, 0),
        lambda: engine.unlink(path),
        lambda: engine.rename(path, "taken"),
        *(lambda act=act: act(engine, path) for act in ATTRIBUTES.values()),
    ):
        with pytest.raises(NotPermitted):
            act()
    with pytest.raises(Exists):
        engine.mkdir(path)
    engine.write("f", b"file")
    with pytest.raises((Busy, NotPermitted)):
        engine.rename("f", path)
    engine.drain()
    assert store.data("d/") == BYTES
    assert store.contents() == {"f": b"file"}
