"""Audit: a walk through the entries of the clean cache, and the removal of those found damaged.

Never:   counts a hit or a use; removes a name outside the cache's directory.
Threads: every public method.
Locks:   the shelf's, for a page of rows; none while a file is read.
Fails:   softly: a lost or damaged database has no entries.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from r2fs.disk.cache.shelf import Shelf
from r2fs.disk.cache.table import Row, Table
from r2fs.model.records import Version


@dataclass(frozen=True, slots=True)
class Entry:
    version: Version
    whole: bool  # all bytes are in the file
    row: Row


class Audit:
    def __init__(self, content: Shelf) -> None:
        self._content = content

    def entries(self) -> Iterator[Entry]:
        """Yield the entries that are in the cache at the time of their page."""
        after = 0
        while True:
            none: list[tuple[int, Row]] = []
            start = after
            page = self._content.run(lambda table: table.page(start), none)  # noqa: B023  # called at once
            if not page:
                return
            for _, row in page:
                entry = _entry(row)
                if entry is not None:
                    yield entry
            after = page[-1][0]

    def open(self, entry: Entry) -> int | None:
        """Return a descriptor of the entry's file, the caller's to close; None: the file is gone."""
        path = self._content.directory / (entry.row.filename or "")
        with suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return None

    def drop(self, entry: Entry) -> bool:
        """Remove a damaged entry. False: another file has taken its place, or a writer has taken the file.

        An entry is removed before the first write to its file by a program, so that a file compared while its entry
        lasts was not being written.
        """

        def remove(table: Table) -> bool:
            now = table.row(entry.row.key)
            return now is not None and now.filename == entry.row.filename and bool(table.delete(now.key))

        return self._content.run(remove, False)


def _entry(row: Row) -> Entry | None:
    """The entry of a row; None for a row without a file."""
    if row.filename is None:
        return None
    etag, key = json.loads(row.key)
    size, ranges, _ = json.loads(row.about)
    return Entry(Version(key, etag, size), ranges is None, row)
