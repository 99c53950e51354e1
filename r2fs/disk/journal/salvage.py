"""Salvage of a damaged journal: the database is renamed, and the keys of its staged files are listed in `orphans.jsonl`.

The list is for a person, and for `status`: rows of a damaged table are not to be trusted, so nothing of them is uploaded.

Fails:   OSError where the database cannot be renamed.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from r2fs.disk.database_file import BESIDE, InUse, copied
from r2fs.disk.database_file import set_aside as rename_aside
from r2fs.disk.filecalls import quarantine, write_durably
from r2fs.model import owned_paths

log = logging.getLogger(__name__)

INDEX = "orphans.jsonl"
LARGEST_INDEX = 1 << 28  # bytes: a million files


def set_aside(path: Path, why: str) -> None:
    """Rename the database at `path` with its log, and list its staged files."""
    aside = rename_aside(path, why)
    known = {**names(path.parent), **_staged_names(aside)}
    if known:
        lines = (json.dumps({"file": file, "key": key}) + "\n" for file, key in known.items())
        write_durably(path.parent / INDEX, "".join(lines).encode())


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
    """Return the keys of staged files, as a copy of the database has them."""
    found = {}
    try:
        with copied(database, database.parent) as db:
            for staged, key in _rows(db):
                found[str(staged)] = str(key)
    except (OSError, sqlite3.Error, InUse) as error:
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
