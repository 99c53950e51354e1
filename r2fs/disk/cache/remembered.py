"""Remembered: attributes of versions, which listings lack, and digests of their parts.

Rows of the cache's shelf of attributes, by version: the last ATTRIBUTES_MAX are kept.

Threads: every method. Locks: the shelf's.
Fails:   softly: nothing is kept, or found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from r2fs.disk.cache.shelf import Shelf
from r2fs.disk.cache.table import NameFilter, Table, parts_row_name, row_name
from r2fs.model.records import PartDigests, Version

ATTRIBUTES_MAX = 200_000  # versions remembered, about 80 MB of database
BATCH = 64  # versions in one transaction
TRIM_EVERY = 256  # remembered versions between two looks at their number


class Remembered:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        # guarded by: the shelf's lock
        self._names = NameFilter()
        self._stored = 0
        self._later: dict[str, str] = {}  # rows not written yet, by name

    def remember(self, key: str, etag: str, attributes: Mapping[str, str | int]) -> None:
        """Keep the attributes of a version that HEAD or GET returned. The last ATTRIBUTES_MAX are kept."""
        self._remember(row_name(key, etag), json.dumps(dict(attributes)))

    def remember_later(self, key: str, etag: str, attributes: Mapping[str, str | int]) -> None:
        """Keep them within a minute, many rows together: a row that a kill loses costs a HEAD."""
        with self._shelf.lock:
            self._later[row_name(key, etag)] = json.dumps(dict(attributes))
            full = len(self._later) >= BATCH
        if full:
            self.flush()

    def flush(self) -> None:
        """Write the rows of `remember_later`."""
        with self._shelf.lock:
            rows, self._later = self._later, {}

            def store(table: Table) -> None:
                with table.transact():
                    for name, about in rows.items():
                        self._store(table, name, about)

            if rows:
                self._shelf.run(store, None)

    def remember_parts(self, version: Version, parts: PartDigests) -> None:
        """Keep the digests of a version's parts: equal parts of a later version are not sent again."""
        self._remember(parts_row_name(version), json.dumps([parts.part_size, *parts.digests]))

    def recall_parts(self, version: Version) -> PartDigests | None:
        parts = self._recall(parts_row_name(version))
        return None if parts is None else PartDigests(parts[0], tuple(parts[1:]))

    def recall(self, key: str, etag: str) -> dict[str, str | int] | None:
        return self._recall(row_name(key, etag))  # type: ignore[no-any-return]

    def _recall(self, name: str) -> Any:
        if (about := self._later.get(name)) is not None:
            return json.loads(about)
        if self._names.lacks(name):  # as most names of a large directory
            return None

        def load(table: Table) -> Any:
            row = table.row(name)
            if row is None:
                self._names.missed(table.names)
            return None if row is None else json.loads(row.about)

        return self._shelf.run(load, None)

    def _remember(self, name: str, about: str) -> None:
        def store(table: Table) -> None:
            self._later.pop(name, None)
            self._store(table, name, about)

        self._shelf.run(store, None)

    def _store(self, table: Table, name: str, about: str) -> None:
        self._names.add(name)
        table.set(name, about)
        self._stored += 1
        if self._stored % TRIM_EVERY == 0:
            _trim(table)


def _trim(table: Table) -> None:
    excess = len(table) - ATTRIBUTES_MAX
    if excess > 0:
        with table.transact():
            for row in islice(table.by_store(), excess):
                table.delete(row.key)
