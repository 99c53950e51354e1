"""Journal: what this host owes the bucket, in SQLite, before anybody is told that it is safe.

Owns:    `journal.db` (schema and meaning of every column: journal_schema.py; how it is opened, and what
         its errors mean: journal_database.py), the lock file of the state directory, and the layout of
         staging.
Never:   decides what follows what; touches the bucket; deletes staged bytes.
Threads: every method is thread-safe; a transaction holds the lock from BEGIN to COMMIT.
Locks:   self._lock (rank 50, the innermost but for the ballast's); self._syncing before it, held over the one
         sync that `barrier()` waits for.
Fails:   StateLocked, DirectoryUnusable and what journal_database.py says, at open; NoSpace, DiskReadOnly,
         StateDamaged and LocalError at a transaction: nothing is changed then. On a full disk the
         ballast is given up and the transaction is carried out again, before anybody is told of NoSpace.

A commit survives kill -9 at once (WAL, synchronous=NORMAL: no fsync). `barrier()` makes all
commits so far survive a power cut: it syncs the WAL from outside SQLite, so that nobody
else's commit waits for the disk. SQLite holds no POSIX lock on the WAL file itself, so that
a second descriptor on it is harmless.
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

from r2fs.disk import journal_salvage
from r2fs.disk.ballast import Ballast
from r2fs.disk.durable import boot_id, claim_blocks, fsync_dir, local_error
from r2fs.disk.journal_attributes import AttributeRows
from r2fs.disk.journal_database import open_database, translated
from r2fs.disk.journal_files import is_void, make_and_lock, remove
from r2fs.disk.journal_rows import GET_INODES, PUT_INODE, inode_row, inode_values, proof_text
from r2fs.model.errors import LocalError, NoSpace, R2fsError
from r2fs.model.ports import CrashPoint, no_crash
from r2fs.model.records import Attempt, MultipartState, Part, PendingDelete, PendingInode, Proof
from r2fs.model.views import AsideView, OrphanView

log = logging.getLogger(__name__)

Statement = tuple[str, tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class JournalRows:
    """All that the journal holds, read at start."""

    inodes: tuple[PendingInode, ...]
    deletes: tuple[PendingDelete, ...]
    attempts: tuple[Attempt, ...]
    staging_gc: tuple[str, ...]  # names in data_dir


class Journal:
    def __init__(
        self,
        state_dir: Path,
        staging_dir: Path,
        database: sqlite3.Connection,
        lock_fd: int,
        ballast: Ballast,
        crash_point: CrashPoint,
        is_new: bool = False,
    ) -> None:
        # constant
        self._crash_point = crash_point
        self._is_new = is_new  # made by this `open`
        self._abandoned = False  # False → True only
        self.state_dir = state_dir
        self.data_dir = staging_dir / "data"  # bytes that the bucket lacks: one file an inode
        self.open_dir = staging_dir / "open"  # hard links of clean content that is open; void after a restart
        self.orphan_dir = staging_dir / "orphans"  # found without a row: kept for a person
        self.boot = boot_id()
        self.ballast = ballast
        self._lock_fd = lock_fd
        # guarded by: _lock
        self._lock = threading.RLock()
        self._commits = 0
        self._durability = threading.Lock()  # before _lock
        self._synced = -1  # so many of the commits are on the disk; guarded by: _syncing
        self._db = database
        self._depth = 0
        self.error: str | None = None  # why the last commit failed; read without the lock
        self._done: list[Statement] = []  # of the transaction that is open: to be carried out again
        self._wal_fd = -1
        self._wal_named = False  # its name is on the disk; False → True only
        self._wal_failed = False  # a sync of it has failed since it was begun
        # Open as long as the database is: to close it would give SQLite's lock on the file back.
        self._db_fd = os.open(state_dir / "journal.db", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
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
        staging_dir = staging_dir or state_dir / "staging"
        lock_fd = make_and_lock(state_dir, staging_dir)
        try:
            ballast = Ballast(state_dir / "ballast")
            is_new = not any(state_dir.glob("journal.db*"))
            database = open_database(state_dir, ballast)
            journal = cls(state_dir, staging_dir, database, lock_fd, ballast, crash_point, is_new)
            # The epoch must not come again, nor may a directory be missing under what is synced in it.
            journal.barrier()
            for directory in (state_dir.parent, state_dir, staging_dir):
                fsync_dir(directory)
            ballast.hold()
            return journal
        except BaseException:
            os.close(lock_fd)
            raise

    def abandon(self) -> None:
        """The mount did not come up: a journal that `open` made just now, and that owes nothing, goes at close()."""
        self._abandoned = True

    def close(self) -> None:
        """Checkpoint, close, and give the lock back."""
        with self._lock:
            if self._lock_fd < 0:
                return
            void = self._abandoned and self._is_new and is_void(self._db, self.data_dir, self.orphan_dir)
            self._db.close()
            if void:
                self.ballast.give_up()
                remove(self.state_dir, (self.data_dir, self.open_dir, self.data_dir.parent))
            for fd in (self._wal_fd, self._db_fd):
                if fd >= 0:
                    os.close(fd)
            self._wal_fd = self._db_fd = -1
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    def barrier(self) -> None:
        """All commits so far survive a power cut when this returns. At most one fsync; waits for the disk."""
        with self._lock:
            wanted = self._commits
        # One at a time: the kernel tells one of two that a sync failed, and the other not.
        with self._durability:
            if self._synced >= wanted:
                return  # there was nothing new, or somebody else's sync has begun since
            with self._lock:
                covered, wal, named = self._commits, self._wal(), self._wal_named
                if self._wal_failed:
                    self._begin_log_anew()
            try:
                if wal >= 0:
                    os.fsync(wal)
                if wal >= 0 and not named:
                    # SQLite syncs the WAL's name with its own first sync, which may be far.
                    fsync_dir(self.state_dir)
                    self._wal_named = True
            except OSError as error:
                self._wal_failed = True
                raise local_error(error, self.state_dir / "journal.db-wal") from error
            self._synced = covered

    def _begin_log_anew(self) -> None:
        """The kernel tells of a failed sync once, and forgets the pages: what the log has since would not count.

        A checkpoint brings all of it to the database, with syncs of its own.
        """
        with self._translated():
            busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise LocalError(f"{self.state_dir}: the journal's log could not be synced, and is in use")
        self._wal_failed = False

    def _wal(self) -> int:
        """A descriptor of SQLite's log; -1: there is none yet."""
        if self._wal_fd < 0:
            with suppress(FileNotFoundError):
                wal = f"{self.state_dir}/journal.db-wal"
                self._wal_fd = os.open(wal, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self._wal_fd

    # ------------------------------------------------------------------ transactions
    @contextmanager
    def transaction(self) -> Iterator[Self]:
        """Everything inside becomes durable together, or not at all. Nests: the outermost commits."""
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
            "INSERT OR REPLACE INTO gone VALUES (?, ?, ?, ?, ?)",
            (row.seq, row.key, row.etag, row.after_ino, row.watch_until_s),
        )

    def drop_delete(self, seq: int) -> None:
        self._run("DELETE FROM gone WHERE seq = ?", (seq,))

    def put_staging_garbage(self, staged: str) -> None:
        self._run("INSERT OR REPLACE INTO leaving VALUES (?)", (staged,))

    def drop_staging_garbage(self, staged: str) -> None:
        self._run("DELETE FROM leaving WHERE staged = ?", (staged,))

    def put_attempt(self, attempt: Attempt) -> None:
        self._run(
            "INSERT OR REPLACE INTO attempt VALUES (?, ?, ?, ?, ?)",
            (attempt.id, attempt.ino, attempt.key, attempt.started_s, attempt.unknown),
        )

    def drop_attempt(self, attempt_id: str) -> None:
        self._run("DELETE FROM attempt WHERE id = ?", (attempt_id,))

    def put_multipart(self, state: MultipartState) -> None:
        """A new upload: parts of an earlier one of the same inode are forgotten."""
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
        """It was created with metadata that are no longer the file's: no attempt is to go on with it."""
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
                    PendingDelete(*values) for values in self._db.execute("SELECT * FROM gone ORDER BY seq")
                ),
                tuple(
                    Attempt(id_, ino, key, started, bool(unknown))
                    for id_, ino, key, started, unknown in self._db.execute("SELECT * FROM attempt")
                ),
                tuple(staged for (staged,) in self._db.execute("SELECT staged FROM leaving")),
            )

    def aside(self) -> AsideView:
        """What was set aside and is still there, for a person to see to."""
        known, orphans, journals = journal_salvage.names(self.state_dir), [], []
        with suppress(OSError):  # a disk that fails is told elsewhere
            journals = journal_salvage.set_aside_before(self.state_dir)
            for path in sorted(self.orphan_dir.glob("*")):
                with suppress(FileNotFoundError):  # taken away meanwhile
                    found = path.stat()
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
        """On a full disk once more, in the ballast's room."""
        try:
            with self._translated():
                self._db.execute(sql, values)
        except NoSpace:
            if not self.ballast.give_up():
                raise
            self._claim_room()
            log.warning(
                "the disk of %s is full: %d bytes that were kept in reserve for the journal are in use now",
                self.state_dir,
                self.ballast.size,
            )
            with self._translated():
                self._repeat()
                if sql != "BEGIN IMMEDIATE":
                    self._db.execute(sql, values)

    def _claim_room(self) -> None:
        """What the ballast had becomes the log's and the database's, before others write it full."""
        half = self.ballast.size // 2
        try:
            if (wal := self._wal()) >= 0:
                claim_blocks(wal, half)
            claim_blocks(self._db_fd, os.fstat(self._db_fd).st_size + half)
        except OSError as error:  # they grow into it, then, as far as it is there
            log.info("%s: no room of its own: %s", self.state_dir, error)

    def _repeat(self) -> None:
        """SQLite drops a transaction that finds no room: it is begun again, up to where it was."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._db.execute("BEGIN IMMEDIATE")
        for sql, values in self._done:
            self._db.execute(sql, values)

    def _roll_back(self) -> None:
        """A disk that failed the transaction may fail this, too: what was not committed is void anyway."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            log.info("the journal's transaction ended without a rollback: %s", error)

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self.state_dir, self._lock_fd)

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
                "SELECT max(seq) FROM (SELECT seq FROM inode UNION ALL SELECT seq FROM gone)"
            ).fetchone()
            return highest or 0
