"""Protection: the entries of the cache that neither eviction nor expiry takes.

Owns:    pins of open files, counted by row name; and the keys, and prefixes of keys, that a person has pinned.
Never:   keeps anything over a restart: `engine/namespace/pins.py` reads the durable pins and sets them here.
Locks:   every method is called with the lock of the content's shelf held.
"""

from __future__ import annotations

from collections.abc import Iterable

from r2fs.disk.cache.name_filter import version_of


class Protection:
    def __init__(self) -> None:
        self._counts: dict[str, int] = {}  # by row name; no zeros
        self._keys: frozenset[str] = frozenset()
        self._below: tuple[str, ...] = ()  # prefixes, each ends with `/` or is empty
        self._outdated: set[str] = set()  # row names of pinned keys' earlier versions

    def add(self, name: str) -> None:
        self._counts[name] = self._counts.get(name, 0) + 1

    def remove(self, name: str) -> None:
        left = self._counts.pop(name, 0) - 1
        if left > 0:
            self._counts[name] = left

    def rename(self, before: str, after: str) -> None:
        """Move the counts of one row to another."""
        if before != after and before in self._counts:
            self._counts[after] = self._counts.get(after, 0) + self._counts.pop(before)

    def set_keys(self, keys: Iterable[str], below: Iterable[str]) -> None:
        """Replace the pinned keys, and the prefixes below which all keys are pinned."""
        self._keys, self._below = frozenset(keys), tuple(below)

    def supersede(self, before: str, now: str) -> None:
        """Note that a pinned key has another version now: the earlier one is no longer protected."""
        self._outdated.discard(now)
        self._outdated.add(before)

    def counts(self, name: str) -> bool:
        """True if a file of the row is open."""
        return name in self._counts

    def covers(self, name: str) -> bool:
        """True if the row is protected, by either kind of pin."""
        if name in self._counts:
            return True
        if not self._keys and not self._below:
            return False
        return name not in self._outdated and self.covers_key(version_of(name)[1])

    def covers_key(self, key: str) -> bool:
        """True if a person has pinned the key."""
        return key in self._keys or key.startswith(self._below)
