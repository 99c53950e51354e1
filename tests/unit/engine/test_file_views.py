"""File views: what of each file is on this host, its state, and its object."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from r2fs.model import causes, history, transitions
from r2fs.model.errors import NoSpace, NotADirectory, NotFound
from r2fs.model.history import History
from r2fs.model.ports import Caller
from r2fs.model.records import ObjectMeta
from r2fs.model.settings import Bucket
from tests.mount.daemons import until
from tests.support.bodies import BytesBody
from tests.support.clocks import ManualClock
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore


def test_what_of_each_file_is_here(make: MakeEngine, store: MemoryStore) -> None:
    for name in ("cold.wav", "warm.wav"):
        store.set(f"users/anna/d/{name}", name.encode())
    engine = make(bucket=Bucket("s3", "b", "users/anna/"))
    engine.listdir("d")
    engine.read("d/warm.wav")
    opened = engine.open("d/new.wav", os.O_WRONLY | os.O_CREAT)
    engine.fs.write(engine.caller, opened.handle, 0, b"new")
    engine.mkdir("d/sub")
    before = len(store.calls)
    views = {view.path: view for page in engine.fs.file_views.pages("d") for view in page}
    assert list(views) == ["d/cold.wav", "d/new.wav", "d/sub", "d/warm.wav"]
    cold, new, warm = views["d/cold.wav"], views["d/new.wav"], views["d/warm.wav"]
    assert (cold.state, cold.size, cold.cached, cold.whole) == ("clean", 8, 0, False)
    assert (warm.cached, warm.whole, warm.open) == (8, True, 0)
    assert (new.state, new.size, new.cached, new.etag, new.open) == ("dirty", 3, 3, None, 1)
    assert (cold.key, cold.url) == ("users/anna/d/cold.wav", "s3://b/users/anna/d/cold.wav")
    assert cold.etag == store.objects["users/anna/d/cold.wav"].etag
    assert (cold.content_type, cold.kind, views["d/sub"].kind) == ("audio/wav", "file", "directory")
    engine.close(opened)
    engine.retire_idle()
    # by the cache's table, as before by the open file
    assert engine.fs.file_views.one("d/warm.wav", Caller()).cached == 8
    assert len(store.calls) == before
    with pytest.raises(NotFound):
        engine.fs.file_views.one("d/none.wav", Caller())


@pytest.mark.expect_warnings("another host wrote it first")
def test_a_conflict_names_its_copies_and_a_copy_its_file(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(upload_delay_s=3600.0, upload_deadline_s=3600.0)
    engine.mkdir("d")
    engine.write("d/take.wav", b"mine")
    store.set("d/take.wav", b"theirs")
    engine.drain()
    (copy,) = [name for name in engine.listdir("d") if "conflict" in name]
    assert engine.fs.file_views.one("d/take.wav", Caller()).copies == (f"d/{copy}",)
    assert engine.fs.file_views.one(f"d/{copy}", Caller()).conflict_of == "d/take.wav"


def test_pending_changes_are_listed_page_by_page(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(upload_delay_s=3600.0, upload_deadline_s=3600.0)
    engine.mkdir("d")
    for number in range(205):
        engine.write(f"d/{number:03}", b"x")
    engine.write("elsewhere", b"x")
    pages = list(engine.fs.pending_pages(["d"]))
    assert [len(page) for page in pages] == [200, 6]
    assert {view.path for page in pages for view in page} == {"d/", *(f"d/{n:03}" for n in range(205))}
    assert all(view.state == "queued" and view.failures == 0 for page in pages for view in page)


def test_sizes_known_and_listed(make: MakeEngine, store: MemoryStore) -> None:
    store.set("a/one", b"12345")
    store.set("b/two", b"123")
    engine = make()
    engine.listdir("b")  # not the first directory: no walk, which would read on into the next
    known = engine.fs.file_views.known()
    assert (known.objects, known.bytes) == (1, 3)
    seen: list[int] = []
    listed = engine.fs.file_views.listed(lambda view: seen.append(view.objects))
    assert (listed.objects, listed.bytes, seen) == (2, 8, [2])


def test_shares_count_all_files_below_each_directory(make: MakeEngine, store: MemoryStore) -> None:
    for name in ("0/four.wav", "a/one.wav", "a/deep/two.wav", "a/deep/three.wav", "five.wav"):
        store.set(name, b"12345678")
    engine = make(upload_delay_s=3600.0, upload_deadline_s=3600.0)
    for directory in ("", "a", "a/deep"):
        engine.listdir(directory)
    engine.read("a/deep/two.wav")
    engine.write("a/deep/new.wav", b"123")
    engine.retire_idle()
    before = len(store.calls)
    shares = list(engine.fs.file_views.shares("", lambda: True))
    assert [(s.path, s.files, s.bytes, s.here_bytes, s.pending, s.listed) for s in shares] == [
        ("0", 0, 0, 0, 0, False),
        ("a", 4, 27, 11, 1, True),
    ]
    (deep,) = engine.fs.file_views.shares("a", lambda: True)
    assert (deep.path, deep.files, deep.bytes, deep.here_bytes) == ("a/deep", 3, 19, 11)
    assert len(store.calls) == before
    assert list(engine.fs.file_views.shares("", lambda: False)) == []
    with pytest.raises(NotADirectory):
        list(engine.fs.file_views.shares("five.wav", lambda: True))


# ------------------------------------------------------------------ headers, and objects of directories
def test_headers_are_those_stored_with_the_object(make: MakeEngine, store: MemoryStore) -> None:
    store.put("a.wav", BytesBody(b"a"), ObjectMeta("audio/wav", {}, {"cache-control": "no-cache"}))
    engine = make()
    engine.listdir("")
    views = engine.fs.file_views
    (listed,) = next(views.pages(""))
    assert (listed.headers, listed.headers_known) == ({}, False)
    heads = store.count("head")
    view = views.one("a.wav", Caller())
    assert (view.headers, view.headers_known) == ({"cache-control": "no-cache"}, True)
    assert (views.one("a.wav", Caller()), store.count("head")) == (view, heads + 1), "one HEAD"


def test_a_directory_without_an_object_has_no_url(make: MakeEngine, store: MemoryStore) -> None:
    store.set("implied/a.wav", b"a")
    store.set("marked/", b"")
    engine = make()
    views = engine.fs.file_views
    engine.listdir("implied")
    engine.listdir("marked")
    engine.mkdir("made")
    assert views.one("implied", Caller()).url is None
    assert views.one("", Caller()).url is None
    assert str(views.one("marked", Caller()).url).endswith("/marked/")
    assert str(views.one("made", Caller()).url).endswith("/made/"), "it is about to have one"


# ------------------------------------------------------------------ history
def events(engine: Engine, path: str) -> list[str]:
    return [event.event for event in engine.fs.file_views.history(path)]


def test_the_history_of_a_take(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(freshness_s=0.0)
    causes.serve(SimpleNamespace(pid=os.getpid()))
    try:
        engine.write("take.wav", b"one")
        engine.drain()
        engine.rename("take.wav", "best.wav")
        engine.drain()
    finally:
        causes.serve(SimpleNamespace(pid=0))
    found = engine.fs.file_views.history("best.wav")
    assert [event.event for event in found] == [
        "created", "closed", "upload begun", "uploaded", "renamed", "upload begun", "uploaded",
    ]  # fmt: skip
    etag = store.objects["best.wav"].etag
    assert found[3].detail == found[6].detail == f"ETag {etag}, 3 bytes"
    assert found[4].detail == "from take.wav"
    assert {event.program for event in found} == {Path("/proc/self/comm").read_text().strip()}

    opened = engine.open("best.wav", os.O_WRONLY)
    engine.close(opened)
    assert events(engine, "best.wav")[-2:] == ["opened for writing", "closed"]

    def comes_again() -> bool:
        """Once what was closed is in the cache, by a thread of its own."""
        engine.retire_idle()
        engine.fs.local_copies.evict(["best.wav"])
        engine.read("best.wav")
        return {"evicted", "downloaded"} <= set(events(engine, "best.wav"))

    until("evicted and downloaded again", comes_again, 20)
    store.set("best.wav", b"other")
    engine.read("best.wav")
    assert "changed in the bucket" in events(engine, "best.wav"), "by the key, though the inode is a new one"
    engine.unlink("best.wav")
    engine.write("best.wav", b"again")
    # Its upload has begun, perhaps; and the former bytes leave the cache by a thread of its own.
    latest = [event for event in events(engine, "best.wav") if event != "evicted"]
    assert latest[latest.index("removed") :][:3] == ["removed", "created", "closed"]


@pytest.mark.expect_warnings("another host wrote it first")
def test_the_history_names_a_conflict(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(upload_delay_s=3600.0, upload_deadline_s=3600.0)
    engine.write("take.wav", b"mine")
    store.set("take.wav", b"theirs")
    engine.drain()
    (copy,) = [name for name in engine.listdir("") if "conflict" in name]
    kept = next(event for event in engine.fs.file_views.history(copy) if "conflict" in event.event)
    assert (kept.event, kept.detail) == ("kept as a conflict copy", "another host wrote take.wav first")


@pytest.mark.expect_warnings("parked")
def test_the_history_says_why_it_is_parked(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    store.set("take.wav", b"theirs")
    store.locked.add("take.wav")
    engine.write("take.wav", b"mine")
    engine.drain()
    parked = engine.fs.file_views.history("take.wav")[-1]
    assert (parked.event, bool(parked.detail)) == ("parked", True)


def test_what_the_journal_does_not_have_is_not_in_the_history(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    engine.write("take.wav", b"mine")
    with engine.lock:  # its upload begins after
        before = events(engine, "take.wav")
        node = engine.node("take.wav")
        assert node.pending is not None
        with suppress(NoSpace), engine.journal.transaction:
            engine.pending_store.commit(node, transitions.renamed(node.pending, "b.wav", None, 9))
            raise NoSpace("the disk is full")
        assert events(engine, "take.wav") == before


def test_the_history_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "EVENTS", 3)
    kept = History(ManualClock())
    for number in range(9):
        kept.note(1, "a", str(number))
        kept.evicted("a", str(number))
    assert [event.event for event in kept.of(1, ())] == ["6", "7", "8"]
    assert len(kept.of(1, ("a",))) == 6
