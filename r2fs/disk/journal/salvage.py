"""Salvage of a damaged journal: the database is renamed, and its staged files listed with their keys.

Owns:    the new name, and `orphans.jsonl` in the state directory: which file of staging was which
         key, as far as the damaged database can be read. For a person, and for `status`, which shows it.
Never:   deletes or repairs; uploads: rows of a damaged table are not to be trusted.
Fails:   OSError where the database cannot be renamed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

from r2fs.disk.durable import fsync_dir, quarantine, write_durably
from r2fs.model import owned_paths

log = logging.getLogger(__name__)

INDEX = "orphans.jsonl"
LARGEST_INDEX = 1 << 28  # bytes: a million files
BESIDE = ("-wal", "-shm")  # SQLite finds them by the database's name: they keep it


def set_aside(path: Path, why: str) -> Path:
    """Rename the database at `path` with its log; return the new path."""
    aside = quarantine(path)
    for suffix in BESIDE:
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    fsync_dir(path.parent)
    log.error("the journal %s is damaged (%s): set aside as %s; it begins anew", path, why, aside.name)
    known = {**names(path.parent), **_staged_names(aside)}
    if known:
        lines = (json.dumps({"file": file, "key": key}) + "\n" for file, key in known.items())
        write_durably(path.parent / INDEX, "".join(lines).encode())
    return aside


def keep_lonely_log(path: Path) -> None:
    """Set aside a log without its database, or with an empty one: SQLite would delete it.

    Left by an interrupted rename, a repaired disk or a person.
    """
    wal = Path(f"{path}-wal")
    if (not path.exists() or not path.stat().st_size) and wal.exists() and wal.stat().st_size:
        log.error("%s is there without its database: set aside as %s", wal, quarantine(wal).name)


def set_aside_before(state_dir: Path) -> list[str]:
    """Return the names of damaged databases that are still in the state directory."""
    found = sorted(path.name for path in state_dir.glob("journal.db*.damaged-*"))
    return [name for name in found if not name.endswith(BESIDE)]


def names(state_dir: Path) -> Mapping[str, str]:
    """Return the keys of staged files, by file name."""
    try:
        text = owned_paths.read_file(state_dir / INDEX, LARGEST_INDEX).decode(errors="replace")
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            row = owned_paths.load_json(line)
            found[str(row["file"])] = str(row["key"])
    return found


def _staged_names(database: Path) -> dict[str, str]:
    """Return the keys of staged files that a copy of the database has: SQLite would write to the original."""
    found = {}
    try:
        with tempfile.TemporaryDirectory(prefix=".salvage-", dir=database.parent) as directory:
            copy = Path(directory) / "journal.db"
            shutil.copyfile(database, copy)
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{database}-wal", f"{copy}-wal")
            with closing(sqlite3.connect(copy)) as db:
                for staged, key in _rows(db):
                    found[str(staged)] = str(key)
    except (OSError, sqlite3.Error) as error:
        log.info("%s: not looked through for names of unsent files: %s", database, error)
    return found


def _rows(db: sqlite3.Connection) -> Iterator[tuple[object, object]]:
    """Yield the rows before the damage, from either end of the table."""
    for order, which in (("ASC", "from the first on"), ("DESC", "from the last back")):
        try:
            yield from db.execute(
                f"SELECT staged, key FROM inode WHERE staged IS NOT NULL ORDER BY ino {order}"
            )
        except sqlite3.Error as error:
            log.info("names of unsent files, read %s: only up to the damage (%s)", which, error)
