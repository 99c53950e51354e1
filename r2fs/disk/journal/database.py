"""The journal's database: an SQLite connection, its transactions and its log.

Owns:    the pragmas, the check at the start, BEGIN to COMMIT with effects in memory, the sync of the log,
         and the meaning of each error.
Never:   reads or writes a row, but for the schema's version.
Threads: every method; a transaction holds the lock from BEGIN to COMMIT.
Locks:   `lock` (rank 50, the innermost but for the reserve's); `_durability` before it, held over the sync
         that `barrier` waits for.
Fails:   NoSpace, DiskReadOnly, LocalError and StateDamaged, without any change then. A database that is damaged
         is set aside at open (salvage.py), and begun anew. On a full disk the reserve is given up and the
         transaction is carried out again, before NoSpace is raised.

A commit survives kill -9 at once (WAL, synchronous=NORMAL: no fsync). `barrier` makes all commits so far survive
a power cut: syncs the log as SQLite does, but without the lock, so that no other commit waits for the disk.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from r2fs.disk.durable import claim_blocks, local_error
from r2fs.disk.journal import salvage
from r2fs.disk.journal.schema import SCHEMA, VERSION
from r2fs.disk.journal.state_directory import StateDirectory
from r2fs.disk.journal.write_ahead_log import WriteAheadLog
from r2fs.disk.reserve import DiskReserve
from r2fs.model.errors import LocalError, NoSpace, R2fsError, StateDamaged
from r2fs.model.ports import CrashPoint

log = logging.getLogger(__name__)

CHECKPOINT_PAGES = 2000  # 8 MiB of WAL: then a checkpoint, whose fsync a commit waits for
PAGE = 4096

# Errors of a damaged database. Any other error is the disk's, and the database may be good.
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)

Statement = tuple[str, tuple[object, ...]]
Action = Callable[[], object]


class Database:
    def __init__(self, directory: StateDirectory, crash_point: CrashPoint) -> None:
        # constant
        self._directory = directory
        self._reserve = directory.reserve
        self._crash_point = crash_point
        self._scope = _Scope(self)
        # before lock
        self._durability = threading.Lock()
        self._synced = -1  # number of commits that are on the disk; guarded by: _durability
        # guarded by: lock
        self.lock = threading.RLock()
        self._connection = open_connection(directory.path, directory.reserve)
        # Open as long as the connection is: closing it would give SQLite's lock on the file back.
        self._fd = os.open(directory.path / "journal.db", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._log = WriteAheadLog(directory.path)
        self._commits = 0
        self._depth = 0  # of nested transactions
        # of the open transaction
        self._begun = False  # SQLite's has begun, with all of `_done`; else the only one of `_done` waits
        self._done: list[Statement] = []  # to be repeated on a full disk
        self._undo: list[Action] = []
        self._effects: list[Action] = []
        self.error: str | None = None  # of the last commit, if it failed; read without the lock

    def close(self) -> None:
        """Checkpoint, and close."""
        with self.lock:
            self._connection.close()
            self._log.close()
            os.close(self._fd)

    # ------------------------------------------------------------------ transactions
    def transaction(self) -> AbstractContextManager[None]:
        """Commit all statements inside together, or none. Nests: the outermost commits."""
        return self._scope

    def enter(self) -> None:
        self.lock.acquire()
        self._depth += 1

    def leave(self, failed: bool) -> None:
        """End a transaction; the outermost, unless `failed`, with a commit and its effects."""
        effects: list[Action] = []
        try:
            if self._depth == 1:
                effects = self._end(failed)
        finally:
            self._depth -= 1
            self.lock.release()
        if effects:
            _carry_out(iter(effects))

    def _end(self, failed: bool) -> list[Action]:
        try:
            if failed:
                self._roll_back()
            else:
                try:
                    self._crash_point("commit")
                    self._commit()
                    self._crash_point("committed")
                except BaseException:
                    self._roll_back()
                    raise
            return self._effects
        finally:
            self._begun, self._done, self._undo, self._effects = False, [], [], []

    def _commit(self) -> None:
        """Commit. A single statement is a transaction by itself: a third of the calls of BEGIN, statement and COMMIT."""
        if not self._begun and not self._done:
            return
        self._commits += 1
        if self._begun:
            self._execute("COMMIT")
        else:
            self._execute(*self._done[0])
        self.error = None

    def on_rollback(self, undo: Action) -> None:
        """Register the reverse of a change of memory, for a failure of the open transaction.

        Without a transaction the journal has the change already.
        """
        with self.lock:
            if self._depth:
                self._undo.append(undo)

    def on_commit(self, effect: Action) -> None:
        """Carry `effect` out after the commit, without the lock; at once where this thread has no transaction."""
        with self.lock:
            if self._depth:
                self._effects.append(effect)
                return
        effect()

    def run(self, sql: str, values: tuple[object, ...] = ()) -> None:
        """Execute one statement: in the open transaction, or in its own. A transaction's first one waits for a second,
        or for the commit: only then it fails."""
        with self.lock:
            if not self._depth:
                with self.transaction():
                    self.run(sql, values)
                return
            if self._done:
                self._begin()
            if self._begun:
                self._execute(sql, values)
            self._done.append((sql, values))

    def query(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self.lock:
            if self._done:
                self._begin()
            try:
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._as_ours(error) from error

    def _begin(self) -> None:
        """Begin the transaction, unless begun, with its first statement."""
        if self._begun:
            return
        (first,), self._done = self._done, []
        self._begun = True
        self._execute("BEGIN IMMEDIATE")
        self._execute(*first)
        self._done.append(first)

    def _execute(self, sql: str, values: tuple[object, ...] = ()) -> None:
        """Execute; on a full disk again, in the space of the reserve."""
        try:
            try:
                self._connection.execute(sql, values)
            except sqlite3.Error as error:
                if _code(error) != sqlite3.SQLITE_FULL or not self._reserve.give_up():
                    raise
                self._repeat()
                if sql != "BEGIN IMMEDIATE":
                    self._connection.execute(sql, values)
        except sqlite3.Error as error:
            ours = self._as_ours(error)
            self.error = str(ours)
            raise ours from error

    def _repeat(self) -> None:
        """Begin the transaction again in the freed reserve, and repeat its statements: SQLite drops a transaction that finds no space."""
        half = self._reserve.size // 2
        try:  # before other files take the space
            if (log_fd := self._log.fd()) >= 0:
                claim_blocks(log_fd, half)
            claim_blocks(self._fd, os.fstat(self._fd).st_size + half)
        except OSError as error:  # the files grow as far as others leave space
            log.info("%s: no room of its own: %s", self._directory.path, error)
        log.warning(
            "the disk of %s is full: %d bytes that were kept in reserve for the journal are in use now",
            self._directory.path,
            self._reserve.size,
        )
        if not self._begun:
            return
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._connection.execute("BEGIN IMMEDIATE")
        for sql, values in self._done:
            self._connection.execute(sql, values)

    def _roll_back(self) -> None:
        """Roll back. An error is only logged: the transaction is void anyway."""
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            log.info("the journal's transaction ended without a rollback: %s", error)
        for undo in reversed(self._undo):
            undo()
        self._effects = []

    def _as_ours(self, error: sqlite3.Error) -> R2fsError:
        return _as_ours(error, self._directory.path, self._directory.lock_fd)

    # ------------------------------------------------------------------ power cuts
    def barrier(self) -> None:
        """Make all commits so far survive a power cut. At most one fsync; waits for the disk."""
        with self.lock:
            wanted = self._commits
        # Serialised: of two fsyncs at once, the kernel reports a failure to a single caller.
        with self._durability:
            if self._synced >= wanted:
                return  # no commit since, or another thread's sync has covered it
            with self.lock:
                covered, log_fd = self._commits, self._log.fd()
                if self._log.sync_failed:
                    self._begin_log_anew()
            try:
                self._log.sync(log_fd)
            except OSError as error:
                raise local_error(error, self._log.path) from error
            self._synced = covered

    def _begin_log_anew(self) -> None:
        """Checkpoint after a failed sync: the kernel reports a failure once, and has forgotten the log's dirty pages.

        The checkpoint writes all of the log to the database, with syncs of its own.
        """
        ((busy, _, _),) = self.query("PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            raise LocalError(f"{self._directory.path}: the journal's log could not be synced, and is in use")
        self._log.sync_failed = False


class _Scope:
    """The context of every transaction: a generator's would cost five calls more each time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.enter()

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._database.leave(failed=kind is not None)


def _carry_out(effects: Iterator[Action]) -> None:
    """Carry all out, also after a failed one: the commit stands."""
    for effect in effects:
        try:
            effect()
        except BaseException:
            _carry_out(effects)
            raise


# ------------------------------------------------------------------ opening
def open_connection(state_dir: Path, reserve: DiskReserve) -> sqlite3.Connection:
    """Open the database; set a damaged database aside under another name, and begin anew."""
    path = state_dir / "journal.db"
    salvage.keep_lonely_log(path)
    try:
        return _connect(path, reserve)
    except sqlite3.Error as error:
        if _is_damage(error):
            salvage.set_aside(path, str(error))
        elif _code(error) != sqlite3.SQLITE_FULL or not reserve.give_up():
            raise _as_ours(error, state_dir, None) from error
    try:
        return _connect(path, reserve)
    except sqlite3.Error as error:
        raise _as_ours(error, state_dir, None) from error


def _connect(path: Path, reserve: DiskReserve) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # no -shm: a mapping of a failing disk is SIGBUS
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        # A log of so many pages fits in what `Database._repeat` claims.
        pages = max(1, min(CHECKPOINT_PAGES, reserve.size * 3 // 8 // PAGE))
        db.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise DamagedDatabase(verdict)
        _check_version(db, path)
        db.executescript(SCHEMA)
        db.execute("INSERT OR REPLACE INTO fact VALUES ('schema', ?)", (str(VERSION),))
    except BaseException:
        db.close()
        raise
    return db


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    """Raise StateDamaged for a journal of another schema, before any change."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'fact'").fetchone():
        return
    found = db.execute("SELECT value FROM fact WHERE name = 'schema'").fetchone()
    version = int(found[0]) if found else VERSION  # no row: the daemon that made the tables was killed
    if version > VERSION:
        raise StateDamaged(f"{path} was written by a newer r2fs: upgrade r2fs on this host")
    if version < VERSION:
        raise StateDamaged(
            f"{path} was written by an earlier r2fs, whose journal this one does not read: "
            "send what it holds with that version, or choose another directory by --state-dir"
        )


class DamagedDatabase(sqlite3.DatabaseError):
    """Result of SQLite's own check of a damaged database."""


def _is_damage(error: sqlite3.Error) -> bool:
    return isinstance(error, DamagedDatabase) or _code(error) in DAMAGED


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code


# ------------------------------------------------------------------ errors
def _as_ours(error: sqlite3.Error, state_dir: Path, probe_fd: int | None) -> R2fsError:
    """Map an error of SQLite by its code. The system's errno is missing: a call on `probe_fd` gets that."""
    if _code(error) == sqlite3.SQLITE_FULL:
        return NoSpace(f"the disk of the state directory {state_dir} is full")
    if _is_damage(error):
        return StateDamaged(f"the journal in {state_dir} is damaged: {error}")
    if probe_fd is not None and probe_fd >= 0:
        try:
            os.utime(probe_fd)
        except OSError as why:
            return local_error(why, state_dir)
    return LocalError(f"the journal in {state_dir} cannot be used: {error}")


# ------------------------------------------------------------------ values
def text_or_bytes(name: str | None) -> str | bytes | None:
    """A link's target, which may be any bytes, as SQLite takes it: its text must be UTF-8."""
    if name is None:
        return None
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def name_of(value: str | bytes | None) -> str | None:
    """The reverse of `text_or_bytes`."""
    return os.fsdecode(value) if isinstance(value, bytes) else value
