"""Copied: objects that were copied to another name, until the disk has the row that says so.

Owns:    their keys. A copy's outcome survives kill -9 at once, but a power cut only after a barrier. If the
         source were replaced or deleted before that, the next boot would find a rename that is still owed,
         and take what is at the source then, or nothing, for the file.
Never:   sends anything.
Threads: every method takes Core.lock itself, but `add`, which is called with it held.
Fails:   LocalError where the journal cannot be brought to the disk: nothing is replaced then.
"""

from __future__ import annotations

from collections.abc import Iterable

from r2fs.engine.core import Core
from r2fs.model.keys import nfc


class Copied:
    def __init__(self, core: Core) -> None:
        self._core = core
        # guarded by: Core.lock
        self._sources: dict[str, int] = {}  # NFC key: which copy from it was the last
        self._count = 0
        self._inherited = True  # an earlier run's outcomes may not be on the disk either

    def add(self, key: str) -> None:
        self._count += 1
        self._sources[nfc(key)] = self._count

    def before_replacing(self, keys: Iterable[str]) -> None:
        """To be called before a request that takes away what is at `keys` now. May wait for the disk."""
        with self._core.lock:
            if not self._inherited and self._sources.keys().isdisjoint(map(nfc, keys)):
                return
            covered = self._count
        self._core.journal.barrier()
        with self._core.lock:
            self._inherited = False
            self._sources = {key: count for key, count in self._sources.items() if count > covered}
