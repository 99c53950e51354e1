"""The journal's database: opened and checked, and SQLite's errors mapped to R2fsError.

Owns:    the pragmas, the check at the start, and the meaning of each error.
Never:   reads or writes a row, but for the schema's version.
Locks:   none: journal.py's is around every call but those at open.
Fails:   NoSpace, LocalError, and StateDamaged of a database of another schema version. One that is damaged is
         set aside at open (salvage.py), and begun anew; on a full disk the reserve is given up.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r2fs.disk.durable import local_error
from r2fs.disk.journal import salvage
from r2fs.disk.journal.schema import SCHEMA, VERSION
from r2fs.disk.reserve import DiskReserve
from r2fs.model.errors import LocalError, NoSpace, R2fsError, StateDamaged

CHECKPOINT_PAGES = 2000  # 8 MiB of WAL: then a checkpoint, whose fsync a commit waits for
PAGE = 4096

# Errors of a damaged database. Any other error is the disk's, and the database may be good.
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


def open_database(state_dir: Path, reserve: DiskReserve) -> sqlite3.Connection:
    """Open the database; set a damaged one aside under another name, and make a new one."""
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
        # A log of so many pages fits in what `Journal._claim_room` claims.
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
    """Raise StateDamaged for a journal of another schema, before anything in it is changed."""
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
@contextmanager
def translated(state_dir: Path, probe_fd: int) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _as_ours(error, state_dir, probe_fd) from error


def _as_ours(error: sqlite3.Error, state_dir: Path, probe_fd: int | None) -> R2fsError:
    """Map an error of SQLite by its code. The system's errno is not in it: a call on `probe_fd` gets that."""
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
