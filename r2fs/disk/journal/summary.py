"""Summary of a journal that no daemon has open: counts of changes that the bucket lacks.

Never:   writes to the state directory; takes its lock, which would refuse a daemon that is starting; recovers the
         journal of a killed daemon: a copy of that is read.
Fails:   softly: PendingSummary.error says why a journal cannot be read.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import quote

from r2fs.disk.database_file import LOG, InUse, copied
from r2fs.model.records import Kind
from r2fs.model.settings import LOCAL_PATTERNS

DATABASE, LOCK = "journal.db", "lock"
LOCKS = Path("/proc/locks")

_ROWS = "SELECT key, state, size, staged, closed_at_s, own, expected_etag, changed, kind FROM inode"
_DELETES = "SELECT count(*) FROM pending_delete WHERE watch_until_s IS NULL"  # the others only look for a late upload


@dataclass(frozen=True, slots=True)
class PendingSummary:
    """Counts of a journal's rows, as `QueueView` has them."""

    files: int = 0
    directories: int = 0
    bytes: int = 0
    deletes: int = 0
    parked: int = 0  # of the files
    # seconds since 1970: the oldest file's last close, else the journal's last change
    oldest_at_s: float | None = None
    error: str | None = None  # why the journal cannot be read

    @property
    def anything(self) -> bool:
        return bool(self.files or self.directories or self.deletes or self.error)


def holder(state_dir: Path) -> int | None:
    """Return the process that holds the state directory's lock, as /proc/locks says; None: none."""
    try:
        lock = os.stat(state_dir / LOCK)
        told = (state_dir / LOCK).read_text(errors="replace").strip() if lock.st_size < 100 else ""
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return None
    device = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}"
    for line in lines:
        words = line.split()
        if len(words) < 6 or words[1] != "FLOCK":
            continue
        where, _, inode = words[5].rpartition(":")
        # A file system with subvolumes has other device numbers there than in stat(2): the pid decides.
        if inode == str(lock.st_ino) and (where == device or words[4] == told):
            return int(words[4])
    return None


def summary(state_dir: Path, local_patterns: Collection[str] = LOCAL_PATTERNS) -> PendingSummary:
    """Count the rows of the journal in `state_dir`, but for files that `local_patterns` keeps on this host."""
    try:
        with _database(state_dir / DATABASE) as db:
            rows = db.execute(_ROWS).fetchall()
            (deletes,) = db.execute(_DELETES).fetchone()
        changed_s = (state_dir / DATABASE).stat().st_mtime
    except (OSError, sqlite3.Error, InUse) as error:
        return PendingSummary(error=str(error))
    pending = [row for row in rows if not _stays_here(row, local_patterns)]
    sealed = [row[4] for row in pending if row[4] is not None]
    directories = sum(row[8] == Kind.DIRECTORY.value for row in pending)
    return PendingSummary(
        files=len(pending) - directories,
        directories=directories,
        bytes=sum(row[2] for row in pending if row[3] is not None),
        deletes=deletes,
        parked=sum(row[1] == "parked" for row in pending),
        oldest_at_s=min(sealed) if sealed else changed_s if pending or deletes else None,
    )


def _stays_here(row: tuple[object, ...], patterns: Collection[str]) -> bool:
    """True for a file of `local_patterns` that is complete on this host and not in the bucket."""
    key, _, _, staged, _, own, expected_etag, changed, _ = row
    complete = staged is not None and own is None and expected_etag is None and bool(changed)
    name = str(key).rpartition("/")[2]
    return complete and any(fnmatchcase(name, each) for each in patterns)


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database as it is on the disk, its log included."""
    log = Path(f"{path}{LOG}")
    if log.exists() and log.stat().st_size:
        with copied(path) as db:
            yield db
        return
    # `immutable` keeps SQLite from making a lock or a file beside it.
    with closing(sqlite3.connect(f"file:{quote(os.fspath(path))}?mode=ro&immutable=1", uri=True)) as db:
        yield db
