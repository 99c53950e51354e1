"""Copies of SQLite databases that another process may have open, for checks that change nothing.

Owns:    the proof that database and log did not change while they were copied: sizes and times before and after.
Never:   opens a database, or takes a lock; leaves a file.
Fails:   OSError; InUse where the files change at every try.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LOG: Final = "-wal"
TRIES: Final = 20
PAUSE_S: Final = 0.05


class InUse(Exception):
    """The database changes faster than it can be copied."""


@contextmanager
def copied(database: Path) -> Iterator[Path]:
    """Yield the path of a copy of `database` and its log, which ends with the context."""
    with tempfile.TemporaryDirectory(prefix="r2fs-check-") as directory:
        copy = Path(directory) / database.name
        for _ in range(TRIES):
            before = _state(database)
            _copy(database, copy)
            if _state(database) == before:
                break
            time.sleep(PAUSE_S)
        else:
            raise InUse
        yield copy


def _copy(database: Path, copy: Path) -> None:
    shutil.copyfile(database, copy, follow_symlinks=False)
    try:
        shutil.copyfile(f"{database}{LOG}", f"{copy}{LOG}", follow_symlinks=False)
    except FileNotFoundError:
        Path(f"{copy}{LOG}").unlink(missing_ok=True)


def _state(database: Path) -> list[tuple[int, int, int] | None]:
    found: list[tuple[int, int, int] | None] = []
    for path in (database, f"{database}{LOG}"):
        try:
            status = os.stat(path)
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            found.append(None)
    return found
