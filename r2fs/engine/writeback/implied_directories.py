"""Implied directories: directories that the bucket keeps by an object below, without an object of their own.

Owns:  the set of directories made by mkdir with the mount's default attributes, and not changed since. In memory alone:
       after a restart each pending directory gets its object.
Never: counts a child on its way as an object below: the directory's row stays until a child is in the bucket.
Locks: methods named _locked need Core.lock, and so do the private ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.model.keys import nfc
from r2fs.model.pending import SENDING, State
from r2fs.model.records import PendingDelete

NODES_BELOW = 64  # looked at below a directory, before an object of its own is the cheaper answer
ON_ITS_WAY = frozenset({State.QUEUED}) | SENDING


class ImpliedDirectories:
    def __init__(self, records: Records, is_local_only: Callable[[Node], bool]) -> None:
        # constant
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts
        self._is_local_only = is_local_only
        # guarded by: Core.lock
        self._plain: set[int] = set()  # inodes made by mkdir, without an attribute to be stored

    def made_locked(self, directory: Node) -> None:
        """Note a directory made by mkdir."""
        self._core.assert_held()
        ours = (directory.mode, directory.uid, directory.gid, directory.content_type)
        if ours == (None, None, None, None) and not directory.extra:
            self._plain.add(directory.ino)

    def needs_object_locked(self, directory: Node) -> None:
        """Note a directory with attributes set by a program, or with an object about to be sent."""
        self._core.assert_held()
        self._plain.discard(directory.ino)

    def may_do_without_locked(self, directory: Node) -> bool:
        """True if a pending directory has no attribute to be stored, and no object in the bucket or on its way."""
        self._core.assert_held()
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

    def is_kept_locked(self, directory: Node, without: Node | None = None) -> bool:
        """True if the bucket has an object below it, `without` apart. False also where a short search finds none."""
        self._core.assert_held()
        children = directory.children()
        others = len(children) - (without is not None and children.get(without.name) is without)
        # A child without an object is pending, or has a pending child: with more children than pending inodes
        # one has an object, and none of a hundred thousand has to be looked at.
        return others > len(self._pending.inodes) or any(
            _is_in_bucket(node) for node in self._below(directory, without)
        )

    def awaited_locked(self, directory: Node) -> Node | None:
        """A child on its way to the bucket: the object below that will keep the pending `directory`."""
        self._core.assert_held()
        return next((node for node in self._below(directory) if self._is_on_its_way(node)), None)

    def drop_locked(self, directory: Node) -> None:
        """End the pending state of a directory kept by an object below. Its times stay in the journal."""
        self._core.assert_held()
        with self._pending.transaction:
            if directory.has_new_times:
                self._core.journal.attributes.put_shown(
                    self._tree.key(directory), directory.st_ino, directory.mtime_ns, directory.ctime_ns
                )
            self._pending.commit(directory, None)
        self._plain.discard(directory.ino)
        self._tree.arrived(directory)

    def pending_above_locked(self, row: PendingDelete) -> Node | None:
        """The directory of the row's key, while its own object is on its way."""
        self._core.assert_held()
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
            and not self._is_local_only(node)
        )

    def _below(self, directory: Node, without: Node | None = None) -> Iterator[Node]:
        """The first NODES_BELOW nodes below it."""
        left, waiting = NODES_BELOW, [_some(directory)]
        while waiting and left:
            node = next(waiting[-1], None)
            if node is None:
                waiting.pop()
            elif node is not without:
                left -= 1
                yield node
                if node.is_dir:
                    waiting.append(_some(node))


def _some(directory: Node) -> Iterator[Node]:
    """Yield the children that have a node; of the others, which are all in the bucket, the first."""
    children = directory.children()
    first = next(iter(children.packed), None)
    return iter([children[first]] if first is not None else children.nodes())


def _is_in_bucket(node: Node) -> bool:
    """True if the bucket has an object at the node's key, which is replaced and not deleted while it has its name."""
    pending, listing = node.pending, node.listing
    if pending is not None:
        return pending.expected_etag is not None
    if listing is not None:  # without a LIST of its own, a directory was seen as a prefix of other keys
        return listing.marker is not None or not (listing.whole or listing.children)
    return node.base is not None and node.base != node.base_missing
