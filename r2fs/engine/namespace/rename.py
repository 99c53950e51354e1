"""Rename and exchange of names: `key_changes` decides the new key of each inode, `Renaming` acts.

One transaction of the journal has the new keys and the deletes of the old ones; then the tree follows. No byte moves:
write-back copies inside the bucket, and uploads bytes of this host.

Locks: takes Core.lock; none during a request; checks are repeated under it.
Fails: FileError's subclasses; ReadFailed without an answer of the bucket; NoSpace and LocalError of the journal: then
       nothing has changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Listing, Node, is_below
from r2fs.engine.inodes.protected import check_move, check_writable
from r2fs.engine.inodes.table import Tree
from r2fs.engine.namespace.create_remove import Names, check_empty
from r2fs.engine.namespace.freshness import Freshness
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import InodeChange
from r2fs.engine.pending.tally import is_local, stays_here
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.errors import Busy, Exists, InvalidArgument, IsADirectory, NeedsCopy, NotADirectory, NotFound
from r2fs.model.keys import SYMLINK_SUFFIX, check_file_name, check_name, nfc, printable
from r2fs.model.ports import Caller
from r2fs.model.records import Kind, Version
from r2fs.model.transitions import expecting, named_by_program, renamed, retargeted
from r2fs.model.verbs import RENAME_EXCHANGE, RENAME_NOREPLACE


# ---- the decision
def _check(tree: Tree, node: Node, directory: Node, target: Node | None, new_name: str) -> None:
    """Raise the error of rename(2) where `node` cannot get the name `new_name` in `directory`, which `target` has."""
    if node.deleted or directory.deleted or node.parent is None:
        raise NotFound(f"{printable(node.name)}: no such file or directory")
    if directory.children().get(new_name) is not target:
        raise Busy(f"{printable(new_name)}: changed while it was renamed over; try again")
    if is_below(directory, node):
        raise InvalidArgument(f"{printable(node.name)} cannot be moved into itself")
    if target is not None:
        if target.is_dir and not node.is_dir:
            raise IsADirectory(f"{printable(new_name)} is a directory")
        if node.is_dir and not target.is_dir:
            raise NotADirectory(f"{printable(new_name)} is not a directory")
        if target.is_dir:
            check_empty(target, new_name)
    tree.child_key(directory, new_name + ("/" if node.is_dir else ""))


@dataclass(frozen=True, slots=True)
class KeyChange:
    """The move of an inode's object to another key, by a rename."""

    node: Node
    is_top: bool  # the renamed inode; else an inode below
    old_key: str
    new_key: str
    old_etag: str | None  # of the object at `old_key`; None: the bucket has none
    marker: Version | None  # a directory's own object, with nothing pending
    stays_here: bool  # a file of `local_patterns`: nothing is sent under the new key

    @property
    def base(self) -> Version | None:
        """The object whose metadata and bytes are read before its delete, if the inode has no base yet."""
        marker, node = self.marker, self.node
        if marker is not None and (marker.size or (node.base is None and not node.metadata_known)):
            return marker
        return None


def key_changes(
    tree: Tree, local_patterns: tuple[str, ...], top: Node, directory: Node, new_name: str
) -> list[KeyChange]:
    """Return the moves by which `top` gets the name `new_name` in `directory`, top first.

    A directory without an object of its own has no move: the files below it make it at its new key. Raises NameTooLong;
    NeedsCopy for a file that would leave the bucket.
    """
    old_prefix, new_prefix = tree.key(top).rstrip("/"), tree.key(directory) + new_name
    if top.kind is Kind.SYMLINK:
        old_prefix = old_prefix.removesuffix(SYMLINK_SUFFIX)
    changes = []
    for node in tree.walk(top):
        marker = _own_object(node)
        if not _is_carried(node, marker) or (node is top and not node.children()):
            old_key, old_etag = _object_of(tree, node, marker)
            new_key = tree.check_key(new_prefix + tree.key(node)[len(old_prefix) :])
            stays = is_local(new_key, local_patterns) and _stays_here(node, local_patterns, node is top)
            changes.append(KeyChange(node, node is top, old_key, new_key, old_etag, marker, stays))
    return changes


def _own_object(node: Node) -> Version | None:
    """Return a directory's own object. If the directory has a row: only where the row was added before the object was
    known, since the last known file had left a directory that was not listed yet.

    Another host's object at the key of a directory that this host has made stays, and so does one with bytes: the row
    sends an empty one.
    """
    marker, pending = node.listing.marker if node.listing is not None else None, node.pending
    if marker is None or pending is None:
        return marker
    is_new = pending.closed_at_s is not None  # made by this host
    knows_it = is_new or node.base is not None or pending.expected_etag is not None
    return None if knows_it or marker.size else marker


def _is_carried(node: Node, marker: Version | None) -> bool:
    """True for a directory without an object of its own, which gets none."""
    return node.is_dir and node.pending is None and marker is None


def _stays_here(node: Node, local_patterns: tuple[str, ...], is_top: bool) -> bool:
    """True for a file to be local-only under a new key of that kind. Raises NeedsCopy for a file in the bucket."""
    if node.kind is not Kind.FILE:
        return False
    if stays_here(node.pending, local_patterns):
        return True
    if is_top and not _may_become_local(node):
        raise NeedsCopy(f"{printable(node.name)}: a file in the bucket cannot be renamed to a local name")
    return is_top


def _may_become_local(node: Node) -> bool:
    """True for a file of which the bucket has nothing, and to which nothing is on its way: all bytes are here."""
    pending = node.pending
    return (
        pending is not None
        and pending.expected_etag is None
        and pending.changed
        and pending.staged is not None
        and pending.in_flight is None
        and node.base is None
    )


def _object_of(tree: Tree, node: Node, marker: Version | None) -> tuple[str, str | None]:
    """Return the key of the node's object, and its ETag; None: the bucket has none."""
    if node.pending is not None:
        return node.pending.key, marker.etag if marker is not None else node.pending.expected_etag
    version = marker or node.base
    if version is None:
        return tree.key(node), None
    return version.key, None if node.is_dir and marker is None else version.etag


def _needed_keys(changes: Iterable[KeyChange]) -> set[str]:
    """Return the keys, in NFC, of directories' objects with bytes, which only a copy in the bucket can move."""
    return {nfc(version.key) for change in changes if (version := change.node.own_bytes) is not None}


def _drop_marker(listing: Listing) -> None:
    listing.marker = None


# ---- the act
class Renaming:
    def __init__(
        self, records: Records, storage: Storage, freshness: Freshness, writeback: WriteBack, names: Names
    ) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._disk_sync = storage.disk_sync
        self._freshness = freshness
        self._queue = writeback.queue
        self._deletes = writeback.deletes
        self._names = names

    def rename(
        self, caller: Caller, parent: int, name: str, new_parent: int, new_name: str, flags: int = 0
    ) -> None:
        """rename(2), and renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE."""
        check_writable(self._core)
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise InvalidArgument("renameat2: only RENAME_NOREPLACE or RENAME_EXCHANGE is supported")
        new_name = check_name(new_name)
        node = self._names.child(caller, parent, name)
        target = self._target(caller, new_parent, new_name)
        with self._core.lock:
            check_move(self._core, node, self._tree.directory(new_parent), target, new_name)
        if flags & RENAME_EXCHANGE:
            self._exchange(caller, node, target)
        elif target is not node:
            if target is not None and flags & RENAME_NOREPLACE:
                raise Exists(f"{printable(new_name)} exists")
            self._prepare(caller, node, new_name)
            if target is not None:
                self._prepare_replacement(caller, node, target)
            with self._core.lock:
                self._rename_locked(node, self._tree.directory(new_parent), new_name, target)

    def _exchange(self, caller: Caller, node: Node, other: Node | None) -> None:
        """RENAME_EXCHANGE of two files, two directories, or a file and a directory."""
        if other is None:
            raise NotFound("renameat2: there is nothing to exchange names with")
        if other is node:
            return
        self._prepare(caller, node, other.name)
        self._prepare(caller, other, node.name)
        with self._core.lock:
            self._exchange_locked(node, other)

    # ------------------------------------------------------------------ before the lock
    def _target(self, caller: Caller, parent: int, name: str) -> Node | None:
        try:
            return self._names.child(caller, parent, name)
        except NotFound:
            return None

    def _prepare(self, caller: Caller, node: Node, new_name: str) -> None:
        """Check the new name, or list a directory and all directories below."""
        if node.is_dir:
            self._freshness.load_below(caller, node)
        elif node.kind is not Kind.SYMLINK:
            check_file_name(new_name)

    def _prepare_replacement(self, caller: Caller, node: Node, target: Node) -> None:
        """List a directory to be replaced; sync bytes before they replace synced ones."""
        if target.is_dir:
            self._freshness.ensure(caller, target)
        if self._disk_sync.could_take_both(node, target):
            caller.about_to_wait()
            self._disk_sync.sync(node)

    # ------------------------------------------------------------------ under the lock
    def _rename_locked(self, node: Node, directory: Node, new_name: str, target: Node | None) -> None:
        self._core.assert_held()
        _check(self._tree, node, directory, target, new_name)
        old_directory = node.parent
        assert old_directory is not None
        changes = key_changes(self._tree, self._core.settings.local_patterns, node, directory, new_name)
        self._check_free(changes, new_name)
        with self._pending.transaction:
            if target is not None:  # first: `node` takes over its delete, and expects its ETag
                self._names.withdraw(target)
            self._names.recalls.take_along(node, directory, new_name)
            for change in changes:
                self._apply(change, new_name)
            if directory is not old_directory:
                self._names.keep_directory(old_directory, leaving=node)
        self._core.crash_point("renamed")
        if target is not None:
            self._tree.detach(target)
        self._tree.move(node, directory, new_name)
        now = self._core.now_ns()
        node.ctime_ns = now
        self._names.stamp(old_directory, now)
        self._names.stamp(directory, now)

    def _exchange_locked(self, node: Node, other: Node) -> None:
        self._core.assert_held()
        here, there = node.parent, other.parent
        if node.deleted or other.deleted or here is None or there is None:
            raise NotFound(f"{printable(node.name)}: no such file or directory")
        if is_below(here, other) or is_below(there, node):
            raise InvalidArgument(f"{printable(node.name)} cannot be moved into itself")
        patterns = self._core.settings.local_patterns
        changes = key_changes(self._tree, patterns, node, there, other.name)
        back = key_changes(self._tree, patterns, other, here, node.name)
        self._check_free(changes, other.name)
        # A ring of two copies has no first one, and bytes at the key of a directory are never brought here.
        self._check_free(back, node.name, _needed_keys(changes))
        with self._pending.transaction:
            self._names.recalls.take_along(node, there, other.name)
            self._names.recalls.take_along(other, here, node.name)
            for change in changes:
                self._apply(change, other.name)
            for change in back:
                self._apply(change, node.name)
            self._replace_rather_than_delete(node)
            if here is not there and not _replace_each_other(node, other):
                self._names.keep_directory(here, leaving=node)
                self._names.keep_directory(there, leaving=other)
        self._core.crash_point("renamed")
        self._tree.swap(node, other)
        node.ctime_ns = other.ctime_ns = now = self._core.now_ns()
        self._names.stamp(here, now)
        self._names.stamp(there, now)

    def _check_free(
        self, changes: Iterable[KeyChange], new_name: str, needed: frozenset[str] | set[str] = frozenset()
    ) -> None:
        """Raise Busy if a directory's bytes were to replace bytes still needed by another inode.

        `needed`: keys of such objects, beside those in the pending store.
        """
        for change in changes:
            if change.node.own_bytes is None:
                continue
            if (
                nfc(change.new_key) in needed
                or self._pending.needing(change.new_key, other_than=change.node) is not None
            ):
                raise Busy(
                    f"{printable(new_name)}: what was renamed from there is still on its way; try again"
                )

    def _replace_rather_than_delete(self, node: Node) -> None:
        """Let `node` and all nodes below overwrite the objects of the other side of an exchange.

        The ETag of the other side's delete wins over that of an older delete, which another host has overtaken.
        """
        for one in self._tree.walk(node):
            if one.pending is not None:
                etag = self._pending.deletes.expected_etag_at(one.pending.key)
                if etag is not None:
                    self._pending.commit(one, expecting(one.pending, etag))

    # ------------------------------------------------------------------ one inode, in a transaction
    def _apply(self, change: KeyChange, new_name: str) -> None:
        """Give the inode its new key, and the object at the old one a pending delete."""
        node = change.node
        self._deletes.leave_key_locked(node)
        expected_etag = None if change.stays_here else self._pending.deletes.take_over(change.new_key)
        fields: InodeChange = {}
        if node.pending is None:
            changed = node.is_dir and node.own_bytes is None  # a marker has no bytes to copy
            pending = retargeted(self._pending.begin(node, change.new_key, changed, expected_etag))
        else:
            pending = renamed(node.pending, change.new_key, expected_etag, self._core.journal.next_seq())
            if change.is_top and new_name != node.name:
                pending = named_by_program(pending)
        if change.base is not None:
            fields["base"] = change.base
        self._pending.commit(node, pending, **fields)
        if change.old_etag is not None:
            row = self._pending.deletes.add(change.old_key, change.old_etag, after=node)
            self._deletes.add_locked(row)
        if node.listing is not None:
            self._pending.on_commit(partial(_drop_marker, node.listing))
        self._queue.schedule_locked(node)


def _replace_each_other(node: Node, other: Node) -> bool:
    """True if an exchange replaces both objects: no directory loses its last object meanwhile."""
    return not (node.is_dir or other.is_dir) and (node.kind is Kind.SYMLINK) is (other.kind is Kind.SYMLINK)
