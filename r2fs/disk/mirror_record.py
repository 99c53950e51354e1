"""Record of a mirror: file and object of each name as they were last in step, in SQLite.

Never:   holds bytes of a file: without the record all are compared by their content, and nothing is lost.
Threads: every method.
Fails:   StateLocked, DirectoryUnusable and StateDamaged at open; the errors of database.py. A damaged database is
         set aside, and the record begins anew.

A commit survives kill -9 at once; after a power cut the last commits may be missing, never a part of one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from r2fs.disk.database import Database
from r2fs.disk.database_file import Schema, set_aside
from r2fs.disk.journal.state_directory import take_lock, usable
from r2fs.disk.plain_tree import Local

NAME = "mirror.db"
SCHEMA = Schema(
    "record",
    1,
    """
-- Facts: 'schema': its version; 'tree': id of the directory that the rows are of.
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- A name of which file and object were in step. Written after both are durable.
CREATE TABLE IF NOT EXISTS file (
    name     TEXT PRIMARY KEY,  -- path below the directory, in NFC; the key below the prefix
    etag     TEXT,              -- of the object; NULL: none, or it was removed in the bucket and the file was kept
    size     INTEGER,           -- fstat of the file, all four; NULL: none, or it was removed here and the object kept
    mtime_ns INTEGER,
    ctime_ns INTEGER,
    ino      INTEGER,
    attempt  TEXT               -- id, in the object's metadata, of uploads since; NULL: none whose end is unknown
) WITHOUT ROWID;

-- A multipart upload that is not completed: to be aborted by the next mirror.
CREATE TABLE IF NOT EXISTS multipart (upload_id TEXT PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID;

-- A file that is leaving the tree by the name `own`, of a replaced or a removed file.
CREATE TABLE IF NOT EXISTS leaving (
    own  TEXT PRIMARY KEY,      -- name in the tree's own directory
    path TEXT NOT NULL,         -- path in the tree, as bytes in hex: it may be no UTF-8
    ino  INTEGER NOT NULL       -- of the file that takes its place; 0: none. A file of this inode is no program's
) WITHOUT ROWID;
""",
    set_aside,
)


@dataclass(frozen=True, slots=True)
class InStep:
    """File and object of a name as they were in step; see the schema."""

    local: Local | None = None
    etag: str | None = None
    attempt: str | None = None


class Leaving(NamedTuple):
    own: str
    path: str
    ino: int


class MirrorRecord:
    def __init__(self, state_dir: Path) -> None:
        # constant
        with usable(state_dir):
            self._lock_fd = take_lock(state_dir, NAME, f"{NAME}-wal", "lock")
            try:
                self._database = Database(state_dir / NAME, SCHEMA, self._lock_fd)
            except BaseException:
                os.close(self._lock_fd)
                raise
        self._ask, self._run = self._database.query, self._database.run

    def close(self) -> None:
        self._database.close()
        os.close(self._lock_fd)

    # ------------------------------------------------------------------ the tree
    def tree_id(self) -> str | None:
        found = self._ask("SELECT value FROM fact WHERE name = 'tree'")
        return str(found[0][0]) if found else None

    def begin(self, tree_id: str) -> None:
        """Begin anew, for the tree of this id: every row goes."""
        with self._database:
            self._run("DELETE FROM file")
            self._run("INSERT OR REPLACE INTO fact VALUES ('tree', ?)", (tree_id,))

    # ------------------------------------------------------------------ names
    def all(self) -> dict[str, InStep]:
        rows = self._ask("SELECT name, etag, size, mtime_ns, ctime_ns, ino, attempt FROM file")
        return {row[0]: _in_step(row[1:]) for row in rows}

    def below(self, directory: str) -> list[str]:
        rows = self._ask(
            "SELECT name FROM file WHERE name >= ? AND name < ?", (f"{directory}/", f"{directory}0")
        )
        return [row[0] for row in rows]

    def conflicts(self) -> list[str]:
        """The names of files that look like those of conflict copies."""
        rows = self._ask(
            "SELECT name FROM file WHERE name LIKE '%(conflict of %' AND ino IS NOT NULL ORDER BY name"
        )
        return [row[0] for row in rows]

    def in_step(self) -> tuple[int, int]:
        """Number and bytes of the files whose objects are in step."""
        count, size = self._ask(
            "SELECT count(*), coalesce(sum(size), 0) FROM file WHERE ino IS NOT NULL AND etag IS NOT NULL"
        )[0]
        return int(count), int(size)

    def get(self, name: str) -> InStep:
        rows = self._ask(
            "SELECT etag, size, mtime_ns, ctime_ns, ino, attempt FROM file WHERE name = ?", (name,)
        )
        return _in_step(rows[0]) if rows else InStep()

    def put(self, name: str, step: InStep) -> None:
        if step == InStep():
            self._run("DELETE FROM file WHERE name = ?", (name,))
            return
        local = step.local or (None,) * 4
        self._run(
            "INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?, ?)",
            (name, step.etag, *local, step.attempt),
        )

    def begin_attempt(self, name: str, attempt: str) -> None:
        self.put(name, replace(self.get(name), attempt=attempt))

    # ------------------------------------------------------------------ uploads and files on their way
    def multiparts(self) -> list[tuple[str, str]]:
        """Key and upload id of each multipart upload that was not completed."""
        return [(row[0], row[1]) for row in self._ask("SELECT key, upload_id FROM multipart")]

    def add_multipart(self, key: str, upload_id: str) -> None:
        self._run("INSERT OR REPLACE INTO multipart VALUES (?, ?)", (upload_id, key))

    def drop_multipart(self, upload_id: str) -> None:
        self._run("DELETE FROM multipart WHERE upload_id = ?", (upload_id,))

    def leaving(self) -> list[Leaving]:
        rows = self._ask("SELECT own, path, ino FROM leaving")
        return [Leaving(row[0], os.fsdecode(bytes.fromhex(row[1])), row[2]) for row in rows]

    def add_leaving(self, own: str, path: str, ino: int) -> None:
        self._run("INSERT OR REPLACE INTO leaving VALUES (?, ?, ?)", (own, os.fsencode(path).hex(), ino))

    def drop_leaving(self, own: str) -> None:
        self._run("DELETE FROM leaving WHERE own = ?", (own,))


def _in_step(row: tuple[Any, ...]) -> InStep:
    etag, size, mtime_ns, ctime_ns, ino, attempt = row
    local = None if size is None else Local(size, mtime_ns, ctime_ns, ino)
    return InStep(local, etag, attempt)
