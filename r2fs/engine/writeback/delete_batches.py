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
from typing import Protocol

from r2fs.engine.content.durability import Syncing
from r2fs.engine.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.table import Tree
from r2fs.engine.pending.store import Ledger
from r2fs.engine.writeback.attempts import Attempts
from r2fs.engine.writeback.deleter import Deleter
from r2fs.engine.writeback.dependencies import Order
from r2fs.engine.writeback.schedule import DELETE, PUT, Item, Schedule
from r2fs.model.errors import LocalError, R2fsError
from r2fs.model.records import ObjectInfo, OwedDelete

log = logging.getLogger(__name__)

LOCAL_RETRY_S = 15.0  # this host's disk failed


class Queue(Protocol):
    """What a delete asks of the write-back queue. With Core.lock held."""

    @property
    def hurried(self) -> bool:
        """Does somebody drain? Then nothing waits for its delay."""
        ...

    def add(self, item: Item, due: float) -> None: ...

    def over(self, keys: Iterable[str]) -> None:
        """No request for these keys is on its way any more."""
        ...

    def missed(self, rows: list[OwedDelete], error: R2fsError) -> None:
        """The bucket did not do it."""
        ...

    def gone(self, keys: Iterable[str]) -> None:
        """What was at these keys before is not there any more."""
        ...

    def recovered(self) -> None: ...


class Deletes:
    def __init__(
        self,
        core: Core,
        tree: Tree,
        ledger: Ledger,
        attempts: Attempts,
        syncing: Syncing,
        schedule: Schedule,
        order: Order,
        queue: Queue,
    ) -> None:
        # constant
        self._core = core
        self._tree = tree
        self._ledger = ledger
        self._attempts = attempts
        self._schedule = schedule
        self._order = order
        self._queue = queue
        self.deleter = Deleter(core, ledger, syncing, attempts.is_forsaken)
        # guarded by: Core.lock
        self._until_s = 0.0  # Clock.monotonic(): end of the window whose deletes go together

    def add(self, row: OwedDelete) -> None:
        now, delay = self._core.clock.monotonic(), self._core.settings.upload_delay_s
        if now >= self._until_s:
            self._until_s = now + delay
        # All of one such window are due together: one request takes a thousand of them.
        self._queue.add(Item(DELETE, row.seq), now if self._queue.hurried else self._until_s + delay)

    def leave_key(self, node: Node) -> None:
        """The node is about to lose its key (rename, unlink): attempts there must not be the last word."""
        owed = node.owed
        elsewhere = self._attempts.unknown_keys(node.ino)
        if owed is not None and owed.transfer is not None:
            owed.transfer.stop()
            if node.sending:
                elsewhere.add(owed.transfer.key)
        for key in elsewhere:
            self._ledger.suspect_again(key)
            if self._ledger.watched(key) is None:
                self.add(self._ledger.add_delete(key, None, watch=True))

    def found(self, info: ObjectInfo) -> None:
        """HEAD's answer for a suspect: if it is a late attempt of this host's, it is to go."""
        if self._ledger.watched(info.key) is not None and self._attempts.is_forsaken(info.metadata, info.key):
            if not self._ledger.hides(info.key, info.etag, self._tree.tick):
                self.add(self._ledger.add_delete(info.key, info.etag))
        self._ledger.cleared(info.key, info.etag)

    def retry(self, seqs: Iterable[int]) -> None:
        """Parked deletes go out once more."""
        for seq in seqs:
            self.add(self._ledger.release_delete(seq))

    # ------------------------------------------------------------------ the threads
    def prepare(self, first: Item, now: float) -> list[OwedDelete]:
        """As many as one request takes, of those that are due and wait for nothing; claimed for the caller."""
        rows: list[OwedDelete] = []
        aside: list[Item] = []
        item: Item | None = first
        while item is not None and len(rows) < self._core.store.limits.delete_batch:
            row = self._ledger.deletes.get(item.number) if item.verb == DELETE else None
            if item.verb == PUT:
                aside.append(item)
            elif row is not None:
                blocker = self._order.delete_blocker(row)
                if blocker is None and self._keeps_bytes(row, now):
                    rows.append(row)
                    self._ledger.claimed.add(row.seq)
                    self._order.begin([row.key])
                elif blocker is not None:
                    self._schedule.block(item, blocker)
            item = self._schedule.take(now)
        if item is not None:
            aside.append(item)
        for other in aside:
            self._schedule.add(other, now)
        return rows

    def _keeps_bytes(self, row: OwedDelete, now: float) -> bool:
        """Does nobody who has it open count on the object any more? False: the journal could not say so yet."""
        try:
            self._ledger.keep_bytes(row.key, by=None)
        except R2fsError as error:
            log.error("not deleted yet: %s", error)
            self._schedule.add(Item(DELETE, row.seq), now + LOCAL_RETRY_S)
            return False
        return True

    def carry_out(self, rows: list[OwedDelete]) -> None:
        """What `prepare` has claimed. Without the lock."""
        again: dict[int, float] = {}
        try:
            again = self.deleter.delete(rows, self._tree)
            with self._core.lock:
                self._queue.recovered()
                self._queue.gone(row.key for row in rows if row.seq not in self._ledger.deletes)
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
                    self._ledger.claimed.discard(row.seq)
                    if row.watch_until_s is not None and row.seq not in self._ledger.deletes:
                        self._attempts.unwatched(row.key)
                    if row.seq in again and row.seq in self._ledger.deletes:
                        self._schedule.add(Item(DELETE, row.seq), now + again[row.seq])
