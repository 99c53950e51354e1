"""Checks of a journal and of a cache on the disk, by copies: the databases, and the files that their rows name.

Never:   writes there or takes a lock: a daemon may be running.
Fails:   softly: Check.problems.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from r2fs.disk.cache import table
from r2fs.disk.database_file import InUse, copied, damage_in
from r2fs.disk.journal import salvage
from r2fs.disk.journal.schema import VERSION
from r2fs.disk.journal.summary import DATABASE
from r2fs.disk.staging import Staging

TRIES: Final = 3  # a running daemon removes files between the copy of their rows and the look at them
LOOKED_AT: Final = 20_000  # files of a cache

Look = Callable[[sqlite3.Connection], tuple[int, list[str]]]  # of a copy: number of rows, and problems


@dataclass(frozen=True, slots=True)
class Check:
    rows: int = 0  # inodes with pending changes; or files of the cache
    problems: tuple[str, ...] = ()
    in_use: bool = False  # not checked: a daemon changes it all the time
    # of a journal
    damaged: tuple[str, ...] = ()  # names of those that were set aside before
    orphans: int = 0  # files in quarantine


def journal(state_dir: Path, staging_dir: Path) -> Check | None:
    """Check the journal in `state_dir`; None where there is none."""
    staging = Staging(staging_dir)

    def look(db: sqlite3.Connection) -> tuple[int, list[str]]:
        version = db.execute("SELECT value FROM fact WHERE name = 'schema'").fetchone()
        if version and int(version[0]) != VERSION:
            return 0, [f"it has the form {version[0]}, and this r2fs reads the form {VERSION}"]
        (rows,) = db.execute("SELECT count(*) FROM inode").fetchone()
        staged = db.execute("SELECT key, staged FROM inode WHERE staged IS NOT NULL").fetchall()
        missing = [str(key) for key, name in staged if not staging.path(name).exists()]
        return rows, [f"the bytes of {key} are not in staging" for key in missing]

    found = _check(state_dir / DATABASE, "integrity_check(5)", look)
    if found is None:
        return None
    try:
        damaged = tuple(salvage.set_aside_before(state_dir))
        return replace(found, damaged=damaged, orphans=sum(1 for _ in staging.orphans()))
    except OSError as error:
        return _failed(error, state_dir)


def cache(cache_dir: Path) -> Check | None:
    """Check the content of the cache in `cache_dir`; None where there is none."""
    directory = cache_dir / "content"

    def look(db: sqlite3.Connection) -> tuple[int, list[str]]:
        names = [name for (name,) in db.execute("SELECT filename FROM Cache WHERE filename IS NOT NULL")]
        missing = sum(not os.path.lexists(directory / name) for name in names[:LOOKED_AT])
        return len(names), [f"{missing} of {len(names)} files are missing"] if missing else []

    return _check(directory / table.DATABASE, "quick_check(5)", look)


def _check(database: Path, check: str, look: Look) -> Check | None:
    if not database.exists():
        return None
    found = Check()
    try:
        for _ in range(TRIES):
            found = _once(database, check, look)
            if not found.problems:
                break
    except InUse:
        return Check(in_use=True)
    except OSError as error:
        return _failed(error, database.parent)
    return found


def _once(database: Path, check: str, look: Look) -> Check:
    try:
        with copied(database) as db:
            if damage := damage_in(db, check):
                return Check(problems=(f"SQLite finds damage: {damage}",))
            rows, problems = look(db)
    except sqlite3.Error as error:
        return Check(problems=(f"SQLite cannot read it: {error}",))
    return Check(rows, tuple(problems))


def _failed(error: OSError, directory: Path) -> Check:
    return Check(problems=(f"{error.filename or directory}: {error.strerror}",))
