"""Filling: the rest of a file that a program has open comes here, and its row is told.

Owns:    when the row of a file that is being written counts on its object no more.
Never:   sends; lets a row count on bytes that a program was told are safe before they are synced.
Threads: every public method; `later` hands on to a thread of `jobs`.
Locks:   takes Core.lock (30); none while bytes or the disk are waited for.
Fails:   `fetch` as the reader does. In the background softly: the upload asks for the rest again, and who
         writes to a file whose version has gone is told.
"""

from __future__ import annotations

import logging
import os

from r2fs.engine.content.storage import Storage
from r2fs.engine.files.handles import Handles
from r2fs.engine.inodes.inode import Node
from r2fs.engine.jobs import AHEAD, JobQueue
from r2fs.engine.pending.records import Records
from r2fs.model.errors import R2fsError, Stale
from r2fs.model.keys import printable
from r2fs.model.pending import Writes
from r2fs.model.ports import Caller
from r2fs.model.transitions import completed, with_staged

log = logging.getLogger(__name__)


class Filling:
    def __init__(self, records: Records, storage: Storage, jobs: JobQueue, handles: Handles) -> None:
        self._core = records.core
        self._pending = records.pending
        self._contents = storage.contents
        self._hydration = storage.hydration
        self._disk_sync = storage.disk_sync
        self._jobs = jobs
        self._handles = handles

    def tell_whole(self, node: Node) -> None:
        """Its row still counts on its base, where nobody else has fetched the rest."""
        with self._core.lock:
            if node.pending is not None and node.pending.lists_ranges:
                self.later(node)

    def later(self, node: Node) -> None:
        self._jobs.submit(lambda: self._complete(node), AHEAD)

    def _complete(self, node: Node) -> None:
        """Fetch the rest of a file that is being written; then its row needs its base no more."""
        with self._core.lock:
            if node.content is None or node.content.closed:
                return
        try:
            if not self._hydration.whole(node, Caller()):
                return  # unlinked meanwhile: nobody needs the rest
        except Stale as error:
            with self._core.lock:
                for handle in self._handles.all():
                    if handle.node is node and handle.writes:
                        handle.error = error
            return
        except R2fsError as error:  # what was written is safe; the upload asks for the rest again
            log.info("%s: not all of it is here yet: %s", printable(node.name), error)
            return
        try:
            self._disk_sync.sync_rest(node)
        except R2fsError as error:  # its row goes on to say what is its own
            log.error("%s: not all of it could be synced: %s", printable(node.name), error)
            return
        with self._core.lock:
            if node.pending and node.pending.staged and self._contents.of(node).complete:
                self._filled(node)

    def _filled(self, node: Node) -> None:
        """All bytes are here: from now on times prove whether anything is written. With Core.lock held."""
        pending = node.pending
        assert pending is not None and pending.staged is not None
        baseline = None
        if pending.staged.baseline is Writes.NONE:
            os.utime(self._contents.of(node).fd, ns=(node.atime_ns, node.mtime_ns))
            baseline = self._contents.proof(node)
        self._pending.commit(node, with_staged(pending, completed(pending.staged, baseline)))
        if not node.handles:
            self._contents.closed(node)
