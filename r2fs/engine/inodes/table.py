"""Tree: the inode table, by number and by name.

The table has parents and children, the kernel's reference counts, and the notifications to the kernel of changes by
other hosts; `inodes/listing_merge.py` decides on these.

Locks: Core.lock around every method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from r2fs.engine.inodes import inode
from r2fs.engine.inodes.children import Children, Packed
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import NEVER, Listing, Node, is_below, listing_of, remember
from r2fs.engine.inodes.inode_numbers import derived
from r2fs.engine.inodes.protected import OwnObjects, own_file
from r2fs.engine.inodes.stat import keeps_shown, move_time, refresh
from r2fs.model.errors import NotADirectory, Stale
from r2fs.model.keys import SYMLINK_SUFFIX, check_key, is_conflict_name, is_link, nfc, shown_name
from r2fs.model.records import Kind, ObjectInfo, Version
from r2fs.model.verbs import ROOT

EPOCH_SHIFT = 32  # inode numbers of a run: epoch << 32 + n, unique on a state directory


class Tree:
    walk = staticmethod(inode.walk)
    walk_nodes = staticmethod(inode.walk_nodes)
    is_pending_below = staticmethod(inode.is_pending_below)

    def __init__(self, core: Core, hides: Callable[[str, str | None, int], bool]) -> None:
        self._core = core
        # constant
        self.hides = hides  # (key, etag, tick of the LIST) → its delete is pending, or was carried out since
        # guarded by: Core.lock
        self.tick = 1  # counts this host's changes: compared with listings on their way
        self._last = core.journal.epoch << EPOCH_SHIFT
        now = core.now_ns()
        self.root = Node(ROOT, Kind.DIRECTORY, "", None, now, now, now, st_ino=ROOT)
        self.root.listing = self.new_listing(self.root)
        self._nodes: dict[int, Node] = {ROOT: self.root}
        self.hidden = 0  # keys that cannot be shown, in the directories that are known
        self._conflicts: set[Node] = set()  # nodes with the name of a conflict copy
        self._own_objects = OwnObjects()

    # ------------------------------------------------------------------ numbers
    def count_change(self) -> None:
        """Count a change by this host: listings that began before are stale."""
        self._core.assert_held()
        self.tick += 1

    def get(self, ino: int) -> Node:
        """Raises Stale."""
        node = self._nodes.get(ino)
        if node is None:
            raise Stale(f"inode {ino} is gone")
        return node

    def directory(self, ino: int) -> Node:
        node = self.get(ino)
        if not node.is_dir:
            raise NotADirectory(f"{self.path(node)} is not a directory")
        return node

    def find(self, ino: int) -> Node | None:
        return self._nodes.get(ino)

    def all_nodes(self) -> Iterable[Node]:
        return list(self._nodes.values())

    def refer(self, node: Node) -> None:
        """Count a reference of the kernel, to which the node's number is about to be sent."""
        self._core.assert_held()
        node.lookups += 1
        if not node.kernel_knows:
            node.kernel_knows = True
            remember(self._core.memory, node)

    def forget(self, ino: int, count: int) -> None:
        """Take `count` references of the kernel back (FORGET)."""
        self._core.assert_held()
        node = self._nodes.get(ino)
        if node is None or node is self.root:
            return
        node.lookups = max(0, node.lookups - count)
        if not node.lookups and node.kernel_knows:
            node.kernel_knows = False
            if self._core.memory is not None:
                self._core.memory.forget_node(ino)
        self.collect(node)

    def restore(self, node: Node) -> None:
        """Enter, at start, a node of the previous daemon under its number in the kernel."""
        self._nodes[node.ino] = node
        node.shown = keeps_shown(self._core.settings)

    def restore_name(self, node: Node, parent: Node, name: str) -> None:
        """Give an inherited node its name, at start; an inherited node with that name becomes nameless."""
        self.restore_nameless(node)
        before = listing_of(parent).children.get(name)
        if before is not None:
            self.restore_nameless(before)
        node.deleted = False
        self._attach(node, parent, name)

    def restore_nameless(self, node: Node) -> None:
        """Take the name of an inherited node away, at start; open handles may still need the node."""
        if node.parent is not None and listing_of(node.parent).children.get(node.name) is node:
            self._take(node)
        node.parent, node.deleted = None, True

    def collect(self, node: Node) -> None:
        """Drop a node that is out of the tree and has no reference, handle or pending state."""
        self._core.assert_held()
        if node.deleted and not node.lookups and not node.handles and not node.pending:
            if self._nodes.pop(node.ino, None) is not None:
                self._core.numbers.release(node.st_ino)

    # ------------------------------------------------------------------ names
    def path(self, node: Node) -> str:
        """Return the path from the mount's root, for messages: `takes/07.wav`; `/` for the root."""
        return "/".join(self._parts(node)) or "/"

    def key(self, node: Node) -> str:
        """Return the key of the node's object, below directories in the bucket's spelling."""
        key = self._core.settings.bucket.prefix + "/".join(self._parts(node, spelled=True))
        if node.is_dir and node is not self.root:
            return key + "/"
        if node.kind is Kind.SYMLINK:
            return key + SYMLINK_SUFFIX
        base = node.base  # the bucket's spelling of the same name
        return base.key if base and base.key != key and nfc(base.key) == nfc(key) else key

    def child_key(self, parent: Node, name: str) -> str:
        """Return the key of a name in `parent`. Raises NameTooLong."""
        return self.check_key(self.key(parent) + name)

    def check_key(self, key: str) -> str:
        """Raises NameTooLong for a key that is too long for its bucket."""
        check_key(self._core.settings.bucket.split(key)[1])
        return key

    def in_tree(self, node: Node) -> bool:
        return is_below(node, self.root)

    def _parts(self, node: Node, spelled: bool = False) -> list[str]:
        parts: list[str] = []
        while node.parent is not None:
            parts.append(node.spelled or node.name if spelled else node.name)
            node = node.parent
        parts.reverse()
        return parts

    # ------------------------------------------------------------------ changing
    def add(self, parent: Node, name: str, kind: Kind, mtime_ns: int, ino: int | None = None) -> Node:
        """Make a node under `parent`, where the name must be free."""
        if ino is None:
            self._last += 1
            ino = self._last
        node = Node(ino, kind, name, parent, mtime_ns, mtime_ns, mtime_ns)
        if kind is Kind.DIRECTORY:
            node.listing = self.new_listing(node)
        self._place(node).touched = self.tick
        return node

    def _attach(self, node: Node, parent: Node, name: str) -> None:
        """Enter `node` into `parent`'s listing: the only place where a node gets a name."""
        self._core.assert_held()
        listing = listing_of(parent)
        assert name not in listing.children, f"{name!r} is taken"
        node.parent, node.name, node.spelled = parent, name, None
        listing.children.add(name, node)
        listing.directories += node.is_dir
        if is_conflict_name(name):
            self._conflicts.add(node)

    def _take(self, node: Node) -> None:
        """Remove `node` from its parent's listing: the only place where a node loses its name."""
        self._core.assert_held()
        assert node.parent is not None
        listing = listing_of(node.parent)
        assert listing.children.get(node.name) is node, f"{node.name!r} is another node's"
        listing.children.remove(node.name)
        listing.directories -= node.is_dir
        self._conflicts.discard(node)

    def touch(self, node: Node) -> None:
        """Make listings that began before now void for this name."""
        self.count_change()
        node.touched = self.tick

    def arrived(self, node: Node) -> None:
        """Record that the bucket has the node's object: an older LIST may show neither the object nor the directories
        above."""
        self.count_change()
        above: Node | None = node
        while above is not None:
            above.touched = self.tick
            above = above.parent

    def detach(self, node: Node) -> None:
        """Remove a subtree from the tree; handles and the kernel may still refer to its nodes."""
        assert node.parent is not None
        listing = listing_of(node.parent)
        if listing.children.get(node.name) is node:
            self._take(node)
            self.count_change()
            listing.removed[node.name] = self.tick
        node.deleted = True
        if node.listing is not None:
            self._own_objects.drop(node)
            self.hidden -= len(node.listing.hidden)
            node.listing.hidden = frozenset()
            if node.listing.object is not None:
                node.listing.object.deleted = True
                self.collect(node.listing.object)
        remember(self._core.memory, node)
        if node.listing is not None:
            node.listing.children.drop_packed()
            for child in list(node.listing.children.nodes()):
                self.detach(child)
        self.collect(node)

    def move(self, node: Node, parent: Node, name: str) -> None:
        """Give a node another name; all nodes of the subtree stay the same."""
        assert node.parent is not None
        inode.unpack_below(node)
        self._take(node)
        self.count_change()
        listing_of(node.parent).removed[node.name] = self.tick
        self._attach(node, parent, name)
        self.touch(node)
        remember(self._core.memory, node)

    def conflicts(self) -> list[Node]:
        """Return the conflict copies, by their names, of any host, in the directories that are known."""
        return [node for node in self._conflicts if self.in_tree(node)]

    def swap(self, one: Node, other: Node) -> None:
        """Exchange the names of two nodes."""
        first, second = (one.parent, one.name), (other.parent, other.name)
        for node in (one, other):
            inode.unpack_below(node)
            self._take(node)
        for node, (parent, name) in ((one, second), (other, first)):
            assert parent is not None
            self._attach(node, parent, name)
            self.touch(node)

    # ------------------------------------------------------------------ changes of other hosts
    def expire_name(self, directory: Node, name: str, gone: bool = False) -> None:
        """Make the kernel look up a name anew; `gone`: the name was removed."""
        self._core.kernel.forget_name(directory.ino, name, gone=gone)

    def add_object(self, directory: Node, name: str, info: ObjectInfo) -> Node:
        """Add a file or link for an object of the bucket: no change of this host, so that any LIST overrules."""
        return self._place(self.unplaced(directory, name, info))

    def unplaced(self, directory: Node, name: str, info: ObjectInfo) -> Node:
        """Make the node of an object of the bucket, without its place in the tree yet."""
        self._last += 1
        kind, time_ns = Kind.SYMLINK if is_link(info.key, info.size) else Kind.FILE, info.modified_ns
        node = Node(self._last, kind, name, directory, time_ns, time_ns, time_ns)
        node.base, node.size, node.modified_ns = info.version, info.size, time_ns
        return node

    def _place(self, node: Node) -> Node:
        """Give an unplaced node its name."""
        assert node.parent is not None
        self._nodes[node.ino] = node
        self._attach(node, node.parent, node.name)
        self.count_change()
        return node

    def new_listing(self, directory: Node) -> Listing:
        """Return an empty listing of the directory."""
        return Listing(Children(lambda *packed: self._unpacked(directory, *packed)))

    def _unpacked(self, directory: Node, key: str, name: str, packed: Packed) -> Node:
        """Return the node of a packed file, which is no change of this host."""
        self._core.assert_held()
        self._last += 1
        then_ns = packed.modified_ns
        node = Node(self._last, Kind.FILE, name, directory, then_ns, then_ns, then_ns, size=packed.size)
        node.base, node.modified_ns = Version(key, packed.etag, packed.size), then_ns
        self._nodes[node.ino] = node
        if not directory.children().unread:
            node.st_ino = self._core.numbers.claim(derived(key, packed.etag))
        return node

    def add_prefix(self, directory: Node, spelled: str) -> Node:
        """Add a directory for keys of the bucket, in their spelling. No change of this host."""
        name = nfc(spelled)
        node = self.add(directory, name, Kind.DIRECTORY, self._core.now_ns())
        node.touched, node.spelled = 0, spelled if spelled != name else None
        return node

    def forget_marker(self, directory: Node) -> None:
        """Forget the object at the directory's own key."""
        listing_of(directory).marker = None
        if directory.own_bytes is not None:
            directory.base = None

    def saw_marker(self, directory: Node, version: Version) -> None:
        """Note the object that a HEAD found at the directory's own key, hidden if it holds bytes."""
        self.set_marker(directory, version)
        if version.size:
            self.hide_keys(directory, listing_of(directory).hidden | {version.key})

    def set_marker(self, directory: Node, version: Version) -> None:
        """Note the object at the directory's own key; an object with bytes is logged once."""
        listing_of(directory).marker = version
        if version.size:
            self._own_objects.note(directory, version)

    def hide_keys(self, directory: Node, keys: frozenset[str]) -> None:
        """Set the keys in `directory` that cannot be shown."""
        listing = listing_of(directory)
        self.hidden += len(keys) - len(listing.hidden)
        listing.hidden = keys

    def own_bytes(self) -> list[Version]:
        """Return the objects with bytes at the keys of known directories."""
        return self._own_objects.versions()

    def object_of(self, directory: Node) -> Node | None:
        """Return the read-only file that shows the bytes at the directory's own key. No listing contains it."""
        listing, version = directory.listing, directory.own_bytes
        assert listing is not None
        shown = listing.object
        if shown is not None and shown.base != version:
            shown.deleted, listing.object = True, None
            self.collect(shown)
        if version is not None and listing.object is None:
            self._last += 1
            shown = own_file(self._last, directory, version)
            self._nodes[shown.ino] = listing.object = shown
        return listing.object

    def gone(self, node: Node) -> None:
        """Remove a node after another host has removed the object or directory. The cached bytes are dropped."""
        directory = node.parent
        assert directory is not None
        for one in self.walk(node):
            if one.base is not None and one.pending is None and not one.is_dir:
                self._core.cache.drop(one.base)
            if one.kernel_knows and one.parent is not None:
                self.expire_name(one.parent, one.name, gone=True)
        self.expire_name(directory, node.name, gone=True)
        self.detach(node)
        self.noticed(directory)

    def noticed(self, directory: Node) -> None:
        """Move a directory's mtime to now: another host has added or removed a name, which scanners look for.

        LastModified would not do: a scanner may have looked between then and now.
        """
        if listing_of(directory).whole:  # else no program has seen the names
            move_time(directory, self._core.now_ns())
            self._core.kernel.forget_attributes(directory.ino)

    def distrust(self, node: Node) -> None:
        """Look up a name in the bucket at its next use: the object is no longer of the node's version."""
        if node.parent is None or node.deleted:
            return
        listing = listing_of(node.parent)
        listing.listed_at_s = NEVER
        listing.probed.pop(node.name, None)
        self.expire_name(node.parent, node.name)

    def show(self, directory: Node, info: ObjectInfo) -> Node:
        """Add an object of another host under a name that is free."""
        name = nfc(shown_name(info.key[len(self.key(directory)) :], info.size))
        node = self.add_object(directory, name, info)
        self.touch(node)
        self.noticed(directory)
        return node

    def replace(self, old: Node, info: ObjectInfo, newer: Node | None = None) -> Node:
        """Put another host's version in the name's place, as a new node or `newer`; open handles keep the old node."""
        directory, name = old.parent, old.name
        assert directory is not None
        self._core.history.note(
            old.ino, info.key, "changed in the bucket", f"ETag {info.etag}, not by this mount"
        )
        self.detach(old)
        self.expire_name(directory, name, gone=True)
        return self._place(newer or self.unplaced(directory, name, info))

    def refreshed(self, node: Node, info: ObjectInfo) -> None:
        """Take over the LastModified of the shown version; a later time means other metadata."""
        before = node.modified_ns
        if refresh(node, info.modified_ns):
            self._core.kernel.forget_attributes(node.ino)
        if node.modified_ns != before:
            remember(self._core.memory, node)
