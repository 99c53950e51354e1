"""Upload hydration: downloads the missing bytes of a file before it is uploaded, or before its base object is replaced.

Owns:    two cases. A file of which parts were edited is completed and uploaded whole. A file that was only renamed is
         downloaded where its base object must be replaced or deleted: for another of a ring of renames, or because
         its new name is local-only.
Never:   uploads; lets a row count on bytes of which an fsync was answered before they are synced.
Threads: `complete` and the function made by `task` run on upload threads, without the lock.
Locks:   takes Core.lock (30); none during a download or an fsync.
Fails:   a download that fails is retried later, or the file is parked; LocalError if the disk fails: the caller of the
         task retries.
"""

from __future__ import annotations

from collections.abc import Callable

from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.failed_attempts import FailedAttempts
from r2fs.engine.writeback.queue import UploadQueue
from r2fs.model.errors import LocalError, R2fsError, ReadFailed
from r2fs.model.keys import printable
from r2fs.model.pending import Staged, State
from r2fs.model.ports import Caller
from r2fs.model.transitions import materialized, materializing, with_staged


class UploadHydration:
    def __init__(
        self, records: Records, storage: Storage, queue: UploadQueue, failed: FailedAttempts
    ) -> None:
        # constant
        self._core = records.core
        self._pending = records.pending
        self._contents = storage.contents
        self._staged_files = storage.staged_files
        self._hydration = storage.hydration
        self._disk_sync = storage.disk_sync
        self._queue = queue
        self._failed = failed
        # guarded by: Core.lock
        self.under_way: set[int] = set()  # numbers of renamed inodes being downloaded

    def task(self, node: Node) -> Callable[[], None]:
        """Make the upload thread's task that downloads a renamed file. With Core.lock held.

        Until it has ended, uploads that wait for the inode form no ring with it.
        """
        self.under_way.add(node.ino)
        self._pending.on_rollback(lambda: self.under_way.discard(node.ino))

        def run() -> None:
            try:
                self._materialize(node)
            finally:
                with self._core.lock:
                    self.under_way.discard(node.ino)
                    self._pending.waiting.inode_settled(node.ino)

        return run

    def _materialize(self, node: Node) -> None:
        """Download the bytes of a renamed file, so that its base may be replaced or deleted.

        Its row says "not changed" until they are on the disk: after a crash before that they are still at the base.
        """
        if not self._stage(node) or not self._fetch(node):
            return
        self._disk_sync.sync(node)
        with self._core.lock:
            self._commit_materialized(node)
            self._queue.schedule_locked(node)

    def _stage(self, node: Node) -> bool:
        """Move the content to staging. False: a write or an upload came first, and no download is needed."""
        with self._core.lock:
            pending = node.pending
            if pending is None or pending.state is not State.QUEUED:
                return False
            if pending.changed or node.base is None:
                self._queue.schedule_locked(node)
                return False
            if pending.staged is None:
                if self._contents.of(node).read_failed:  # downloaded again after the last close
                    raise LocalError(f"{printable(node.name)}: this disk failed to read it")
                with self._staged_files.staging(node) as file:
                    size = self._contents.of(node).size
                    staged = Staged(file, size=size, boot=self._core.staging.boot, base_limit=size)
                    self._pending.commit(node, materializing(pending, staged))
            self._core.crash_point("materialised")
            return True

    def _commit_materialized(self, node: Node) -> None:
        """Commit that the row needs the base no more, if all bytes are here. With Core.lock held."""
        pending = node.pending
        if pending is None or pending.staged is None:
            return
        content = self._contents.of(node)
        if pending.state is State.QUEUED and content.complete and not pending.changed:
            # The base stays until this commit is on the disk (DiskSync.before_replacing).
            self._pending.commit(node, materialized(pending, self._core.staging.boot))
            node.synced_on_disk = True
        self._contents.close_unused(node)

    def complete(self, node: Node) -> None:
        """Download what a file that was edited in parts lacks; then schedule its upload."""
        if not self._fetch(node):
            return
        self._disk_sync.sync_rest(node)
        with self._core.lock:
            if node.pending is not None:
                staged = node.pending.staged
                if staged is not None:  # its row lists ranges while bytes are missing
                    staged = staged._replace(lists_ranges=not self._contents.of(node).complete)
                    self._pending.commit(node, with_staged(node.pending, staged))
                self._queue.schedule_locked(node)
                self._contents.close_unused(node)
                self._core.changed.notify_all()

    def _fetch(self, node: Node) -> bool:
        """Download all missing bytes. False: retried later, or parked."""
        try:
            # If it was unlinked, or opened and closed meanwhile, its row decides what is next.
            self._hydration.whole(node, Caller())
        except ReadFailed as error:
            with self._core.lock:
                self._queue.retry_later_locked(node, error)
            return False
        except R2fsError as error:
            return self._incomplete(node, error)
        return True

    def _incomplete(self, node: Node, error: R2fsError) -> bool:
        """Park the file for the user: its missing bytes cannot be downloaded. Returns False."""
        with self._core.lock:
            if node.pending is not None and node.pending.state is State.QUEUED:
                self._failed.park_queued_locked(node, f"incomplete: {error}")
        return False
