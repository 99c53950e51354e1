"""Staged files: moves of local files into staging, before the first write, and out of it, after the upload.

Owns:    the names of content in staging/data, where a row refers to each:
             cache entry ── take ──▶ open/  ── first writer ──▶ staging/data ── uploaded ──▶ open/ ─▶ cache
Never:   copies content; deletes a byte that the bucket lacks; removes a name in staging/data of an earlier row
         (`content/disk_space.py` does, and `drop_stale_name` once the row's end is on the disk).
Locks:   every method is called with Core.lock held.
Fails:   NoSpace and LocalError of the disk.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from r2fs.disk.cache.table import Admission
from r2fs.disk.filecalls import local_error, open_unless_writable
from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.content.local_file import Contents
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.model.errors import R2fsError
from r2fs.model.keys import printable

log = logging.getLogger(__name__)


class StagedFiles:
    def __init__(self, records: Records, contents: Contents) -> None:
        self._core = records.core
        self._pending = records.pending
        self._contents = contents

    # ---- into staging
    def stage(self, node: Node) -> str:
        """Move the inode's content to staging, to be written; return its file name there.

        The caller commits the row next, and calls `unstage` if that fails.
        """
        content = self._contents.of(node)
        self._contents.keep_whole(node)
        content.make_writable()
        # A complete file that was renamed here may be the last copy: another host may have deleted the object.
        last_copy = node.pending is not None and content.complete
        unwritten_ns = () if last_copy else (content.stat().st_mtime_ns, node.mtime_ns)
        name = self._core.staging.adopt(content, node.ino, unwritten_ns)
        self._core.crash_point("staged")
        self._contents.leave_cache(node)
        # From here on the file's times are the inode's.
        content.set_times(node.atime_ns, node.mtime_ns)
        return name

    @contextmanager
    def staging(self, node: Node) -> Iterator[str]:
        """As `stage`, around the commit of the row: undone unless the row names the file."""
        name = self.stage(node)
        try:
            yield name
        finally:
            staged = node.pending.staged if node.pending is not None else None
            if staged is None or staged.file != name:
                self.unstage(node)

    def unstage(self, node: Node) -> None:
        """Undo `stage`: the file is clean content as before."""
        assert node.content is not None
        node.content.rename_to(self._core.staging.link_path(node.ino))
        self._contents.pin(node)

    def create(self, node: Node) -> str:
        """Give a new inode an empty file in staging; return its name there."""
        node.content = self._contents.with_room(self._core.staging.create)
        return node.content.path.name

    def drop_stale_name(self, node: Node, name: str) -> None:
        """Remove the name of an earlier stay in staging, of which no row is left on the disk.

        Called before the file is opened for writing: later, the removal would change the file's ctime, and with it
        the evidence of "unchanged".
        """
        self._core.staging.remove(name)
        if node.stale_staged_name == name:
            node.stale_staged_name = None

    # ---- evidence
    def closed_fd(self, node: Node) -> int | None:
        """Return a descriptor of the complete staged file, the caller's to close; None while a program could write."""
        content, staged = node.content, node.pending.staged if node.pending is not None else None
        if content is not None or staged is None:
            content = self._contents.of(node)
            assert content.complete, "missing bytes must be downloaded before"
            content.make_readonly()
            path = content.path
        else:
            assert not staged.lists_ranges, "missing bytes must be downloaded before"
            path = self._core.staging.path(staged.file)
        try:
            return open_unless_writable(path)
        except OSError as error:
            raise local_error(error, path) from error

    def require(self, node: Node) -> None:
        """Raise StateDamaged if the file of the inode's row is missing."""
        staged = node.pending.staged if node.pending is not None else None
        if node.content is None and node.pending is not None and staged is not None:
            try:
                self._core.staging.stat(staged.file)
            except FileNotFoundError:
                raise self._core.staging.lost(
                    self._core.staging.path(staged.file), node.pending.key
                ) from None

    def nobody_writes(self, node: Node) -> bool:
        """True if no program has a writing descriptor or a writable mapping now."""
        fd = self.closed_fd(node)
        if fd is None:
            return False
        os.close(fd)
        return True

    # ---- out of staging
    def keep_name(self, node: Node) -> None:
        """Give open content a name outside staging/data, in the transaction that drops its row.

        If the disk has no room for a name, the row stays. Not called while the file's ctime is needed as evidence.
        """
        content = node.content
        if content is None or not self._core.staging.holds(content.path):
            return
        staged, path = content.path, self._core.staging.link_path(node.ino)
        content.link_to(path)

        def undo() -> None:
            content.path = staged
            self._core.staging.unlink(path)

        self._pending.on_rollback(undo)

    def settled(self, *files: tuple[Node, str]) -> None:
        """Move staged files into the cache, after their rows were dropped: the bucket has each as its node's base."""
        closed: list[Admission] = []
        for node, staged in files:
            if node.content is None:
                assert node.base is not None
                closed.append(Admission(node.base, self._core.staging.path(staged), node.base.size, None))
            else:
                self._leave_staging(node.content, node)
                self._contents.enter_cache(node)
        if closed:
            self._core.cache.admit_all(closed)

    def withdraw(self, node: Node, staged: str | None) -> None:
        """Delete the content of an unlinked inode without a row, or at the last close of programs that have it open."""
        content = node.content
        if content is not None and node.handles:
            self._leave_staging(content, node)
            return
        if content is not None and staged is not None:
            content.close()
            node.content = None
        self._contents.discard(node)
        if node.base is not None and not node.is_dir:
            self._core.cache.drop(node.base)

    def _leave_staging(self, content: SparseFile, node: Node) -> None:
        """Give content without a row a name outside staging/data, if the disk has room for a name."""
        if not self._core.staging.holds(content.path):
            return
        path = self._core.staging.link_path(node.ino)
        try:
            content.link_to(path)
        except R2fsError as error:  # descriptors are enough: the bytes are in the bucket
            log.info("%s: open, and without a name from here on: %s", printable(node.name), error)
            content.path = path
