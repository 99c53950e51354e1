"""A later mount shows what an earlier one last saw, while the bucket cannot be asked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import count
from threading import Event, Thread

import pytest

from r2fs.engine.namespace.freshness import STALE_RETRY_S
from r2fs.engine.namespace.waits import SAVED_WAIT_S
from r2fs.model.errors import NotFound, ReadFailed, Unavailable
from r2fs.model.records import AttributeChange
from r2fs.model.verbs import RENAME_EXCHANGE
from tests.mount.daemons import until
from tests.support.clocks import Later
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

SHORT = {"read_timeout_s": 1.0, "upload_delay_s": 0.0}


def away(store: MemoryStore) -> None:
    def refuse(name: str, key: str) -> None:
        raise Unavailable("no answer")

    store.before = refuse


def back(store: MemoryStore) -> None:
    store.before = lambda name, key: None


@pytest.fixture
def seen(make: MakeEngine, store: MemoryStore) -> Engine:
    """A mount in which everything was looked at and read."""
    for key in ("a/one.wav", "a/deep/two.wav", "b/three.wav", "four.wav"):
        store.set(key, key.encode())
    engine = make(**SHORT)
    engine.tree()
    return engine


def test_what_was_listed_and_cached_can_be_used_in_a_later_mount(
    seen: Engine, make: MakeEngine, store: MemoryStore
) -> None:
    before = seen.tree()
    seen.stop()
    away(store)
    after = make(**SHORT)
    assert after.tree() == before
    with pytest.raises(NotFound):
        after.entry("a/none.wav")
    after.write("b/new.wav", b"new")
    after.rename("four.wav", "a/deep/four.wav")
    after.unlink("a/one.wav")
    assert after.listdir("a") == ["deep"]
    back(store)
    after.end_outage()
    after.drain()
    assert store.contents() == {
        "a/deep/two.wav": b"a/deep/two.wav",
        "a/deep/four.wav": b"four.wav",
        "b/three.wav": b"b/three.wav",
        "b/new.wav": b"new",
    }


def test_what_this_host_did_since_is_in_it(seen: Engine, make: MakeEngine, store: MemoryStore) -> None:
    seen.write("b/new.wav", b"new")
    seen.write("b/three.wav", b"edited")
    seen.mkdir("c")
    seen.unlink("a/one.wav")
    seen.rename("four.wav", "c/four.wav")
    seen.drain()
    before = {path: seen.entry(path).attributes for path in ("b/new.wav", "b/three.wav", "c/four.wav", "a")}
    seen.stop()
    away(store)
    after = make(**SHORT)
    assert after.listdir() == ["a", "b", "c"]
    assert after.listdir("a") == ["deep"]
    assert after.read("b/three.wav") == b"edited" and after.read("c/four.wav") == b"four.wav"
    now = {path: after.entry(path).attributes for path in before}
    assert {path: (a.mtime_ns, a.st_ino, a.size) for path, a in now.items()} == {
        path: (a.mtime_ns, a.st_ino, a.size) for path, a in before.items()
    }


@pytest.mark.expect_warnings
def test_a_directory_with_an_unsent_delete_below_is_still_there(
    seen: Engine, make: MakeEngine, store: MemoryStore
) -> None:
    """Its other files were ENOENT until the delete had reached the bucket."""
    away(store)
    seen.unlink("a/one.wav")
    seen.unlink("b/three.wav")
    seen.rmdir("b")
    seen.stop()
    after = make(**SHORT)
    assert after.listdir() == ["a", "four.wav"]
    assert after.read("a/deep/two.wav") == b"a/deep/two.wav"
    after.unlink("a/deep/two.wav")
    after.rmdir("a/deep")
    after.rmdir("a")
    assert after.listdir() == ["four.wav"]
    back(store)
    after.end_outage()
    after.drain()
    assert store.contents() == {"four.wav": b"four.wav"}


@pytest.mark.expect_warnings
def test_the_object_of_a_renamed_file_is_no_second_file(
    seen: Engine, make: MakeEngine, store: MemoryStore
) -> None:
    """Exchanged with a new file, which took its key and was removed."""
    seen.write("b/new.wav", b"new")
    seen.open("b/three.wav", os.O_WRONLY)
    seen.rename("b/new.wav", "b/three.wav", RENAME_EXCHANGE)
    until("the new file has the key", lambda: store.data("b/three.wav") == b"new")
    until("the answer is here", lambda: seen.node("b/three.wav").pending is None)
    away(store)
    seen.unlink("b/three.wav")
    seen.stop()
    after = make(**SHORT)
    assert after.listdir("b") == ["new.wav"]
    with pytest.raises(NotFound):
        after.entry("b/three.wav")
    back(store)
    after.end_outage()
    after.drain()
    assert store.contents() == {
        "a/one.wav": b"a/one.wav",
        "a/deep/two.wav": b"a/deep/two.wav",
        "b/new.wav": b"b/three.wav",
        "four.wav": b"four.wav",
    }


def test_a_renamed_directory_does_not_come_back_by_an_object_that_was_not_known_at_first(
    make: MakeEngine, store: MemoryStore
) -> None:
    """It is given an object of its own while nobody knows that it has one; the rename knows of both."""
    store.set("a/sub/", b"", mode="040700")
    first = make(**SHORT | {"upload_delay_s": 60.0})
    first.tree()
    first.write("a/sub/new.wav", b"new")
    first.stop()
    away(store)
    after = make(**SHORT)
    after.rename("a/sub/new.wav", "a/new.wav")
    after.rename("a", "b")
    back(store)
    after.drain()
    assert store.keys() == ["b/new.wav", "b/sub/"]
    assert store.metadata("b/sub/")["mode"] == "040700"
    assert sorted(after.tree()) == ["b/", "b/new.wav", "b/sub/"]


def test_what_a_killed_mount_left_is_not_believed(seen: Engine, make: MakeEngine, store: MemoryStore) -> None:
    """It may have made and sent more than was kept."""
    seen.stop()
    second = make(**SHORT)
    second.write("a/new.wav", b"new")
    second.drain()
    second.kill()
    away(store)
    with pytest.raises(ReadFailed):
        make(**SHORT).listdir("a")


def test_nor_after_a_mount_that_came_between(seen: Engine, make: MakeEngine, store: MemoryStore) -> None:
    """It ended in order, and had not looked there."""
    seen.stop()
    second = make(**SHORT)
    second.write("a/new.wav", b"new")
    second.drain()
    second.kill()
    third = make(**SHORT)
    third.listdir("b")
    third.stop()
    away(store)
    after = make(**SHORT)
    assert after.listdir("b") == ["three.wav"]
    with pytest.raises(ReadFailed):
        after.listdir("a")


def test_what_has_become_too_large_to_be_kept_is_not_shown_as_it_was(
    seen: Engine, make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen.stop()
    monkeypatch.setattr("r2fs.disk.cache.last_listings.DIRECTORY_MAX", 2)
    second = make(**SHORT)
    second.write("a/new.wav", b"new")
    second.drain()
    second.stop()
    away(store)
    with pytest.raises(ReadFailed):
        make(**SHORT).listdir("a")


def test_what_nobody_has_listed_is_not_invented(make: MakeEngine, store: MemoryStore) -> None:
    store.set("a/one.wav", b"one")
    engine = make(**SHORT)
    engine.listdir()
    engine.stop()
    away(store)
    after = make(**SHORT)
    assert after.listdir() == ["a"]
    with pytest.raises(ReadFailed):
        after.listdir("a")


def test_a_directorys_mode_is_set_though_nobody_could_ask_for_its_object(
    make: MakeEngine, store: MemoryStore
) -> None:
    store.set("a/", b"", mode="040700", colour="red")
    store.set("a/one.wav", b"one")
    engine = make(**SHORT, freshness_s=3600.0)
    engine.listdir()
    away(store)
    engine.fs.setattr(engine.caller, engine.entry("a").ino, AttributeChange(mode=0o711))
    back(store)
    engine.end_outage()
    engine.drain()
    stored = store.metadata("a/")
    assert (stored["mode"], stored["colour"]) == ("040711", "red")


def test_news_replace_it_when_the_bucket_is_back(seen: Engine, make: MakeEngine, store: MemoryStore) -> None:
    seen.stop()
    away(store)
    clock = Later()
    after = make(clock=clock, **SHORT)
    assert after.listdir("a") == ["deep", "one.wav"]
    store.set("a/one.wav", b"another")
    store.set("a/more.wav", b"more")
    store.remove("four.wav")
    back(store)
    clock.advance(2 * STALE_RETRY_S)
    deadline = time.monotonic() + 10.0
    while after.listdir("a") != ["deep", "more.wav", "one.wav"] or after.listdir() != ["a", "b"]:
        assert time.monotonic() < deadline, "what was known is shown for ever"
        clock.advance(2 * STALE_RETRY_S)
        time.sleep(0.01)  # the background asks
    assert after.read("a/one.wav") == b"another"


def test_what_was_kept_takes_no_newer_versions_place(
    seen: Engine, make: MakeEngine, store: MemoryStore
) -> None:
    seen.stop()
    store.set("a/one.wav", b"another")
    store.remove("b/three.wav")
    store.set("b/five.wav", b"five")
    after = make(**SHORT, freshness_s=3600.0)
    after.entry("a/one.wav")
    a = after.node("a")
    assert a.listing is not None
    a.listing.whole = False  # as if names had been asked for alone
    away(store)
    assert after.freshness.last.restore(a)
    assert after.entry("a/one.wav").attributes.size == len(b"another")


# ------------------------------------------------------------------ a large bucket, whose LISTs take their time
@pytest.fixture
def slow(seen: Engine, make: MakeEngine, store: MemoryStore) -> Iterator[tuple[Engine, Event]]:
    """A later mount. Another host has changed `a` meanwhile; the LIST of it waits for the event."""
    seen.stop()
    store.set("a/new.wav", b"new")
    store.remove("a/one.wav")
    answered, lists = Event(), count()

    def wait(name: str, key: str) -> None:
        if name == "list" and next(lists):  # all but that of the root
            answered.wait(20.0)

    store.before = wait
    yield make(freshness_s=10.0), answered
    answered.set()


def test_saved_names_are_shown_until_the_first_list_has_ended(slow: tuple[Engine, Event]) -> None:
    engine, answered = slow
    begun = time.monotonic()
    assert engine.listdir("a") == ["deep", "one.wav"]
    assert engine.entry("a/one.wav").attributes.size == 9
    assert time.monotonic() - begun < 2 * SAVED_WAIT_S + 0.5
    assert not engine.fs.queue_view().files
    answered.set()
    for _ in range(500):
        if engine.listdir("a") == ["deep", "new.wav"]:
            break
        time.sleep(0.01)
    assert engine.listdir("a") == ["deep", "new.wav"]
    with pytest.raises(NotFound):
        engine.entry("a/one.wav")


def test_a_directory_is_not_renamed_by_saved_names(slow: tuple[Engine, Event], store: MemoryStore) -> None:
    engine, answered = slow
    assert engine.listdir("a") == ["deep", "one.wav"]
    renamed = Thread(target=engine.rename, args=("a", "z"))
    renamed.start()
    renamed.join(0.3)
    assert renamed.is_alive()
    answered.set()
    renamed.join(20.0)
    assert engine.listdir("z") == ["deep", "new.wav"]
    engine.drain()
    assert store.data("z/new.wav") == b"new"
    assert not any(key.startswith("a/") for key in store.objects)


def test_names_that_this_host_has_moved_are_not_kept(seen: Engine, make: MakeEngine) -> None:
    seen.rename("a", "c")
    seen.unlink("b/three.wav")
    seen.rmdir("b")
    seen.drain()
    seen.stop()
    after = make(**SHORT)
    kept = after.core.cache.listings.prefixes()
    assert sorted(kept) == ["", "c/", "c/deep/"]


def test_a_file_that_was_looked_at_is_saved_as_one_that_was_not(make: MakeEngine, store: MemoryStore) -> None:
    for key in ("a/one.wav", "a/ma\u0308rz.wav"):  # the second in another spelling than the mount shows
        store.set(key, key.encode())
    store.set("a/link.rclonelink", b"one.wav")
    engine, names = make(**SHORT), ("link", "m\u00e4rz.wav", "one.wav")
    before = [engine.entry(f"a/{name}").attributes for name in names]
    engine.stop()
    away(store)
    after = make(**SHORT)
    kept = after.core.cache.listings.find("a/")
    assert kept is not None
    assert list(kept.names) == ["one.wav"]
    assert {info.key for info in kept.objects} == {"a/ma\u0308rz.wav", "a/link.rclonelink"}
    assert sorted(after.listdir("a")) == sorted(names)
    shown = [after.entry(f"a/{name}").attributes for name in names]
    assert [(a.size, a.mtime_ns, a.st_ino) for a in shown] == [(a.size, a.mtime_ns, a.st_ino) for a in before]


def test_a_name_in_a_large_saved_directory_is_one_request(make: MakeEngine, store: MemoryStore) -> None:
    for number in range(2500):
        store.set(f"d/{number:06}", b"x")
    first = make(freshness_s=3600.0)
    first.listdir("d")
    first.stop()
    later = make(freshness_s=3600.0)
    directory = later.entry("d").ino
    for name in ("001234", "002499"):
        store.calls.clear()
        assert later.fs.lookup(later.caller, directory, name).attributes.size == 1
        assert [verb for verb, _ in store.calls] == ["list"]
    store.calls.clear()
    with pytest.raises(NotFound):
        later.fs.lookup(later.caller, directory, "none")
    assert len(store.calls) == 1
