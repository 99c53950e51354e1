"""Writer hydration: downloads the missing bytes of a file that is open for writing, and updates its row.

Owns:    the moment at which the row of such a file stops depending on its base object.
Never:   uploads; drops the base from a row before the bytes that replace it are synced.
Threads: every public method is thread-safe; the download runs on a thread of `jobs`.
Locks:   takes Core.lock (30); holds none during a download or an fsync.
Fails:   never raises: errors are logged, and the upload downloads the rest again. If the base's version is gone,
         each writer gets Stale at its next flush or fsync.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from r2fs.engine.content.jobs import AHEAD, JobQueue
from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.model.errors import R2fsError, Stale
from r2fs.model.keys import printable
from r2fs.model.pending import Writes
from r2fs.model.ports import Caller
from r2fs.model.transitions import completed, with_staged

log = logging.getLogger(__name__)


class WriterHydration:
    def __init__(
        self,
        records: Records,
        storage: Storage,
        jobs: JobQueue,
        fail_writers: Callable[[Node, R2fsError], None],
    ) -> None:
        """`fail_writers`: makes the next flush or fsync of each writer of an inode raise; with Core.lock held."""
        self._core = records.core
        self._pending = records.pending
        self._contents = storage.contents
        self._hydration = storage.hydration
        self._disk_sync = storage.disk_sync
        self._jobs = jobs
        self._fail_writers = fail_writers

    def note_complete(self, node: Node) -> None:
        """Update the row of a file whose last missing bytes a read has just downloaded."""
        with self._core.lock:
            if node.pending is not None and node.pending.lists_ranges:
                self.later(node)

    def later(self, node: Node) -> None:
        """Download the missing bytes in the background."""
        self._jobs.submit(lambda: self._complete(node), AHEAD)

    def _complete(self, node: Node) -> None:
        """Download and sync the missing bytes; then drop the base from the row."""
        with self._core.lock:
            if node.content is None or node.content.closed:
                return
        try:
            if not self._hydration.whole(node, Caller()):
                return  # unlinked meanwhile
        except Stale as error:
            with self._core.lock:
                self._fail_writers(node, error)
            return
        except R2fsError as error:  # written bytes are safe; the upload downloads the rest again
            log.info("%s: not all of it is here yet: %s", printable(node.name), error)
            return
        try:
            self._disk_sync.sync_rest(node)
        except R2fsError as error:  # its row continues to list the ranges written here
            log.error("%s: not all of it could be synced: %s", printable(node.name), error)
            return
        with self._core.lock:
            if node.pending and node.pending.staged and self._contents.of(node).complete:
                self._note_hydrated(node)

    def _note_hydrated(self, node: Node) -> None:
        """Record that no byte is missing: from now on fstat proves whether the file is written. With Core.lock held."""
        pending = node.pending
        assert pending is not None and pending.staged is not None
        baseline = None
        if pending.staged.baseline is Writes.NONE:
            os.utime(self._contents.of(node).fd, ns=(node.atime_ns, node.mtime_ns))
            baseline = self._contents.proof(node)
        self._pending.commit(node, with_staged(pending, completed(pending.staged, baseline)))
        self._contents.close_unused(node)
