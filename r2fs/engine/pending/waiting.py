"""Waiting: items of the upload queue that wait for an inode or a key, and wake the queue when that is over.

Locks: every method is called with Core.lock held.
"""

from __future__ import annotations

from threading import Condition
from typing import NamedTuple

from r2fs.engine.core import Core
from r2fs.model.keys import nfc

DELETE, PUT = "delete", "put"


class Item(NamedTuple):
    """PUT of an inode, or DELETE of a row."""

    verb: str
    number: int  # inode number, or seq


Token = tuple[str, str | int]  # ("key", KEY) or ("ino", INO): what must be over first


class Waiting:
    def __init__(self, core: Core) -> None:
        self.changed = Condition(core.lock)  # an item is due, perhaps
        self._blocked: dict[Token, list[Item]] = {}
        self._released: list[Item] = []

    def block(self, item: Item, token: Token) -> None:
        """Until `token` is over."""
        self._blocked.setdefault(token, []).append(item)

    def inode_settled(self, ino: int) -> None:
        """Nothing that waited for the inode has to wait any more: it is looked at again."""
        self._release(("ino", ino))

    def key_settled(self, key: str) -> None:
        """No request for the key is on its way any more."""
        self._release(("key", nfc(key)))

    def released(self) -> list[Item]:
        """Items that are due now; each is told once."""
        items, self._released = self._released, []
        return items

    def _release(self, token: Token) -> None:
        if items := self._blocked.pop(token, None):
            self._released += items
            self.changed.notify_all()
