"""Bringing: what a file still lacks of its object comes here, before it can be sent or its object goes.

Owns:    two ways. A file that was edited in part is filled up, and sent whole. One that was only renamed is
         brought here where its object has to go for another of a ring of names.
Never:   sends; lets a row count on bytes that a program was told are safe before they are synced.
Threads: `complete` and the task of `task` run on upload threads, without the lock.
Locks:   takes Core.lock (30); none while bytes or the disk are waited for.
Fails:   a fetch that fails is due again, or the file is parked; LocalError where the disk fails: whoever runs
         the task tries again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.queue import UploadQueue
from r2fs.engine.writeback.resolve import Resolver
from r2fs.model.errors import LocalError, R2fsError, ReadFailed
from r2fs.model.keys import printable
from r2fs.model.pending import Staged
from r2fs.model.ports import Caller
from r2fs.model.states import State
from r2fs.model.transitions import materialized, materializing, with_staged


class Materializing:
    def __init__(self, records: Records, storage: Storage, queue: UploadQueue, resolver: Resolver) -> None:
        # constant
        self._core = records.core
        self._pending = records.pending
        self._contents = storage.contents
        self._hydration = storage.hydration
        self._disk_sync = storage.disk_sync
        self._queue = queue
        self._resolver = resolver
        # guarded by: Core.lock
        self.coming: set[int] = set()  # inodes that are being brought here

    def task(self, node: Node) -> Callable[[], None]:
        """Of an upload thread: `_bring`. With Core.lock held. Until it has ended, who waits for the node is in no ring with it."""
        self.coming.add(node.ino)

        def run() -> None:
            try:
                self._bring(node)
            finally:
                with self._core.lock:
                    self.coming.discard(node.ino)
                    self._pending.settle(node)

        return run

    def _bring(self, node: Node) -> None:
        """Bring the bytes of a renamed node here, so that its base may be overwritten or go.

        Its row says "not changed" until they are on the disk: a crash before that finds them at the base.
        """
        with self._core.lock:
            pending = node.pending
            if pending is None or pending.state is not State.QUEUED:
                return
            if pending.changed or node.base is None:  # meanwhile: its bytes are here, or on their way
                self._queue.schedule(node)
                return
            if pending.staged is None:
                if self._contents.of(node).doubtful:  # fetched anew, once nobody has it open
                    raise LocalError(f"{printable(node.name)}: this disk failed to read it")
                file = self._contents.stage(node)
                size = self._contents.of(node).size
                staged = Staged(file, size=size, boot=self._core.staging.boot, base_limit=size)
                self._pending.commit(node, materializing(pending, staged))
            self._core.crash_point("materialised")
        if not self._fetch(node):
            return
        self._disk_sync.sync(node)
        with self._core.lock:
            pending = node.pending
            content = self._contents.of(node) if pending is not None and pending.staged else None
            here = content is not None and content.complete
            if pending is not None and pending.state is State.QUEUED and here and not pending.changed:
                # Its base stays: before that goes, this commit is brought to the disk (Syncing.before_replacing).
                self._pending.commit(node, materialized(pending, self._core.staging.boot))
                node.synced_on_disk = True
            if content is not None and not node.handles:
                self._contents.closed(node)
            self._queue.schedule(node)

    def complete(self, node: Node) -> None:
        """Fetch what a file that was written in parts still lacks; then it is due again."""
        if not self._fetch(node):
            return
        self._disk_sync.sync_rest(node)
        with self._core.lock:
            if node.pending is not None:
                staged = node.pending.staged
                if staged is not None:  # its row lists ranges while bytes are missing
                    staged = replace(staged, lists_ranges=not self._contents.of(node).complete)
                    self._pending.commit(node, with_staged(node.pending, staged))
                self._queue.schedule(node)
                if not node.handles:
                    self._contents.closed(node)
                self._core.changed.notify_all()

    def _fetch(self, node: Node) -> bool:
        """All of it is here when this returns True; else it is due again, or parked."""
        try:
            # Where it was unlinked meanwhile, or opened and closed again: if something is pending, it is due again.
            self._hydration.whole(node, Caller())
        except ReadFailed as error:
            with self._core.lock:
                self._queue.retry_later(node, error)
            return False
        except R2fsError as error:
            return self._incomplete(node, error)
        return True

    def _incomplete(self, node: Node, error: R2fsError) -> bool:
        """What it lacks will not come: False, and kept for a person."""
        with self._core.lock:
            if node.pending is not None and node.pending.state is State.QUEUED:
                self._resolver.park_queued(node, f"incomplete: {error}")
        return False
