"""A pickle that somebody plants in the cache or beside the journal is never loaded: nothing is unpickled at all.

diskcache loads pickles from its directory by default (CVE-2025-69872); SECURITY.md says why r2fs does not.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r2fs.disk.cache.cache import CleanCache
from r2fs.disk.journal.journal import Journal
from r2fs.model.ranges import RangeSet
from r2fs.model.records import Version
from tests.unit.disk.conftest import SetClock

MODES = (0, 1, 2, 3, 4)  # diskcache's: none, raw, binary, text, pickle
VERSION = Version("takes/07.wav", "e1", 4)


class Payload:
    """Makes a directory where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    """Fails the test if it was loaded, or if anything asked the pickle module to load something."""
    mark = tmp_path / "mark"
    bytes_ = pickle.dumps(Payload(mark), protocol=2)
    pickle.loads(bytes_)
    assert mark.is_dir(), "the payload must work, or the test proves nothing"
    mark.rmdir()
    asked: list[str] = []
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, lambda *given, name=name, **named: asked.append(name))
    yield bytes_
    assert not mark.exists()
    assert asked == []


def every_use(directory: Path, clock: SetClock, staging: Path) -> None:
    """Each method that reads a row or a file."""
    cache = CleanCache(directory, limit_bytes=1 << 20, ttl_s=5.0, clock=clock)
    into = staging / "into"
    cache.take(VERSION, into)
    into.unlink(missing_ok=True)
    cache.contains(VERSION)
    cache.contains(VERSION, whole=True)
    cache.recall(VERSION.key, VERSION.etag)
    cache.recall_parts(VERSION)
    cache.rekey(VERSION, Version("other", "e1", 4))
    cache.remember(VERSION.key, VERSION.etag, {"mtime": "1"})
    path = staging / "new"
    path.write_bytes(b"data")
    cache.admit(VERSION, path, size=4, present=None)
    path.unlink()
    cache.pin(VERSION)
    cache.unpin(VERSION)
    cache.view()
    cache.make_room(1 << 19)
    cache.evict(1 << 20)
    cache.sweep()
    cache.drop(VERSION)
    cache.close()


def as_value(db: sqlite3.Connection, mode: int, payload: bytes) -> None:
    db.execute("UPDATE Cache SET mode = ?, value = ?, filename = NULL", (mode, payload))


def in_the_file_of_the_value(db: sqlite3.Connection, mode: int, payload: bytes) -> None:
    db.execute("UPDATE Cache SET mode = ?, value = NULL, filename = 'planted.val'", (mode,))


def as_key(db: sqlite3.Connection, mode: int, payload: bytes) -> None:
    db.execute(
        "INSERT INTO Cache (key, raw, store_time, access_time, access_count, tag, size, mode, filename, value)"
        " VALUES (?, 0, 0, 0, 0, 0, 9, ?, 'planted.val', ?)",
        (payload, mode, payload),
    )


def as_tag(db: sqlite3.Connection, mode: int, payload: bytes) -> None:
    db.execute("UPDATE Cache SET mode = ?, raw = 0, tag = ?", (mode, payload))


def as_setting(db: sqlite3.Connection, mode: int, payload: bytes) -> None:
    db.execute("UPDATE Settings SET value = ? WHERE key = 'statistics'", (payload,))


@pytest.mark.parametrize("plant", [as_value, in_the_file_of_the_value, as_key, as_tag, as_setting])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.expect_warnings
def test_in_the_tables_of_the_cache(tmp_path, clock, payload, plant, mode):
    directory, staging = tmp_path / "cache", tmp_path / "staging"
    staging.mkdir()
    cache = CleanCache(directory, limit_bytes=1 << 20, ttl_s=0.0, clock=clock)
    path = staging / "f"
    path.write_bytes(b"data")
    assert cache.admit(VERSION, path, size=4, present=RangeSet([(0, 2)]))
    cache.remember(VERSION.key, VERSION.etag, {"mtime": "1"})
    cache.close()
    databases = list(directory.rglob("cache.db"))
    assert len(databases) == 2
    for database in databases:
        (database.parent / "planted.val").write_bytes(payload)
        db = sqlite3.connect(database)
        with db:
            plant(db, mode, payload)
        db.close()
    every_use(directory, clock, staging)
    every_use(directory, clock, staging)


@pytest.mark.expect_warnings
def test_in_place_of_every_file_of_cache_and_state(tmp_path, clock, payload):
    directory, staging, state = tmp_path / "cache", tmp_path / "staging", tmp_path / "state"
    staging.mkdir()
    every_use(directory, clock, staging)
    Journal.open(state).close()
    files = [path for base in (directory, state) for path in base.rglob("*") if path.is_file()]
    assert len(files) > 4
    for path in files:
        path.write_bytes(payload)
    every_use(directory, clock, staging)
    journal = Journal.open(state)
    journal.read()
    journal.aside()
    journal.close()
    shutil.rmtree(directory)


def test_the_cache_asks_diskcache_for_nothing_that_pickles():
    """Each method of diskcache.Disk that may load a pickle is one of our own."""
    import diskcache

    from r2fs.disk.cache import table as cache_table

    own = vars(cache_table._Disk)
    assert {"put", "get", "store", "fetch", "remove"} <= set(own)
    public = {name for name in vars(diskcache.Disk) if not name.startswith("_")}
    assert public <= set(own) | {"hash", "filename"}  # these two load nothing: a number, and a name
