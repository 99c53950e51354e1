"""Rename and exchange of names, in one transaction of the journal; then in the tree.

Owns:    what a rename means for the row of each inode at and below the name, and for what had the new name.
Never:   moves a byte: write-back copies inside the bucket, and sends what is only here.
Threads: every public method is thread-safe.
Locks:   takes Core.lock (30), and none while a request is on its way; what was looked at before is looked at again.
Fails:   FileError's subclasses; ReadFailed where the bucket has to be asked and does not answer; NoSpace and
         LocalError where the journal cannot be written: then nothing has changed.
"""

from __future__ import annotations

from dataclasses import replace

from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.directory_objects import check_changeable
from r2fs.engine.inodes.inode import Node, is_below
from r2fs.engine.namespace.create_remove import Names
from r2fs.engine.namespace.freshness import Freshness
from r2fs.engine.namespace.name_checks import check_rename
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import InodeChange
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.errors import Busy, Exists, InvalidArgument, LocalError, NotFound
from r2fs.model.keys import SYMLINK_SUFFIX, check_file_name, check_key, check_name, printable
from r2fs.model.pending import Staged
from r2fs.model.ports import Caller
from r2fs.model.records import Kind
from r2fs.model.transitions import expecting, named_by_program, renamed, renamed_to_local, retargeted
from r2fs.model.verbs import RENAME_EXCHANGE, RENAME_NOREPLACE


class Renaming:
    def __init__(
        self, records: Records, storage: Storage, freshness: Freshness, writeback: WriteBack, names: Names
    ) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._contents = storage.contents
        self._staged_files = storage.staged_files
        self._disk_sync = storage.disk_sync
        self._local_only = storage.local_only
        self._freshness = freshness
        self._queue = writeback.queue
        self._deletes = writeback.deletes
        self._names = names

    def rename(
        self, caller: Caller, parent: int, name: str, new_parent: int, new_name: str, flags: int
    ) -> None:
        self._names.require_writable()
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise InvalidArgument("renameat2: only RENAME_NOREPLACE or RENAME_EXCHANGE is supported")
        new_name = check_name(new_name)
        node = self._names.child(caller, parent, name)
        target = self._target(caller, new_parent, new_name)
        if flags & RENAME_EXCHANGE:
            self._exchange(caller, node, target)
            return
        if target is node:
            return
        if target is not None and flags & RENAME_NOREPLACE:
            raise Exists(f"{printable(new_name)} exists")
        if not node.is_dir and node.kind is not Kind.SYMLINK:
            check_file_name(new_name)
        if node.is_dir:
            self._freshness.load_below(caller, node)
        if target is not None and target.is_dir:
            self._freshness.ensure(caller, target)
        self._keep_here(caller, node, new_name)
        if target is not None and self._disk_sync.could_take_both(node, target):
            caller.about_to_wait()
            self._disk_sync.sync(node)
        with self._core.lock:
            directory = self._tree.directory(new_parent)
            check_rename(self._tree, node, directory, target, new_name)
            old_directory = node.parent
            assert old_directory is not None
            with self._pending.transaction():
                if target is not None:
                    self._names.withdraw(
                        target
                    )  # its pending delete is what the newcomer takes over and expects there
                self._names.recalls.take_along(node, directory, new_name)
                for one in list(self._tree.walk(node)):
                    self._retarget(one, node, directory, new_name)
                # A file that gets a name of `local_patterns` leaves the bucket.
                if directory is not old_directory or self._local_only.is_local(new_name):
                    self._names.keep_directory(old_directory, leaving=node)
            self._core.crash_point("renamed")
            if target is not None:
                self._tree.detach(target)
            self._tree.move(node, directory, new_name)
            now = self._core.now_ns()
            node.ctime_ns = now
            self._names.stamp(old_directory, now)
            self._names.stamp(directory, now)

    def _exchange(self, caller: Caller, node: Node, other: Node | None) -> None:
        """RENAME_EXCHANGE: two files, two directories or one of each take each other's name."""
        if other is None:
            raise NotFound("renameat2: there is nothing to exchange names with")
        if other is node:
            return
        for one, name in ((node, other.name), (other, node.name)):
            if not one.is_dir and one.kind is not Kind.SYMLINK:
                check_file_name(name)
            if one.is_dir:
                self._freshness.load_below(caller, one)
            self._keep_here(caller, one, name)
        with self._core.lock:
            here, there = node.parent, other.parent
            if node.deleted or other.deleted or here is None or there is None:
                raise NotFound(f"{printable(node.name)}: no such file or directory")
            check_changeable(node)
            check_changeable(other)
            if is_below(here, other) or is_below(there, node):
                raise InvalidArgument(f"{printable(node.name)} cannot be moved into itself")
            with self._pending.transaction():
                self._names.recalls.take_along(node, there, other.name)
                self._names.recalls.take_along(other, here, node.name)
                for one in list(self._tree.walk(node)):
                    self._retarget(one, node, there, other.name)
                for one in list(self._tree.walk(other)):
                    self._retarget(one, other, here, node.name)
                for one in self._tree.walk(node):  # what the other leaves there is replaced, not deleted
                    # Rather than what an older delete of that name expected, which another host has overtaken.
                    if one.pending is not None and (
                        left := self._local_only.expected_etag_at(one.pending.key)
                    ):
                        self._pending.commit(one, expecting(one.pending, left))
            self._core.crash_point("renamed")
            self._tree.swap(node, other)
            node.ctime_ns = other.ctime_ns = now = self._core.now_ns()
            self._names.stamp(here, now)
            self._names.stamp(there, now)

    def _keep_here(self, caller: Caller, node: Node, new_name: str) -> None:
        """A file that is to get a name of `local_patterns` leaves the bucket: its bytes have to be here."""
        local = self._local_only
        if node.kind is Kind.FILE and local.is_local(new_name):
            local.bring_here(caller, node)

    def _target(self, caller: Caller, parent: int, name: str) -> Node | None:
        try:
            return self._names.child(caller, parent, name)
        except NotFound:
            return None

    def _retarget(self, one: Node, top: Node, directory: Node, new_name: str) -> None:
        """`one`, at or below the renamed `top`, gets its new key. In a transaction."""
        if one.is_dir and one.pending is None and (one is not top or one.children()):
            if one.listing is None or one.listing.marker is None:
                return  # made by its files alone: they carry it along
        marker = one.listing.marker if one.listing is not None and one.pending is None else None
        at = marker or one.base
        old_key = one.pending.key if one.pending else (at.key if at else self._tree.key(one))
        prefix = self._tree.key(directory) + new_name
        new_key = check_key(prefix + self._tree.key(one)[len(self._tree.key(top).rstrip("/")) :])
        if one is top and not one.is_dir:
            new_key = check_key(prefix + (SYMLINK_SUFFIX if one.kind is Kind.SYMLINK else ""))
        had = one.pending.expected_etag if one.pending else (one.base.etag if one.base else None)
        if one.is_dir and one.pending is None:
            had = marker.etag if marker else None
        self._deletes.leave_key_locked(one)
        files = self._local_only
        local = files.is_local(new_key) and (one is top or files.stays_here(one))
        expected = None if local else self._pending.deletes.take_over(new_key)
        change: InodeChange = {}
        if one.own_bytes is not None and self._pending.needing(new_key, other_than=one) is not None:
            raise Busy(f"{printable(new_name)}: what was renamed from there is still on its way; try again")
        if one.pending is None:
            changed = one.is_dir and one.own_bytes is None  # a marker has no bytes to copy
            pending = retargeted(self._pending.begin(one, new_key, changed, expected))
            if marker is not None and (marker.size or (one.base is None and not one.metadata_known)):
                change["base"] = marker  # asked for what its metadata says, and its bytes, before it goes
        else:
            pending = renamed(one.pending, new_key, expected, self._core.journal.next_seq())
            if one is top and new_name != one.name:
                pending = named_by_program(pending)
        if local and one.kind is Kind.FILE:
            pending = renamed_to_local(pending, self._all_here(one))
        self._pending.commit(one, pending, **change)
        if had is not None:
            row = self._pending.deletes.add(old_key, had, after=None if local else one)
            self._deletes.add_locked(row)
        if one.listing is not None:
            self._pending.on_commit(lambda: setattr(one.listing, "marker", None))
        self._queue.schedule_locked(one)

    def _all_here(self, node: Node) -> Staged:
        """The staged file of one that owes the bucket nothing but its absence. In a transaction.

        One that the bucket has keeps that as its base, until write-back knows that its bytes are on the disk.
        """
        content = self._contents.of(node)
        for ended in (self._pending.on_commit, self._pending.on_rollback):
            ended(lambda: None if node.handles else self._contents.closed(node))
        if not content.complete:
            raise Busy(f"{printable(node.name)}: its bytes were given back meanwhile; try again")
        if content.doubtful:
            raise LocalError(f"{printable(node.name)}: this disk failed to read it")
        pending = node.pending
        if pending is not None and pending.staged is not None:
            if pending.changed:
                return pending.staged
            return replace(pending.staged, size=content.size, base_limit=content.size)
        file = self._staged_files.stage(node)
        self._pending.on_rollback(lambda: self._staged_files.unstage(node))
        return Staged(file, size=content.size, boot=self._core.staging.boot, base_limit=content.size)
