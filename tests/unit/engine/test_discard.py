"""Discards: local changes given up for the bucket's version, never without an equal copy of the bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from r2fs.model.errors import CannotDiscard, PermissionRefused, R2fsError, Refused, Unavailable
from r2fs.model.views import Export
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

LATER: dict[str, Any] = {"upload_delay_s": 3600.0, "upload_deadline_s": 3600.0}


def exported(data: bytes) -> Export:
    return Export(len(data), hashlib.sha256(data).hexdigest())


def park(engine: Engine, store: MemoryStore, path: str, data: bytes) -> None:
    """Write a file that the bucket refuses."""

    def refuse(name: str, key: str) -> None:
        if name == "put":
            raise Refused(f"{key}: no")

    store.before = refuse
    engine.write(path, data)
    engine.fs.drain(20.0)
    store.before = lambda name, key: None
    assert engine.fs.queue_view().parked == 1


@pytest.mark.expect_warnings("parked, its bytes are kept here")
def test_the_buckets_version_comes_back(make: MakeEngine, store: MemoryStore) -> None:
    store.set("take.wav", b"theirs")
    engine = make(freshness_s=3600.0)
    park(engine, store, "take.wav", b"mine!")
    reader = engine.open("take.wav")
    assert engine.fs.discards.discard("take.wav", exported(b"mine!")) is True
    assert engine.read("take.wav") == b"theirs"
    assert engine.fs.read(engine.caller, reader.handle, 0, 100) == b"mine!"  # a handle keeps its file
    engine.close(reader)
    assert engine.fs.queue_view().files == 0
    assert store.data("take.wav") == b"theirs"
    engine.drain()
    assert store.data("take.wav") == b"theirs"


@pytest.mark.expect_warnings("parked, its bytes are kept here")
def test_a_file_that_the_bucket_lacks_is_gone_and_its_directory_stays(
    make: MakeEngine, store: MemoryStore
) -> None:
    engine = make(freshness_s=3600.0)
    store.set("d/gone", b"")
    engine.listdir("d")
    park(engine, store, "d/new.wav", b"new")
    engine.unlink("d/gone")
    engine.drain()
    assert engine.fs.discards.discard("d/new.wav", exported(b"new")) is False
    assert engine.listdir("d") == []
    engine.drain()
    assert store.keys() == ["d/"]


def test_other_bytes_than_the_exported_are_kept(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(**LATER)
    engine.write("a", b"one")
    for export in (exported(b"two"), exported(b""), Export(3, "")):
        with pytest.raises(CannotDiscard, match="export it again"):
            engine.fs.discards.discard("a", export)
    engine.drain()
    assert store.data("a") == b"one"


def test_bytes_written_while_they_are_compared_are_kept(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(**LATER)
    engine.write("a", b"one")
    before = store.before

    def write(name: str, key: str) -> None:
        if name == "head":
            store.before = before
            engine.write("a", b"two")

    store.before = write
    with pytest.raises(CannotDiscard, match="changed meanwhile"):
        engine.fs.discards.discard("a", exported(b"one"))
    engine.drain()
    assert store.data("a") == b"two"


def test_what_is_in_use_or_on_its_way_is_kept(make: MakeEngine, store: MemoryStore) -> None:
    store.set("old", b"old")
    engine = make(**LATER, local_patterns=("*.tmp",))
    opened = engine.open("a", os.O_WRONLY | os.O_CREAT)
    engine.fs.write(engine.caller, opened.handle, 0, b"a")
    engine.write("side.tmp", b"s")
    engine.mkdir("d")
    engine.rename("old", "renamed")
    for path, why in {
        "a": "open for writing",
        "side.tmp": "local_patterns",
        "d": "is a directory",
        "renamed": "rename it back",
    }.items():
        with pytest.raises(CannotDiscard, match=why):
            engine.fs.discards.discard(path, exported(b""))
    engine.close(opened)
    engine.drain()
    with pytest.raises(CannotDiscard, match="no pending changes"):
        engine.fs.discards.discard("a", exported(b"a"))
    assert store.data("renamed") == b"old"


def test_an_upload_of_unknown_outcome_keeps_the_file(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()

    def lose(name: str, key: str) -> None:
        if name == "put":
            raise Unavailable("no answer")

    def silent(name: str, key: str) -> None:
        if name == "head":  # else the next attempt finds what the first has stored
            raise Unavailable("no answer")

    store.after, store.before = lose, silent
    engine.write("a", b"mine")
    engine.fs.drain(1.0)
    with pytest.raises(CannotDiscard, match=r"may still arrive|being uploaded"):
        engine.fs.discards.discard("a", exported(b"mine"))
    store.after = store.before = lambda name, key: None
    engine.drain()
    assert store.data("a") == b"mine"


def test_a_bucket_that_does_not_answer_changes_nothing(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(**LATER)
    engine.write("a", b"one")

    def refuse(name: str, key: str) -> None:
        raise PermissionRefused("no")

    store.before = refuse
    with pytest.raises(PermissionRefused):
        engine.fs.discards.discard("a", exported(b"one"))
    store.before = lambda name, key: None
    assert engine.fs.queue_view().files == 1


class Killed(BaseException):
    pass


@pytest.mark.parametrize("point", ["commit", "committed"])
def test_a_crash_leaves_the_change_pending_or_the_buckets_version(
    tmp_path: Path, store: MemoryStore, point: str
) -> None:
    store.set("take.wav", b"theirs")
    first = Engine(tmp_path, store, threads=False, **LATER)
    first.write("take.wav", b"mine")

    def die(name: str) -> None:
        if name == point:
            raise Killed

    first.commit_point = die
    with pytest.raises(Killed):
        first.fs.discards.discard("take.wav", exported(b"mine"))
    first.commit_point = lambda name: None
    first.kill()
    second = Engine(tmp_path, store, **LATER)
    try:
        expected = b"mine" if point == "commit" else b"theirs"
        assert second.read("take.wav") == expected
        assert second.fs.queue_view().files == (point == "commit")
    finally:
        second.stop()


def test_a_full_disk_changes_nothing(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(**LATER, threads=False)
    engine.write("a", b"one")

    def fail() -> None:
        raise R2fsError("the disk is full")

    engine.around_commits(fail, lambda: None)
    with pytest.raises(R2fsError, match="the disk is full"):
        engine.fs.discards.discard("a", exported(b"one"))
    engine.around_commits(lambda: None, lambda: None)
    assert engine.read("a") == b"one"
    assert engine.fs.queue_view().files == 1
