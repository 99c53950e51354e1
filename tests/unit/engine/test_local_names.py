"""Names of `local_patterns`: which files get and lose one by a rename, and which have to be copied (EXDEV)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from r2fs.model.errors import NeedsCopy, Unavailable
from r2fs.model.settings import LOCAL_PATTERNS
from r2fs.model.verbs import RENAME_EXCHANGE
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore
from tests.support.power import LATER, LOCAL, ONE, OTHER, Power

SETTINGS = {**LOCAL, **LATER}


@pytest.fixture
def engine_settings() -> dict[str, object]:
    return dict(SETTINGS)


def state(engine: Engine, path: str) -> bytes:
    return engine.fs.getxattr(engine.caller, engine.entry(path).ino, "user.r2fs.state")


# ------------------------------------------------------------------ it gets one
def test_a_new_file_gets_a_local_name_and_loses_it(make: MakeEngine, store: MemoryStore) -> None:
    """Saved by a program that renames a temporary file: nothing of it was ever sent."""
    engine = make()
    engine.write("take.wav", ONE)
    engine.rename("take.wav", "take.tmp")
    engine.drain()
    assert not store.objects and not engine.deletes()
    assert state(engine, "take.tmp") == b"local"
    engine.kill()
    again = make()
    assert again.read("take.tmp") == ONE
    again.rename("take.tmp", "take.wav")
    again.drain()
    assert store.contents() == {"take.wav": ONE}


def test_a_file_that_is_being_written_gets_a_local_name(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    opened = engine.open("take.wav", os.O_CREAT | os.O_WRONLY)
    engine.fs.write(engine.caller, opened.handle, 0, ONE)
    engine.rename("take.wav", "take.tmp")
    engine.fs.write(engine.caller, opened.handle, len(ONE), OTHER)
    engine.close(opened)
    engine.drain()
    assert engine.read("take.tmp") == ONE + OTHER
    assert not store.objects


def test_a_local_name_for_another(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    engine.write("a.tmp", ONE)
    engine.rename("a.tmp", "b.tmp")
    engine.write("a.tmp", OTHER)
    engine.rename("a.tmp", "b.tmp", RENAME_EXCHANGE)
    engine.drain()
    assert not store.objects
    assert engine.tree() == {"a.tmp": ONE, "b.tmp": OTHER}


def test_a_local_file_over_one_in_the_bucket(make: MakeEngine, store: MemoryStore) -> None:
    store.set("x.tmp", b"another tool's")
    engine = make()
    engine.write("y.wav", ONE)
    engine.rename("y.wav", "x.tmp")
    engine.drain()
    assert not store.objects
    assert engine.read("x.tmp") == ONE


# ------------------------------------------------------------------ it has to be copied
def _edited(engine: Engine) -> None:
    engine.write("take.wav", OTHER)


def _opened(engine: Engine) -> None:
    engine.open("take.wav", os.O_RDWR)


def _renamed(engine: Engine) -> None:
    engine.rename("take.wav", "before.wav")
    engine.rename("before.wav", "take.wav")


HAVE: dict[str, Callable[[Engine], object]] = {
    "clean": lambda engine: None,
    "read": lambda engine: engine.read("take.wav"),
    "open for writing": _opened,
    "edited": _edited,
    "renamed": _renamed,
}


@pytest.mark.parametrize("have", HAVE)
@pytest.mark.parametrize("flags", [0, RENAME_EXCHANGE], ids=["rename", "exchange"])
def test_a_file_that_the_bucket_has_is_to_be_copied(
    make: MakeEngine, store: MemoryStore, have: str, flags: int
) -> None:
    store.set("take.wav", ONE)
    engine = make()
    engine.write("other.tmp", OTHER)
    HAVE[have](engine)
    before = {engine.inodes.key(node): node.pending for node in engine.pending_nodes()}, engine.deletes()
    for old, new in (("take.wav", "other.tmp"), ("other.tmp", "take.wav"))[: 2 if flags else 1]:
        with pytest.raises(NeedsCopy) as refused:
            engine.rename(old, new, flags)
    if not flags:
        with pytest.raises(NeedsCopy):
            engine.rename("take.wav", "take.tmp")
    assert refused.value.errno == errno.EXDEV
    assert (
        {engine.inodes.key(node): node.pending for node in engine.pending_nodes()},
        engine.deletes(),
    ) == before


def test_a_local_name_that_the_bucket_has_is_to_be_copied_to_another(
    make: MakeEngine, store: MemoryStore
) -> None:
    """Another host's, or stored before the name was a local one. Any other name is an ordinary rename."""
    store.set("a.tmp", ONE)
    engine = make()
    with pytest.raises(NeedsCopy):
        engine.rename("a.tmp", "b.tmp")
    engine.rename("a.tmp", "a.wav")
    engine.drain()
    assert store.contents() == {"a.wav": ONE}


def test_a_file_that_is_being_sent_is_to_be_copied(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(threads=False)
    engine.write("take.wav", ONE)
    refused: list[str] = []

    def rename(name: str, key: str) -> None:
        if name == "put":
            with pytest.raises(NeedsCopy):
                engine.rename("take.wav", "take.tmp")
            refused.append(key)

    store.before = rename
    engine.hasten()
    engine.run_due()
    assert refused == ["take.wav"]
    assert store.contents() == {"take.wav": ONE}


@pytest.mark.expect_warnings
@pytest.mark.parametrize("names", [False, True])
def test_a_file_whose_upload_was_not_answered_gets_a_local_name(
    make: MakeEngine, store: MemoryStore, power: Power, names: bool
) -> None:
    """What may have arrived is looked for, and goes; of the bytes here nothing was promised before a sync."""
    engine = make(threads=False)
    engine.write("take.wav", ONE)
    opened = engine.open("take.wav", os.O_RDWR)
    engine.fs.fsync(engine.caller, opened.handle, False)
    engine.close(opened)

    def lose(name: str, key: str) -> None:
        if name == "put":
            raise Unavailable("the answer is lost")

    store.after = lose
    engine.hasten()
    engine.run_due()
    assert "take.wav" in store.objects
    store.after = lambda name, key: None
    engine.rename("take.wav", "take.tmp")
    power.cut(engine, names=names)
    after = make()
    after.fs.drain(1.0)
    assert after.tree() == {"take.tmp": ONE}


# ------------------------------------------------------------------ what is no file, and what lies below a directory
def test_directories_and_links_are_never_local(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/f", ONE)
    engine = make()
    engine.fs.symlink(engine.caller, 1, "link", "d/f")
    engine.drain()
    engine.rename("d", "d.tmp")
    engine.rename("link", "link.tmp")
    engine.drain()
    assert store.contents() == {"d.tmp/f": ONE, "link.tmp.rclonelink": b"d/f"}


def test_local_files_go_along_with_their_directory(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/song.wav", ONE)
    store.set("d/theirs.tmp", ONE)
    engine = make()
    engine.write("d/ours.tmp", OTHER)
    engine.rename("d", "e")
    engine.drain()
    assert store.contents() == {"e/song.wav": ONE, "e/theirs.tmp": ONE}
    assert state(engine, "e/ours.tmp") == b"local"
    engine.kill()
    assert make().tree() == {"e/": None, "e/song.wav": ONE, "e/theirs.tmp": ONE, "e/ours.tmp": OTHER}


@pytest.mark.parametrize("name", [".fuse_hidden0000000500000001", ".nfs000000000000c01f00000001"])
def test_no_default_pattern_is_a_name_that_programs_rename_to(
    make: MakeEngine, store: MemoryStore, name: str
) -> None:
    """A file system above that hides an open file before its removal copies nothing: it would have to fail."""
    store.set("take.wav", ONE)
    engine = make(local_patterns=LOCAL_PATTERNS)
    engine.rename("take.wav", name)
    engine.unlink(name)
    engine.drain()
    assert not store.objects
