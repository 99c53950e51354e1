"""Discards: local changes of a file given up for the bucket's version, after an export of exactly these bytes.

The staged file and the exported copy have one SHA-256; the file is closed, has no upload on its way, and by fstat
is unchanged since the comparison. One transaction deletes the row and enters the staged file as garbage: before,
the change is pending; after, the bucket's version counts, and `content/disk_space.py` removes the file.

Locks: takes Core.lock; none while the file is read, or during a request.
Fails: CannotDiscard, with the reason and the remedy: nothing has changed then. StoreError of the HEAD; NotFound;
       NoSpace and LocalError of the journal.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable

from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Node
from r2fs.engine.namespace.create_remove import Names
from r2fs.engine.namespace.named_paths import known_node
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.errors import CannotDiscard
from r2fs.model.keys import printable
from r2fs.model.pending import Pending
from r2fs.model.records import Kind, ObjectInfo, Proof
from r2fs.model.transitions import discarded
from r2fs.model.views import Export

log = logging.getLogger(__name__)

PIECE = 1 << 20  # bytes read at once


class Discards:
    def __init__(self, records: Records, storage: Storage, writeback: WriteBack, names: Names) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts
        self._contents = storage.contents
        self._staged_files = storage.staged_files
        self._queue = writeback.queue
        self._names = names

    def discard(self, path: str, export: Export, progress: Callable[[int], None] = lambda done: None) -> bool:
        """Give up the local changes of the file at `path`, of which `export` is a copy. False: the bucket has no
        version, and the name is removed.

        `progress` gets the bytes compared so far.
        """
        with self._core.lock:
            node = known_node(self._tree, path)
            key = self._checked_locked(node).key
            fd, proof = self._opened_locked(node)
        try:
            same = fd is None or _digest(fd, progress) == export
        finally:
            if fd is not None:
                os.close(fd)
        if not same:
            raise CannotDiscard(
                f"{printable(path)}: its bytes differ from the exported copy: export it again"
            )
        found = self._core.head(key)
        with self._core.lock:
            pending = self._checked_locked(node)
            if pending.key != key or not self._is_as_read_locked(node, proof):
                raise CannotDiscard(f"{printable(path)} was changed meanwhile: export it again")
            self._discard_locked(node, pending, found)
        log.info("%s: its local changes were discarded, after an export", printable(path))
        return found is not None

    # ------------------------------------------------------------------ the conditions
    def _checked_locked(self, node: Node) -> Pending:
        """Return the state of a file whose changes can be given up. CannotDiscard otherwise."""
        self._core.assert_held()
        path, pending = printable(self._tree.path(node)), node.pending
        if node.kind is not Kind.FILE:
            raise CannotDiscard(f"{path} is a {node.kind.value}: only changes of files can be dropped")
        if pending is None or node.deleted or node.parent is None:
            raise CannotDiscard(f"{path} has no pending changes")
        if self._queue.is_local_only_locked(node):
            raise CannotDiscard(f"{path} stays on this host (local_patterns): remove the file instead")
        if node.writers or pending.open:
            raise CannotDiscard(f"{path} is open for writing: close it first")
        if node.sending or node.ino in self._queue.uploads:
            raise CannotDiscard(f"{path} is being uploaded: try again when it is parked or waiting")
        if self._attempts.may_arrive(node.ino):
            raise CannotDiscard(
                f"{path}: an upload of it may still arrive in the bucket: try again in ten minutes"
            )
        rows = self._pending.deletes.rows.values()
        if any(row.after_ino == node.ino for row in rows):
            raise CannotDiscard(
                f"{path} was renamed, and its old name is still in the bucket: rename it back first"
            )
        if self._pending.deletes.any_at(pending.key):
            raise CannotDiscard(
                f"{path}: a removal at this name is on its way to the bucket: try again later"
            )
        return pending

    def _opened_locked(self, node: Node) -> tuple[int | None, Proof | None]:
        """Return a descriptor of the staged file and its fstat; none of both for a change of metadata alone."""
        self._core.assert_held()
        path, pending = printable(self._tree.path(node)), node.pending
        if pending is None or pending.staged is None:
            return None, None
        content = self._contents.of(node)
        try:
            if not content.complete or pending.staged.lists_ranges:
                raise CannotDiscard(f"{path}: some of its bytes are in the bucket alone: read it once first")
            fd = self._staged_files.closed_fd(node)
            if fd is None:
                raise CannotDiscard(f"{path}: a program has it mapped for writing: end that program first")
            return fd, self._contents.proof(node)
        finally:
            self._contents.close_unused(node)

    def _is_as_read_locked(self, node: Node, proof: Proof | None) -> bool:
        """True if no byte was written since the file was read."""
        self._core.assert_held()
        if node.pending is None or node.pending.staged is None:
            return proof is None
        try:
            return self._staged_files.nobody_writes(node) and self._contents.proof(node) == proof
        finally:
            self._contents.close_unused(node)

    # ------------------------------------------------------------------ the change
    def _discard_locked(self, node: Node, pending: Pending, found: ObjectInfo | None) -> None:
        """Commit, then show what the bucket has: `found`, or no file."""
        self._core.assert_held()
        directory, staged = node.parent, pending.staged.file if pending.staged else None
        assert directory is not None
        with self._pending.transaction:
            self._attempts.settle(node.ino)
            self._pending.commit(node, discarded(pending))
            if found is None:
                self._names.keep_directory(directory, leaving=node)
            self._pending.on_commit(lambda: self._staged_files.withdraw(node, staged))
        if found is None:
            self._tree.gone(node)
        else:
            self._tree.replace(node, found)


def _digest(fd: int, progress: Callable[[int], None]) -> Export:
    """Size and digest of a file."""
    sha256, at = hashlib.sha256(), 0
    while data := os.pread(fd, PIECE, at):
        sha256.update(data)
        at += len(data)
        progress(at)
    return Export(at, sha256.hexdigest())
