"""Changes of attributes: chmod, chown, utimens, stored with the object.

A clean file's new metadata is queued as a copy of the object onto itself. Locks: takes Core.lock.
Fails: FileError's subclasses; NoSpace from the journal.
"""

from __future__ import annotations

from r2fs.engine.content.local_file import Contents
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.protected import check_writable, is_bucket_root
from r2fs.engine.inodes.stat import file_times
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import InodeChange
from r2fs.engine.writeback.queue import UploadQueue
from r2fs.model.metadata import MAX_TIME_NS
from r2fs.model.pending import Staged
from r2fs.model.ports import Caller
from r2fs.model.records import AttributeChange, Proof
from r2fs.model.transitions import retargeted, with_staged


class SetAttr:
    def __init__(self, records: Records, contents: Contents, queue: UploadQueue) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._contents = contents
        self._queue = queue

    def apply(self, caller: Caller, node: Node, change: AttributeChange) -> None:
        """Change everything but the size."""
        fields: InodeChange = {}
        if change.mode is not None:
            fields["mode"] = change.mode
        if change.uid is not None:
            fields["uid"] = change.uid
        if change.gid is not None:
            fields["gid"] = change.gid
        with self._core.lock:
            if change.atime_ns is not None:
                node.atime_ns = _clamped(change.atime_ns)  # in memory alone
                node.ctime_ns = self._later(node)
            if change.mtime_ns is not None:
                fields["mtime_ns"] = _clamped(change.mtime_ns)
            if fields:
                self.store_locked(node, fields)

    def store_locked(self, node: Node, fields: InodeChange) -> None:
        """Set fields stored with the object."""
        self._core.assert_held()
        check_writable(self._core, node)
        self._queue.implied.needs_object_locked(node)
        if is_bucket_root(self._core, node) or node.deleted:
            for name, value in fields.items():
                setattr(node, name, value)
        elif node.pending is not None:
            self._change_pending(node, fields)
        else:
            self._change_clean(node, fields)
        self._core.crash_point("attributes_journalled")
        node.ctime_ns = self._later(node)

    def _later(self, node: Node) -> int:
        """Return the time now, later than the one shown: a fine-grained one may be ahead of the coarse clock."""
        shown = node.ctime_ns
        if node.content is not None and node.pending is not None and node.pending.staged is not None:
            _, shown = file_times(node, node.content.stat())
        return max(self._core.now_ns(), shown + 1)

    def _change_pending(self, node: Node, fields: InodeChange) -> None:
        pending = node.pending
        assert pending is not None
        staged = pending.staged
        had_baseline = staged is not None and isinstance(staged.baseline, Proof)
        untouched = staged is not None and had_baseline and self._contents.proof(node) == staged.baseline
        self._queue.stop_upload_locked(node)
        with self._pending.transaction:
            if staged is not None and "mtime_ns" in fields:
                before_ns = self._file_mtime_ns(node, staged)
                self._pending.on_rollback(lambda: self._set_file_times(node, before_ns))
                self._set_file_times(node, fields["mtime_ns"])
            if staged is not None and had_baseline:
                # Opened for writing, and not written yet: `touch` must not send a large file again.
                baseline = self._contents.proof(node) if untouched else None
                pending = with_staged(pending, staged._replace(baseline=baseline))
            self._core.journal.outdate_multipart(node.ino)
            self._pending.commit(node, retargeted(pending), **fields)
        self._queue.schedule_locked(node)

    def _change_clean(self, node: Node, fields: InodeChange) -> None:
        """Queue a copy of the object onto itself with its new metadata, or an upload where `carries_body`."""
        key = node.base.key if node.base and not node.is_dir else self._tree.key(node)
        if node.is_dir:
            marker = node.listing.marker if node.listing else None
            expected_etag = marker.etag if marker else None
            if marker is not None and (marker.size or not node.metadata_known):
                fields["base"] = marker  # its bytes and its other metadata are kept
        else:
            expected_etag = node.base.etag if node.base else None
        pending = self._pending.begin(node, key, node.carries_body, expected_etag)
        self._pending.commit(node, retargeted(pending), **fields)
        self._queue.schedule_locked(node)

    def _file_mtime_ns(self, node: Node, staged: Staged) -> int:
        content = node.content
        return (self._core.staging.stat(staged.file) if content is None else content.stat()).st_mtime_ns

    def _set_file_times(self, node: Node, mtime_ns: int) -> None:
        """Set the times of the staged file too: a later write moves its mtime."""
        if node.content is not None:
            node.content.set_times(node.atime_ns, mtime_ns)
        elif node.pending is not None and node.pending.staged is not None:
            self._core.staging.set_times(node.pending.staged.file, node.atime_ns, mtime_ns)


def _clamped(time_ns: int) -> int:
    """Return the nearest storable time, as local file systems do."""
    return max(-MAX_TIME_NS, min(time_ns, MAX_TIME_NS))
