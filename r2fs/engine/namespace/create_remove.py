"""Names: lookup, mkdir, mknod, symlink, unlink and rmdir.

A change of a name is one transaction of the journal, then the tree. Directories are made fresh without the lock, and
checked again under it.

Locks: takes Core.lock; none during a request.
Fails: FileError's subclasses; ReadFailed without an answer of the bucket; NoSpace and LocalError of the journal: then
       nothing has changed.
"""

from __future__ import annotations

import logging
import stat

from r2fs.engine.content.staged_files import StagedFiles
from r2fs.engine.inodes.attribute_cache import AttributeCache
from r2fs.engine.inodes.inode import Node, listing_of
from r2fs.engine.inodes.inode_numbers import derived
from r2fs.engine.inodes.listing_merge import as_stored
from r2fs.engine.inodes.protected import (
    OBJECT_NAME,
    check_entry,
    check_removable,
    check_writable,
    is_bucket_root,
)
from r2fs.engine.inodes.stat import AttributeView, is_news, move_time
from r2fs.engine.namespace.freshness import Freshness
from r2fs.engine.namespace.waits import AWAY
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.directory_lines import DirectoryLines
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
)
from r2fs.model.keys import MAX_KEY_BYTES, SYMLINK_SUFFIX, check_file_name, check_name, printable
from r2fs.model.metadata import DEVICE, attributes_from, remembered_of
from r2fs.model.ports import Caller
from r2fs.model.records import SPECIAL_KINDS, Entry, Kind
from r2fs.model.transitions import created, made, retargeted, unlinked

log = logging.getLogger(__name__)

ROOT_VALID_S = 3600.0  # the root stays the root; the kernel is notified of changed attributes


class Names:
    def __init__(
        self,
        records: Records,
        staged_files: StagedFiles,
        freshness: Freshness,
        writeback: WriteBack,
    ) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._staged_files = staged_files
        self._freshness = freshness
        self._queue = writeback.queue
        self._deletes = writeback.deletes
        self._attributes = AttributeView(records.core)
        self.recalls = AttributeCache(records.core, records.tree)

    # ------------------------------------------------------------------ lookup
    def entry_locked(self, node: Node) -> Entry:
        self._core.assert_held()
        self._load_attributes(node)
        return Entry(self._attributes.of(node), self.valid_s(node))

    def valid_s(self, node: Node) -> float:
        """Return the seconds for which the kernel may keep the node's name and attributes.

        `freshness` for a pending node: this host alone changes it, but another host may replace it just after the
        upload.
        """
        if node is self._tree.root or node.parent is None:
            return ROOT_VALID_S
        if node.pending is not None:
            return self._core.settings.freshness_s
        return self._freshness.valid_s(node.parent, node.name)

    def listed_entry_locked(self, node: Node) -> Entry:
        """Return the entry as a line of its directory's listing, valid as long as the listing is fresh: the kernel keeps
        a listing as long as the shortest of its lines."""
        self._core.assert_held()
        assert node.parent is not None
        self._load_attributes(node)
        return Entry(self._attributes.of(node), self._freshness.valid_s(node.parent))

    def child(self, caller: Caller, parent: int, name: str) -> Node:
        """Return the node under a name, fresh. Without the lock.

        Raises NotFound, with the seconds for which the name may be cached as missing.
        """
        name = check_name(name)
        with self._core.lock:
            directory = self._tree.directory(parent)
            found = directory.children().get(name)
            if found is not None and found.pending:
                return found
            if self._freshness.is_fresh_locked(directory, name, patient=False):
                return self._found_locked(directory, name)
            if found is not None and self._tree_pending(found):
                return found
        try:
            self._freshness.ensure(caller, directory, name, patient=False)
        except ReadFailed:
            with self._core.lock:
                found = directory.children().get(name)
                if found is None or not self._tree.is_pending_below(found):
                    raise
                return found  # on the path of a pending node
        with self._core.lock:
            return self._found_locked(directory, name)

    def _found_locked(self, directory: Node, name: str) -> Node:
        found = directory.children().get(name)
        if found is None and name == OBJECT_NAME:
            found = self._tree.object_of(directory)
        if found is None:
            listing_of(directory).note_absent(name)
            message = f"{printable(name)}: no such file or directory"
            raise NotFound(message, self._freshness.absent_valid_s(directory, name))
        return found

    def is_exact_locked(self, node: Node) -> bool:
        """True if the attributes are as exact as the settings demand.

        With `allow_other` the kernel checks the access of other users by the mode.
        """
        self._core.assert_held()
        if node.pending is not None:
            return True
        settings = self._core.settings
        decides = settings.allow_other and node.kind is not Kind.SYMLINK
        exact = settings.mtime != "exact" and not decides and not node.outdated
        return exact or self._is_known_locked(node)

    def _is_known_locked(self, node: Node) -> bool:
        """True if a HEAD cannot add to the node's metadata."""
        self._core.assert_held()
        if node is self._tree.root or node.deleted or (node.base is None and not node.is_dir):
            return True
        self._load_attributes(node)
        return node.metadata_known

    def _load_attributes(self, node: Node) -> None:
        self.recalls.load(node)
        if not node.metadata_known and not node.attr_cache_checked:
            self._attributes.recall(node, self._tree.key(node) if node.base is None else node.base.key)

    def make_exact(self, caller: Caller, node: Node) -> None:
        """Send a HEAD for a version known from listings alone, if the settings demand that. Without the lock."""
        with self._core.lock:
            exact = self.is_exact_locked(node)
        if not exact:
            self.learn(caller, node)

    def learn(self, caller: Caller, node: Node) -> None:
        """Send a HEAD for the metadata of the node's version, unless known. Without the lock."""
        with self._core.lock:
            if self._is_known_locked(node) or self._freshness.outages.at(node):
                return
            caller.about_to_fetch()
            version, key = node.base, node.base.key if node.base else self._tree.key(node)
        try:
            info = self._core.store.head(key)
        except ObjectMissing:  # the next listing drops a file; a directory may have no object
            with self._core.lock:
                node.metadata_known = node.metadata_known or (node.is_dir and node.pending is None)
            return
        except AWAY as error:
            log.info("%s: its attributes are not known yet: %s", printable(node.name), error)
            return
        with self._core.lock:
            same = node.base == version and (version is None or info.etag == version.etag)
            if same and is_news(node, info):
                if node.listing is not None and node.pending is None:
                    self._tree.saw_marker(node, info.version)
                self._attributes.learn(node, info)
                self._core.cache.remember(info.key, info.etag, remembered_of(info))
                self.recalls.learned(info, attributes_from(info))

    def lookup(self, caller: Caller, parent: int, name: str) -> Entry:
        node = self.child(caller, parent, name)
        self.make_exact(caller, node)
        with self._core.lock:
            return self.referred_locked(self.loaded_locked(node))

    def loaded_locked(self, node: Node) -> Node:
        """Load the kept attributes; return the node, or its successor of the stored kind."""
        self._load_attributes(node)
        return as_stored(self._tree, node)

    def referred_locked(self, node: Node) -> Entry:
        """Return the entry for a reply, and count the kernel's reference."""
        entry = self.entry_locked(node)
        self._tree.refer(node)
        return entry

    def _tree_pending(self, node: Node) -> bool:
        """True for a directory with a pending child: the directory exists on this host alone."""
        return node.is_dir and any(child.pending for child in node.children().nodes())

    def readdir(self, caller: Caller, ino: int) -> DirectoryLines:
        with self._core.lock:
            directory = self._tree.directory(ino)
        self._freshness.ensure(caller, directory, patient=False)
        self.recalls.load_children(directory)
        with self._core.lock:
            key, valid_s = self._tree.key(directory), self._freshness.valid_s(directory)
            return directory.children().lines(key, valid_s)

    # ------------------------------------------------------------------ new names
    def _free_name(self, caller: Caller, parent: int, name: str) -> tuple[Node, str]:
        """Return the directory, and the name, which is free in it. Raises Exists."""
        name = check_name(name)
        check_writable(self._core)
        try:
            self.child(caller, parent, name)
        except NotFound:
            with self._core.lock:
                directory = self._tree.directory(parent)
                check_entry(self._core, directory, name)
                return directory, name
        raise Exists(f"{printable(name)} exists")

    def mkdir(self, caller: Caller, parent: int, name: str, mode: int) -> Node:
        directory, name = self._free_name(caller, parent, name)
        with self._core.lock:
            key = self._tree.check_key(self._tree.child_key(directory, name) + "/")
            node = self.new_node_locked(caller, directory, name, Kind.DIRECTORY, mode)
            self._queue.implied.made_locked(node)
            self._add_pending_locked(node, key)
            self._freshness.made_locked(node)
            return node

    def symlink(self, caller: Caller, parent: int, name: str, target: str) -> Node:
        directory, name = self._free_name(caller, parent, name)
        if not target or len(target.encode(errors="surrogateescape")) > MAX_KEY_BYTES * 4 - 1:
            raise InvalidArgument("a symbolic link's target has 1 to 4,095 bytes")
        with self._core.lock:
            key = self._tree.check_key(self._tree.child_key(directory, name) + SYMLINK_SUFFIX)
            node = self.new_node_locked(caller, directory, name, Kind.SYMLINK, 0o777)
            node.target, node.size = target, len(target.encode(errors="surrogateescape"))
            self._add_pending_locked(node, key)
            return node

    def mknod(self, caller: Caller, parent: int, name: str, mode: int, device: int) -> Node:
        """Make a FIFO, socket or device of the type in `mode` (st_mode); `device` is the st_rdev of a device.

        Its object is empty, with the type in the `mode` metadata, as in s3fs; the kernel opens, reads and writes special
        files. `as_stored` finds special files of other hosts.
        """
        kind = SPECIAL_KINDS.get(stat.S_IFMT(mode))
        if kind is None:
            raise NotPermitted(f"{printable(name)}: no file of type {stat.S_IFMT(mode):#o} can be made")
        directory, name = self._free_name(caller, parent, name)
        check_file_name(name)
        with self._core.lock:
            key = self._tree.child_key(directory, name)
            node = self.new_node_locked(caller, directory, name, kind, stat.S_IMODE(mode))
            node.mode = stat.S_IMODE(mode)  # stored even if the default: the type is in the same field
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                node.extra = {DEVICE: f"{device:x}"}
            self._add_pending_locked(node, key)
            return node

    def _add_pending_locked(self, node: Node, key: str) -> None:
        """Journal and queue a new node without bytes."""
        self._core.assert_held()
        try:
            with self._pending.transaction:
                expected_etag = self._pending.deletes.take_over(key)
                pending = created(self._pending.begin(node, key, True, expected_etag))
                self._pending.commit(node, made(pending, self._core.clock.time()))
        except BaseException:
            self._tree.detach(node)
            raise
        self._core.crash_point("made")
        self._queue.schedule_locked(node)

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
        if directory.mode is not None and directory.mode & stat.S_ISGID:  # new nodes inherit the group
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
        """Set the directory's times after a change of names.

        The kernel needs no notification, and drops the attributes of a directory after its own changes.
        """
        move_time(directory, now_ns)
        self.recalls.changed(directory)

    # ------------------------------------------------------------------ removal
    def unlink(self, caller: Caller, parent: int, name: str) -> None:
        node = self.child(caller, parent, name)
        check_removable(self._core, node)
        if node.is_dir:
            raise IsADirectory(f"{printable(name)} is a directory")
        with self._core.lock:
            if node.deleted or node.parent is None:
                raise NotFound(f"{printable(name)}: no such file or directory")
            directory = node.parent
            with self._pending.transaction:
                self.withdraw(node)
                self.keep_directory(directory, leaving=node)
            self._core.crash_point("unlinked")
            node.ctime_ns = self._core.now_ns()
            self._tree.detach(node)
            self.stamp(directory, self._core.now_ns())

    def withdraw(self, node: Node) -> None:
        """Drop the node's row, and add a delete for the object under the name. In a transaction."""
        pending = node.pending
        staged = pending.staged.file if pending and pending.staged else None
        self._deletes.leave_key_locked(node)
        key = pending.key if pending else (node.base.key if node.base else self._tree.key(node))
        etag = pending.expected_etag if pending else (node.base.etag if node.base else None)
        if node.is_dir:
            marker = node.listing.marker if node.listing else None
            etag = etag or (marker.etag if marker else None)
            self.recalls.removed(node)
        if etag is not None:
            self._deletes.add_locked(self._pending.deletes.add(key, etag))
        if pending is not None:
            self._pending.commit(node, unlinked(pending))
        # bytes are kept until the commit
        self._pending.on_commit(lambda: self._staged_files.withdraw(node, staged))

    def keep_directory(self, directory: Node, leaving: Node) -> None:
        """Give a directory without a marker one, if `leaving` is its last child in the bucket. In a transaction."""
        if is_bucket_root(self._core, directory) or directory.pending or directory.listing is None:
            return
        if directory.listing.marker is None and not self._queue.implied.is_kept_locked(directory, leaving):
            key = self._tree.key(directory)
            expected_etag = self._pending.deletes.take_over(key)
            self._pending.commit(
                directory, retargeted(self._pending.begin(directory, key, True, expected_etag))
            )
            self._queue.schedule_locked(directory)

    def rmdir(self, caller: Caller, parent: int, name: str) -> None:
        node = self.child(caller, parent, name)
        check_removable(self._core, node)
        if not node.is_dir:
            raise NotADirectory(f"{printable(name)} is not a directory")
        self._freshness.ensure(caller, node)
        with self._core.lock:
            if node.deleted or node.parent is None:
                raise NotFound(f"{printable(name)}: no such file or directory")
            check_empty(node, name)
            directory = node.parent
            with self._pending.transaction:
                self.withdraw(node)
                self.keep_directory(directory, leaving=node)
            self._core.crash_point("directory_removed")
            self._tree.detach(node)
            self.stamp(directory, self._core.now_ns())


def check_empty(directory: Node, name: str) -> None:
    """Raise DirectoryNotEmpty, also for keys not shown in the directory."""
    if directory.own_bytes is not None:
        raise DirectoryNotEmpty(
            f"{printable(name)}: the object at its own key holds bytes, which are {OBJECT_NAME} in it: "
            "remove that object with an S3 tool first"
        )
    if directory.children() or (directory.listing and directory.listing.hidden):
        raise DirectoryNotEmpty(f"{printable(name)} is not empty")
