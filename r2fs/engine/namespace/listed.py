"""Listed: directories of pinned files with a new listing.

Owns:    their inode numbers, and the event for `namespace/pins.py`.
Locks:   every method is called with Core.lock held, but for the use of `changed`.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node


class Listed:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._is_watched: Callable[[Node], bool] = lambda directory: False
        self._inos: set[int] = set()
        self.changed = Event()  # thread-safe

    def watch_locked(self, is_watched: Callable[[Node], bool]) -> None:
        """Note directories for which `is_watched` is true, from now on."""
        self._core.assert_held()
        self._is_watched = is_watched

    def note_locked(self, directory: Node) -> None:
        """Note a complete listing of the directory."""
        self._core.assert_held()
        if self._is_watched(directory):
            self._inos.add(directory.ino)
            self.changed.set()

    def take_locked(self) -> set[int]:
        """Return the directories noted since the last call."""
        self._core.assert_held()
        taken, self._inos = self._inos, set()
        return taken
