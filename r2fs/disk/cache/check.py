"""Check of a cache on the disk, by a copy of its table: the database, and the files that its rows name.

Never:   writes to the cache; raises because of a loss: a daemon begins a damaged cache anew by itself.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Final

from r2fs.disk.cache.table import DATABASE, SQL
from r2fs.disk.database_copy import InUse, copied
from r2fs.model.values import dataclass

TRIES: Final = 3  # a running daemon evicts files between the copy and the look at them
LOOKED_AT: Final = 20_000  # files


@dataclass(frozen=True, slots=True)
class CacheCheck:
    files: int
    problems: tuple[str, ...]
    in_use: bool = False  # not checked: a daemon changes it all the time


def check(cache_dir: Path) -> CacheCheck | None:
    """Check the content of the cache in `cache_dir`; None where there is none."""
    directory = cache_dir / "content"
    if not (directory / DATABASE).exists():
        return None
    files, problems = 0, list[str]()
    try:
        for _ in range(TRIES):
            files, problems = _look(directory)
            if not problems:
                break
    except InUse:
        return CacheCheck(0, (), in_use=True)
    except OSError as error:
        return CacheCheck(0, (f"{error.filename or directory}: {error.strerror}",))
    return CacheCheck(files, tuple(problems))


def _look(directory: Path) -> tuple[int, list[str]]:
    """Number of files, and problems."""
    try:
        with copied(directory / DATABASE) as copy, closing(SQL.connect(copy)) as db:
            verdicts = [str(row[0]) for row in db.execute("PRAGMA quick_check(5)")]
            if verdicts != ["ok"]:
                return 0, [f"SQLite finds damage: {'; '.join(verdicts)}"]
            names = [name for (name,) in db.execute("SELECT filename FROM Cache WHERE filename IS NOT NULL")]
    except SQL.Error as error:
        return 0, [f"SQLite cannot read it: {error}"]
    missing = sum(not os.path.lexists(directory / name) for name in names[:LOOKED_AT])
    return len(names), [f"{missing} of {len(names)} files are missing"] if missing else []
