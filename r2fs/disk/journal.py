"""Journal: what this host owes the bucket, in SQLite, before anybody is told that it is safe.

Owns:    `journal.db` (schema and meaning of every column: journal_schema.py), the lock file of
         the state directory, and the layout of staging.
Never:   decides what follows what; touches the bucket; deletes staged bytes.
Threads: every method is thread-safe; a transaction holds the lock from BEGIN to COMMIT.
Locks:   self._lock (rank 50, the innermost but for the ballast's).
Fails:   StateLocked, StateDamaged (of a newer r2fs) at open; NoSpace, DiskReadOnly and LocalError
         at a commit: nothing is changed then. A database that is damaged is set aside at open
         (`set_aside.py`), and the journal begins anew. On a full disk the ballast is given up
         and the transaction is carried out again, before anybody is told of NoSpace.

A commit survives kill -9 at once (WAL, synchronous=NORMAL: no fsync). `barrier()` makes all
commits so far survive a power cut: it syncs the WAL from outside SQLite, so that nobody
else's commit waits for the disk. SQLite holds no POSIX lock on the WAL file itself, so that
a second descriptor on it is harmless.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from r2fs.disk import journal_salvage
from r2fs.disk.ballast import Ballast
from r2fs.disk.durable import claim_blocks, fsync_dir, local_error
from r2fs.disk.journal_schema import SCHEMA, VERSION
from r2fs.model.errors import DirectoryUnusable, LocalError, NoSpace, R2fsError, StateDamaged, StateLocked
from r2fs.model.ports import CrashPoint, no_crash
from r2fs.model.records import (
    AsideView,
    Attempt,
    Kind,
    MultipartState,
    OrphanView,
    OwedDelete,
    OwedInode,
    Part,
    Proof,
    Version,
)

log = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CHECKPOINT_PAGES = 2000  # 8 MiB of WAL: then a checkpoint, whose fsync a commit waits for
PAGE = 4096
PID_BYTES = 20  # of the lock file: written over in place, which needs no room on a full disk

# What a damaged database answers. Anything else is the disk's, and the database may be good.
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)

Statement = tuple[str, tuple[object, ...]]

_INODE_COLUMNS = (
    "ino", "key", "kind", "state", "before", "seq", "mode", "uid", "gid", "mtime_ns", "extra", "content_type",
    "base_key", "base_etag", "base_size", "expect", "changed", "staged", "size", "own", "base_limit", "proof",
    "sealed_at_s", "boot", "synced", "reason", "conflict_of", "target",
)  # fmt: skip
_PUT_INODE = f"INSERT OR REPLACE INTO inode VALUES ({','.join('?' * len(_INODE_COLUMNS))})"
_GET_INODES = f"SELECT {','.join(_INODE_COLUMNS)} FROM inode ORDER BY seq"


@dataclass(frozen=True, slots=True)
class Owing:
    """All that the journal holds, read at start."""

    inodes: tuple[OwedInode, ...]
    deletes: tuple[OwedDelete, ...]
    attempts: tuple[Attempt, ...]
    leaving: tuple[str, ...]  # names in data_dir


class Journal:
    def __init__(
        self,
        state_dir: Path,
        staging_dir: Path,
        database: sqlite3.Connection,
        lock_fd: int,
        ballast: Ballast,
        crash_point: CrashPoint,
    ) -> None:
        # constant
        self._crash_point = crash_point
        self.state_dir = state_dir
        self.data_dir = staging_dir / "data"  # bytes that the bucket lacks: one file an inode
        self.open_dir = staging_dir / "open"  # hard links of clean content that is open; void after a restart
        self.orphan_dir = staging_dir / "orphans"  # found without a row: kept for a person
        self.boot = BOOT_ID.read_text().strip()
        self.ballast = ballast
        self._lock_fd = lock_fd
        # guarded by: _lock
        self._lock = threading.RLock()
        self._db = database
        self._depth = 0
        self.error: str | None = None  # why the last commit failed; read without the lock
        self._done: list[Statement] = []  # of the transaction that is open: to be carried out again
        self._wal_fd = -1
        self._wal_named = False  # its name is on the disk; False → True only
        # Open as long as the database is: to close it would give SQLite's lock on the file back.
        self._db_fd = os.open(state_dir / "journal.db", os.O_RDWR | os.O_CLOEXEC)
        self.epoch = self._next_epoch()
        self._seq = self._highest_seq()

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
        try:
            for directory in (state_dir, staging_dir, staging_dir / "data", staging_dir / "open"):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock_fd = _lock(state_dir)
        except OSError as error:
            raise DirectoryUnusable(
                f"the state directory {state_dir} cannot be used ({error.strerror}): "
                "make it writable, or choose another by --state-dir"
            ) from error
        try:
            ballast = Ballast(state_dir / "ballast")
            journal = cls(state_dir, staging_dir, _opened(state_dir, ballast), lock_fd, ballast, crash_point)
            # The epoch must not come again, nor may a directory be missing under what is synced in it.
            journal.barrier()
            for directory in (state_dir.parent, state_dir, staging_dir):
                fsync_dir(directory)
            ballast.hold()
            return journal
        except BaseException:
            os.close(lock_fd)
            raise

    def close(self) -> None:
        """Checkpoint, close, and give the lock back."""
        with self._lock:
            self._db.close()
            for fd in (self._wal_fd, self._db_fd):
                if fd >= 0:
                    os.close(fd)
            self._wal_fd = self._db_fd = -1
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    def barrier(self) -> None:
        """All commits so far survive a power cut when this returns. One fsync; waits for the disk."""
        with self._lock:
            wal, named = self._wal(), self._wal_named
        try:
            if wal >= 0:
                os.fsync(wal)
            if wal >= 0 and not named:
                # SQLite syncs the WAL's name with its own first sync, which may be far.
                fsync_dir(self.state_dir)
                self._wal_named = True
        except OSError as error:
            raise local_error(error, self.state_dir / "journal.db-wal") from error

    def _wal(self) -> int:
        """A descriptor of SQLite's log; -1: there is none yet."""
        if self._wal_fd < 0:
            with suppress(FileNotFoundError):
                self._wal_fd = os.open(f"{self.state_dir}/journal.db-wal", os.O_RDWR | os.O_CLOEXEC)
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
    def put_inode(self, row: OwedInode) -> None:
        self._run(_PUT_INODE, _inode_values(row))

    def drop_inode(self, ino: int) -> None:
        with self.transaction():
            self._run("DELETE FROM inode WHERE ino = ?", (ino,))
            self.drop_multipart(ino)

    def put_delete(self, row: OwedDelete) -> None:
        self._run(
            "INSERT OR REPLACE INTO gone VALUES (?, ?, ?, ?, ?)",
            (row.seq, row.key, row.etag, row.after_ino, row.watch_until_s),
        )

    def drop_delete(self, seq: int) -> None:
        self._run("DELETE FROM gone WHERE seq = ?", (seq,))

    def put_leaving(self, staged: str) -> None:
        self._run("INSERT OR REPLACE INTO leaving VALUES (?)", (staged,))

    def drop_leaving(self, staged: str) -> None:
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
                    _proof_text(state.proof),
                ),
            )

    def put_part(self, ino: int, part: Part) -> None:
        self._run("INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?)", (ino, part.number, part.etag, part.size))

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

    def read(self) -> Owing:
        with self._lock, self._translated():
            return Owing(
                tuple(_inode_row(values) for values in self._db.execute(_GET_INODES)),
                tuple(OwedDelete(*values) for values in self._db.execute("SELECT * FROM gone ORDER BY seq")),
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
        return _translated(self.state_dir, self._lock_fd)

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


def _lock(state_dir: Path) -> int:
    """One daemon a state directory: its pid is in the lock file."""
    fd = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise StateLocked(
            f"the state directory {state_dir} is in use by another r2fs (pid {pid}): "
            "unmount that one first, or give this mount a --state-dir of its own"
        ) from None
    os.pwrite(fd, f"{os.getpid():<{PID_BYTES}}\n".encode(), 0)
    return fd


# ------------------------------------------------------------------ opening
def _opened(state_dir: Path, ballast: Ballast) -> sqlite3.Connection:
    """The database; where it is damaged, a new one: the old is set aside under another name."""
    path = state_dir / "journal.db"
    journal_salvage.keep_lonely_log(path)
    try:
        return _connect(path, ballast)
    except sqlite3.Error as error:
        if _is_damage(error):
            journal_salvage.set_aside(path, str(error))
        elif _code(error) != sqlite3.SQLITE_FULL or not ballast.give_up():
            raise _as_ours(error, state_dir, None) from error
    try:
        return _connect(path, ballast)
    except sqlite3.Error as error:
        raise _as_ours(error, state_dir, None) from error


def _connect(path: Path, ballast: Ballast) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # no -shm: a mapping of a failing disk is SIGBUS
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        pages = max(
            1, min(CHECKPOINT_PAGES, ballast.size * 3 // 8 // PAGE)
        )  # fits in what `_claim_room` claims
        db.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise DamagedDatabase(verdict)
        db.executescript(SCHEMA)
        found = db.execute("SELECT value FROM fact WHERE name = 'schema'").fetchone()
        if found and int(found[0]) > VERSION:
            raise StateDamaged(f"{path} was written by a newer r2fs: upgrade r2fs on this host")
        db.execute("INSERT OR REPLACE INTO fact VALUES ('schema', ?)", (str(VERSION),))
    except BaseException:
        db.close()
        raise
    return db


class DamagedDatabase(sqlite3.DatabaseError):
    """SQLite's own check found it damaged."""


def _is_damage(error: sqlite3.Error) -> bool:
    return isinstance(error, DamagedDatabase) or _code(error) in DAMAGED


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code


# ------------------------------------------------------------------ errors
@contextmanager
def _translated(state_dir: Path, probe_fd: int) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _as_ours(error, state_dir, probe_fd) from error


def _as_ours(error: sqlite3.Error, state_dir: Path, probe_fd: int | None) -> R2fsError:
    """SQLite's error by its numeric code. It does not tell the system's: the disk is asked again."""
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


def _proof_text(proof: Proof) -> str:
    return json.dumps([proof.size, proof.mtime_ns, proof.ctime_ns])


def _inode_values(row: OwedInode) -> tuple[object, ...]:
    base = (row.base.key, row.base.etag, row.base.size) if row.base else (None, None, None)
    return (
        row.ino, row.key, row.kind.value, row.state, row.before, row.seq, row.mode, row.uid, row.gid, row.mtime_ns,
        json.dumps(dict(row.extra)), row.content_type, *base, row.expect, row.changed, row.staged, row.size,
        None if row.own is None else json.dumps(row.own), row.base_limit,
        row.proof and _proof_text(row.proof), row.sealed_at_s, row.boot, row.synced, row.reason, row.conflict_of,
        row.target,
    )  # fmt: skip


def _inode_row(values: tuple[object, ...]) -> OwedInode:
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
    return OwedInode(**field)  # type: ignore[arg-type]
