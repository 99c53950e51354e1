"""Write sessions: from the first writer's open of a file to its last writer's close.

Owns:    when a file becomes dirty (OPEN_WRITE) and when it is closed (SEAL); the evidence that nothing was written
         in between.
Never:   counts handles (`files/open_files.py`) or uploads (`writeback/queue.py`).
Locks:   every method is called with Core.lock (30) held, but `changing`, which takes it, `seal_unsealed` and
         `outwait_ctime`.
Fails:   NoSpace or LocalError: the file is as before, or is closed later (`seal_or_later`).

A writer's open is in the journal before its answer, so that no written byte can be forgotten: kill -9 at any moment
afterwards leaves a row and a file in staging.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from r2fs.disk.filecalls import outwait_file_time
from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.stat import file_times
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import PUT, Item
from r2fs.engine.writeback.queue import UploadQueue
from r2fs.model.errors import R2fsError
from r2fs.model.metadata import of_new_bytes
from r2fs.model.pending import OPEN_STATES, Durability, Pending, Staged, Writes
from r2fs.model.ports import Caller
from r2fs.model.records import Proof
from r2fs.model.transitions import (
    closed_changed,
    closed_unchanged,
    cut,
    held,
    opened_for_writing,
    restored,
    with_staged,
    withdrawn,
)


class WriteSessions:
    def __init__(self, records: Records, storage: Storage, queue: UploadQueue) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._contents = storage.contents
        self._staged_files = storage.staged_files
        self._disk_sync = storage.disk_sync
        self._staging_gc = storage.staging_gc
        self._queue = queue

    def outwait_ctime(self, node: Node) -> None:
        """Wait until the clock of file times has passed the baseline's ctime: then equal times prove "unchanged".

        If it does not pass in time, the baseline is dropped.
        """
        staged = node.pending.staged if node.pending else None
        baseline = staged.baseline if staged else None
        if isinstance(baseline, Proof) and not outwait_file_time(baseline.ctime_ns):
            with self._core.lock:
                if node.pending is not None and (staged := node.pending.staged) is not None:
                    self._pending.commit(node, with_staged(node.pending, staged._replace(baseline=None)))

    def make_dirty(self, node: Node, truncate: bool = False) -> None:
        """Open for writing (OPEN_WRITE): in the journal, and no upload reads the file any more. With Core.lock held.

        Raises NoSpace, LocalError: nothing has changed then.
        """
        pending = node.pending
        # unlinked: nothing is pending, its bytes last until the last close
        if node.deleted and pending is None:
            self._contents.of(node).make_writable()
            if truncate:
                self._truncate_locked(node, 0)
            return
        if pending is not None and pending.open:
            # Read-only if the last close got as far as the check for other writers, and the journal then had no
            # room for its row.
            self._contents.of(node).make_writable()
            if truncate:
                self._truncate_locked(node, 0)
            return
        self._queue.stop_upload_locked(node)  # no byte written from now on can reach that attempt
        if pending is not None and pending.staged is not None:
            self._contents.of(node).make_writable()
            file, moved, made = pending.staged.file, False, False
        else:
            made = truncate and node.content is None
            if made:
                file, moved = self._staged_files.create(node), False
            else:
                file, moved = self._staged_files.stage(node), True
        try:
            self._commit_open(node, file, truncate)
        except R2fsError:
            if moved:
                self._staged_files.unstage(node)
            elif made:
                self._contents.discard(node)
            self._safe_again(node)
            self._contents.close_unused(node)
            raise
        self._core.crash_point("open_write_journalled")
        if truncate:
            self.truncate(node, 0)

    def _safe_again(self, node: Node) -> None:
        """Undo `changing` after a failed open: the bytes count as synced again, if the journal has room for the row."""
        pending = node.pending
        if pending is not None and pending.staged is not None and pending.staged.withdrawn is not None:
            with suppress(R2fsError):
                self._pending.commit(node, with_staged(pending, restored(pending.staged)))
                node.synced_on_disk = True

    def _commit_open(self, node: Node, file: str, truncate: bool) -> None:
        pending, content = node.pending, self._contents.of(node)
        if pending is None:
            assert node.base is not None
            pending = self._pending.begin(node, self._tree.key(node), False, node.base.etag)
        baseline: Proof | Writes | None = None
        if not truncate:
            baseline = self._contents.proof(node) if content.complete else Writes.NONE
        staged = (pending.staged or Staged(file))._replace(
            size=content.size,
            boot=self._core.staging.boot,
            baseline=baseline,
            base_limit=content.base_limit,
            edits=None,  # until it is closed
        )
        # After a crash a row with staged bytes and "not changed" would be copied from its base inside the bucket: the
        # row says "changed" until the last close has evidence.
        self._pending.commit(node, opened_for_writing(pending, staged))

    @contextmanager
    def changing(self, caller: Caller, node: Node) -> Iterator[None]:
        """Take Core.lock at a moment when no row on the disk calls the inode's bytes synced or sent.

        The bytes are about to change, and may reach the disk before the row does: after a power cut a mixture of
        old and new would be taken for synced bytes, or for those in the bucket.
        """
        while True:
            with self._core.lock:
                if not (node.synced_on_disk or node.stale_staged_name) or node.state in OPEN_STATES:
                    yield
                    return
                caller.about_to_wait()
                left = node.stale_staged_name
                pending = node.pending
                if pending is not None and pending.staged is not None and pending.staged.synced:
                    self._pending.commit(node, with_staged(pending, withdrawn(pending.staged)))
            self._core.journal.barrier()
            with self._core.lock:
                node.synced_on_disk = _is_synced(node)
                if left is not None:
                    self._staged_files.drop_stale_name(node, left)

    def seal_or_later(self, node: Node) -> None:
        """Close after the last writer. If the journal fails, the row stays DIRTY: closed by a later attempt, or at the
        next start."""
        try:
            self._seal(node)
        except R2fsError as error:
            if node.state in OPEN_STATES:
                self._queue.log_locked("not sent yet, will be tried again: %s", error)
                self._queue.postpone_locked(lambda: self._seal_again(node))
            else:  # closed; the queue repeats the rest
                self._queue.put_off_locked(Item(PUT, node.ino), error)

    def _seal_again(self, node: Node) -> None:
        with self._core.lock:
            if not node.writers:
                try:
                    self.seal_or_later(node)
                finally:
                    self._contents.close_unused(node)

    def _seal(self, node: Node) -> None:
        """Close after the last writer (SEAL or UNCHANGED). With Core.lock held."""
        pending = node.pending
        if pending is None or not pending.open:
            return
        staged = pending.staged
        assert staged is not None, "only a file in staging is open for writing"
        if self._is_untouched(node, staged):
            self._unchanged(node, pending)
            return
        content = self._contents.of(node)
        synced = staged.fsync_mark is not None
        durability = self._disk_sync.proven(node, staged) if synced else Durability.VOLATILE
        stat, opened_again, known_ns = content.stat(), pending.checkpoint is not None, node.mtime_ns
        _, ctime_ns = file_times(node, stat)
        staged = staged._replace(size=stat.st_size, durability=durability, boot=self._core.staging.boot)
        self._pending.commit(
            node,
            closed_changed(pending, staged, self._core.clock.time()),
            mtime_ns=stat.st_mtime_ns,
            extra=of_new_bytes(node.extra),
        )
        self._core.crash_point("sealed")
        node.size = stat.st_size
        node.ctime_ns = ctime_ns
        if opened_again and stat.st_mtime_ns != known_ns:
            # A write through a mapping changes the file, but not the attributes that the kernel has cached.
            self._core.kernel.forget_attributes(node.ino)
        if durability is not Durability.VOLATILE:
            self._vouch(node)
        if pending.hold is not None:
            self._queue.keep_parked_locked(node)
        self._queue.schedule_locked(node)

    def _vouch(self, node: Node) -> None:
        """Note that the bytes are synced, and request a barrier of the journal: a program waited for them in fsync."""
        node.synced_on_disk = True
        self._staging_gc.soon()

    def _is_untouched(self, node: Node, staged: Staged) -> bool:
        """True with evidence that nothing was written since the first writer's open."""
        if isinstance(staged.baseline, Writes):
            return staged.baseline is Writes.NONE
        if staged.baseline is None or self._contents.proof(node) != staged.baseline:
            return False
        return self._staged_files.nobody_writes(node)  # a mapping outlives its descriptor

    def _unchanged(self, node: Node, pending: Pending) -> None:
        staged = pending.staged
        assert staged is not None
        synced = self._disk_sync.proven(node, staged) is not Durability.VOLATILE
        following = closed_unchanged(pending, synced)
        self._pending.commit(node, following)
        if following is None:
            self._core.crash_point("unchanged")
            self._staged_files.settled((node, staged.file))
            return
        # QUEUED, PARKED or in flight, as before the open. An attempt that lost its reader ends by itself.
        if _is_synced(node):
            self._vouch(node)
        self._queue.schedule_locked(node)

    # ---- length
    def truncate(self, node: Node, size: int) -> None:
        """Shorten, or extend by zeros, a file that is DIRTY or unlinked."""
        try:
            self._truncate_locked(node, size)
        except R2fsError:
            if not node.writers:  # the journal had no room for the size, and no close will follow
                self.seal_or_later(node)
                self._contents.close_unused(node)
            raise

    def _truncate_locked(self, node: Node, size: int) -> None:
        content = self._contents.of(node)
        self._pending.note_open_write(node)
        content.truncate(size)
        pending = node.pending
        if size == 0 and pending is not None and pending.doubt is not None:
            self._pending.commit(node, held(pending, None))  # the doubtful bytes are gone
        node.sync_failed = node.sync_failed and size > 0
        self._core.crash_point("truncated")
        pending = node.pending
        if pending is None or (staged := pending.staged) is None:
            return
        if staged.lists_ranges or isinstance(staged.baseline, Proof):
            self._pending.commit(node, with_staged(pending, cut(staged, size, content.base_limit)))


def _is_synced(node: Node) -> bool:
    return node.pending is not None and node.pending.staged is not None and node.pending.staged.synced
