"""Implied directories: which directories need no object of their own, since the bucket has something below them.

Owns:  the set of directories that mkdir made with the mount's default attributes and no program has changed since.
       It is in memory alone: after a restart each that is still pending gets its object.
Never: takes a child that is only on its way for one that keeps its directory: the row in the journal stays until
       a child is in the bucket.
Locks: every method is called with Core.lock held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from r2fs.engine.inodes.attribute_cache import is_news
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.model.keys import nfc
from r2fs.model.pending import SENDING, State
from r2fs.model.records import PendingDelete

LOOKED_AT = 64  # nodes below a directory, before an object of its own is the cheaper answer
ON_ITS_WAY = frozenset({State.QUEUED}) | SENDING


class ImpliedDirectories:
    def __init__(self, records: Records, rests: Callable[[Node], bool]) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts
        self._rests = rests
        self._plain: set[int] = set()  # inodes that mkdir made, without anything to be stored of them

    def made(self, directory: Node) -> None:
        """mkdir has made it."""
        ours = (directory.mode, directory.uid, directory.gid, directory.content_type)
        if ours == (None, None, None, None) and not directory.extra:
            self._plain.add(directory.ino)

    def needs_object(self, directory: Node) -> None:
        """A program has set attributes of it, or its object is about to be sent."""
        self._plain.discard(directory.ino)

    def awaited(self, directory: Node) -> Node | None:
        """A child that is being sent, and keeps the pending `directory` in the bucket once it is there."""
        return next((node for node in self._below(directory) if self._is_on_its_way(node)), None)

    def may_do_without(self, directory: Node) -> bool:
        """True if a pending directory has no attribute to be stored, and none of its objects was sent or is there."""
        pending, listing = directory.pending, directory.listing
        return (
            directory.ino in self._plain
            and pending is not None
            and pending.changed
            and pending.expected_etag is None
            and directory.base is None
            and listing is not None
            and listing.marker is None
            and not self._attempts.unknown_keys(directory.ino)
        )

    def is_kept(self, directory: Node, without: Node | None = None) -> bool:
        """True if the bucket has something below it, `without` apart. False also where that is not soon found out."""
        children = directory.children()
        others = len(children) - (without is not None and children.get(without.name) is without)
        # Of a hundred thousand children none is looked at: each without an object is pending, or has a child that is.
        return others > len(self._pending.inodes) or any(
            _is_in_bucket(node) for node in self._below(directory, without)
        )

    def drop(self, directory: Node) -> None:
        """The bucket has what keeps it: nothing of it is pending any more. Its times stay in the journal."""
        with self._pending.transaction():
            if is_news(directory):
                self._core.journal.attributes.put_shown(
                    self._tree.key(directory), directory.st_ino, directory.mtime_ns, directory.ctime_ns
                )
            self._pending.commit(directory, None)
        self._plain.discard(directory.ino)
        self._tree.arrived(directory)

    def pending_above(self, row: PendingDelete) -> Node | None:
        """The directory that the row's key lies in, while its own object is on its way: that is to be there first."""
        above = row.key.rstrip("/").rpartition("/")[0]
        node = self._tree.root
        for part in above.removeprefix(self._core.settings.bucket.prefix).split("/"):
            child = node.children().get(nfc(part))
            if child is None or not child.is_dir:
                return None
            node = child
        pending = node.pending
        if pending is None or pending.state not in ON_ITS_WAY or nfc(pending.key) != nfc(above + "/"):
            return None
        return node

    def _is_on_its_way(self, node: Node) -> bool:
        pending = node.pending
        return (
            pending is not None
            and pending.state in ON_ITS_WAY
            and not pending.retry.failures
            and not self._rests(node)
        )

    def _below(self, directory: Node, without: Node | None = None) -> Iterator[Node]:
        """The first LOOKED_AT nodes below it."""
        left, waiting = LOOKED_AT, [iter(directory.children().values())]
        while waiting and left:
            node = next(waiting[-1], None)
            if node is None:
                waiting.pop()
            elif node is not without:
                left -= 1
                yield node
                if node.is_dir:
                    waiting.append(iter(node.children().values()))


def _is_in_bucket(node: Node) -> bool:
    """True if the bucket has an object at the node's key, which is replaced and not deleted while it has its name."""
    pending, listing = node.pending, node.listing
    if pending is not None:
        return pending.expected_etag is not None
    if listing is not None:  # one that no LIST was sent for was seen as a prefix of other keys
        return listing.marker is not None or not (listing.whole or listing.children)
    return node.base is not None and node.base != node.base_missing
