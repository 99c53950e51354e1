"""Journal: what the bucket lacks, in SQLite, written before a program is answered.

Owns:    `journal.db`: its rows and transactions. schema.py describes every column, database.py opens it and
         maps its errors.
Never:   decides an order of requests; touches the bucket; deletes staged bytes.
Threads: every method is thread-safe; a transaction holds the lock from BEGIN to COMMIT.
Locks:   self._lock (rank 50, the innermost but for the reserve's); self._durability before it, held over the
         one sync that `barrier()` waits for.
Fails:   StateLocked, DirectoryUnusable and the errors of database.py, at open; NoSpace, DiskReadOnly,
         StateDamaged and LocalError at a transaction: nothing is changed then. On a full disk the
         reserve is given up and the transaction is carried out again, before NoSpace is raised.

A commit survives kill -9 at once (WAL, synchronous=NORMAL: no fsync). `barrier()` makes all
commits so far survive a power cut: it syncs the WAL from outside SQLite (wal.py), so that no
other commit waits for the disk.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from r2fs.disk.durable import claim_blocks, fsync_dir, local_error
from r2fs.disk.journal import salvage
from r2fs.disk.journal.attributes import AttributeRows
from r2fs.disk.journal.database import open_database, translated
from r2fs.disk.journal.rows import GET_INODES, PUT_INODE, inode_row, inode_values, proof_text
from r2fs.disk.journal.state_directory import StateDirectory
from r2fs.disk.journal.wal import WriteAheadLog
from r2fs.disk.staging import Staging
from r2fs.model.errors import LocalError, NoSpace, R2fsError
from r2fs.model.ports import CrashPoint, no_crash
from r2fs.model.records import Attempt, MultipartState, Part, PendingDelete, PendingInode, Proof
from r2fs.model.views import AsideView, OrphanView

log = logging.getLogger(__name__)

Statement = tuple[str, tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class JournalRows:
    """Rows of work, read at start."""

    inodes: tuple[PendingInode, ...]
    deletes: tuple[PendingDelete, ...]
    attempts: tuple[Attempt, ...]
    staging_gc: tuple[str, ...]  # names of staged files


class Journal:
    def __init__(
        self, directory: StateDirectory, database: sqlite3.Connection, crash_point: CrashPoint
    ) -> None:
        # constant
        self._directory = directory
        self._crash_point = crash_point
        self._abandoned = False  # False → True only
        self.state_dir = directory.path
        self.staging = directory.staging
        self.reserve = directory.reserve
        # before _lock
        self._durability = threading.Lock()
        self._synced = -1  # number of commits that are on the disk; guarded by: _durability
        # guarded by: _lock
        self._lock = threading.RLock()
        self._commits = 0
        self._db = database
        self._depth = 0
        self.error: str | None = None  # why the last commit failed; read without the lock
        self._done: list[Statement] = []  # of the open transaction, to be repeated on a full disk
        self._wal = WriteAheadLog(directory.path)
        # Open as long as the database is: closing it would give SQLite's lock on the file back.
        self._db_fd = os.open(directory.path / "journal.db", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        self.epoch = self._next_epoch()
        self._seq = self._highest_seq()
        self.attributes = AttributeRows(self.transaction, self._run, self._query)

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
            database = open_database(state_dir, directory.reserve)
            journal = cls(directory, database, crash_point)
            # The epoch must not be given twice, nor may a directory be missing under what is synced in it.
            journal.barrier()
            for path in (state_dir.parent, state_dir, directory.staging.directory):
                fsync_dir(path)
            directory.reserve.hold()
            return journal
        except BaseException:
            directory.release()
            raise

    def abandon(self) -> None:
        """Note that the mount did not come up: close() removes a journal that this start made and that is void."""
        self._abandoned = True

    def close(self) -> None:
        """Checkpoint, close, and give the lock back. Idempotent."""
        with self._lock:
            if self._directory.lock_fd < 0:
                return
            void = self._abandoned and self._directory.is_new and self._directory.is_void(self._db)
            self._db.close()
            if void:
                self._directory.remove()
            self._wal.close()
            os.close(self._db_fd)
            self._directory.release()

    def barrier(self) -> None:
        """Make all commits so far survive a power cut. At most one fsync; waits for the disk."""
        with self._lock:
            wanted = self._commits
        # One at a time: of two fsyncs at once, the kernel reports a failure to one alone.
        with self._durability:
            if self._synced >= wanted:
                return  # no commit since, or another thread's sync has covered it
            with self._lock:
                covered, log_fd = self._commits, self._wal.fd()
                if self._wal.sync_failed:
                    self._begin_log_anew()
            try:
                self._wal.sync(log_fd)
            except OSError as error:
                raise local_error(error, self._wal.path) from error
            self._synced = covered

    def _begin_log_anew(self) -> None:
        """Checkpoint after a failed sync: the kernel reports it once, and has forgotten the log's dirty pages.

        The checkpoint writes all of the log to the database, with syncs of its own.
        """
        with self._translated():
            busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise LocalError(f"{self.state_dir}: the journal's log could not be synced, and is in use")
        self._wal.begun_anew()

    # ------------------------------------------------------------------ transactions
    @contextmanager
    def transaction(self) -> Iterator[Self]:
        """Commit everything inside together, or nothing. Nests: the outermost commits."""
        with self._lock:
            if self._depth:
                self._depth += 1
                try:
                    yield self
                finally:
                    self._depth -= 1
                return
            self._done.clear()
            self._execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield self
                self._crash_point("commit")
                self._commits += 1
                self._execute("COMMIT")
                self._crash_point("committed")
                self.error = None
            except BaseException:
                self._roll_back()
                raise
            finally:
                self._depth = 0

    def next_seq(self) -> int:
        with self._lock:
            self._seq += 1
            return self._seq

    # ------------------------------------------------------------------ rows
    def put_inode(self, row: PendingInode) -> None:
        self._run(PUT_INODE, inode_values(row))

    def drop_inode(self, ino: int) -> None:
        with self.transaction():
            self._run("DELETE FROM inode WHERE ino = ?", (ino,))
            self.drop_multipart(ino)

    def put_delete(self, row: PendingDelete) -> None:
        self._run(
            "INSERT OR REPLACE INTO pending_delete VALUES (?, ?, ?, ?, ?)",
            (row.seq, row.key, row.etag, row.after_ino, row.watch_until_s),
        )

    def drop_delete(self, seq: int) -> None:
        self._run("DELETE FROM pending_delete WHERE seq = ?", (seq,))

    def put_staging_garbage(self, staged: str) -> None:
        self._run("INSERT OR REPLACE INTO staging_garbage VALUES (?)", (staged,))

    def drop_staging_garbage(self, staged: str) -> None:
        self._run("DELETE FROM staging_garbage WHERE staged = ?", (staged,))

    def put_attempt(self, attempt: Attempt) -> None:
        self._run(
            "INSERT OR REPLACE INTO attempt VALUES (?, ?, ?, ?, ?)",
            (attempt.id, attempt.ino, attempt.key, attempt.started_s, attempt.unknown),
        )

    def drop_attempt(self, attempt_id: str) -> None:
        self._run("DELETE FROM attempt WHERE id = ?", (attempt_id,))

    def put_multipart(self, state: MultipartState) -> None:
        """Keep a new upload; delete an earlier one of the same inode, with its parts."""
        with self.transaction():
            self.drop_multipart(state.ino)
            self._run(
                "INSERT INTO multipart VALUES (?, ?, ?, ?, ?, ?)",
                (
                    state.ino,
                    state.upload_id,
                    state.key,
                    state.attempt,
                    state.part_size,
                    proof_text(state.proof),
                ),
            )

    def put_part(self, ino: int, part: Part) -> None:
        self._run("INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?)", (ino, part.number, part.etag, part.size))

    def outdate_multipart(self, ino: int) -> None:
        """Mark an upload whose metadata are no longer the file's: no attempt continues it."""
        self._run("UPDATE multipart SET attempt = '' WHERE ino = ?", (ino,))

    def drop_multipart(self, ino: int) -> None:
        self._run("DELETE FROM multipart WHERE ino = ?", (ino,))
        self._run("DELETE FROM part WHERE ino = ?", (ino,))

    def multipart(self, ino: int) -> MultipartState | None:
        with self._lock, self._translated():
            row = self._db.execute(
                "SELECT upload_id, key, attempt, part_size, proof FROM multipart WHERE ino = ?", (ino,)
            ).fetchone()
            if row is None:
                return None
            parts = self._db.execute(
                "SELECT number, etag, size FROM part WHERE ino = ? ORDER BY number", (ino,)
            )
            return MultipartState(
                row[0],
                ino,
                row[1],
                row[2],
                row[3],
                Proof(*json.loads(row[4])),
                tuple(Part(*p) for p in parts),
            )

    def read(self) -> JournalRows:
        with self._lock, self._translated():
            return JournalRows(
                tuple(inode_row(values) for values in self._db.execute(GET_INODES)),
                tuple(
                    PendingDelete(*values)
                    for values in self._db.execute("SELECT * FROM pending_delete ORDER BY seq")
                ),
                tuple(
                    Attempt(id_, ino, key, started, bool(unknown))
                    for id_, ino, key, started, unknown in self._db.execute("SELECT * FROM attempt")
                ),
                tuple(staged for (staged,) in self._db.execute("SELECT staged FROM staging_garbage")),
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

    # ------------------------------------------------------------------ inside
    def _run(self, sql: str, values: tuple[object, ...]) -> None:
        with self.transaction():
            self._execute(sql, values)
            self._done.append((sql, values))

    def _query(self, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock, self._translated():
            return self._db.execute(sql, values).fetchall()

    def _execute(self, sql: str, values: tuple[object, ...] = ()) -> None:
        try:
            self._execute_somewhere(sql, values)
        except R2fsError as error:
            self.error = str(error)
            raise

    def _execute_somewhere(self, sql: str, values: tuple[object, ...]) -> None:
        """Execute; on a full disk again, in the space of the reserve."""
        try:
            with self._translated():
                self._db.execute(sql, values)
        except NoSpace:
            if not self.reserve.give_up():
                raise
            self._claim_room()
            log.warning(
                "the disk of %s is full: %d bytes that were kept in reserve for the journal are in use now",
                self.state_dir,
                self.reserve.size,
            )
            with self._translated():
                self._repeat()
                if sql != "BEGIN IMMEDIATE":
                    self._db.execute(sql, values)

    def _claim_room(self) -> None:
        """Allocate the freed reserve to the log and the database, before other files take it."""
        half = self.reserve.size // 2
        try:
            if (wal := self._wal.fd()) >= 0:
                claim_blocks(wal, half)
            claim_blocks(self._db_fd, os.fstat(self._db_fd).st_size + half)
        except OSError as error:  # they grow as far as other files leave space
            log.info("%s: no room of its own: %s", self.state_dir, error)

    def _repeat(self) -> None:
        """Begin the transaction again and repeat it: SQLite drops one that finds no space."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._db.execute("BEGIN IMMEDIATE")
        for sql, values in self._done:
            self._db.execute(sql, values)

    def _roll_back(self) -> None:
        """Roll back. An error is logged alone: what was not committed is void anyway."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            log.info("the journal's transaction ended without a rollback: %s", error)

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self.state_dir, self._directory.lock_fd)

    def _next_epoch(self) -> int:
        with self.transaction():
            with self._translated():
                found = self._db.execute("SELECT value FROM fact WHERE name = 'epoch'").fetchone()
            epoch = int(found[0]) + 1 if found else 1
            self._run("INSERT OR REPLACE INTO fact VALUES ('epoch', ?)", (str(epoch),))
            return epoch

    def _highest_seq(self) -> int:
        with self._lock, self._translated():
            (highest,) = self._db.execute(
                "SELECT max(seq) FROM (SELECT seq FROM inode UNION ALL SELECT seq FROM pending_delete)"
            ).fetchone()
            return highest or 0
