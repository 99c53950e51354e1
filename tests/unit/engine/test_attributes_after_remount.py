"""What stat shows is the same after a remount, with an empty cache too, and without a request for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from r2fs.model.errors import Unavailable
from r2fs.model.records import AttributeChange, Attributes, ObjectMeta
from r2fs.model.verbs import RENAME_EXCHANGE, ROOT
from tests.support.clocks import Later
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore
from tests.support.session import Session

PAST_NS = 1_600_000_000_123_456_789
ASKED = {"head", "get"}


@pytest.fixture
def clock(store: MemoryStore) -> Later:
    """This host's, and the bucket's."""
    clock = Later()
    store._now_ns = lambda: int(clock.time() * 1e9)
    return clock


@pytest.fixture
def remount(make: MakeEngine, tmp_path: Path, clock: Later) -> Callable[..., Engine]:
    """A later mount with an empty cache. `how`: the way in which the mount before ends."""

    def again(
        engine: Engine | None = None, how: str = "stop", later_s: float = 3600.0, **changes: object
    ) -> Engine:
        if engine is not None:
            getattr(engine, how)()
            shutil.rmtree(tmp_path / "a" / "cache")
            clock.advance(later_s)
        return make(clock=clock, **changes)

    return again


def shown(engine: Engine, path: str) -> tuple[object, ...]:
    """What a program that looks for changes compares."""
    a: Attributes = engine.entry(path).attributes
    return a.kind, a.size, a.mode, a.uid, a.gid, a.mtime_ns, a.ctime_ns, a.st_ino


def change(engine: Engine, path: str, **fields: int) -> None:
    engine.fs.setattr(engine.caller, engine.entry(path).ino, AttributeChange(**fields))


def asked(store: MemoryStore) -> list[tuple[str, str]]:
    return [call for call in store.calls if call[0] in ASKED]


def kept(engine: Engine) -> set[str]:
    """Keys in the bucket's root of which the journal has a row."""
    return {row.key for some in engine.journal.attributes.in_directory("") for row in some}


def a_tree(engine: Engine, clock: Later) -> list[str]:
    """As `rsync -a` makes one; its paths."""
    engine.mkdir("songs")
    engine.mkdir("songs/empty")
    for number in range(6):
        engine.write(f"songs/.{number}.wav.x", bytes(number))
        change(engine, f"songs/.{number}.wav.x", mtime_ns=PAST_NS + number, mode=0o640 + number, uid=7, gid=8)
        engine.rename(f"songs/.{number}.wav.x", f"songs/{number}.wav")
    engine.fs.symlink(engine.caller, engine.entry("songs").ino, "link", "0.wav")
    for path in ("songs/link", "songs/empty", "songs"):
        clock.advance(1.0)
        change(engine, path, mtime_ns=PAST_NS, **({} if path == "songs/link" else {"mode": 0o750}))
    return ["", "songs", "songs/empty", "songs/link", *(f"songs/{number}.wav" for number in range(6))]


# ------------------------------------------------------------------ what this host wrote
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_empty_cache_shows_what_was_written_here(
    remount: Callable[..., Engine], store: MemoryStore, clock: Later, how: str
) -> None:
    engine = remount()
    paths = a_tree(engine, clock)
    engine.drain()
    before = {path: shown(engine, path) for path in paths}
    after = remount(engine, how)
    store.calls.clear()
    assert {path: shown(after, path) for path in paths} == before
    assert after.fs.readlink(after.caller, after.entry("songs/link").ino) == "0.wav"
    assert asked(store) == []


def test_what_a_copy_stored_is_shown_by_an_empty_cache(
    remount: Callable[..., Engine], store: MemoryStore, clock: Later
) -> None:
    """Renamed and given other metadata, by this host, while the bucket had it."""
    engine = remount()
    engine.mkdir("d")
    for name in ("old", "other", "d/deep"):
        engine.write(name, name.encode())
        change(engine, name, mtime_ns=PAST_NS)
    engine.drain()
    engine.rename("old", "new")
    engine.rename("d", "e")
    change(engine, "other", mode=0o600)
    engine.drain()
    before = {path: shown(engine, path) for path in ("new", "other", "e", "e/deep")}
    assert before["other"][2] == 0o600
    after = remount(engine)
    store.calls.clear()
    assert {path: shown(after, path) for path in before} == before
    assert asked(store) == []


def test_rows_go_with_their_objects(remount: Callable[..., Engine], store: MemoryStore, clock: Later) -> None:
    engine = remount()
    for number in range(8):
        engine.write(f"{number}", b"x")
    engine.mkdir("d")
    engine.drain()
    assert kept(engine) == {*map(str, range(8)), "d/"}
    engine.unlink("0")
    engine.rename("1", "one")
    engine.rmdir("d")
    engine.drain()
    assert kept(engine) == {*map(str, range(2, 8)), "one"}
    store.remove("2")  # by another host
    after = remount(engine)
    after.listdir()
    after.names.recalls.flush()
    assert kept(after) == {*map(str, range(3, 8)), "one"}


# ------------------------------------------------------------------ what other hosts did since
def test_another_hosts_version_and_metadata_are_its_own(
    remount: Callable[..., Engine], store: MemoryStore, clock: Later
) -> None:
    engine = remount()
    for name in ("replaced", "closed", "mine"):
        engine.write(name, b"take")
        change(engine, name, mtime_ns=PAST_NS, mode=0o644)
    engine.drain()
    numbers = {name: engine.entry(name).attributes.st_ino for name in ("replaced", "closed", "mine")}
    clock.advance(3600.0)
    store.set("replaced", b"takes")
    store.set("closed", b"take", mode=str(0o100600), mtime="1500000000.5")  # the same bytes: the same ETag
    after = remount(engine, mtime="exact")
    assert after.entry("replaced").attributes.mtime_ns == store.objects["replaced"].modified_ns
    closed = after.entry("closed").attributes
    assert (closed.mode, closed.mtime_ns) == (0o600, 1_500_000_000_500_000_000)
    assert after.entry("mine").attributes.mtime_ns == PAST_NS
    now = {name: after.entry(name).attributes.st_ino for name in numbers}
    assert now["mine"] == numbers["mine"] and now["closed"] == numbers["closed"]  # bytes that are the same
    assert now["replaced"] != numbers["replaced"]
    once_more = remount(after, mtime="listing")  # it was HEAD that told, and that is kept
    assert once_more.entry("closed").attributes.mode == 0o600


def test_metadata_that_moved_after_a_listing_are_not_believed(
    remount: Callable[..., Engine], store: MemoryStore, clock: Later
) -> None:
    """Within the time by which two clocks may differ, too."""
    engine = remount()
    engine.write("take", b"take")
    change(engine, "take", mode=0o640)
    engine.drain()
    after = remount(engine, later_s=1.0)
    assert after.entry("take").attributes.mode == 0o640
    clock.advance(5.0)
    store.set("take", b"take", mode=str(0o100600))
    last = remount(after, later_s=1.0, mtime="exact")
    assert last.entry("take").attributes.mode == 0o600


@pytest.mark.parametrize("theirs", [None, "new metadata", "removed"])
def test_what_a_listing_showed_takes_nothing_from_what_is_stored_after_it(
    remount: Callable[..., Engine], store: MemoryStore, clock: Later, theirs: str | None
) -> None:
    """What was found out of the row before is written within a minute, and the new row has the same ETag."""
    names = list(map(str, range(6)))
    engine = remount()
    for name in names:
        engine.write(name, b"take")
        change(engine, name, mtime_ns=PAST_NS)
    engine.drain()
    clock.advance(3600.0 if theirs else 60.0)
    if theirs == "new metadata":
        store.set("0", b"take", mode=str(0o100600))
    elif theirs == "removed":
        store.remove("0")
    after = remount(engine, later_s=1.0, upload_delay_s=3600.0, upload_deadline_s=7200.0)
    after.listdir()
    clock.advance(5.0)
    if theirs == "removed":
        after.write("0", b"take")
    change(after, "0", mtime_ns=PAST_NS + 5, mode=0o600)
    after.drain()
    after.names.recalls.flush()
    before = {name: shown(after, name) for name in names}
    last = remount(after, "kill")
    store.calls.clear()
    assert {name: shown(last, name) for name in names} == before
    assert asked(store) == []


@pytest.mark.parametrize("strict", [{}, {"allow_other": True}, {"mtime": "exact"}], ids=str)
def test_another_hosts_chmod_of_a_directory_between_two_mounts_is_seen(
    remount: Callable[..., Engine], store: MemoryStore, clock: Later, strict: dict[str, object]
) -> None:
    """Its object has the same ETag as ever."""
    engine = remount(**strict)
    engine.mkdir("d")
    change(engine, "d", mode=0o755)
    engine.write("d/take", b"take")
    engine.drain()
    clock.advance(3600.0)
    store.set_metadata("d/", mode="040700")
    after = remount(engine, **strict)
    first = after.entry("d").attributes.mode
    assert first == (0o700 if strict else 0o755)  # where it has to be exact, before anything is listed
    for _ in range(2):
        after.listdir("d")
        mode = after.entry("d").attributes.mode
    assert mode == 0o700
    after.names.recalls.flush()
    if strict:
        assert remount(after, "kill", **strict).entry("d").attributes.mode == 0o700


# ------------------------------------------------------------------ numbers
def test_numbers_and_times_of_what_was_only_listed_are_the_same(
    remount: Callable[..., Engine], store: MemoryStore
) -> None:
    """On any host, with any state."""
    for key in ("a/one", "a/two", "b/deep/three", "four"):
        store.set(key, key.encode())
    paths = ("", "a", "a/one", "a/two", "b", "b/deep", "b/deep/three", "four")
    engine = remount()
    before = {path: shown(engine, path) for path in paths}
    assert len({row[-1] for row in before.values()}) == len(paths)
    again = remount(engine, "kill")
    assert {path: shown(again, path) for path in reversed(paths)} == {path: before[path] for path in paths}


def test_readdir_shows_the_numbers_of_stat(remount: Callable[..., Engine], store: MemoryStore) -> None:
    for number in range(10):
        store.set(f"d/{number}", b"theirs")
    engine = remount()
    engine.write("d/mine", b"ours")
    lines = engine.fs.readdir(engine.caller, engine.entry("d").ino)
    assert {line.name: line.st_ino for line in lines} == {
        line.name: engine.entry(f"d/{line.name}").attributes.st_ino for line in lines
    }


def test_two_live_inodes_never_have_one_number(remount: Callable[..., Engine], store: MemoryStore) -> None:
    """An atomic save by the same temporary name, and a directory that is made where another one was."""
    store.set("theirs", b"take")
    engine = remount()
    numbers: dict[str, int] = {}

    def number(path: str) -> int:
        return engine.entry(path).attributes.st_ino

    for name in ("one", "two", "theirs"):
        engine.write(".save", name.encode())
        numbers[name] = number(".save")
        engine.rename(".save", name)
    engine.mkdir("d")
    numbers["e"] = number("d")
    engine.rename("d", "e")
    engine.mkdir("d")
    numbers["d"] = number("d")
    store.set("theirs copied", b"take")
    numbers["theirs copied"] = number("theirs copied")
    engine.rename("theirs copied", "x")
    numbers["x"] = numbers.pop("theirs copied")
    engine.drain()
    store.set("theirs copied", b"take")  # the same bytes under the same key, as before the rename
    numbers["theirs copied"] = number("theirs copied")
    assert len(set(numbers.values())) == len(numbers)
    assert {name: number(name) for name in numbers} == numbers
    engine = remount(engine)
    engine.listdir()
    assert {name: number(name) for name in numbers} == numbers


def test_exchanged_directories_keep_their_numbers(remount: Callable[..., Engine]) -> None:
    engine = remount()
    for name in ("one", "two"):
        engine.mkdir(name)
        engine.write(f"{name}/take", name.encode())
    engine.drain()
    numbers = [engine.entry(name).attributes.st_ino for name in ("one", "two")]
    engine.rename("one", "two", RENAME_EXCHANGE)
    engine.drain()
    for mount in (engine, remount(engine, "kill")):
        assert [mount.entry(name).attributes.st_ino for name in ("two", "one")] == numbers


def test_numbers_outlive_a_kill_before_the_upload(remount: Callable[..., Engine], store: MemoryStore) -> None:
    store.set("listed", b"theirs")
    store.set("renamed", b"theirs, too")
    engine = remount(upload_delay_s=3600.0)
    engine.mkdir("d")
    engine.write("d/new", b"take")
    engine.write("listed", b"edited", os.O_WRONLY)
    engine.entry("renamed")
    numbers = {"moved": engine.entry("renamed").attributes.st_ino}
    engine.rename("renamed", "moved")
    numbers |= {path: engine.entry(path).attributes.st_ino for path in ("d", "d/new", "listed")}
    after = remount(engine, "kill")
    assert {path: after.entry(path).attributes.st_ino for path in numbers} == numbers
    after.drain()
    last = remount(after, "kill")
    assert {path: last.entry(path).attributes.st_ino for path in numbers} == numbers


# ------------------------------------------------------------------ times of directories
def test_a_directory_without_an_object_keeps_its_time(
    remount: Callable[..., Engine], store: MemoryStore, clock: Later
) -> None:
    store.set("theirs/take", b"take")
    store.set("other/take", b"take")
    engine = remount()
    began_ns = engine.entry("theirs").attributes.mtime_ns
    clock.advance(60.0)
    engine.write("theirs/new", b"new")
    engine.unlink("other/take")
    store.set("later/take", b"take")
    before = {
        path: shown(engine, path) for path in ("theirs", "other", "later", "")
    }  # the root last: what is new in it moves it
    assert all(engine.entry(path).attributes.mtime_ns > began_ns for path in ("theirs", "other"))
    engine.drain()
    after = remount(engine)
    assert {path: shown(after, path) for path in before} == before
    last = remount(after, "kill")
    assert {path: shown(last, path) for path in before} == before


def test_a_directorys_time_outlives_a_kill_once_what_changed_it_is_sent(
    remount: Callable[..., Engine], store: MemoryStore, clock: Later
) -> None:
    store.set("theirs/take", b"take")
    engine = remount()
    engine.entry("theirs")
    clock.advance(60.0)
    engine.write("theirs/new", b"new")
    before = shown(engine, "theirs")
    engine.drain()
    assert shown(remount(engine, "kill"), "theirs") == before


# ------------------------------------------------------------------ who may do what
def closed_objects(store: MemoryStore) -> None:
    for key, mode in (("open", 0o100644), ("closed", 0o100600), ("d/", 0o040700)):
        store.store_version(key, b"", ObjectMeta("audio/wav", {"mode": str(mode)}), f"{key} etag")
    store.set("plain", b"of a tool that stores no mode")


def test_with_allow_other_no_mode_is_guessed(make: MakeEngine, store: MemoryStore) -> None:
    closed_objects(store)
    engine = make(allow_other=True, freshness_s=3600.0)
    assert engine.fs.readdir(engine.caller, 1)
    for name in ("closed", "d", "plain"):  # a listing primes the kernel with nothing that it does not know
        assert engine.fs.readdir_entry(engine.caller, 1, name) is None
    modes = {name: engine.entry(name).attributes.mode for name in ("open", "closed", "d", "plain")}
    assert modes == {"open": 0o644, "closed": 0o600, "d": 0o700, "plain": 0o644}
    once = len(asked(store))
    assert {name: engine.entry(name).attributes.mode for name in modes} == modes
    assert len(asked(store)) == once == 4  # and not again
    entry = engine.fs.readdir_entry(engine.caller, 1, "closed")
    assert entry is not None and entry.attributes.mode == 0o600


def test_with_allow_other_an_unknown_mode_is_closed_to_others(make: MakeEngine, store: MemoryStore) -> None:
    closed_objects(store)
    engine = make(allow_other=True, freshness_s=3600.0, read_timeout_s=1.0)
    engine.listdir()

    def away(name: str, key: str) -> None:
        if name == "head":
            raise Unavailable("no answer")

    store.before = away
    modes = {name: engine.entry(name).attributes.mode for name in ("", "open", "closed", "d", "plain")}
    assert modes == {"": 0o755, "open": 0o600, "closed": 0o600, "d": 0o700, "plain": 0o600}
    store.before = lambda name, key: None
    modes = {name: engine.entry(name).attributes.mode for name in ("open", "closed", "d", "plain")}
    assert modes == {"open": 0o644, "closed": 0o600, "d": 0o700, "plain": 0o644}


def test_without_allow_other_nothing_is_asked(make: MakeEngine, store: MemoryStore) -> None:
    closed_objects(store)
    engine = make(freshness_s=3600.0)
    assert engine.entry("closed").attributes.mode == 0o644
    assert asked(store) == []


def test_a_daemon_that_goes_on_shows_the_same(session: Callable[..., Session], store: MemoryStore) -> None:
    """Of what is open and unlinked, too, and of a number that had to give way to another."""
    store.set("listed", b"theirs")
    one = session()
    one.engine.mkdir("d")
    one.engine.rename("d", "e")
    one.engine.mkdir("d")
    gone = one.open("gone", os.O_RDWR | os.O_CREAT)
    inodes = [one.ino(path) for path in ("listed", "d", "e", "gone")]
    one.engine.unlink("gone")
    before = [one.attributes(ino).st_ino for ino in inodes]
    assert len(set(before)) == 4
    one.kill()
    assert [one.attributes(ino).st_ino for ino in inodes] == before
    one.close(gone)


def test_a_file_created_over_one_that_nobody_has_looked_up_keeps_its_attributes(
    remount: Callable[..., Engine],
):
    """As when another program makes it between the kernel's look-up and this program's create."""
    engine = remount()
    engine.write("take.wav", b"first")
    change(engine, "take.wav", mode=0o750, uid=7)
    engine.drain()
    again = remount(engine, threads=False)
    entry, opened = again.fs.create(again.caller, ROOT, "take.wav", 0o644, os.O_WRONLY | os.O_TRUNC)
    again.close(opened)
    assert (entry.attributes.mode, entry.attributes.uid) == (0o750, 7)
    assert shown(again, "take.wav")[2:4] == (0o750, 7)
