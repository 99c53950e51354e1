"""Record of a mirror: what was last in step, name by name, in SQLite.

Owns:    `mirror.db` in the mirror's state directory, its lock and its schema.
Never:   holds bytes of a file: without the record all are compared by their content, and nothing is lost.
Threads: every method.
Locks:   self._lock, a leaf, held for one statement.
Fails:   StateLocked, DirectoryUnusable and StateDamaged at open; LocalError and NoSpace later. A damaged database is
         set aside, and the record begins anew.

A commit survives kill -9 at once; after a power cut the last commits may be missing, never a part of one.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from r2fs.disk.durable import quarantine
from r2fs.disk.journal.state_directory import lock_state
from r2fs.disk.plain_tree import Local
from r2fs.model import owned_paths
from r2fs.model.errors import DirectoryUnusable, LocalError, NoSpace, StateDamaged
from r2fs.model.values import dataclass, replace

log = logging.getLogger(__name__)

VERSION = 1
NAME = "mirror.db"
SCHEMA = """
-- Facts: 'schema': VERSION; 'tree': id of the directory that the rows are of.
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
"""


@dataclass(frozen=True, slots=True)
class InStep:
    """File and object of a name as they were in step; see the schema."""

    local: Local | None = None
    etag: str | None = None
    attempt: str | None = None


@dataclass(frozen=True, slots=True)
class Leaving:
    own: str
    path: str
    ino: int


class MirrorRecord:
    def __init__(self, state_dir: Path) -> None:
        # constant
        self._path = state_dir / NAME
        try:
            owned_paths.make_directory(state_dir)
            owned_paths.check_files(state_dir, NAME, f"{NAME}-wal", "lock")
            self._lock_fd = lock_state(state_dir)
        except OSError as error:
            raise DirectoryUnusable(
                f"the state directory {state_dir} cannot be used ({error.strerror}): "
                "make it writable, or choose another by --state-dir"
            ) from error
        # guarded by: _lock
        self._lock = threading.Lock()
        try:
            self._db = self._open()
        except BaseException:
            os.close(self._lock_fd)
            raise

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self._path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise DirectoryUnusable(f"{self._path}: {error}") from error
            aside = quarantine(self._path)
            with suppress(FileNotFoundError):
                os.rename(f"{self._path}-wal", f"{aside}-wal")
            log.warning(
                "%s is damaged (%s): set aside as %s; all files are compared", self._path, error, aside.name
            )
        try:
            return _connect(self._path)
        except sqlite3.Error as error:
            raise DirectoryUnusable(f"{self._path}: {error}") from error

    def close(self) -> None:
        with self._lock:
            self._db.close()
            os.close(self._lock_fd)

    # ------------------------------------------------------------------ the tree
    def tree_id(self) -> str | None:
        found = self._ask("SELECT value FROM fact WHERE name = 'tree'")
        return str(found[0][0]) if found else None

    def begin(self, tree_id: str) -> None:
        """Begin anew, for the tree of this id: every row goes."""
        with self._lock:
            self._run("BEGIN IMMEDIATE")
            self._run("DELETE FROM file")
            self._run("INSERT OR REPLACE INTO fact VALUES ('tree', ?)", tree_id)
            self._run("COMMIT")

    # ------------------------------------------------------------------ names
    def all(self) -> dict[str, InStep]:
        rows = self._ask("SELECT name, etag, size, mtime_ns, ctime_ns, ino, attempt FROM file")
        return {row[0]: _in_step(row[1:]) for row in rows}

    def below(self, directory: str) -> list[str]:
        """The names below `directory`."""
        rows = self._ask(
            "SELECT name FROM file WHERE name >= ? AND name < ?", f"{directory}/", f"{directory}0"
        )
        return [row[0] for row in rows]

    def conflicts(self) -> list[str]:
        """The names of files that look like those of conflict copies."""
        return [
            row[0]
            for row in self._ask(
                "SELECT name FROM file WHERE name LIKE '%(conflict of %' AND ino IS NOT NULL ORDER BY name"
            )
        ]

    def in_step(self) -> tuple[int, int]:
        """Number and bytes of the files whose objects are in step."""
        count, size = self._ask(
            "SELECT count(*), coalesce(sum(size), 0) FROM file WHERE ino IS NOT NULL AND etag IS NOT NULL"
        )[0]
        return int(count), int(size)

    def get(self, name: str) -> InStep:
        rows = self._ask("SELECT etag, size, mtime_ns, ctime_ns, ino, attempt FROM file WHERE name = ?", name)
        return _in_step(rows[0]) if rows else InStep()

    def put(self, name: str, step: InStep) -> None:
        if step == InStep():
            self._change("DELETE FROM file WHERE name = ?", name)
            return
        local = step.local or (None,) * 4
        self._change(
            "INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?, ?)", name, step.etag, *local, step.attempt
        )

    def begin_attempt(self, name: str, attempt: str) -> None:
        self.put(name, replace(self.get(name), attempt=attempt))

    # ------------------------------------------------------------------ uploads and files on their way
    def multiparts(self) -> list[tuple[str, str]]:
        """Key and upload id of each multipart upload that was not completed."""
        return [(row[0], row[1]) for row in self._ask("SELECT key, upload_id FROM multipart")]

    def add_multipart(self, key: str, upload_id: str) -> None:
        self._change("INSERT OR REPLACE INTO multipart VALUES (?, ?)", upload_id, key)

    def drop_multipart(self, upload_id: str) -> None:
        self._change("DELETE FROM multipart WHERE upload_id = ?", upload_id)

    def leaving(self) -> list[Leaving]:
        rows = self._ask("SELECT own, path, ino FROM leaving")
        return [Leaving(row[0], os.fsdecode(bytes.fromhex(row[1])), row[2]) for row in rows]

    def add_leaving(self, own: str, path: str, ino: int) -> None:
        self._change("INSERT OR REPLACE INTO leaving VALUES (?, ?, ?)", own, os.fsencode(path).hex(), ino)

    def drop_leaving(self, own: str) -> None:
        self._change("DELETE FROM leaving WHERE own = ?", own)

    # ------------------------------------------------------------------ SQLite
    def _ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._as_ours(error) from error

    def _change(self, sql: str, *values: object) -> None:
        with self._lock:
            self._run(sql, *values)

    def _run(self, sql: str, *values: object) -> None:
        try:
            self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise self._as_ours(error) from error

    def _as_ours(self, error: sqlite3.Error) -> LocalError | NoSpace:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            return NoSpace(f"the disk of {self._path.parent} is full")
        return LocalError(f"{self._path} cannot be used: {error}")


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(SCHEMA)
        found = db.execute("SELECT value FROM fact WHERE name = 'schema'").fetchone()
        if found is not None and found[0] != str(VERSION):
            raise StateDamaged(
                f"{path} was written by another version of r2fs: choose another place by --state-dir"
            )
        db.execute("INSERT OR REPLACE INTO fact VALUES ('schema', ?)", (str(VERSION),))
    except BaseException:
        db.close()
        raise
    return db


def _in_step(row: tuple[Any, ...]) -> InStep:
    etag, size, mtime_ns, ctime_ns, ino, attempt = row
    local = None if size is None else Local(size, mtime_ns, ctime_ns, ino)
    return InStep(local, etag, attempt)
