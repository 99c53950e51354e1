"""Check of a journal on the disk, by a copy: the database, and the staged files that its rows name.

Owns:    SQLite's own check of a copy, and the comparison of rows with files.
Never:   writes to the state directory or takes its lock: a daemon may be running.
Fails:   softly: JournalCheck.problems.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from r2fs.disk.database_copy import InUse, copied
from r2fs.disk.journal import salvage
from r2fs.disk.journal.schema import VERSION
from r2fs.disk.journal.summary import DATABASE
from r2fs.disk.staging import Staging
from r2fs.model.values import dataclass

TRIES: Final = 3  # a running daemon may remove a staged file between its row's copy and the look at it


@dataclass(frozen=True, slots=True)
class JournalCheck:
    rows: int  # inodes with pending changes
    problems: tuple[str, ...]
    damaged: tuple[str, ...]  # journals that were set aside before
    orphans: int  # files in quarantine
    in_use: bool = False  # not checked: a daemon changes it all the time


def check(state_dir: Path, staging_dir: Path) -> JournalCheck | None:
    """Check the journal in `state_dir`; None where there is none."""
    if not (state_dir / DATABASE).exists():
        return None
    staging = Staging(staging_dir)
    try:
        damaged = tuple(salvage.set_aside_before(state_dir))
        orphans = sum(1 for _ in staging.orphans())
        rows, problems = 0, list[str]()
        for _ in range(TRIES):
            rows, problems = _look(state_dir / DATABASE, staging)
            if not problems:
                break
    except InUse:
        return JournalCheck(0, (), damaged, orphans, in_use=True)
    except OSError as error:
        return JournalCheck(0, (f"{error.filename or state_dir}: {error.strerror}",), (), 0)
    return JournalCheck(rows, tuple(problems), damaged, orphans)


def _look(database: Path, staging: Staging) -> tuple[int, list[str]]:
    """Number of rows, and problems."""
    try:
        with copied(database) as copy, closing(sqlite3.connect(copy)) as db:
            verdicts = [str(row[0]) for row in db.execute("PRAGMA integrity_check(5)")]
            if verdicts != ["ok"]:
                return 0, [f"SQLite finds damage: {'; '.join(verdicts)}"]
            found = db.execute("SELECT value FROM fact WHERE name = 'schema'").fetchone()
            if found and int(found[0]) != VERSION:
                return 0, [f"it has the form {found[0]}, and this r2fs reads the form {VERSION}"]
            (rows,) = db.execute("SELECT count(*) FROM inode").fetchone()
            staged = db.execute("SELECT key, staged FROM inode WHERE staged IS NOT NULL").fetchall()
    except sqlite3.Error as error:
        return 0, [f"SQLite cannot read it: {error}"]
    missing = [str(key) for key, name in staged if not staging.path(name).exists()]
    return rows, [f"the bytes of {key} are not in staging" for key in missing]
