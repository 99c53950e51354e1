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
from functools import partial

from r2fs.engine.content.local_file import Contents
from r2fs.engine.content.reader import Reader
from r2fs.engine.core import Core
from r2fs.engine.files.handles import Handles
from r2fs.engine.inodes.inode import Node
from r2fs.engine.jobs import AHEAD, JobQueue
from r2fs.engine.pending.store import PendingStore
from r2fs.engine.writeback.queue import WriteBack
from r2fs.model.errors import R2fsError, Stale
from r2fs.model.keys import printable
from r2fs.model.pending import Writes
from r2fs.model.ports import Caller
from r2fs.model.transitions import completed, with_staged

log = logging.getLogger(__name__)


class Filling:
    def __init__(
        self,
        core: Core,
        pending_store: PendingStore,
        contents: Contents,
        reader: Reader,
        writeback: WriteBack,
        jobs: JobQueue,
        handles: Handles,
    ) -> None:
        self._core = core
        self._pending = pending_store
        self._contents = contents
        self._reader = reader
        self.fetch = writeback.resolver.fetch_base
        self._durability = writeback.durability
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
            source = self._contents.source(node)
        if source is not None:
            try:
                self.fetch(node, partial(self._reader.whole, source, Caller()))
            except Stale as error:
                with self._core.lock:
                    for handle in self._handles.all():
                        if handle.node is node and handle.writes:
                            handle.error = error
                return
            except ValueError:
                if not source.content.closed:
                    raise
                return  # unlinked meanwhile: nobody needs the rest
            except R2fsError as error:  # what was written is safe; the upload asks for the rest again
                log.info("%s: not all of it is here yet: %s", printable(node.name), error)
                return
        try:
            self._durability.sync_rest(node)
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
