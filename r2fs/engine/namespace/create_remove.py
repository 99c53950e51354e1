"""Names: lookup, create, mkdir, symlink, unlink and rmdir. Renaming has a module of its own.

Owns:    what each change of a name means for the journal: one transaction, then the tree; and when a
         version's metadata is asked for.
Never:   sends a request itself, but for that HEAD (`learn`).
Threads: every public method is thread-safe; some are called with the lock held, and say so.
Locks:   takes Core.lock (30), and none while a request is on its way; directories are made fresh before
         it, and looked at again under it.
Fails:   FileError's subclasses; ReadFailed where the bucket has to be asked and does not answer; NoSpace and
         LocalError where the journal cannot be written: then nothing has changed.
"""

from __future__ import annotations

import logging
import stat

from r2fs.engine.content.local_file import Contents
from r2fs.engine.inode_numbers import derived
from r2fs.engine.inodes.attribute_cache import AttributeCache
from r2fs.engine.inodes.directory_objects import OBJECT_NAME, check_changeable
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.stat import AttributeView, is_news, move_time
from r2fs.engine.namespace.freshness import AWAY, Freshness
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.errors import (
    DirectoryNotEmpty,
    Exists,
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotFound,
    NotPermitted,
    ObjectMissing,
    ReadFailed,
    ReadOnly,
)
from r2fs.model.keys import MAX_KEY_BYTES, SYMLINK_SUFFIX, check_file_name, check_key, check_name, printable
from r2fs.model.metadata import DEVICE, attributes_from, remembered_of
from r2fs.model.ports import Caller
from r2fs.model.records import SPECIAL_KINDS, DirEntry, Entry, Kind
from r2fs.model.transitions import created, made, retargeted, unlinked

log = logging.getLogger(__name__)

ROOT_VALID_S = 3600.0  # the root stays the root; a change of its attributes is told to the kernel


class Names:
    def __init__(
        self,
        records: Records,
        contents: Contents,
        freshness: Freshness,
        writeback: WriteBack,
        attributes: AttributeView,
    ) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._contents = contents
        self._freshness = freshness
        self._queue = writeback.queue
        self._deletes = writeback.deletes
        self._attributes = attributes
        self.recalls = AttributeCache(records.core, records.tree)

    # ------------------------------------------------------------------ looking
    def entry(self, node: Node) -> Entry:
        """With Core.lock held."""
        self._attribute_cache(node)
        return Entry(self._attributes.of(node), self.valid_s(node))

    def valid_s(self, node: Node) -> float:
        """Seconds for which the kernel may keep the node's name and attributes.

        What waits for its upload changes through this host alone, but another host may replace it the moment
        after: `freshness` is then as right as for what was just listed, and needs no notification of each upload.
        """
        if node is self._tree.root or node.parent is None:
            return ROOT_VALID_S
        if node.pending is not None:
            return self._core.settings.freshness_s
        return self._freshness.valid_s(node.parent, node.name)

    def listed_entry(self, node: Node) -> Entry:
        """`entry` as a line of its directory's listing, valid no longer than that listing is fresh: the kernel
        keeps the listing as long as the shortest of its lines. With Core.lock held."""
        assert node.parent is not None
        self._attribute_cache(node)
        return Entry(self._attributes.of(node), self._freshness.valid_s(node.parent))

    def child(self, caller: Caller, parent: int, name: str) -> Node:
        """The node under a name, fresh. Raises NotFound with how long that holds. Without the lock."""
        name = check_name(name)
        with self._core.lock:
            directory = self._tree.directory(parent)
            found = directory.children().get(name)
            fresh = self._freshness.valid_s(directory, name) > 0  # else all of its children may be looked at
            if found is not None and (found.pending or (not fresh and self._tree_pending(found))):
                return found
        try:
            self._freshness.ensure(caller, directory, name)
        except ReadFailed:
            with self._core.lock:
                found = directory.children().get(name)
                if found is None or not self._tree.is_pending_below(found):
                    raise
                return found  # the way to something that is not in the bucket yet
        with self._core.lock:
            found = directory.children().get(name)
            if found is None and name == OBJECT_NAME:
                found = self._tree.object_of(directory)
            if found is None:
                raise NotFound(
                    f"{printable(name)}: no such file or directory",
                    self._freshness.valid_s(directory, name),
                )
            return found

    def is_exact(self, node: Node) -> bool:
        """True if its attributes are as exact as the settings ask for. With Core.lock held.

        With `allow_other` the kernel decides by the mode what other users may do.
        """
        if node.pending is not None:
            return True
        settings = self._core.settings
        decides = settings.allow_other and node.kind is not Kind.SYMLINK
        return (settings.mtime != "exact" and not decides and not node.outdated) or self._is_known(node)

    def _is_known(self, node: Node) -> bool:
        """Is there nothing that only a HEAD could tell? With Core.lock held."""
        if node is self._tree.root or node.deleted or (node.base is None and not node.is_dir):
            return True
        self._attribute_cache(node)
        return node.metadata_known

    def _attribute_cache(self, node: Node) -> None:
        self.recalls.load(node)
        if not node.metadata_known and not node.attr_cache_checked:
            self._attributes.recall(node, self._tree.key(node))

    def make_exact(self, caller: Caller, node: Node) -> None:
        """One HEAD, where the settings ask for it, of a version of which only a listing told. Without the lock."""
        with self._core.lock:
            exact = self.is_exact(node)
        if not exact:
            self.learn(caller, node)

    def learn(self, caller: Caller, node: Node) -> None:
        """What the metadata says of the node's version, if that is not known yet. Without the lock."""
        with self._core.lock:
            if self._is_known(node) or self._freshness.away:
                return
            caller.about_to_fetch()
            version, key = node.base, node.base.key if node.base else self._tree.key(node)
        try:
            info = self._core.store.head(key)
        except ObjectMissing:  # the next listing shows that a file has gone; a directory may have no object
            with self._core.lock:
                node.metadata_known = node.metadata_known or (node.is_dir and node.pending is None)
            return
        except AWAY as error:
            log.info("%s: its attributes are not known yet: %s", printable(node.name), error)
            return
        with self._core.lock:
            asked = node.base == version and (version is None or info.etag == version.etag)
            if asked and is_news(node, info):
                if node.listing is not None and node.pending is None:
                    self._tree.saw_marker(node, info.version)
                self._attributes.learn(node, info)
                self._core.cache.remember(info.key, info.etag, remembered_of(info))
                self.recalls.learned(info, attributes_from(info))

    def lookup(self, caller: Caller, parent: int, name: str) -> Entry:
        node = self.child(caller, parent, name)
        self.make_exact(caller, node)
        with self._core.lock:
            self._attribute_cache(node)
            node = self._tree.as_stored(node)
            return self.referred(node)

    def referred(self, node: Node) -> Entry:
        """The entry that the kernel is about to be told of: one reference more. With Core.lock held."""
        entry = self.entry(node)
        self._tree.refer(node)
        return entry

    def _tree_pending(self, node: Node) -> bool:
        """A directory in which something waits for its upload is there, whatever a listing says."""
        return node.is_dir and any(child.pending for child in node.children().values())

    def readdir(self, caller: Caller, ino: int) -> list[DirEntry]:
        with self._core.lock:
            directory = self._tree.directory(ino)
        self._freshness.ensure(caller, directory)
        self.recalls.load_children(directory)
        with self._core.lock:
            children = list(directory.children().items())
        # Number and kind of a node never change: what takes long is done without the lock.
        return [
            DirEntry(name, node.ino, node.kind, offset, node.st_ino)
            for offset, (name, node) in enumerate(children, 1)
        ]

    # ------------------------------------------------------------------ making
    def _free_name(self, caller: Caller, parent: int, name: str) -> tuple[Node, str]:
        """A directory and a name that is free in it. Raises Exists."""
        name = check_name(name)
        self.require_writable()
        try:
            self.child(caller, parent, name)
        except NotFound:
            with self._core.lock:
                return self._tree.directory(parent), name
        raise Exists(f"{printable(name)} exists")

    def mkdir(self, caller: Caller, parent: int, name: str, mode: int) -> Node:
        directory, name = self._free_name(caller, parent, name)
        with self._core.lock:
            key = check_key(self._tree.child_key(directory, name) + "/")
            node = self.new_node_locked(caller, directory, name, Kind.DIRECTORY, mode)
            self._queue.implied.made(node)
            self._add_pending_locked(node, key)
            self._freshness.born(node)
            return node

    def symlink(self, caller: Caller, parent: int, name: str, target: str) -> Node:
        directory, name = self._free_name(caller, parent, name)
        if not target or len(target.encode(errors="surrogateescape")) > MAX_KEY_BYTES * 4 - 1:
            raise InvalidArgument("a symbolic link's target has 1 to 4,095 bytes")
        with self._core.lock:
            key = check_key(self._tree.child_key(directory, name) + SYMLINK_SUFFIX)
            node = self.new_node_locked(caller, directory, name, Kind.SYMLINK, 0o777)
            node.target, node.size = target, len(target.encode(errors="surrogateescape"))
            self._add_pending_locked(node, key)
            return node

    def mknod(self, caller: Caller, parent: int, name: str, mode: int, device: int) -> Node:
        """A FIFO, socket or device of the type in `mode` (st_mode); `device` is st_rdev, of a device only.

        An empty object with its type in the `mode` metadata, as s3fs has it. The kernel opens, reads and writes special
        files by itself. `Tree.as_stored` finds those that other hosts made.
        """
        kind = SPECIAL_KINDS.get(stat.S_IFMT(mode))
        if kind is None:
            raise NotPermitted(f"{printable(name)}: no file of type {stat.S_IFMT(mode):#o} can be made")
        directory, name = self._free_name(caller, parent, name)
        check_file_name(name)
        with self._core.lock:
            key = self._tree.child_key(directory, name)
            node = self.new_node_locked(caller, directory, name, kind, stat.S_IMODE(mode))
            node.mode = stat.S_IMODE(mode)  # also if it is the default: the type is stored with it
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                node.extra = {DEVICE: f"{device:x}"}
            self._add_pending_locked(node, key)
            return node

    def _add_pending_locked(self, node: Node, key: str) -> None:
        """Journal and queue a node that was just made and has no bytes to wait for."""
        self._core.assert_held()
        try:
            with self._pending.transaction():
                expected_etag = self._pending.take_over_deletes(key)
                pending = created(self._pending.begin(node, key, True, expected_etag))
                self._pending.commit(node, made(pending, self._core.clock.time()))
        except BaseException:
            self._tree.detach(node)
            raise
        self._core.crash_point("made")
        self._queue.schedule(node)

    def new_node_locked(self, caller: Caller, directory: Node, name: str, kind: Kind, mode: int) -> Node:
        """Add a node with nothing pending. Raises NotFound or Exists: the directory was looked at without the lock."""
        self._core.assert_held()
        if directory.deleted:
            raise NotFound(f"{printable(directory.name)} was removed")
        if name in directory.children():
            raise Exists(f"{printable(name)} was made by somebody else at the same time")
        now, settings = self._core.now_ns(), self._core.settings
        node = self._tree.add(directory, name, kind, now)
        gid = caller.gid
        if directory.mode is not None and directory.mode & stat.S_ISGID:  # it hands on its group
            gid = self._attributes.of(directory).gid
            mode |= stat.S_ISGID if kind is Kind.DIRECTORY else 0
        default = (0o777 if kind is Kind.DIRECTORY else 0o666) & ~settings.umask
        node.mode = None if mode & 0o7777 == default else mode & 0o7777
        node.uid = None if caller.uid == settings.uid else caller.uid
        node.gid = None if gid == settings.gid else gid
        node.metadata_known = node.mtime_known = True
        wanted = derived(self._tree.key(node)) if node.is_dir else node.ino
        node.st_ino = self._core.numbers.claim(wanted)
        self.stamp(directory, now)
        return node

    def stamp(self, directory: Node, now_ns: int) -> None:
        """A change in a directory is a change of its times.

        The kernel knows: what it asked for itself makes it forget the directory's attributes.
        """
        move_time(directory, now_ns)
        self.recalls.changed(directory)

    def require_writable(self) -> None:
        if self._core.settings.read_only:
            raise ReadOnly("this mount is read-only")

    # ------------------------------------------------------------------ removing
    def unlink(self, caller: Caller, parent: int, name: str) -> None:
        self.require_writable()
        node = self.child(caller, parent, name)
        if node.is_dir:
            raise IsADirectory(f"{printable(name)} is a directory")
        with self._core.lock:
            if node.deleted or node.parent is None:
                raise NotFound(f"{printable(name)}: no such file or directory")
            check_changeable(node)
            directory = node.parent
            with self._pending.transaction():
                self.withdraw(node)
                self.keep_directory(directory, leaving=node)
            self._core.crash_point("unlinked")
            node.ctime_ns = self._core.now_ns()
            self._tree.detach(node)
            self.stamp(directory, self._core.now_ns())

    def withdraw(self, node: Node) -> None:
        """The node's row goes, and the bucket is to lose what it has under the name. In a transaction."""
        pending = node.pending
        staged = pending.staged.file if pending and pending.staged else None
        self._deletes.leave_key(node)
        key = pending.key if pending else (node.base.key if node.base else self._tree.key(node))
        etag = pending.expected_etag if pending else (node.base.etag if node.base else None)
        if node.is_dir:
            marker = node.listing.marker if node.listing else None
            etag = etag or (marker.etag if marker else None)
            self.recalls.removed(node)
        if etag is not None:
            self._deletes.add(self._pending.add_delete(key, etag))
        if pending is not None:
            self._pending.commit(node, unlinked(pending))
        self._pending.then(lambda: self._contents.withdraw(node, staged))  # no byte goes before the commit

    def keep_directory(self, directory: Node, leaving: Node) -> None:
        """A directory without a marker gets one when the last child goes that the bucket has."""
        if directory is self._tree.root or directory.pending or directory.listing is None:
            return
        if directory.listing.marker is None and not self._queue.implied.is_kept(directory, leaving):
            key = self._tree.key(directory)
            expected_etag = self._pending.take_over_deletes(key)
            self._pending.commit(
                directory, retargeted(self._pending.begin(directory, key, True, expected_etag))
            )
            self._queue.schedule(directory)

    def rmdir(self, caller: Caller, parent: int, name: str) -> None:
        self.require_writable()
        node = self.child(caller, parent, name)
        if not node.is_dir:
            raise NotADirectory(f"{printable(name)} is not a directory")
        self._freshness.ensure(caller, node)
        with self._core.lock:
            if node.deleted or node.parent is None:
                raise NotFound(f"{printable(name)}: no such file or directory")
            check_empty(node, name)
            directory = node.parent
            with self._pending.transaction():
                self.withdraw(node)
                self.keep_directory(directory, leaving=node)
            self._core.crash_point("directory_removed")
            self._tree.detach(node)
            self.stamp(directory, self._core.now_ns())


def check_empty(directory: Node, name: str) -> None:
    """Raises DirectoryNotEmpty. A key that no listing shows keeps its directory, too."""
    if directory.own_bytes is not None:
        raise DirectoryNotEmpty(
            f"{printable(name)}: the object at its own key holds bytes, which are {OBJECT_NAME} in it: "
            "remove that object with an S3 tool first"
        )
    if directory.children() or (directory.listing and directory.listing.hidden):
        raise DirectoryNotEmpty(f"{printable(name)} is not empty")
