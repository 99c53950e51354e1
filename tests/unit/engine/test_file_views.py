"""File views: what of each file is on this host, its state, and its object."""

from __future__ import annotations

import os

import pytest

from r2fs.model.errors import NotADirectory, NotFound
from r2fs.model.settings import Bucket
from tests.support.engine import MakeEngine
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
    views = {view.path: view for page in engine.fs.maintenance.file_views.pages("d") for view in page}
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
    assert (
        engine.fs.maintenance.file_views.one("d/warm.wav").cached == 8
    )  # by the cache's table, as before by the open file
    assert len(store.calls) == before
    with pytest.raises(NotFound):
        engine.fs.maintenance.file_views.one("d/none.wav")


@pytest.mark.expect_warnings("another host wrote it first")
def test_a_conflict_names_its_copies_and_a_copy_its_file(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(upload_delay_s=3600.0, upload_deadline_s=3600.0)
    engine.mkdir("d")
    engine.write("d/take.wav", b"mine")
    store.set("d/take.wav", b"theirs")
    engine.drain()
    (copy,) = [name for name in engine.listdir("d") if "conflict" in name]
    assert engine.fs.maintenance.file_views.one("d/take.wav").copies == (f"d/{copy}",)
    assert engine.fs.maintenance.file_views.one(f"d/{copy}").conflict_of == "d/take.wav"


def test_pending_changes_are_listed_page_by_page(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(upload_delay_s=3600.0, upload_deadline_s=3600.0)
    engine.mkdir("d")
    for number in range(205):
        engine.write(f"d/{number:03}", b"x")
    engine.write("elsewhere", b"x")
    pages = list(engine.fs.maintenance.pending_pages(["d"]))
    assert [len(page) for page in pages] == [200, 6]
    assert {view.path for page in pages for view in page} == {"d/", *(f"d/{n:03}" for n in range(205))}
    assert all(view.state == "queued" and view.failures == 0 for page in pages for view in page)


def test_sizes_known_and_listed(make: MakeEngine, store: MemoryStore) -> None:
    store.set("a/one", b"12345")
    store.set("b/two", b"123")
    engine = make()
    engine.listdir("a")
    known = engine.fs.maintenance.stored_sizes.known()
    assert (known.objects, known.bytes) == (1, 5)
    seen: list[int] = []
    listed = engine.fs.maintenance.stored_sizes.listed(lambda view: seen.append(view.objects))
    assert (listed.objects, listed.bytes, seen) == (2, 8, [2])


def test_shares_count_all_files_below_each_directory(make: MakeEngine, store: MemoryStore) -> None:
    for name in ("a/one.wav", "a/deep/two.wav", "a/deep/three.wav", "b/four.wav", "five.wav"):
        store.set(name, b"12345678")
    engine = make(upload_delay_s=3600.0, upload_deadline_s=3600.0)
    for directory in ("", "a", "a/deep"):
        engine.listdir(directory)
    engine.read("a/deep/two.wav")
    engine.write("a/deep/new.wav", b"123")
    engine.retire_idle()
    before = len(store.calls)
    shares = list(engine.fs.maintenance.shares.below("", lambda: True))
    assert [(s.path, s.files, s.bytes, s.here_bytes, s.pending, s.listed) for s in shares] == [
        ("a", 4, 27, 11, 1, True),
        ("b", 0, 0, 0, 0, False),
    ]
    (deep,) = engine.fs.maintenance.shares.below("a", lambda: True)
    assert (deep.path, deep.files, deep.bytes, deep.here_bytes) == ("a/deep", 3, 19, 11)
    assert len(store.calls) == before
    assert list(engine.fs.maintenance.shares.below("", lambda: False)) == []
    with pytest.raises(NotADirectory):
        list(engine.fs.maintenance.shares.below("five.wav", lambda: True))
