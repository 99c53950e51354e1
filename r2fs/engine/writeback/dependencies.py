"""Order: what an owed write or delete has to wait for.

Owns:  the keys with a request on their way, and the rules:
       a write to a key, or its deletion, waits while
         - another request for that key is on its way,
         - a node still needs the object that is there now (a rename's copy, bytes not yet here),
         - and, for the delete that is a rename's second half, while the renamed inode owes anything.
Never: changes anything else.
Locks: every method is called with Core.lock held.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.store import Ledger
from r2fs.engine.writeback.schedule import Token
from r2fs.model.keys import nfc
from r2fs.model.records import OwedDelete


class Order:
    def __init__(self, ledger: Ledger, stays_here: Callable[[Node], bool]) -> None:
        self._ledger = ledger
        self._stays_here = stays_here
        self._busy: set[str] = set()

    def begin(self, keys: Iterable[str]) -> None:
        self._busy.update(map(nfc, keys))

    def end(self, keys: Iterable[str]) -> None:
        self._busy.difference_update(map(nfc, keys))

    def put_blocker(self, node: Node) -> Token | None:
        """What must be over before this node may be sent; None: it may go now."""
        assert node.owed is not None
        for key in keys_of(node):
            if key in self._busy:
                return ("key", key)
        needing = self._ledger.needing(node.owed.key, other_than=node)
        return ("ino", needing.ino) if needing is not None else None

    def delete_blocker(self, row: OwedDelete) -> Token | None:
        if nfc(row.key) in self._busy:
            return ("key", nfc(row.key))
        after = self._ledger.owing.get(row.after_ino) if row.after_ino is not None else None
        if after is not None and not self._stays_here(after):  # else it owes for ever, and needs nothing
            return ("ino", after.ino)
        needing = self._ledger.needing(row.key)
        return ("ino", needing.ino) if needing is not None else None

    def in_a_ring(self, node: Node, ends: Container[int]) -> bool:
        """Does what this node waits for wait for this node? Two files that swap names do.

        `ends`: inodes that will soon wait for nothing.
        """
        seen: set[int] = set()
        other: Node | None = node
        while other is not None and other.owed is not None and other.ino not in seen:
            if other.ino in ends:
                return False
            seen.add(other.ino)
            other = self._ledger.needing(other.owed.key, other_than=other)
            if other is node:
                return True
        return False


def keys_of(node: Node) -> set[str]:
    """The keys, in NFC, that sending this node writes or copies from."""
    assert node.owed is not None
    keys = {nfc(node.owed.key)}
    if not node.owed.changed and node.base is not None:
        keys.add(nfc(node.base.key))
    return keys
