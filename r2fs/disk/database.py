"""A database of r2fs: an SQLite connection, its transactions and its log.

Owns:    BEGIN to COMMIT with effects in memory, and the sync of the log.
Never:   reads or writes a row.
Threads: every method; a transaction holds the lock from BEGIN to COMMIT.
Locks:   `lock` (rank 50, the innermost but for the reserve's); `_durability` before it, held over the sync
         that `barrier` waits for.
Fails:   NoSpace, DiskReadOnly, LocalError and StateDamaged, without any change then. On a full disk the reserve is
         given up and the transaction is carried out again, before NoSpace is raised.

A commit survives kill -9 at once (WAL, synchronous=NORMAL: no fsync). `barrier` makes all commits so far survive
a power cut: syncs the log as SQLite does, but without the lock, so that no other commit waits for the disk.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from r2fs.disk.database_file import LOG, Schema, as_ours, begin, code
from r2fs.disk.filecalls import claim_blocks, fsync_dir, local_error
from r2fs.disk.reserve import DiskReserve
from r2fs.model.errors import LocalError, R2fsError
from r2fs.model.ports import CrashPoint, no_crash

log = logging.getLogger(__name__)

Statement = tuple[str, tuple[object, ...]]
Action = Callable[[], object]


class Database:
    def __init__(
        self,
        path: Path,
        schema: Schema,
        lock_fd: int,
        reserve: DiskReserve | None = None,
        crash_point: CrashPoint = no_crash,
    ) -> None:
        """`lock_fd`: of the directory's lock file, which stays open until `close`."""
        # constant
        self._path = path
        self._schema = schema
        self._reserve = reserve
        self._crash_point = crash_point
        # before lock
        self._durability = threading.Lock()
        self._synced = -1  # number of commits that are on the disk; guarded by: _durability
        # guarded by: lock
        self.lock = threading.RLock()
        self._lock_fd = lock_fd
        self._connection = begin(path, schema, reserve)
        # Open as long as the connection is: closing it would give SQLite's lock on the file back.
        self._fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._log = _WriteAheadLog(Path(f"{path}{LOG}"))
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
            self._lock_fd = -1

    # ------------------------------------------------------------------ transactions
    def __enter__(self) -> None:
        """Begin a transaction: all statements inside are committed together, or none. Nests: the outermost commits."""
        self.lock.acquire()
        self._depth += 1

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """End a transaction; the outermost with a commit and its effects, unless the block failed."""
        effects: list[Action] = []
        try:
            if self._depth == 1:
                effects = self._end(kind is not None)
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
                    if self._begun or self._done:
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
        self._commits += 1
        if self._begun:
            self._execute("COMMIT")
        else:
            self._execute(*self._done[0])
        self.error = None

    def on_rollback(self, undo: Action) -> None:
        """Register the undoing of a change in memory, for a failure of the open transaction; without one do nothing."""
        with self.lock:
            if self._depth:
                self._undo.append(undo)

    def on_commit(self, effect: Action) -> None:
        """Call `effect` after the commit, without the lock; at once where this thread has no transaction."""
        with self.lock:
            if self._depth:
                self._effects.append(effect)
                return
        effect()

    def run(self, sql: str, values: tuple[object, ...] = ()) -> None:
        """Execute a statement in the open transaction, or as its own. A transaction's first statement is sent to SQLite
        with the second or with the commit, and can fail only then."""
        with self.lock:
            if not self._depth:
                with self:
                    self.run(sql, values)
                return
            if self._done and not self._begun:
                self._begin()
            if self._begun:
                self._execute(sql, values)
            self._done.append((sql, values))

    def query(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self.lock:
            if self._done and not self._begun:
                self._begin()
            try:
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._as_ours(error) from error

    def _begin(self) -> None:
        """Begin the transaction with its first statement."""
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
                if code(error) != sqlite3.SQLITE_FULL or self._reserve is None or not self._reserve.give_up():
                    raise
                self._repeat(self._reserve.size)
                if sql != "BEGIN IMMEDIATE":
                    self._connection.execute(sql, values)
        except sqlite3.Error as error:
            ours = self._as_ours(error)
            self.error = str(ours)
            raise ours from error

    def _repeat(self, reserve: int) -> None:
        """Begin the transaction again in the freed reserve, and repeat its statements: SQLite drops a transaction that finds no space."""
        half = reserve // 2
        try:  # before other files take the space
            if (log_fd := self._log.fd()) >= 0:
                claim_blocks(log_fd, half)
            claim_blocks(self._fd, os.fstat(self._fd).st_size + half)
        except OSError as error:  # the files grow as far as others leave space
            log.info("%s: no room of its own: %s", self._path, error)
        log.warning(
            "the disk of %s is full: %d bytes that were kept in reserve for the %s are in use now",
            self._path.parent,
            reserve,
            self._schema.name,
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
            log.info("%s: a transaction ended without a rollback: %s", self._path, error)
        for undo in reversed(self._undo):
            undo()
        self._effects = []

    def _as_ours(self, error: sqlite3.Error) -> R2fsError:
        return as_ours(error, self._path, self._schema, self._lock_fd)

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
            raise LocalError(f"{self._path}: its log could not be synced, and is in use")
        self._log.sync_failed = False


class _WriteAheadLog:
    """Sync of SQLite's log through a descriptor of its own. SQLite alone reads and writes the log.

    Threads: `fd`, `close` with the database's lock held; `sync` with its `_durability`.
    """

    def __init__(self, path: Path) -> None:
        # constant
        self.path = path
        # guarded by: the database's lock
        self._fd = -1
        # guarded by: the database's _durability
        self._named = False  # the directory was synced since the log was made; False → True only
        self.sync_failed = False  # since the log was begun: the kernel has forgotten its dirty pages

    def fd(self) -> int:
        """Return the descriptor; -1: SQLite has made no log yet."""
        if self._fd < 0:
            with suppress(FileNotFoundError):
                self._fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self._fd

    def sync(self, fd: int) -> None:
        """Make the log's bytes and its name survive a power cut. Waits for the disk. Raises OSError."""
        if fd < 0:
            return
        try:
            os.fsync(fd)
            if not self._named:
                # SQLite syncs the log's name with the first sync of its own, which may be far.
                fsync_dir(self.path.parent)
                self._named = True
        except OSError:
            self.sync_failed = True
            raise

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _carry_out(effects: Iterator[Action]) -> None:
    """Carry all out, also after a failed one: the commit stands."""
    for effect in effects:
        try:
            effect()
        except BaseException:
            _carry_out(effects)
            raise


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
