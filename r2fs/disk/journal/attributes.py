"""The journal's table of attributes: metadata, missing in listings, of objects that this host stored.

Beyond ATTRIBUTES_MAX rows those stored longest ago are deleted.

Never:   opens a transaction of its own around several calls: the caller's makes a row durable together
         with the end of its upload.
Threads: every method, by the journal's lock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any, Final

from r2fs.disk.database import Database, name_of, text_or_bytes
from r2fs.model.keys import nfc
from r2fs.model.records import KeptAttributes

ATTRIBUTES_MAX: Final = 500_000  # rows, of some 300 bytes with their index: 150 MB, which each start checks
AT_ONCE: Final = 1000  # rows of a query
DIRECTORIES: Final = 10_000  # of which it is known whether they have rows; then it is found out anew
TRIM_EVERY: Final = 4096  # rows written between two looks at their number

_COLUMNS: Final = (
    "parent, name, etag, size, st_ino, metadata, ctime_ns, shown_ns, target, modified_ns, stored_s"
)
_VALUES: Final = _COLUMNS.split(", ")[2:]
_LAST: Final = "seq = (SELECT max(seq) + 1 FROM attributes), "  # a row that is stored anew is the youngest
_PUT: Final = (
    f"INSERT INTO attributes ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (parent, name) DO UPDATE SET "
    + _LAST
    + ", ".join(f"{column} = excluded.{column}" for column in _VALUES)
)
# The times and the number of a directory alone: other fields stay.
_PUT_SHOWN: Final = (
    "INSERT INTO attributes (parent, name, etag, size, st_ino, metadata, ctime_ns, shown_ns, stored_s)"
    " VALUES (?, ?, '', 0, ?, '{}', ?, ?, 0) ON CONFLICT (parent, name) DO UPDATE SET "
    f"{_LAST}st_ino = excluded.st_ino, ctime_ns = excluded.ctime_ns, shown_ns = excluded.shown_ns"
)
_GET: Final = f"SELECT {_COLUMNS} FROM attributes WHERE parent = ?"
_ANY: Final = "SELECT 1 FROM attributes WHERE parent = ?"
_AT: Final = "WHERE parent = ? AND name = ?"
_OF_THEN: Final = "AND etag = ? AND stored_s <= ?"


class BareDirectories:
    """Directories in which the table has no row: a program that looks up thousands of other hosts' names costs one query."""

    def __init__(self) -> None:
        self._lock = Lock()
        # guarded by: _lock, but for reads in `__contains__`
        self._bare: dict[str, bool] = {}  # False: one that has rows
        self._puts = 0

    def __contains__(self, parent: str) -> bool:
        return self._bare.get(parent, False)

    def missed(self, parent: str, is_bare: Callable[[], bool]) -> None:
        """Count a lookup without a row; find out whether the directory has any."""
        with self._lock:
            if parent in self._bare:
                return
            before = self._puts
        bare = is_bare()
        with self._lock:
            if before == self._puts:  # else a row may have come after the look
                if len(self._bare) >= DIRECTORIES:
                    self._bare.clear()
                self._bare[parent] = bare

    def put(self, parent: str) -> None:
        """Note a row that was written."""
        with self._lock:
            self._puts += 1
            self._bare.pop(parent, None)


class AttributeRows:
    def __init__(self, database: Database, limit: int = ATTRIBUTES_MAX) -> None:
        self._database = database
        self._run = database.run
        self._query = database.query
        self._limit = limit
        self._written = 0  # rows since the last look at their number; guarded by: the journal's lock
        self._bare = BareDirectories()

    # ------------------------------------------------------------------ reading
    def get(self, key: str) -> KeptAttributes | None:
        parent, name = _split(key)
        if parent in self._bare:
            return None
        found = self._query(f"{_GET} AND name = ?", (parent, name))
        if not found:
            self._bare.missed(parent, lambda: not self._query(f"{_ANY} LIMIT 1", (parent,)))
        return _row(found[0]) if found else None

    def in_directory(self, key: str) -> Iterator[list[KeptAttributes]]:
        """Yield the rows of names directly in directory `key` (ends with `/`; empty: the whole bucket's root), in
        the order of names, AT_ONCE at a time."""
        name = ""
        while values := self._query(f"{_GET} AND name > ? ORDER BY name LIMIT {AT_ONCE}", (nfc(key), name)):
            yield [_row(row) for row in values]
            name = values[-1][1]

    def begun_ns(self, now_ns: int) -> int:
        """Return when this state directory was first used; keep `now_ns` if that is now."""
        self._run("INSERT OR IGNORE INTO fact VALUES ('begun_ns', ?)", (str(now_ns),))
        ((begun_ns,),) = self._query("SELECT value FROM fact WHERE name = 'begun_ns'", ())
        return int(begun_ns)

    # ------------------------------------------------------------------ writing
    def put(self, row: KeptAttributes) -> None:
        """Keep the row, in place of an earlier row of its key."""
        parent, name = _split(row.key)
        self._run(
            _PUT,
            (
                parent, name, row.etag, row.size, row.st_ino, json.dumps(dict(row.metadata)), row.ctime_ns,
                row.shown_ns, row.target and text_or_bytes(row.target),
                row.modified_ns, row.stored_s,
            ),
        )  # fmt: skip
        self._bare.put(parent)
        self._written += 1
        if self._written >= TRIM_EVERY:
            self._trim()

    def put_shown(self, key: str, st_ino: int, mtime_ns: int, ctime_ns: int) -> None:
        """Keep the number and times that a directory shows, with or without an object."""
        parent, name = _split(key)
        self._run(_PUT_SHOWN, (parent, name, st_ino, ctime_ns, mtime_ns))
        self._bare.put(parent)
        self._written += 1
        if self._written >= TRIM_EVERY:
            self._trim()

    # Findings are written late: never over a row that was stored since (`as_of_s`: Clock.time()),
    # which may be of the same version with new metadata.
    def confirm(self, key: str, etag: str, modified_ns: int, as_of_s: float) -> None:
        """Keep the LastModified of that version, which a listing returned."""
        self._run(
            f"UPDATE attributes SET modified_ns = ? {_AT} {_OF_THEN}",
            (modified_ns, *_split(key), etag, as_of_s),
        )

    def correct(
        self, key: str, etag: str, metadata: dict[str, str | int], modified_ns: int, as_of_s: float
    ) -> None:
        """Keep other metadata of that version: another host has changed the bucket's."""
        self._run(
            f"UPDATE attributes SET metadata = ?, modified_ns = ? {_AT} {_OF_THEN}",
            (json.dumps(metadata), modified_ns, *_split(key), etag, as_of_s),
        )

    def missed(self, key: str, etag: str, as_of_s: float) -> None:
        """Delete the row of a version that is no longer in the bucket."""
        self._run(f"DELETE FROM attributes {_AT} {_OF_THEN}", (*_split(key), etag, as_of_s))

    def forget(self, key: str, etag: str | None = None) -> None:
        """Delete the row of a deleted object, if it is of version `etag` where that is given."""
        which, more = ("", ()) if etag is None else (" AND etag = ?", (etag,))
        self._run(f"DELETE FROM attributes {_AT}{which}", (*_split(key), *more))

    def forget_number(self, key: str, st_ino: int) -> None:
        """Delete the row of the inode that was renamed away from the key."""
        self._run(f"DELETE FROM attributes {_AT} AND st_ino = ?", (*_split(key), st_ino))

    def put_all(self, writes: Iterable[Callable[[AttributeRows], None]]) -> None:
        with self._database:
            for write in writes:
                write(self)

    def _trim(self) -> None:
        self._written = 0
        # The highest less the lowest is never below their number, and costs nothing to look up.
        ((lowest, highest),) = self._query("SELECT min(seq), max(seq) FROM attributes", ())
        if highest - lowest < self._limit:
            return
        ((count,),) = self._query("SELECT count(*) FROM attributes", ())
        if count > self._limit:
            oldest = "SELECT seq FROM attributes ORDER BY seq LIMIT ?"
            self._run(f"DELETE FROM attributes WHERE seq IN ({oldest})", (count - self._limit,))


def _split(key: str) -> tuple[str, str]:
    """Split a key in NFC, as R2 compares keys: `a/b/` → (`a/`, `b/`), `a/b` → (`a/`, `b`)."""
    key = nfc(key)
    at = key.rstrip("/").rfind("/") + 1
    return key[:at], key[at:]


def _row(values: tuple[Any, ...]) -> KeptAttributes:
    parent, name, etag, size, st_ino, metadata, ctime_ns, shown_ns, target, modified_ns, stored_s = values
    return KeptAttributes(
        parent + name, etag, size, st_ino, json.loads(metadata), ctime_ns, shown_ns, name_of(target),
        modified_ns, stored_s,
    )  # fmt: skip
