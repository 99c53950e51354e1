"""Eviction: the order in which clean content leaves the cache, and what is protected from it.

Two queues are each in order of use: files that were used once, and files that were used again. While the first has
more than ONCE of the limit, it gives, so that a scan of a large tree evicts itself, and not what is in daily use. A
file that is downloaded again after its eviction from the first queue counts as used again (2Q: Johnson and Shasha,
1994).

Locks:   that of the content's shelf: `Protection` takes it, but for its methods named _locked; those of `Eviction`
         are called with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from threading import RLock

from r2fs.disk.cache.table import BATCH, Row, Table, row_name, version_of
from r2fs.model.ports import Clock
from r2fs.model.records import Version

ONCE = 4  # the first queue's part of the limit
AGAIN_S = 60.0  # uses within this time after the download are one: a probe of a header, then the read
GHOSTS = 100_000  # evicted versions that are remembered, by a hash


class Protection:
    """The entries that neither eviction nor expiry takes: pins of open files, counted by row name; and the keys, and
    prefixes of keys, that a person has pinned: `engine/namespace/pins.py` reads the durable pins and sets them here."""

    def __init__(self, lock: RLock) -> None:
        # constant
        self._lock = lock  # of the content's shelf
        # guarded by: _lock
        self._counts: dict[str, int] = {}  # by row name; no zeros
        self._keys: frozenset[str] = frozenset()
        self._below: tuple[str, ...] = ()  # prefixes, each ends with `/` or is empty
        self._outdated: set[str] = set()  # row names of pinned keys' earlier versions

    def pin(self, version: Version) -> None:
        """Keep the entry from eviction and expiry, until as many unpin()s."""
        name = row_name(version.key, version.etag)
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + 1

    def unpin(self, version: Version) -> None:
        name = row_name(version.key, version.etag)
        with self._lock:
            left = self._counts.pop(name, 0) - 1
            if left > 0:
                self._counts[name] = left

    def rename_locked(self, before: str, after: str) -> None:
        if before != after and before in self._counts:
            self._counts[after] = self._counts.get(after, 0) + self._counts.pop(before)

    def set_pinned(self, keys: Iterable[str], below: Iterable[str]) -> None:
        """Keep all entries of `keys`, and of keys below these prefixes, from eviction and expiry."""
        with self._lock:
            self._keys, self._below = frozenset(keys), tuple(below)

    def supersede(self, before: Version, now: Version) -> None:
        """Note that a pinned key has another version now: the entry of the earlier one can be evicted."""
        with self._lock:
            self._outdated.discard(row_name(now.key, now.etag))
            self._outdated.add(row_name(before.key, before.etag))

    def counts_locked(self, name: str) -> bool:
        """True if a file of the row is open."""
        return name in self._counts

    def covers_locked(self, name: str) -> bool:
        """True if the row is protected, by either kind of pin."""
        if name in self._counts:
            return True
        if not self._keys and not self._below:
            return False
        return name not in self._outdated and self.is_pinned(version_of(name)[1])

    def is_pinned(self, key: str) -> bool:
        """True for a key that a person has pinned, or below such a prefix."""
        return key in self._keys or key.startswith(self._below)


class Eviction:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.ghosts: OrderedDict[int, None] = OrderedDict()  # hashes of row names, the longest evicted first

    def victims(
        self, table: Table, size: int, limit: int, is_protected: Callable[[str], bool]
    ) -> tuple[list[Row], bool]:
        """Return rows that free `size` bytes, and True if enough. `limit`: bytes of the cache."""
        victims: list[Row] = []
        protected: list[str] = []
        for row in _in_order(table, limit // ONCE):
            if size <= 0:
                break
            if is_protected(row.key):
                protected.append(row.key)
            else:
                victims.append(row)
                size -= row.cost
        if victims and len(protected) >= BATCH:
            # Else each eviction would pass over them again: a pinned tree is often what was used longest ago.
            table.use_all(protected)
        return victims, size <= 0

    def evicted(self, row: Row) -> None:
        if not row.again:
            self.ghosts[hash(row.key)] = None
        while len(self.ghosts) > GHOSTS:
            self.ghosts.popitem(last=False)

    def stored(self, table: Table, name: str, earlier: Row | None) -> None:
        """Choose the queue of a row that has just been stored, in place of `earlier`."""
        again = hash(name) in self.ghosts
        self.ghosts.pop(hash(name), None)
        if again or (earlier is not None and earlier.again):
            table.set_again(name)

    def used(self, table: Table, row: Row) -> bool:
        """Note a use; True if it counts as another one than the download's."""
        again = self._clock.time() - row.stored_at_s >= AGAIN_S
        if again and not row.again:
            table.set_again(row.key)
        return again


def _in_order(table: Table, once_limit: int) -> Iterator[Row]:
    """Yield all rows in the order of eviction, each of which the caller deletes or passes over."""
    once, again = table.by_use(0), table.by_use(1)
    over = table.once_bytes() - once_limit
    while over > 0 and (row := next(once, None)) is not None:
        over -= row.cost
        yield row
    yield from again
    yield from once
