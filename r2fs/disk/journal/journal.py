"""Journal: the changes that the bucket lacks, in SQLite, written before a program is answered.

`read` and the methods of rows make values of `journal.db`'s rows; schema.py describes every column.

Never:   decides an order of requests; touches the bucket; deletes staged bytes.
Threads: every method.
Locks:   the database's.
Fails:   StateLocked, DirectoryUnusable at open; the errors of database.py.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from r2fs.disk.database import Database, name_of, text_or_bytes
from r2fs.disk.database_file import Schema
from r2fs.disk.filecalls import fsync_dir
from r2fs.disk.journal import salvage
from r2fs.disk.journal.attributes import AttributeRows
from r2fs.disk.journal.schema import SCHEMA, VERSION
from r2fs.disk.journal.state_directory import StateDirectory
from r2fs.disk.staging import Staging
from r2fs.model.ports import CrashPoint, no_crash
from r2fs.model.records import (
    Attempt,
    Kind,
    MultipartState,
    Part,
    PendingDelete,
    PendingInode,
    Pin,
    Proof,
    Version,
)
from r2fs.model.views import AsideView, OrphanView

GARBAGE_AT_ONCE = 500  # below the number of values that any SQLite takes in a statement

_INODE_COLUMNS = (
    "ino", "key", "kind", "state", "before", "seq", "mode", "uid", "gid", "mtime_ns", "extra", "content_type",
    "base_key", "base_etag", "base_size", "expected_etag", "changed", "staged", "size", "own", "base_limit", "proof",
    "closed_at_s", "boot", "synced", "reason", "conflict_of", "target", "st_ino", "stored",
)  # fmt: skip
_PUT_INODE = f"INSERT OR REPLACE INTO inode ({','.join(_INODE_COLUMNS)}) VALUES ({','.join('?' * len(_INODE_COLUMNS))})"
_GET_INODES = f"SELECT {','.join(_INODE_COLUMNS)} FROM inode ORDER BY seq"


@dataclass(frozen=True, slots=True)
class JournalRows:
    """Rows of work, read at start."""

    inodes: tuple[PendingInode, ...]
    deletes: tuple[PendingDelete, ...]
    attempts: tuple[Attempt, ...]
    staging_gc: tuple[str, ...]  # names of staged files


class Journal:
    def __init__(self, directory: StateDirectory, database: Database) -> None:
        # constant
        self._directory = directory
        self._database = database
        self._abandoned = False  # False → True only
        self.state_dir = directory.path
        self.staging = directory.staging
        self.reserve = directory.reserve
        self.transaction: AbstractContextManager[None] = database  # `with`: several rows together; nests
        self.on_rollback, self.on_commit = database.on_rollback, database.on_commit
        self.barrier = database.barrier
        self.attributes = AttributeRows(database)
        self.pins = PinRows(database)
        self.epoch = self._next_epoch()
        # guarded by: the database's lock
        self._seq = self._highest_seq()
        # Inodes that may have a multipart upload: of small files none is looked for, or deleted.
        found = database.query("SELECT ino FROM multipart UNION SELECT ino FROM part")
        self._in_parts = {ino for (ino,) in found}

    # ------------------------------------------------------------------ open and close
    @classmethod
    def open(
        cls,
        state_dir: Path,
        staging_dir: Path | None = None,
        crash_point: CrashPoint = no_crash,
    ) -> Self:
        """Take the state directory's lock, and read or make the journal.

        Raises StateLocked (another daemon), DirectoryUnusable, StateDamaged.
        """
        directory = StateDirectory.take(state_dir, Staging(staging_dir or state_dir / "staging"))
        try:
            path = state_dir / "journal.db"
            salvage.keep_lonely_log(path)
            schema = Schema("journal", VERSION, SCHEMA, salvage.set_aside)
            database = Database(path, schema, directory.lock_fd, directory.reserve, crash_point)
            journal = cls(directory, database)
            # The epoch must not be given twice, nor may a directory be missing above synced files.
            journal.barrier()
            for path in (state_dir.parent, state_dir, directory.staging.directory):
                fsync_dir(path)
            directory.reserve.hold()
            return journal
        except BaseException:
            directory.release()
            raise

    def abandon(self) -> None:
        """Note that the mount failed: close() removes a journal that this start made and that is void."""
        self._abandoned = True

    def close(self) -> None:
        """Checkpoint, close, and give the lock back. Idempotent."""
        with self._database.lock:
            if self._directory.lock_fd < 0:
                return
            void = (
                self._abandoned and self._directory.is_new and self._directory.is_void(self._database.query)
            )
            self._database.close()
            if void:
                self._directory.remove()
            self._directory.release()

    @property
    def error(self) -> str | None:
        """The error of the last commit; None after a success."""
        return self._database.error

    @property
    def last_seq(self) -> int:
        """The highest seq given so far; at the start: of the rows."""
        return self._seq

    def next_seq(self) -> int:
        with self._database.lock:
            self._seq += 1
            return self._seq

    # ------------------------------------------------------------------ rows
    def put_inode(self, row: PendingInode) -> None:
        self._database.run(_PUT_INODE, _inode_values(row))

    def drop_inode(self, ino: int) -> None:
        """Delete the row, and those of a multipart upload. In a transaction."""
        self._database.run("DELETE FROM inode WHERE ino = ?", (ino,))
        if ino in self._in_parts:
            self.drop_multipart(ino)

    def put_delete(self, row: PendingDelete) -> None:
        self._database.run("INSERT OR REPLACE INTO pending_delete VALUES (?, ?, ?, ?, ?)", row)

    def drop_delete(self, seq: int) -> None:
        self._database.run("DELETE FROM pending_delete WHERE seq = ?", (seq,))

    def put_staging_garbage(self, staged: str) -> None:
        self._database.run("INSERT OR REPLACE INTO staging_garbage VALUES (?)", (staged,))

    def drop_staging_garbage(self, staged: Collection[str]) -> None:
        """Delete the rows of files that were removed: one statement for GARBAGE_AT_ONCE of them."""
        names = tuple(staged)
        with self.transaction:
            for start in range(0, len(names), GARBAGE_AT_ONCE):
                some = names[start : start + GARBAGE_AT_ONCE]
                marks = ",".join("?" * len(some))
                self._database.run(f"DELETE FROM staging_garbage WHERE staged IN ({marks})", some)

    def put_attempt(self, attempt: Attempt) -> None:
        self._database.run("INSERT OR REPLACE INTO attempt VALUES (?, ?, ?, ?, ?)", attempt)

    def drop_attempt(self, attempt_id: str) -> None:
        self._database.run("DELETE FROM attempt WHERE id = ?", (attempt_id,))

    def put_multipart(self, state: MultipartState) -> None:
        """Keep a new upload; delete an earlier upload of the same inode, with its parts."""
        with self.transaction:
            self.drop_multipart(state.ino)
            self._in_parts.add(state.ino)
            self._database.run(
                "INSERT INTO multipart VALUES (?, ?, ?, ?, ?, ?)",
                (
                    state.ino, state.upload_id, state.key, state.attempt, state.part_size,
                    _proof_text(state.proof),
                ),
            )  # fmt: skip

    def put_part(self, ino: int, part: Part) -> None:
        self._in_parts.add(ino)
        self._database.run(
            "INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?)", (ino, part.number, part.etag, part.size)
        )

    def outdate_multipart(self, ino: int) -> None:
        """Mark an upload with metadata that are no longer the file's: no attempt resumes this upload."""
        if ino in self._in_parts:
            self._database.run("UPDATE multipart SET attempt = '' WHERE ino = ?", (ino,))

    def drop_multipart(self, ino: int) -> None:
        if ino not in self._in_parts:
            return
        with self.transaction:
            self.on_rollback(lambda: self._in_parts.add(ino))
            self._in_parts.discard(ino)
            for table in ("multipart", "part"):
                self._database.run(f"DELETE FROM {table} WHERE ino = ?", (ino,))

    def multipart(self, ino: int) -> MultipartState | None:
        if ino not in self._in_parts:
            return None
        query = self._database.query
        with self._database.lock:
            found = query(
                "SELECT upload_id, key, attempt, part_size, proof FROM multipart WHERE ino = ?", (ino,)
            )
            parts = query("SELECT number, etag, size FROM part WHERE ino = ? ORDER BY number", (ino,))
        if not found:
            return None
        upload_id, key, attempt, part_size, proof = found[0]
        return MultipartState(
            upload_id, ino, key, attempt, part_size, Proof(*json.loads(proof)), tuple(Part(*p) for p in parts)
        )

    def read(self) -> JournalRows:
        query = self._database.query
        with self._database.lock:
            return JournalRows(
                inodes=tuple(_inode_row(values) for values in query(_GET_INODES)),
                deletes=tuple(
                    PendingDelete(*values) for values in query("SELECT * FROM pending_delete ORDER BY seq")
                ),
                attempts=tuple(
                    Attempt(*row)._replace(unknown=bool(row[4])) for row in query("SELECT * FROM attempt")
                ),
                staging_gc=tuple(staged for (staged,) in query("SELECT staged FROM staging_garbage")),
            )

    def aside(self) -> AsideView:
        """Return the files and journals that were set aside and still exist, for a person to look at."""
        known, orphans, journals = salvage.names(self.state_dir), [], []
        with suppress(OSError):  # `error` reports a disk that fails
            journals = salvage.set_aside_before(self.state_dir)
            for path, found in self.staging.orphans():
                key = known.get(path.name)
                orphans.append(OrphanView(str(path), found.st_size, found.st_mtime_ns, key))
        return AsideView(tuple(journals), tuple(orphans))

    def _next_epoch(self) -> int:
        with self.transaction:
            found = self._database.query("SELECT value FROM fact WHERE name = 'epoch'")
            epoch = int(found[0][0]) + 1 if found else 1
            self._database.run("INSERT OR REPLACE INTO fact VALUES ('epoch', ?)", (str(epoch),))
            return epoch

    def _highest_seq(self) -> int:
        ((highest,),) = self._database.query(
            "SELECT max(seq) FROM (SELECT seq FROM inode UNION ALL SELECT seq FROM pending_delete)"
        )
        return highest or 0


class PinRows:
    """Rows of the keys whose content stays on this host."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Pin]:
        """Return the pins, by key."""
        return [
            Pin(*values)
            for values in self._database.query("SELECT key, session, since_s FROM pin ORDER BY key, session")
        ]

    def put(self, pins: Iterable[Pin]) -> None:
        """Keep the pins in one transaction; those that exist keep their time."""
        with self._database:
            for pin in pins:
                self._database.run("INSERT OR IGNORE INTO pin VALUES (?, ?, ?)", pin)

    def drop(self, pins: Iterable[Pin]) -> None:
        with self._database:
            for pin in pins:
                self._database.run("DELETE FROM pin WHERE key = ? AND session = ?", (pin.key, pin.session))


def _proof_text(proof: Proof) -> str:
    return f"[{proof.size}, {proof.mtime_ns}, {proof.ctime_ns}]"  # as json.dumps, in a tenth of its time


def _object_text(values: Mapping[str, object]) -> str:
    return json.dumps(dict(values)) if values else "{}"  # as of nearly every file


def _inode_values(row: PendingInode) -> tuple[object, ...]:
    base = (row.base.key, row.base.etag, row.base.size) if row.base else (None, None, None)
    return (
        row.ino, row.key, row.kind.value, row.state, row.before, row.seq, row.mode, row.uid, row.gid, row.mtime_ns,
        _object_text(row.extra), row.content_type, *base, row.expected_etag, row.changed, row.staged, row.size,
        None if row.own is None else json.dumps(row.own), row.base_limit,
        row.proof and _proof_text(row.proof), row.closed_at_s, row.boot, row.synced, row.reason, row.conflict_of,
        row.target and text_or_bytes(row.target),
        row.st_ino, None if row.stored is None else _object_text(row.stored),
    )  # fmt: skip


def _inode_row(values: tuple[object, ...]) -> PendingInode:
    field = dict(zip(_INODE_COLUMNS, values, strict=True))
    base_key, base_etag, base_size = (field.pop(f"base_{part}") for part in ("key", "etag", "size"))
    field["kind"] = Kind(field["kind"])
    field["extra"] = json.loads(str(field["extra"]))
    field["base"] = Version(base_key, base_etag, base_size) if base_key is not None else None  # type: ignore[arg-type]
    if field["own"] is not None:
        field["own"] = tuple((start, stop) for start, stop in json.loads(str(field["own"])))
    if field["proof"] is not None:
        field["proof"] = Proof(*json.loads(str(field["proof"])))
    field["changed"], field["synced"] = bool(field["changed"]), bool(field["synced"])
    if field["stored"] is not None:
        field["stored"] = json.loads(str(field["stored"]))
    field["target"] = name_of(field["target"])  # type: ignore[arg-type]
    return PendingInode(**field)  # type: ignore[arg-type]
