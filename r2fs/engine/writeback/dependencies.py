"""Order: what an owed write or delete has to wait for.

Owns:  the keys with a request on their way, and the rules:
       a write to a key, or its deletion, waits while
         - another request for that key is on its way,
         - a node still needs the object that is there now (a rename's copy, bytes not yet here),
         - for the delete that is a rename's second half, the renamed inode owes anything,
         - and, for any delete, the own object of the directory that it lies in is on its way: the bucket would
           lose the directory with its last file.
Never: changes anything else.
Locks: every method is called with Core.lock held.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.store import PendingStore, Token
from r2fs.model.keys import nfc
from r2fs.model.records import PendingDelete


class Dependencies:
    def __init__(
        self,
        pending_store: PendingStore,
        stays_here: Callable[[Node], bool],
        pending_above: Callable[[PendingDelete], Node | None],
    ) -> None:
        self._pending = pending_store
        self._stays_here = stays_here
        self._pending_above = pending_above
        self._busy: set[str] = set()

    def begin(self, keys: Iterable[str]) -> None:
        self._busy.update(map(nfc, keys))

    def end(self, keys: Iterable[str]) -> None:
        self._busy.difference_update(map(nfc, keys))

    def put_blocker(self, node: Node) -> Token | None:
        """What must be over before this node may be sent; None: it may go now."""
        assert node.pending is not None
        for key in keys_of(node):
            if key in self._busy:
                return ("key", key)
        needing = self._pending.needing(node.pending.key, other_than=node)
        return ("ino", needing.ino) if needing is not None else None

    def delete_blocker(self, row: PendingDelete) -> Token | None:
        if nfc(row.key) in self._busy:
            return ("key", nfc(row.key))
        after = self._pending.inodes.get(row.after_ino) if row.after_ino is not None else None
        if after is not None and not self._stays_here(after):  # else it owes for ever, and needs nothing
            return ("ino", after.ino)
        above = self._pending_above(row)
        if above is not None:
            return ("ino", above.ino)
        needing = self._pending.needing(row.key)
        return ("ino", needing.ino) if needing is not None else None

    def in_a_ring(self, node: Node, ends: Container[int]) -> bool:
        """Does what this node waits for wait for this node? Two files that swap names do.

        `ends`: inodes that will soon wait for nothing.
        """
        seen: set[int] = set()
        other: Node | None = node
        while other is not None and other.pending is not None and other.ino not in seen:
            if other.ino in ends:
                return False
            seen.add(other.ino)
            other = self._pending.needing(other.pending.key, other_than=other)
            if other is node:
                return True
        return False


def keys_of(node: Node) -> set[str]:
    """The keys, in NFC, that sending this node writes or copies from."""
    assert node.pending is not None
    keys = {nfc(node.pending.key)}
    if not node.pending.changed and node.base is not None:
        keys.add(nfc(node.base.key))
    return keys
