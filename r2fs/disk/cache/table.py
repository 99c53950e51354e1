"""The clean cache's tables: diskcache, with replacements of parts that do not suit r2fs.

Owns:    every use of diskcache's internals; pyproject pins the version range. An entry is a row with a short text,
         or with a text and a file that was linked into the table's directory. The names of rows, and a filter of those
         that a table may have.
Never:   pickles; evicts unasked; deletes a file: `condemned` names files without a row, for shelf.py to
         remove.
Locks:   none of its own: a shelf's lock is around every call but `NameFilter.lacks`.
Fails:   DATABASE_ERRORS, each a miss in shelf.py; OSError where a file cannot be linked.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path
from typing import Any, Final, NamedTuple

import diskcache
from diskcache import core

from r2fs.disk.filecalls import BLOCK
from r2fs.model.ranges import RangeSet
from r2fs.model.records import Version

BATCH = 16  # rows of a query for eviction
PAGE = 256  # rows of a walk through all
UNIT = 4096  # bytes: a complete file counts in whole ones of these

DATABASE = core.DBNAME
SQL = core.sqlite3
PASSING = {SQL.SQLITE_FULL, SQL.SQLITE_BUSY, SQL.SQLITE_LOCKED, SQL.SQLITE_NOMEM, SQL.SQLITE_CANTOPEN}

LOAD_AFTER: Final = 32  # lookups without a row: a single one must not wait for the names of a large table
RELOAD_AFTER: Final = 200_000  # names added: with as many at first, 0.7 % are false positives

_MASK: Final = (1 << 23) - 1  # bits

# Errors of a database that was removed or damaged: a missing row of its own is a ValueError.
DATABASE_ERRORS = (SQL.Error, diskcache.Timeout, ValueError, TypeError, KeyError)


class Adoption(NamedTuple):
    """A value to store: a file to link, its cost in bytes, and a text of the caller's."""

    path: Path
    cost: int
    about: str


class Admission(NamedTuple):
    """A file that is to become an entry: the one at `path`, which keeps that name, with bytes of `version`."""

    version: Version
    path: Path
    size: int
    present: RangeSet | None  # None: all
    stored_at_s: float | None = None  # age of a new entry, as Clock.time(); None: now

    def adoption(self) -> Adoption:
        """Return the value to store; its text: size, present ranges and the file's mtime now. Raises OSError."""
        found = os.stat(self.path)
        whole = self.present is None
        about = json.dumps(
            [self.version.size, None if whole else list(self.present or ()), found.st_mtime_ns]
        )
        return Adoption(self.path, -(-self.size // UNIT) * UNIT if whole else found.st_blocks * BLOCK, about)


class Row(NamedTuple):
    key: str
    cost: int
    stored_at_s: float
    filename: str | None
    about: str
    again: int = 0  # 1: used again some time after it was stored


class _Disk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Keys and small values are text; a large value is a file that is linked, never copied."""

    def __init__(self, directory: str, **settings: object) -> None:
        super().__init__(directory, **settings)
        # guarded by: the shelf's lock
        self.condemned: list[str] = []  # files with a deleted row
        self.pending: list[str] = []  # files linked since the last call: removed if their rows fail

    def put(self, key: str) -> tuple[str, bool]:
        return key, True

    def get(self, key: str, raw: bool) -> str:
        return key

    def store(self, value: str | Adoption, read: bool, key: object = None) -> tuple[int, int, Any, str]:
        if isinstance(value, str):
            return 0, core.MODE_RAW, None, value
        name = os.urandom(16).hex()
        filename = f"{name[:2]}/{name[2:]}"
        full = os.path.join(self._directory, filename)
        try:
            os.link(value.path, full)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(full), 0o700, exist_ok=True)
            os.link(value.path, full)
        self.pending.append(full)
        return value.cost, core.MODE_BINARY, filename, value.about

    def fetch(self, mode: int, filename: str | None, value: str, read: bool) -> tuple[str | None, str]:
        return filename, value

    def remove(self, file_path: str) -> None:
        self.condemned.append(os.path.join(self._directory, file_path))


# Not kept in the database. 2 MB of page cache are plenty for one connection; a log of 1 MB is the
# most that the cache holds beyond its limit on a disk that is nearly full.
_OF_A_CONNECTION = (
    "locking_mode = EXCLUSIVE",
    "cache_size = -2048",
    "mmap_size = 0",
    "synchronous = OFF",
    "wal_autocheckpoint = 256",
)


class Table(diskcache.Cache):  # type: ignore[misc]
    """One shelf's table.

    `_con`   one connection for all threads (a shelf's lock is around every call): diskcache opens
             one a thread, with 32 MB of page cache each, and connections of other threads would still
             read a database that was deleted. Exclusive mode keeps SQLite from mapping a
             file that may be cut short meanwhile (SIGBUS).
    `_sql`   rows by age or by use, and a new key for a row: the public interface has neither.
    """

    def __init__(self, directory: Path) -> None:
        try:
            super().__init__(os.fspath(directory), **_SETTINGS)
            self._con.executescript(_QUEUES)
        except BaseException:
            self.close()
            raise

    @cached_property
    def _con(self) -> core.sqlite3.Connection:
        path = os.path.join(self.directory, DATABASE)
        connection = SQL.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            for pragma in _OF_A_CONNECTION:
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the connection; the next statement opens another."""
        connection = self.__dict__.pop("_con", None)
        if connection is not None:
            connection.close()

    def condemned(self, failed: bool) -> list[str]:
        """Return paths of files whose rows were deleted since the last call (`failed`: or not made)."""
        disk: _Disk = self.disk
        gone, disk.condemned = disk.condemned, []
        if failed:
            gone += disk.pending
        disk.pending = []
        return gone

    def row(self, key: str) -> Row | None:
        """Return the row of `key`, without counting a use."""
        found = self._sql(f"{_SELECT} WHERE key = ?", (key,)).fetchall()
        return Row(*found[0][:6]) if found else None

    def by_use(self, again: int) -> Iterator[Row]:
        """Yield the rows of one of the two queues, oldest use first. Rows may be deleted meanwhile."""
        return self._in_order("access_time", "access_count = ? AND", (again,))

    def by_store(self) -> Iterator[Row]:
        """Yield all rows, the longest stored first. Rows may be deleted meanwhile."""
        return self._in_order("store_time", "", ())

    def _in_order(self, column: str, condition: str, values: tuple[int, ...]) -> Iterator[Row]:
        after: tuple[float, int] = (-1.0, -1)
        query = (
            f"{_SELECT} WHERE {condition} ({column}, rowid) > (?, ?) ORDER BY {column}, rowid LIMIT {BATCH}"
        )
        while True:
            found = self._sql(query, (*values, *after)).fetchall()
            yield from (Row(*row[:6]) for row in found)
            if len(found) < BATCH:
                return
            after = (found[-1][6 if column == "access_time" else 7], found[-1][8])

    def once_bytes(self) -> int:
        """Return the cost of all rows that were not used again."""
        ((size,),) = self._sql("SELECT size FROM Once").fetchall()
        return int(size)

    def set_again(self, key: str) -> None:
        """Move a row to the queue of those used again."""
        self._sql("UPDATE Cache SET access_count = 1 WHERE key = ?", (key,))

    def use(self, key: str) -> None:
        """Set the last use of the row, if there is one, to now, by diskcache's own clock."""
        self._sql("UPDATE Cache SET access_time = ? WHERE key = ? AND raw = 1", (time.time(), key))

    def use_all(self, keys: Sequence[str]) -> None:
        when_s = time.time()
        with self.transact():
            for key in keys:
                self._sql("UPDATE Cache SET access_time = ? WHERE key = ?", (when_s, key))

    def stored_before(self, when_s: float, or_after_s: float) -> list[Row]:
        found = self._sql(f"{_SELECT} WHERE tag <= ? OR tag > ?", (when_s, or_after_s)).fetchall()
        return [Row(*row[:6]) for row in found]

    def rename(self, old: str, new: str, about: str) -> None:
        self._sql("UPDATE Cache SET key = ?, value = ? WHERE key = ?", (new, about, old))

    def weight(self) -> int:
        """Return the sum of the rows' tags, for rows whose tag is a weight."""
        ((total,),) = self._sql("SELECT coalesce(sum(tag), 0) FROM Cache WHERE tag IS NOT NULL").fetchall()
        return int(total)

    def weight_of(self, key: str) -> int:
        """Return the weight of a row; 0: there is none."""
        ((weight,),) = self._sql("SELECT COALESCE(SUM(tag), 0) FROM Cache WHERE key = ?", (key,)).fetchall()
        return int(weight)

    def lighten(self, limit: int) -> list[str]:
        """Delete rows with a weight, the longest stored first, until `limit` is met; return their keys."""
        over, gone = self.weight() - limit, []
        query = "SELECT key, tag FROM Cache WHERE tag IS NOT NULL ORDER BY store_time, rowid"
        for key, weight in self._sql(query).fetchall():
            if over <= 0:
                break
            self.delete(key)
            over -= weight
            gone.append(key)
        return gone

    def page(self, after: int) -> list[tuple[int, Row]]:
        """Return the next rows by number, each with its number: PAGE at most, those with a number above `after`."""
        found = self._sql(f"{_SELECT} WHERE rowid > ? ORDER BY rowid LIMIT {PAGE}", (after,)).fetchall()
        return [(row[7], Row(*row[:5])) for row in found]

    def names(self) -> Iterator[str]:
        for (key,) in self._sql("SELECT key FROM Cache"):
            yield key

    def counts(self) -> tuple[int, int]:
        """Return the hits and misses that `set_counts` has kept."""
        return int(self.reset("hits")), int(self.reset("misses"))

    def set_counts(self, hits: int, misses: int) -> None:
        self.reset("hits", hits)
        self.reset("misses", misses)

    def filenames(self) -> set[str]:
        """Return every file that has a row, as `folder/file`."""
        return {name for (name,) in self._sql("SELECT filename FROM Cache WHERE filename IS NOT NULL")}


_SELECT = "SELECT key, size, tag, filename, value, access_count, access_time, store_time, rowid FROM Cache"

# The two queues of eviction: rows with access_count 0, used once, and 1, used again. Their order is access_time. Triggers
# keep the cost of the first one, as diskcache's own keep that of all rows; its own for updates ran at each use, too.
_QUEUES = """
DROP TRIGGER IF EXISTS Settings_size_update;
CREATE TRIGGER Settings_size_update AFTER UPDATE OF size ON Cache BEGIN
  UPDATE Settings SET value = value + NEW.size - OLD.size WHERE key = 'size'; END;
CREATE INDEX IF NOT EXISTS Cache_queue ON Cache (access_count, access_time);
CREATE TABLE IF NOT EXISTS Once (id INTEGER PRIMARY KEY CHECK (id = 0), size INTEGER NOT NULL);
INSERT OR IGNORE INTO Once SELECT 0, coalesce(sum(size), 0) FROM Cache WHERE access_count = 0;
CREATE TRIGGER IF NOT EXISTS Once_insert AFTER INSERT ON Cache WHEN NEW.access_count = 0 BEGIN
  UPDATE Once SET size = size + NEW.size; END;
CREATE TRIGGER IF NOT EXISTS Once_delete AFTER DELETE ON Cache WHEN OLD.access_count = 0 BEGIN
  UPDATE Once SET size = size - OLD.size; END;
CREATE TRIGGER IF NOT EXISTS Once_update AFTER UPDATE OF size, access_count ON Cache BEGIN
  UPDATE Once SET size = size - OLD.size * (OLD.access_count = 0) + NEW.size * (NEW.access_count = 0); END;
"""


_SETTINGS = {
    "disk": _Disk,
    "timeout": 0,
    "eviction_policy": "least-recently-stored",  # an index by age; `use` keeps the order of use
    "cull_limit": 0,
    "statistics": 0,  # cache.py counts
    "tag_index": 1,
    "size_limit": 1 << 62,
    "sqlite_synchronous": 0,  # a power cut drops all anyway
    "sqlite_auto_vacuum": 0,  # free pages are used again; giving them back costs every delete
    "sqlite_mmap_size": 0,
    "sqlite_cache_size": -2048,
    "sqlite_journal_mode": "wal",
}


def passes(failure: Exception) -> bool:
    """True for a full or busy database, or a lack of memory or descriptors; a failed rollback's causes count."""
    error: BaseException | None = failure
    codes: set[int] = set()
    while error is not None:
        if isinstance(error, diskcache.Timeout):
            codes.add(SQL.SQLITE_BUSY)
        codes.add(getattr(error, "sqlite_errorcode", 0) & 0xFF)  # the low byte is the primary code
        error = error.__context__
    return bool(codes & PASSING)


# ------------------------------------------------------------------ names
@lru_cache(4096)  # a version that is opened again and again is named each time
def row_name(key: str, etag: str) -> str:
    """Return the name of a version's row: json.dumps([etag, key]), without the time for an encoder."""
    return f"[{_quoted(etag)}, {_quoted(key)}]"


def version_of(name: str) -> tuple[str, str]:
    """Return ETag and key of the version that a row has the name of."""
    etag, key = json.loads(name)
    return etag, key


def parts_row_name(version: Version) -> str:
    """Return the name of the row with the digests of a version's parts."""
    return json.dumps([version.etag, version.key, "parts"])


class NameFilter:
    """Bloom filter of the names that a table may have, so that most lookups without a row touch neither file nor lock.

    A false positive costs a query; an error the other way a download or HEAD. A deleted name stays in it: after
    RELOAD_AFTER added ones all names are read anew.
    """

    def __init__(self) -> None:
        # guarded by: the shelf's lock, but for reads in `lacks`
        self._bits: bytearray | None = None  # None: not loaded
        self._missed = self._added = 0

    def lacks(self, name: str) -> bool:
        """True if the table has certainly no row of `name`."""
        bits = self._bits
        if bits is None:
            return False
        first = hash(name)
        second = first >> 32
        return not (
            bits[(first & _MASK) >> 3] & 1 << (first & 7) and bits[(second & _MASK) >> 3] & 1 << (second & 7)
        )

    def add(self, name: str) -> None:
        """Enter a name, before its row is written."""
        if self._bits is None:
            return
        self._added += 1
        if self._added > RELOAD_AFTER:
            self._bits = None
        else:
            _enter(self._bits, name)

    def missed(self, names: Callable[[], Iterable[str]]) -> None:
        """Count a lookup without a row; at each LOAD_AFTERth fill an empty filter with `names`, all of the table."""
        self._missed += 1
        if self._bits is None and self._missed % LOAD_AFTER == 0:
            bits = bytearray((_MASK + 1) >> 3)
            for name in names():
                _enter(bits, name)
            self._bits, self._added = bits, 0


def _enter(bits: bytearray, name: str) -> None:
    first = hash(name)
    for number in (first, first >> 32):
        bits[(number & _MASK) >> 3] |= 1 << (number & 7)
