"""Removal of a tree: what is removed here and in the bucket, by how many requests, and what is reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from threading import Event, Timer
from unittest.mock import patch

import pytest

from r2fs.engine.namespace import remove_tree
from r2fs.model.errors import (
    IsADirectory,
    NotADirectory,
    NotFound,
    NotImplementedThere,
    ReadOnly,
    Unavailable,
)
from r2fs.model.reports import BulkReport
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore


@pytest.fixture
def engine_settings() -> Mapping[str, object]:
    return {"upload_delay_s": 60.0, "freshness_s": 600.0}  # nothing is sent or listed again by itself


def remove(engine: Engine, path: str, recursive: bool = True, dry_run: bool = False) -> BulkReport:
    report = BulkReport()
    engine.fs.removal.run(path, report, recursive=recursive, dry_run=dry_run, cancelled=Event())
    return report


def fill(store: MemoryStore, prefix: str, number: int) -> None:
    for n in range(number):
        store.set(f"{prefix}{n % 40:02}/{n:05}", b"x" * 10)


def names(engine: Engine, path: str) -> list[str]:
    return [entry.name for entry in engine.fs.readdir(engine.caller, engine.entry(path).ino)]


@pytest.mark.parametrize("walked", [False, True])
def test_ten_thousand_objects_take_ten_lists_and_ten_deletes(
    make: MakeEngine, store: MemoryStore, walked: bool
):
    fill(store, "p/", 10_000)
    engine = make()
    if walked:
        assert len([name for top in names(engine, "p") for name in names(engine, f"p/{top}")]) == 10_000
    store.calls.clear()
    report = remove(engine, "p")
    assert (report.found, report.done, report.bytes, report.failed) == (10_000, 10_000, 100_000, 0)
    assert store.keys() == []
    sent = Counter(name for name, _ in store.calls)
    assert sent == {"list": 10, "delete_many": 10}
    if walked:
        with pytest.raises(NotFound):
            engine.entry("p")
    engine.drain()
    assert sent == Counter(name for name, _ in store.calls)


def test_s5_a_sibling_of_a_longer_name_stays(make: MakeEngine, store: MemoryStore):
    """S5: `proj45` never takes `proj456`."""
    for key in ("u/proj45/a", "u/proj456/a", "u/proj45.txt", "u/proj45"):
        store.set(key, b"data")
    engine = make()
    assert remove(engine, "u/proj45").done == 1
    assert store.keys() == ["u/proj45", "u/proj45.txt", "u/proj456/a"]


@pytest.mark.expect_warnings("at the key of a directory")
def test_keys_that_end_in_a_slash_and_hold_bytes_are_counted(make: MakeEngine, store: MemoryStore):
    """S4."""
    store.set("p/", b"narration")
    store.set("p/s/", b"")
    store.set("p/s/a", b"123")
    engine = make()
    names(engine, "p")
    report = remove(engine, "p")
    assert (report.done, report.bytes) == (3, 12)
    assert store.keys() == []
    assert names(engine, "") == []


def test_keys_that_no_name_shows_go_too(make: MakeEngine, store: MemoryStore):
    store.set("p//a", b"1")
    store.set("p/../b", b"2")
    engine = make()
    names(engine, "p")
    assert remove(engine, "p").done == 2
    assert names(engine, "") == []


def test_what_is_not_sent_yet_is_counted_and_removed(make: MakeEngine, store: MemoryStore):
    store.set("p/old", b"12345")
    store.set("p/edited", b"12345")
    store.set("keep/a", b"1")
    engine = make()
    engine.mkdir("p/made")
    engine.write("p/made/new", b"123")
    engine.write("p/edited", b"1234567")
    engine.rename("keep/a", "p/moved")
    report = remove(engine, "p")
    assert (report.done, report.unsent, report.failed, report.waiting) == (4, 2, 0, 0)
    assert report.bytes == 5 + 5 + 3 + 1
    with pytest.raises(NotFound):
        engine.entry("p/made/new")
    engine.drain()
    assert store.contents() == {}
    assert names(engine, "") == ["keep"]


def test_a_file_moved_away_before_is_kept(make: MakeEngine, store: MemoryStore):
    """Its bytes are still at the old key, below what is removed, until they are copied."""
    store.set("p/a", b"precious")
    store.set("p/b", b"2")
    engine = make()
    engine.rename("p/a", "kept")
    report = remove(engine, "p")
    assert (report.failed, report.waiting) == (0, 0)
    engine.drain()
    assert store.contents() == {"kept": b"precious"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_upload_on_its_way_brings_nothing_back(make: MakeEngine, store: MemoryStore, when: str):
    """`before`: no byte of it is stored when the file is removed; `after`: the object is there, the answer is not."""
    engine = make(upload_delay_s=0.0)
    began, go = Event(), Event()

    def hold(name: str, key: str) -> None:
        if (name, key) == ("put", "p/a"):
            began.set()
            assert go.wait(20)

    setattr(store, when, hold)
    engine.mkdir("p")
    engine.write("p/a", b"late")
    assert began.wait(20)
    timer = Timer(0.2, go.set)  # what is removed waits for a request at its key
    timer.start()
    report = remove(engine, "p")
    timer.join()
    assert (report.done, report.unsent, report.waiting) == (1, int(when == "before"), 0)
    engine.drain()
    assert store.contents() == {}
    assert names(engine, "") == []


@pytest.mark.parametrize("made_anew", [False, True])
def test_what_another_host_stored_after_an_upload_goes_too(
    make: MakeEngine, store: MemoryStore, made_anew: bool
):
    """The answer to the upload came last, and took the delete for one of the object that the upload had replaced."""
    engine = make(threads=False, upload_delay_s=0.0)
    engine.mkdir("p")
    engine.write("p/a", b"ours")

    def meanwhile(name: str, key: str) -> None:
        store.after = lambda name, key: None
        store.set("p/a", b"another host's, and seen")
        remove(engine, "p")
        if made_anew:
            engine.mkdir("p")
            engine.write("p/a", b"anew")

    store.after = meanwhile
    with patch.object(remove_tree, "SETTLE_S", 0.0):
        engine.run_due()
    engine.drain()
    assert store.contents() == ({"p/a": b"anew"} if made_anew else {})


def test_an_open_file_can_be_read_on(make: MakeEngine, store: MemoryStore):
    store.set("p/a", b"abcdef")
    engine = make()
    opened = engine.open("p/a")
    assert engine.fs.read(engine.caller, opened.handle, 0, 3) == b"abc"
    remove(engine, "p")
    assert engine.fs.read(engine.caller, opened.handle, 3, 3) == b"def"
    engine.close(opened)


@pytest.mark.expect_warnings("its delete is parked")
def test_one_that_is_refused_is_reported_and_the_others_go(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
):
    """S8."""
    monkeypatch.setattr("r2fs.engine.writeback.deleter.REFUSED_AGAIN_S", 0.01)
    fill(store, "p/", 30)
    store.locked.add("p/03/00003")
    engine = make()
    report = remove(engine, "p")
    assert (report.done, report.failed, report.bytes) == (29, 1, 290)
    ((key, reason),) = report.errors
    assert key == "p/03/00003"
    assert reason
    store.locked.clear()
    assert remove(engine, "p").failed == 0
    assert store.keys() == []


def test_a_server_that_takes_no_batches(make: MakeEngine, store: MemoryStore):
    """Each object by itself, then: nothing has failed."""

    def before(name: str, key: str) -> None:
        if name == "delete_many":
            raise NotImplementedThere("no such operation")

    store.before = before
    fill(store, "p/", 50)
    report = remove(make(), "p")
    assert (report.done, report.failed, report.waiting) == (50, 0, 0)
    assert store.keys() == []


def test_the_server_goes_away_in_the_middle(make: MakeEngine, store: MemoryStore):
    fill(store, "p/", 2500)
    engine = make()

    def before(name: str, key: str) -> None:
        if name == "list" and sum(1 for call, _ in store.calls if call == "list") > 1:
            raise Unavailable("no answer")

    store.before = before
    report = BulkReport()
    with pytest.raises(Unavailable):
        engine.fs.removal.run("p", report, recursive=True, dry_run=False, cancelled=Event())
    assert report.done == 1000
    store.before = lambda name, key: None
    assert remove(engine, "p").done == 1500
    assert store.keys() == []


@pytest.mark.parametrize(
    "point", ["unlinked", "delete_looked", "deleted", "delete_journalled", "directory_removed"]
)
def test_killed_anywhere_a_repeat_finishes(make: MakeEngine, store: MemoryStore, point: str):
    fill(store, "p/", 300)
    store.set("q/a", b"1")
    engine = make()
    names(engine, "p")

    class Killed(BaseException):
        pass

    def crash(name: str) -> None:
        if name == point:
            raise Killed

    engine.crash_point = crash
    with pytest.raises(Killed):
        remove(engine, "p")
    engine.crash_point = lambda name: None
    engine.kill()
    assert set(store.contents().values()) <= {b"x" * 10, b"1"}
    again = make()
    remove(again, "p")
    again.drain()
    assert store.keys() == ["q/a"]


def test_a_dry_run_changes_nothing(make: MakeEngine, store: MemoryStore):
    fill(store, "p/", 30)
    engine = make()
    engine.write("p/new", b"12")
    before = store.keys()
    report = remove(engine, "p", dry_run=True)
    assert (report.done, report.unsent, report.bytes) == (31, 1, 302)
    assert store.keys() == before
    assert engine.read("p/new") == b"12"


def test_a_single_file(make: MakeEngine, store: MemoryStore):
    store.set("d/a", b"123")
    engine = make()
    with pytest.raises(IsADirectory):
        remove(engine, "d", recursive=False)
    with pytest.raises(NotFound):
        remove(engine, "d/b", recursive=False)
    assert remove(engine, "d/b").done == 0
    assert remove(engine, "no/b/c").done == 0
    report = remove(engine, "d/a", recursive=False)
    assert (report.done, report.bytes) == (1, 3)
    assert store.contents() == {}
    engine.drain()
    assert names(engine, "") == ["d"]
    engine.write("e", b"1")
    assert remove(engine, "e").unsent == 1


@pytest.mark.parametrize(("old", "new"), [("d/a", "d/b"), ("d", "e")])
def test_a_file_that_is_renamed_meanwhile_stays(make: MakeEngine, store: MemoryStore, old: str, new: str):
    """Between the HEAD of the file and its removal: the path is another file's, or nobody's."""
    store.set("d/a", b"precious")
    engine = make()
    names(engine, "d")

    def rename(name: str, key: str) -> None:
        if name == "head":
            store.before = lambda name, key: None
            engine.rename(old, new)

    store.before = rename
    with pytest.raises(NotFound, match="renamed"):
        remove(engine, "d/a", recursive=False)
    engine.drain()
    assert list(store.contents().values()) == [b"precious"]


def test_a_read_only_mount_removes_nothing(make: MakeEngine, store: MemoryStore):
    store.set("p/a", b"1")
    with pytest.raises(ReadOnly):
        remove(make(read_only=True), "p")
    assert store.keys() == ["p/a"]


def test_the_whole_mount(make: MakeEngine, store: MemoryStore):
    fill(store, "", 100)
    engine = make()
    assert remove(engine, "").done == 100
    assert store.keys() == []
    assert names(engine, "") == []
    engine.write("a", b"1")
    engine.drain()
    assert store.keys() == ["a"]


def test_below_a_file_that_was_never_looked_up_is_nothing(make: MakeEngine, store: MemoryStore):
    store.set("d/take.wav", b"x")
    engine = make(freshness_s=3600.0)
    engine.listdir("d")
    with pytest.raises(NotADirectory):
        remove(engine, "d/take.wav/below")
    assert store.keys() == ["d/take.wav"]


@pytest.mark.parametrize(
    "others", [[], ["a/other.wav"], ["a/", "a/x/1"]], ids=["last", "of two", "with an object"]
)
@pytest.mark.parametrize("walked", [False, True])
def test_the_directory_above_stays(make: MakeEngine, store: MemoryStore, walked: bool, others: list[str]):
    """As after rm of its last file by a program: whether the mount has listed it before or not."""
    for key in ["a/only/1.wav", "a/only/deep/2.wav", *others]:
        store.set(key, b"" if key.endswith("/") else b"x")
    engine = make()
    if walked:
        names(engine, "a/only")
    assert remove(engine, "a/only").done == 2
    engine.drain()
    assert store.keys() == (others or ["a/"])
    assert "a" in names(engine, "")
