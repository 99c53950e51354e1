"""Results of a migration: a CSV of confirmed copies, appended to as they are confirmed, read again to go on.

Owns:    the file's form: the map's columns, then size and ETags. A line is on the disk before an old key is deleted.
Threads: add() from any.
Locks:   self._lock, a leaf, held while a line is written.
Fails:   DirectoryUnusable where the file cannot be written, BadMap where it is of another map.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Self

from r2fs.bulk.plan import HEADS, BadMap, Row
from r2fs.disk.filecalls import fsync_dir
from r2fs.model.errors import DirectoryUnusable

OWN_HEADS = ("size", "etag", "old_etag")


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A copy that a HEAD has shown."""

    size: int
    etag: str
    old_etag: str  # of the source that was copied


class Results:
    def __init__(self, path: Path, extra_heads: Sequence[str] = ()) -> None:
        # constant
        self._path = path
        self._heads = [*HEADS, *extra_heads, *OWN_HEADS]
        # guarded by: _lock
        self._lock = Lock()
        self.confirmed: dict[tuple[str, str], Confirmed] = {}  # by old and new key
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            fsync_dir(path.parent)  # an old key is deleted by a line: its file must outlast a power cut
            self._read()
        except OSError as error:
            raise self._unwritable(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def _read(self) -> None:
        """Read the lines of an earlier run. A last line that a kill cut short is removed."""
        data = b""
        while piece := os.pread(self._fd, 1 << 20, len(data)):
            data += piece
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.ftruncate(self._fd, len(whole))
        if not whole:
            self._append([self._heads])
            return
        try:
            heads, *lines = csv.reader(io.StringIO(whole.decode(), newline=""), strict=True)
        except (csv.Error, UnicodeDecodeError, ValueError):
            heads, lines = [], []
        if heads != self._heads or any(len(line) != len(heads) for line in lines):
            raise BadMap(f"{self._path} is not the results file of this map: name another by --results")
        for line in lines:
            size, etag, old_etag = line[-3:]
            self.confirmed[line[0], line[1]] = Confirmed(int(size) if size.isdigit() else 0, etag, old_etag)

    def add(self, rows: Sequence[Row], found: Confirmed) -> None:
        """Record the copy of `rows`, which have one old and one new key, and wait for the disk."""
        own = [str(found.size), found.etag, found.old_etag]
        with self._lock:
            self._append([[row.old, row.new, *row.extra, *own] for row in rows])
            for row in rows:
                self.confirmed[row.old, row.new] = found

    def _append(self, lines: Sequence[Sequence[str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(lines)
        data = text.getvalue().encode(errors="surrogateescape")
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            os.fdatasync(self._fd)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> DirectoryUnusable:
        return DirectoryUnusable(f"{self._path}: the results cannot be written: {error.strerror}")
