"""Directories that need no object of their own, and those that do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from r2fs.model.errors import Exists, Refused
from r2fs.model.metadata import attributes_from
from r2fs.model.records import AttributeChange
from tests.support.engine import Engine, MakeEngine
from tests.support.kernel import Mount
from tests.support.memory_store import MemoryStore

LATER_S = 3600.0  # the upload's delay: nothing is sent before the test drains


def test_requests_for_200_files_in_a_deep_tree(make: MakeEngine, store: MemoryStore):
    engine = make(upload_delay_s=LATER_S)
    directories = 0
    for number in range(200):
        above = ""
        for part in (f"a{number % 3}", f"b{number % 20}", f"c{number % 100}", f"d{number}"):
            above = f"{above}/{part}".lstrip("/")
            try:
                engine.mkdir(above)
                directories += 1
            except Exists:
                pass
        engine.write(f"{above}/take.wav", b"take")
    engine.drain()
    counted = Counter(name for name, _ in store.calls)
    assert counted["put"] == 200, f"{directories} directories: {counted}"
    assert all(not key.endswith("/") for key in store.objects)


def implied(engine: Engine, store: MemoryStore) -> None:
    """`d`, made here, with one file in it and without an object of its own."""
    engine.mkdir("d")
    engine.write("d/f", b"take")
    engine.drain()
    assert store.keys() == ["d/f"]


def test_an_empty_directory_gets_its_object(make: MakeEngine, store: MemoryStore):
    engine = make(upload_delay_s=LATER_S)
    engine.mkdir("d")
    engine.mkdir("d/e")
    engine.drain()
    assert store.keys() == ["d/e/"]
    assert make("b").tree() == {"d/": None, "d/e/": None}


ATTRIBUTES: dict[str, Callable[[Engine, int], object]] = {
    "chmod": lambda engine, ino: engine.fs.setattr(engine.caller, ino, AttributeChange(mode=0o700)),
    "chown": lambda engine, ino: engine.fs.setattr(engine.caller, ino, AttributeChange(uid=4711)),
    "utimens": lambda engine, ino: engine.fs.setattr(engine.caller, ino, AttributeChange(mtime_ns=10**18)),
    "setxattr": lambda engine, ino: engine.fs.setxattr(engine.caller, ino, "user.note", b"x", 0),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("change", ATTRIBUTES)
def test_attributes_of_its_own_are_stored(make: MakeEngine, store: MemoryStore, change: str, when: str):
    engine = make(upload_delay_s=LATER_S)
    if when == "after":
        implied(engine, store)
    else:
        engine.mkdir("d")
        engine.write("d/f", b"take")
    ATTRIBUTES[change](engine, engine.entry("d").ino)
    engine.drain()
    facts = attributes_from(store.head("d/"))
    stored = {"chmod": facts.mode == 0o700, "chown": facts.uid == 4711, "utimens": facts.mtime_ns == 10**18}
    assert stored.get(change, facts.extra.get("note") == "x")


def test_mkdir_with_a_mode_of_its_own_is_stored(make: MakeEngine, store: MemoryStore):
    engine = make(upload_delay_s=LATER_S)
    engine.fs.mkdir(engine.caller, 1, "d", 0o700)
    engine.write("d/f", b"take")
    engine.drain()
    assert attributes_from(store.head("d/")).mode == 0o700


LEAVES: dict[str, Callable[[Engine], object]] = {
    "unlink": lambda engine: engine.unlink("d/f"),
    "moved": lambda engine: engine.rename("d/f", "f"),
    "replaces another": lambda engine: (engine.write("f", b"other"), engine.rename("d/f", "f")),
}


@pytest.mark.parametrize("killed", [False, True], ids=["goes on", "killed"])
@pytest.mark.parametrize("leave", LEAVES)
def test_it_stays_when_its_last_file_goes(make: MakeEngine, store: MemoryStore, leave: str, killed: bool):
    """Its object is in the bucket before the file is not."""
    engine = make(upload_delay_s=LATER_S)
    implied(engine, store)
    LEAVES[leave](engine)
    if killed:
        engine.kill()
        engine = make(upload_delay_s=LATER_S)
    assert "d" in engine.listdir()
    store.calls.clear()
    engine.drain()
    order = [(name, key) for name, key in store.calls if key in ("d/", "d/f") and name in ("put", "delete")]
    assert order == [("put", "d/"), ("delete", "d/f")]
    assert make("b").listdir("d") == []
    assert "d" in engine.listdir()


def test_what_is_only_on_its_way_keeps_no_directory(make: MakeEngine, store: MemoryStore):
    engine = make(upload_delay_s=LATER_S)
    implied(engine, store)
    engine.write("d/g", b"on its way")
    engine.unlink("d/f")
    engine.drain()
    assert store.keys() == ["d/", "d/g"]


def test_it_stays_when_the_file_goes_before_its_turn(make: MakeEngine, store: MemoryStore):
    engine = make(upload_delay_s=LATER_S)
    engine.mkdir("d")
    engine.write("d/f", b"take")
    engine.unlink("d/f")
    engine.drain()
    assert store.keys() == ["d/"]


def test_a_file_that_is_open_is_not_waited_for(make: MakeEngine, store: MemoryStore):
    engine = make(upload_delay_s=LATER_S)
    engine.mkdir("d")
    opened = engine.open("d/f", 0o101)
    engine.drain()
    assert store.keys() == ["d/"]
    engine.close(opened)


@pytest.mark.expect_warnings("parked")
def test_a_file_that_cannot_be_sent_is_not_waited_for(make: MakeEngine, store: MemoryStore):
    def refuse(name: str, key: str) -> None:
        if (name, key) == ("put", "d/f"):
            raise Refused("no")

    store.before = refuse
    engine = make(upload_delay_s=LATER_S)
    engine.mkdir("d")
    engine.write("d/f", b"take")
    engine.drain()
    assert store.keys() == ["d/"]


def test_removed_with_all_that_is_in_it_it_leaves_nothing(make: MakeEngine, store: MemoryStore):
    engine = make(upload_delay_s=LATER_S)
    implied(engine, store)
    engine.unlink("d/f")
    engine.rmdir("d")
    store.calls.clear()
    engine.drain()
    assert store.keys() == [] and not store.count("put")


@pytest.mark.parametrize("written", ["before", "after"])
def test_killed_before_anything_is_sent(make: MakeEngine, store: MemoryStore, written: str):
    engine = make(upload_delay_s=LATER_S)
    engine.mkdir("d")
    engine.mkdir("d/e")
    if written == "before":
        engine.write("d/f", b"take")
    engine.kill()
    engine = make(upload_delay_s=LATER_S)
    if written == "after":
        engine.write("d/f", b"take")
    assert engine.tree() == {"d/": None, "d/e/": None, "d/f": b"take"}
    engine.unlink("d/f")
    engine.rmdir("d/e")
    engine.drain()
    assert make("b").tree() == {"d/": None}


def test_a_renamed_one_is_where_its_files_are(make: MakeEngine, store: MemoryStore):
    engine = make(upload_delay_s=LATER_S)
    implied(engine, store)
    engine.rename("d", "e")
    engine.unlink("e/f")
    engine.drain()
    assert store.keys() == ["e/"]


def test_its_times_and_number_are_as_before_after_a_take_over(mount: Mount):
    mount.engine.mkdir("d")
    mount.kernel.create("d/f", b"take")
    mount.send()
    assert mount.store.keys() == ["d/f"]
    before = mount.kernel.stat("d")
    mount.take_over()
    after = mount.engine.fs.getattr(mount.engine.caller, before.ino).attributes
    assert (after.mtime_ns, after.st_ino, after.mode) == (before.mtime_ns, before.st_ino, before.mode)


def test_its_times_and_number_are_as_before_after_a_kill(make: MakeEngine, store: MemoryStore):
    engine = make(upload_delay_s=LATER_S)
    implied(engine, store)
    before = engine.entry("d").attributes
    engine.kill()
    after = make().entry("d").attributes
    assert (after.mtime_ns, after.st_ino, after.mode) == (before.mtime_ns, before.st_ino, before.mode)


def test_a_tree_that_is_removed_while_files_are_on_their_way(make: MakeEngine, store: MemoryStore):
    engine = make(upload_delay_s=LATER_S)
    engine.mkdir("d")
    engine.mkdir("d/e")
    for name in ("d/e/1", "d/e/2", "d/3"):
        engine.write(name, b"take")
    engine.drain()
    assert store.keys() == ["d/3", "d/e/1", "d/e/2"]
    engine.unlink("d/e/1")
    engine.unlink("d/e/2")
    engine.drain()
    assert store.keys() == ["d/3", "d/e/"]
    engine.rmdir("d/e")
    engine.unlink("d/3")
    engine.drain()
    assert store.keys() == ["d/"]
    engine.rmdir("d")
    engine.drain()
    assert store.keys() == []
