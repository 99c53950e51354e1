"""Clean cache: an LRU of files with bytes that the bucket has too. A loss costs time alone.

Files are hard links of finished content; table.py keeps the index. The limit is held by eviction before admission, in
the order of `eviction.py`, without pinned versions: diskcache's own culling overshoots, and removes open files.

Never:   holds the only copy of a byte; deletes a file that the cache has not named.
Threads: every public method.
Locks:   that of each of its two shelves (leaves); never both at once.
Fails:   softly: a miss, or False. A lost or damaged database is begun anew, while mounted too. take() alone raises,
         NoSpace or LocalError, where a hit cannot be linked.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from r2fs.disk.cache.audit import Audit
from r2fs.disk.cache.eviction import Eviction, Protection
from r2fs.disk.cache.last_listings import LastListings
from r2fs.disk.cache.remembered import Remembered
from r2fs.disk.cache.shelf import Shelf
from r2fs.disk.cache.table import (
    DATABASE_ERRORS,
    Admission,
    NameFilter,
    Row,
    Table,
    passes,
    row_name,
    version_of,
)
from r2fs.disk.filecalls import BLOCK, local_error
from r2fs.model.keys import printable
from r2fs.model.ports import Clock
from r2fs.model.ranges import RangeSet
from r2fs.model.records import Version
from r2fs.model.views import CacheView

log = logging.getLogger(__name__)
misses = logging.getLogger("r2fs.misses")  # by the setting `log_misses`, or at level debug

CLOCK_SLACK_S = 60.0  # "stored in the future" by more than this: the clock was set, the age is unknown
EXPIRE_AT_ONCE = 200  # rows deleted under one hold of the lock, in some 20 ms: a program may wait
PARTS_FROM = 5 << 20  # bytes: no version below has parts


class Taken(NamedTuple):
    """A hit: the contents of the file that was linked."""

    present: RangeSet | None  # None: all
    stored_at_s: float  # for admit(): the age counts from here


class CleanCache:
    """Pins of open files are counted by (key, etag), and are not persistent."""

    def __init__(self, directory: Path, *, limit_bytes: int, ttl_s: float, clock: Clock) -> None:
        self._clock = clock  # constant, as both shelves
        self._content = Shelf(directory / "content", clock)
        self.audit = Audit(self._content)
        self.evicted: Callable[[str, str], None] = lambda key, reason: None  # replaced once, at the start
        # guarded by: _content.lock
        self._names = NameFilter()
        self._limit = limit_bytes
        self._ttl_s = ttl_s
        self._protection = protection = Protection(self._content.lock)
        self.pin, self.unpin = protection.pin, protection.unpin
        self.set_pinned, self.is_pinned = protection.set_pinned, protection.is_pinned
        self.supersede = protection.supersede
        self._reserved = self._open_files = 0
        self._evicted = self._expired = 0
        self._hits, self._misses = self._kept_counts = self._content.run(Table.counts, (0, 0))
        self._eviction = Eviction(clock)
        self._attributes = Shelf(directory / "attributes", clock)
        self.listings = LastListings(self._attributes)
        self._remembered = remembered = Remembered(self._attributes)
        self.remember, self.recall = remembered.remember, remembered.recall
        self.remember_later = remembered.remember_later
        self.remember_parts, self.recall_parts = remembered.remember_parts, remembered.recall_parts

    # -------------------------------------------------------------- content
    def take(self, version: Version, into: Path, use: bool = True) -> Taken | None:
        """Link the entry's file as `into`, on the same file system. None: a miss. `use`: eviction notes a use.

        The file stays the entry's too: the caller drops the entry before it changes the file.
        """
        name = row_name(version.key, version.etag)
        lacking, take = self._names.lacks(name), self._take_locked
        taken = None if lacking else self._content.run(lambda t: take(t, name, version, into, use), None)
        with self._content.lock:
            self._hits += taken is not None
            self._misses += taken is None
        if taken is None and misses.isEnabledFor(logging.INFO):
            shown = {"event": "cache_miss", "key": version.key}
            misses.info("%s: not in the cache", printable(version.key), extra=shown)
        return taken

    def _take_locked(self, table: Table, name: str, version: Version, into: Path, use: bool) -> Taken | None:
        row = table.row(name)
        if row is None or row.filename is None:
            self._names.missed(table.names)
            return None
        if self._is_old_locked(name, row.stored_at_s):
            table.delete(name)
            self._expired += 1
            return None
        path = self._content.directory / row.filename
        size, ranges, mtime_ns = json.loads(row.about)
        try:
            found = os.stat(path)
            if size != version.size or (found.st_size, found.st_mtime_ns) != (size, mtime_ns):
                # No other program may write to these files: changed bytes are not the object's.
                log.warning("%s: the cached file was changed; it is fetched again", version.key)
                raise FileNotFoundError(path)
            if use:
                self._use_locked(table, name)
                self._eviction.used(table, row)
            os.link(path, into)
        except FileNotFoundError:
            if not into.parent.is_dir():
                raise
            table.delete(name)
            return None
        except OSError as error:
            raise local_error(error, into) from error
        return Taken(None if ranges is None else RangeSet(map(tuple, ranges)), row.stored_at_s)

    def _use_locked(self, table: Table, name: str) -> None:
        """Note a use; on a full disk none."""
        try:
            table.use(name)
        except DATABASE_ERRORS as error:
            if not passes(error):
                raise
            table.close()  # ends the transaction, if it is still open

    def admit(
        self,
        version: Version,
        path: Path,
        *,
        size: int,
        present: RangeSet | None,
        stored_at_s: float | None = None,
    ) -> bool:
        """Enter the file at `path`, which keeps that name. False: the file does not fit, and is not in the cache.

        Replaces an entry of the same version and keeps its age; `stored_at_s` is the age of a new entry.
        """
        file = Admission(version, path, size, present, stored_at_s)
        return self._content.run(lambda table: self._enter_locked(table, file), False)

    def admit_all(self, files: Sequence[Admission]) -> None:
        """`admit` these files, in one transaction of the table."""

        def enter(table: Table) -> None:
            with table.transact():
                for file in files:
                    self._enter_locked(table, file)

        self._content.run(enter, None)

    def _enter_locked(self, table: Table, file: Admission) -> bool:
        version, path = file.version, file.path
        name = row_name(version.key, version.etag)
        try:
            adoption = file.adoption()
            cost = adoption.cost
            earlier = table.row(name)
            room = self._evict_locked(table, cost - (earlier.cost if earlier else 0), keep=name)
            if file.size != version.size or cost > self._limit or not room:
                table.delete(name)  # the entry may be this very file, grown
                return False
            self._names.add(name)
            stored = earlier.stored_at_s if earlier else file.stored_at_s
            when = self._clock.time() if stored is None else stored
            entered = bool(table.set(name, adoption, tag=when))
            if earlier is not None or self._eviction.ghosts:
                self._eviction.stored(table, name, earlier)
            return entered
        except OSError as error:
            log.info("%s: not cached: %s", path, error)
            return False

    def count_hit(self, version: Version | None = None) -> None:
        """Count a hit for an open that a file taken earlier, and still open, serves; and a use of its entry, if any."""
        with self._content.lock:
            self._hits += 1
        if version is not None:
            name = row_name(version.key, version.etag)
            self._content.run(lambda table: self._again_locked(table, name), None)

    def _again_locked(self, table: Table, name: str) -> None:
        row = table.row(name)
        if row is not None and self._eviction.used(table, row):
            self._use_locked(table, name)

    def contains(self, version: Version, whole: bool = False) -> bool:
        """True if take() would hit (with all bytes, if `whole`). Counts as neither a hit nor a use."""
        about = self._look(version)
        return about is not None and (not whole or about[1] is None)

    def bytes_of(self, version: Version) -> int:
        """Return how many bytes of the version take() would give. Counts as neither a hit nor a use."""
        size, ranges, _ = self._look(version) or (0, None, 0)
        return int(size) if ranges is None else RangeSet(map(tuple, ranges)).total()

    def _look(self, version: Version) -> Any:
        """Return the values of `_about` for an entry that take() would hit."""
        name = row_name(version.key, version.etag)
        if self._names.lacks(name):
            return None

        def look(table: Table) -> Any:
            row = table.row(name)
            old = row is None or self._is_old_locked(name, row.stored_at_s)
            return None if old or row is None else json.loads(row.about)

        return self._content.run(look, None)

    def drop(self, version: Version) -> None:
        """Remove the entry, pinned or not. Other names of its file stay."""
        self._content.run(lambda table: table.delete(row_name(version.key, version.etag)), None)

    def drop_where(self, is_meant: Callable[[str, str], bool]) -> tuple[int, int]:
        """Remove the entries of closed files for whose key and ETag this is true; return their number and bytes."""

        def remove(table: Table) -> tuple[int, int]:
            gone, freed = [], 0
            for name in table.names():
                etag, key = version_of(name)
                if is_meant(key, etag) and not self._protection.counts_locked(name):
                    gone.append(name)
                    self.evicted(key, "dropped, by a command or for a newer version")
            with table.transact():
                for name in gone:
                    row = table.row(name)
                    freed += row.cost if row is not None else 0
                    table.delete(name)
            return len(gone), freed

        return self._content.run(remove, (0, 0))

    def rekey(self, old: Version, new: Version) -> None:
        """Move the entry, its pins and its parts from `old` to `new`, a copy in the bucket with the same bytes."""
        before, after = row_name(old.key, old.etag), row_name(new.key, new.etag)

        def rename(table: Table) -> None:
            row = table.row(before)
            if row is None or before == after:
                return
            self._names.add(after)
            with table.transact():
                table.delete(after)
                table.rename(before, after, row.about)

        with self._content.lock:
            self._protection.rename_locked(before, after)
            self._content.run(rename, None)
        parts = self.recall_parts(old) if old.size >= PARTS_FROM else None
        if parts is not None:
            self.remember_parts(new, parts)

    # -------------------------------------------------------------- limit and age
    def change_limits(self, limit_bytes: int, ttl_s: float) -> None:
        """Set another limit and time to live, and remove the entries beyond them."""
        with self._content.lock:
            self._limit, self._ttl_s = limit_bytes, ttl_s
        self.make_room(0)
        self.sweep()

    def set_reserved(self, size: int, files: int = 0) -> None:
        """Set the bytes and the number of open files that are not entries: they count against the limit, and in `view`.
        Without eviction. The caller leaves out a file before `admit`: else that file counts twice."""
        with self._content.lock:
            self._reserved, self._open_files = size, files

    def make_room(self, size: int) -> bool:
        """Evict until entries, reserved bytes and `size` more fit. False: impossible, and no eviction."""
        return self._content.run(lambda table: self._evict_locked(table, size), size <= self._limit)

    def sweep(self) -> int:
        """Remove the entries past their time to live; return their number. Holds the limit, too: it may be lower
        than in the last session; and removes files without a row, which a killed session left."""
        self._remembered.flush()
        self._keep_counts()
        self.make_room(0)
        self._content.look_over()
        if not self._ttl_s:
            return 0

        oldest_s, newest_s = self._clock.time() - self._ttl_s, self._clock.time() + CLOCK_SLACK_S
        old: list[Row] = self._content.run(lambda table: table.stored_before(oldest_s, newest_s), [])
        parts = [old[start : start + EXPIRE_AT_ONCE] for start in range(0, len(old), EXPIRE_AT_ONCE)]
        return sum(self._content.run(partial(self._expire_locked, part), 0) for part in parts)

    def _expire_locked(self, rows: list[Row], table: Table) -> int:
        old = [one for one in rows if self._is_old_locked(*one[:3:2]) and table.row(one.key) == one]
        with table.transact():
            for row in old:
                self.evicted(version_of(row.key)[1], "its age is past cache_ttl")
                table.delete(row.key)
        self._expired += len(old)
        return len(old)

    def _is_old_locked(self, name: str, stored_at_s: float) -> bool:
        if not self._ttl_s or self._protection.covers_locked(name):
            return False
        return not -CLOCK_SLACK_S <= self._clock.time() - stored_at_s < self._ttl_s

    def evict(self, size: int) -> int:
        """Evict for a full disk, whatever the limit: at least `size` bytes, or all. Return the bytes freed."""
        victims: list[Row] = self._content.run(lambda table: self._victims_locked(table, size, None)[0], [])
        freed = 0
        for row in victims:
            # Files before rows: on a full disk the database may have no room to delete a row.
            freed += _unlink(self._content.directory / (row.filename or ""))
        self._content.run(lambda table: self._delete_locked(table, victims), None)
        return freed

    def _evict_locked(self, table: Table, size: int, keep: str | None = None) -> bool:
        """Evict others than `keep` until `size` more fit; return False, without eviction, if impossible."""
        excess = int(table.reset("size")) + self._reserved + size - self._limit
        if excess <= 0:
            return True
        victims, enough = self._victims_locked(table, excess, keep)
        if enough:
            self._delete_locked(table, victims)
        return enough

    def _victims_locked(self, table: Table, size: int, keep: str | None) -> tuple[list[Row], bool]:
        """Return entries that free `size` bytes, and True if enough."""
        return self._eviction.victims(
            table, size, self._limit, lambda name: name == keep or self._protection.covers_locked(name)
        )

    def _delete_locked(self, table: Table, rows: list[Row]) -> None:
        with table.transact():
            for row in rows:
                self.evicted(version_of(row.key)[1], "for others")
                self._evicted += bool(table.delete(row.key))
                self._eviction.evicted(row)

    # -------------------------------------------------------------- the whole
    def view(self) -> CacheView:
        """Return the figures: hits and misses of all sessions, the rest of this one."""
        with self._content.lock:
            entries, used = self._content.run(lambda table: (len(table), int(table.reset("size"))), (0, 0))
            return CacheView(
                entries=entries + self._open_files,
                bytes=used + self._reserved,
                limit=self._limit,
                hits=self._hits,
                misses=self._misses,
                evicted=self._evicted,
                expired=self._expired,
            )

    def _keep_counts(self) -> None:
        """Write hits and misses, for the next sessions."""
        with self._content.lock:
            counts = self._hits, self._misses
            if counts != self._kept_counts:
                self._content.run(lambda table: table.set_counts(*counts), None)
                self._kept_counts = counts

    def close(self) -> None:
        self._keep_counts()
        self._content.close()
        self._remembered.flush()
        self._attributes.close()


def _unlink(path: Path) -> int:
    """Remove a file if it exists; return the bytes of disk freed."""
    try:
        before = os.stat(path)
        os.unlink(path)
    except OSError:
        return 0  # gone already
    return before.st_blocks * BLOCK if before.st_nlink == 1 else 0
