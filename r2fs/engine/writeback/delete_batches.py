"""Deletes: when an owed delete goes, with which others, and what comes of it.

Owns:    the window whose deletes go together, and the watches at keys where an object of this host may
         still appear: of an upload whose file has lost that key.
Never:   asks the bucket itself (`writeback/deleter.py`).
Threads: `add`, `leave_key` and `found` in whoever changes a name or reads a listing; `prepare` and
         `carry_out` on an upload thread.
Locks:   Core.lock (30) is held by the caller, but for `carry_out`, which takes it around the requests.
Fails:   softly: what was not carried out is due again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from r2fs.engine.content.durability import DiskSync
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import DELETE, PUT, Item
from r2fs.engine.writeback.deleter import Deleter
from r2fs.engine.writeback.queue import UploadQueue
from r2fs.model.errors import LocalError, R2fsError
from r2fs.model.records import ObjectInfo, PendingDelete

log = logging.getLogger(__name__)

LOCAL_RETRY_S = 15.0  # this host's disk failed


class Deletes:
    def __init__(self, records: Records, disk_sync: DiskSync, queue: UploadQueue) -> None:
        # constant
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts
        self._dependencies = queue.dependencies
        self._queue = queue
        self.deleter = Deleter(records, disk_sync)
        # guarded by: Core.lock
        self._until_s = 0.0  # Clock.monotonic(): end of the window whose deletes go together

    def add(self, row: PendingDelete) -> None:
        now, delay = self._core.clock.monotonic(), self._core.settings.upload_delay_s
        if now >= self._until_s:
            self._until_s = now + delay
        # All of one such window are due together: one request takes a thousand of them.
        self._queue.add(Item(DELETE, row.seq), now if self._queue.hurried else self._until_s + delay)

    def leave_key(self, node: Node) -> None:
        """The node is about to lose its key (rename, unlink): attempts there must not be the last word."""
        pending = node.pending
        elsewhere = self._attempts.unknown_keys(node.ino)
        self._queue.stop_upload(node)
        if pending is not None and pending.in_flight is not None:
            elsewhere.add(pending.in_flight.key)
        for key in elsewhere:
            self._pending.deletes.suspect_again(key)
            if self._pending.deletes.watched(key) is None:
                self.add(self._pending.deletes.add(key, None, watch=True))

    def found(self, info: ObjectInfo) -> None:
        """HEAD's answer for a suspect: if it is a late attempt of this host's, it is to go."""
        if self._pending.deletes.watched(info.key) is not None and self._attempts.is_orphaned(
            info.metadata, info.key
        ):
            if not self._pending.deletes.hides(info.key, info.etag, self._tree.tick):
                self.add(self._pending.deletes.add(info.key, info.etag))
        self._pending.deletes.cleared(info.key, info.etag)

    def retry(self, seqs: Iterable[int]) -> None:
        """Parked deletes go out once more."""
        for seq in seqs:
            self.add(self._pending.deletes.release(seq))

    # ------------------------------------------------------------------ the threads
    def prepare(self, first: Item, now: float) -> list[PendingDelete]:
        """As many as one request takes, of those that are due and wait for nothing; claimed for the caller."""
        rows: list[PendingDelete] = []
        aside: list[Item] = []
        item: Item | None = first
        while item is not None and len(rows) < self._core.store.limits.delete_batch:
            row = self._pending.deletes.rows.get(item.number) if item.verb == DELETE else None
            if item.verb == PUT:
                aside.append(item)
            elif row is not None:
                blocker = self._dependencies.delete_blocker(row)
                if blocker is None and self._keeps_bytes(row, now):
                    rows.append(row)
                    self._pending.deletes.claimed.add(row.seq)
                    self._dependencies.begin([row.key])
                elif blocker is not None:
                    self._queue.block(item, blocker)
            item = self._queue.take(now)
        if item is not None:
            aside.append(item)
        for other in aside:
            self._queue.add(other, now)
        return rows

    def _keeps_bytes(self, row: PendingDelete, now: float) -> bool:
        """Does nobody who has it open count on the object any more? False: the journal could not say so yet."""
        try:
            self._pending.keep_bytes(row.key, by=None)
        except R2fsError as error:
            log.error("not deleted yet: %s", error)
            self._queue.add(Item(DELETE, row.seq), now + LOCAL_RETRY_S)
            return False
        return True

    def carry_out(self, rows: list[PendingDelete]) -> None:
        """What `prepare` has claimed. Without the lock."""
        again: dict[int, float] = {}
        try:
            again = self.deleter.delete(rows, self._tree)
            with self._core.lock:
                self._queue.recovered()
                self._queue.gone(row.key for row in rows if row.seq not in self._pending.deletes.rows)
        except LocalError as error:
            log.error("deletes not carried out yet: %s", error)
            again = {row.seq: LOCAL_RETRY_S for row in rows}
        except R2fsError as error:
            with self._core.lock:
                watching = all(row.watch_until_s is not None for row in rows)
                log.info("%s: %s", "a late upload is looked for" if watching else "not deleted yet", error)
                self._queue.missed(rows, error)
            again = {row.seq: 0.0 for row in rows}
        finally:
            with self._core.lock:
                now = self._core.clock.monotonic()
                self._queue.over(row.key for row in rows)
                for row in rows:
                    self._pending.deletes.claimed.discard(row.seq)
                    if row.watch_until_s is not None and row.seq not in self._pending.deletes.rows:
                        self._attempts.unwatched(row.key)
                    if row.seq in again and row.seq in self._pending.deletes.rows:
                        self._queue.add(Item(DELETE, row.seq), now + again[row.seq])
