"""SQLite database files of r2fs: opening one for this process alone, reading a copy of one, and SQLite's errors.

Never:   writes to a database that is only read: SQLite would recover or checkpoint the original.
Fails:   `begin`: NoSpace, LocalError, StateDamaged. `copied`: OSError, sqlite3.Error, and InUse where the files change
         at every try.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r2fs.disk.filecalls import fsync_dir, local_error, quarantine
from r2fs.disk.reserve import DiskReserve
from r2fs.model.errors import LocalError, NoSpace, R2fsError, StateDamaged

log = logging.getLogger(__name__)

LOG: Final = "-wal"
BESIDE: Final = (LOG, "-shm")  # SQLite finds them by the database's name: they keep it
TRIES: Final = 20
PAUSE_S: Final = 0.05
CHECKPOINT_PAGES: Final = 2000  # 8 MiB of WAL: then a checkpoint, whose fsync a commit waits for
PAGE: Final = 4096

# Errors of a damaged database. Any other error is the disk's, and the database may be good.
DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


@dataclass(frozen=True, slots=True)
class Schema:
    """Tables of a database, among them `fact`, whose row 'schema' holds the version."""

    name: str  # of the database, for messages
    version: int  # raised with each change of a table: a database of another version is refused
    sql: str
    set_aside: Callable[[Path, str], object]  # renames a damaged database; gets its path and SQLite's reason


class DamagedDatabase(sqlite3.DatabaseError):
    """Result of SQLite's own check of a damaged database."""


class InUse(Exception):
    """The database changes faster than it can be copied."""


# ------------------------------------------------------------------ opening
def begin(path: Path, schema: Schema, reserve: DiskReserve | None) -> sqlite3.Connection:
    """Open or make the database; set a damaged database aside under another name, and begin anew."""
    try:
        return _connect(path, schema, reserve)
    except sqlite3.Error as error:
        if _is_damage(error):
            schema.set_aside(path, str(error))
        elif code(error) != sqlite3.SQLITE_FULL or reserve is None or not reserve.give_up():
            raise as_ours(error, path, schema) from error
    try:
        return _connect(path, schema, reserve)
    except sqlite3.Error as error:
        raise as_ours(error, path, schema) from error


def _connect(path: Path, schema: Schema, reserve: DiskReserve | None) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # no -shm: a mapping of a failing disk is SIGBUS
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        pages = CHECKPOINT_PAGES
        if reserve is not None:  # a log of so many pages fits in what `Database._repeat` claims
            pages = max(1, min(pages, reserve.size * 3 // 8 // PAGE))
        db.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        if damage := damage_in(db, "quick_check(1)"):
            raise DamagedDatabase(damage)
        _check_version(db, path, schema)
        db.executescript(schema.sql)
        db.execute("INSERT OR REPLACE INTO fact VALUES ('schema', ?)", (str(schema.version),))
    except BaseException:
        db.close()
        raise
    return db


def damage_in(db: sqlite3.Connection, check: str) -> str:
    """Return the findings of a check of SQLite's own, such as `quick_check(1)`; empty: none."""
    verdicts = [str(row[0]) for row in db.execute(f"PRAGMA {check}")]
    return "" if verdicts == ["ok"] else "; ".join(verdicts)


def _check_version(db: sqlite3.Connection, path: Path, schema: Schema) -> None:
    """Raise StateDamaged for a database of another schema, before any change."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'fact'").fetchone():
        return
    found = db.execute("SELECT value FROM fact WHERE name = 'schema'").fetchone()
    version = int(found[0]) if found else schema.version  # no row: the daemon that made the tables was killed
    if version > schema.version:
        raise StateDamaged(f"{path} was written by a newer r2fs: upgrade r2fs on this host")
    if version < schema.version:
        raise StateDamaged(
            f"{path} was written by an earlier r2fs, whose {schema.name} this one does not read: "
            "send what it holds with that version, or choose another directory by --state-dir"
        )


def set_aside(path: Path, why: str) -> Path:
    """Rename the damaged database at `path` with its log; return the new path."""
    aside = quarantine(path)
    for suffix in BESIDE:
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    fsync_dir(path.parent)
    log.error("%s is damaged (%s): set aside as %s; it begins anew", path, why, aside.name)
    return aside


# ------------------------------------------------------------------ errors
def code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code


def _is_damage(error: sqlite3.Error) -> bool:
    return isinstance(error, DamagedDatabase) or code(error) in DAMAGED


def as_ours(error: sqlite3.Error, path: Path, schema: Schema, probe_fd: int = -1) -> R2fsError:
    """Map an error of SQLite by its code. The system's errno is missing: a call on `probe_fd` gets that."""
    directory = path.parent
    if code(error) == sqlite3.SQLITE_FULL:
        return NoSpace(f"the disk of the state directory {directory} is full")
    if _is_damage(error):
        return StateDamaged(f"the {schema.name} in {directory} is damaged: {error}")
    if probe_fd >= 0:
        try:
            os.utime(probe_fd)
        except OSError as why:
            return local_error(why, directory)
    return LocalError(f"the {schema.name} in {directory} cannot be used: {error}")


# ------------------------------------------------------------------ copies
@contextmanager
def copied(database: Path, within: Path | None = None) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a copy of `database` and its log, which another process may have open.

    The copy is made in a temporary directory, below `within` where that is given, and ends with the context.
    """
    with tempfile.TemporaryDirectory(prefix=".r2fs-copy-", dir=within) as directory:
        copy = Path(directory) / database.name
        for _ in range(TRIES):
            before = _state(database)
            _copy(database, copy)
            if _state(database) == before:
                break
            time.sleep(PAUSE_S)
        else:
            raise InUse(f"{database} changes faster than it can be copied")
        with closing(sqlite3.connect(copy)) as db:
            yield db


def _copy(database: Path, copy: Path) -> None:
    shutil.copyfile(database, copy, follow_symlinks=False)
    try:
        shutil.copyfile(f"{database}{LOG}", f"{copy}{LOG}", follow_symlinks=False)
    except FileNotFoundError:
        Path(f"{copy}{LOG}").unlink(missing_ok=True)


def _state(database: Path) -> list[tuple[int, int, int] | None]:
    """Return inode, size and mtime of database and log: equal before and after a copy, it is whole."""
    found: list[tuple[int, int, int] | None] = []
    for path in (database, f"{database}{LOG}"):
        try:
            status = os.stat(path)
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            found.append(None)
    return found
