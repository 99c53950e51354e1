"""Deletes: which pending deletes are due, sent together, and what becomes of each.

Owns:    which deletes are sent together; the watches at keys where a late upload of this host may still
         appear.
Never:   sends a request (`writeback/deleter.py`).
Threads: `add_locked`, `leave_key_locked` and `found_locked` in threads changing a name or reading a listing;
         `prepare_locked` and `carry_out` on an upload thread; `claim_locked` and `delete_seen` on a command's.
Locks:   methods named _locked need Core.lock; `carry_out` takes it, and holds none while a request is on its way.
Fails:   softly: rows not carried out are due again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from r2fs.engine.content.durability import DiskSync
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import DELETE, PUT, Item
from r2fs.engine.writeback.deleter import Deleter, RetryIn
from r2fs.engine.writeback.queue import QUIET_S, UploadQueue
from r2fs.model import causes
from r2fs.model.causes import Cause
from r2fs.model.errors import LocalError, R2fsError
from r2fs.model.keys import nfc
from r2fs.model.records import ObjectInfo, PendingDelete

log = logging.getLogger(__name__)

LOCAL_RETRY_S = 15.0  # after a failure of this host's disk
MANY = 100  # deletes that wait for no delay: the LIST before them costs each little


@dataclass(slots=True)
class Window:
    """Deletes to be sent together: one request takes a thousand."""

    first: Item  # in the queue; the others enter it with the first
    begun_s: float  # Clock.monotonic(), as below
    latest_s: float  # when the latest delete was added
    others: list[Item] = field(default_factory=list)


class Deletes:
    def __init__(self, records: Records, disk_sync: DiskSync, queue: UploadQueue) -> None:
        # constant
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts
        self._queue = queue
        self._deleter = Deleter(records, disk_sync)
        # guarded by: Core.lock
        self._windows: dict[str, Window] = {}  # by bucket

    def add_locked(self, row: PendingDelete) -> None:
        """Make a pending delete due after the delay, or at the first pause after MANY, together with all others of its
        window.

        While a program removes name after name the window stays open, for a second delay at most.
        """
        self._core.assert_held()
        item, now = Item(DELETE, row.seq), self._core.clock.monotonic()
        bucket = self._queue.schedule.bucket_of(item)
        window = self._windows.get(bucket)
        if self._queue.draining:
            self._queue.add_locked(item, now)
        elif window is None:
            self._windows[bucket] = Window(item, now, now)
            self._queue.add_locked(item, now + self._core.settings.upload_delay_s)
        else:
            window.others.append(item)
            window.latest_s = now
            if len(window.others) + 1 == MANY:
                end_s = window.begun_s + self._core.settings.upload_delay_s
                self._queue.add_locked(window.first, min(now + QUIET_S, end_s))

    def add_overtaken_locked(self, key: str, etag: str, after: Node | None) -> None:
        """Add the delete of a late answer's version. Versions of the key's other rows have been seen there since: their
        rows get later numbers, so that a new object of the name expects the last of them."""
        self._core.assert_held()
        deletes = self._pending.deletes
        newer = [row for row in deletes.of_others(key, etag) if not self._deleter.is_done_locked(row)]
        self.add_locked(deletes.add(key, etag, after))
        for row in newer:
            latest = deletes.renumber(row)
            if latest.seq not in deletes.parked:
                self.add_locked(latest)

    def _stays_open_locked(self, item: Item, now: float) -> bool:
        """True if the item is the first of a window that stays open. A window that ends makes its others due."""
        self._core.assert_held()
        bucket = next((bucket for bucket, window in self._windows.items() if window.first == item), None)
        if bucket is None:
            return False
        window = self._windows[bucket]
        until = min(window.latest_s + QUIET_S, window.begun_s + 2 * self._core.settings.upload_delay_s)
        if until > now and not self._queue.draining:
            self._queue.add_locked(item, until)
            return True
        del self._windows[bucket]
        for other in window.others:
            self._queue.add_locked(other, now)
        return False

    def leave_key_locked(self, node: Node) -> None:
        """Watch the keys where an attempt of the node may appear: the node is about to lose its key."""
        self._core.assert_held()
        pending = node.pending
        elsewhere = self._attempts.unknown_keys(node.ino)
        self._queue.stop_upload_locked(node)
        if pending is not None and pending.in_flight is not None:
            elsewhere.add(pending.in_flight.key)
        for key in elsewhere:
            self._pending.deletes.suspect_again(key)
            if self._pending.deletes.watched(key) is None:
                self.add_locked(self._pending.deletes.add(key, None, watch=True))

    def found_locked(self, info: ObjectInfo) -> None:
        """Delete an object at a watched key, by its HEAD, if made by a late attempt of this host."""
        self._core.assert_held()
        late = self._attempts.is_late(info) and self._pending.deletes.watched(info.key)
        if late and not self._pending.deletes.hides(info.key, info.etag, self._tree.tick):
            self.add_locked(self._pending.deletes.add(info.key, info.etag))
        self._pending.deletes.cleared(info.key, info.etag)

    def retry_locked(self, seqs: Iterable[int]) -> None:
        """Send parked deletes once more."""
        for seq in seqs:
            self.add_locked(self._pending.deletes.release(seq))

    # ------------------------------------------------------------------ upload threads
    def prepare_locked(self, first: Item, now: float) -> list[PendingDelete]:
        """Claim rows of one bucket that are due and not blocked, up to the size of a request, for `carry_out`."""
        self._core.assert_held()
        bucket = self._queue.schedule.bucket_of(first)
        rows: list[PendingDelete] = []
        others: list[Item] = []
        item: Item | None = first
        while item is not None and len(rows) < self._core.store.limits.delete_batch:
            row = self._pending.deletes.rows.get(item.number) if item.verb == DELETE else None
            if item.verb == PUT:
                others.append(item)
            elif not self._stays_open_locked(item, now) and row is not None and self._claim_locked(row, now):
                rows.append(row)
            item = self._queue.take_locked(now, bucket)
        if item is not None:
            others.append(item)
        for other in others:
            self._queue.add_locked(other, now)
        return rows

    def _keeps_bytes_locked(self, row: PendingDelete, now: float) -> bool:
        """Detach open inodes from the object. False: the journal failed, and the row is due again."""
        self._core.assert_held()
        try:
            self._pending.keep_bytes(row.key, by=None)
        except R2fsError as error:
            log.error("not deleted yet: %s", error)
            self._queue.add_locked(Item(DELETE, row.seq), now + LOCAL_RETRY_S)
            return False
        return True

    def claim_locked(self, rows: Iterable[PendingDelete]) -> list[PendingDelete]:
        """Claim rows for `delete_seen`, without their delay. The others stay in the queue."""
        self._core.assert_held()
        now = self._core.clock.monotonic()
        return [row for row in rows if self._claim_locked(row, now)]

    def _claim_locked(self, row: PendingDelete, now: float) -> bool:
        """False: the row waits for another request or inode, or for this host's disk."""
        self._core.assert_held()
        blocker = self._queue.dependencies.delete_blocker_locked(row)
        if blocker is not None:
            self._queue.waiting.block(Item(DELETE, row.seq), blocker)
            return False
        if not self._keeps_bytes_locked(row, now):
            return False
        self._pending.deletes.claimed.add(row.seq)
        self._queue.dependencies.begin_locked([nfc(row.key)])
        return True

    def carry_out(self, rows: list[PendingDelete]) -> None:
        """Send the deletes claimed by `prepare_locked`."""
        with self._core.lock:
            program = self._pending.deletes.programs.get(rows[0].seq, causes.R2FS)
        with causes.caused_by(Cause(program, "delete")):
            self._send(rows, lambda again: self._deleter.delete(rows, again))

    def delete_seen(self, rows: list[PendingDelete], seen: Mapping[str, ObjectInfo]) -> None:
        """Send the deletes claimed by `claim_locked`, of objects that a LIST has just shown.

        A row that could not be carried out is due again. Raises the error of a request that failed as a whole.
        """
        error = self._send(rows, lambda again: self._deleter.delete_seen(rows, seen, again))
        if error is not None:
            raise error

    def _send(self, rows: Sequence[PendingDelete], send: Callable[[RetryIn], None]) -> R2fsError | None:
        """Call `send`, which enters rows that are due again; return the error of all rows, logged."""
        again: RetryIn = {}
        failure: R2fsError | None = None
        try:
            send(again)
            with self._core.lock:
                self._queue.failures.recovered_locked(rows[0].key)
                self._queue.gone_locked(row.key for row in rows if row.seq not in self._pending.deletes.rows)
        except LocalError as error:
            log.error("deletes not carried out yet: %s", error)
            again, failure = {row.seq: LOCAL_RETRY_S for row in rows}, error
        except R2fsError as error:
            with self._core.lock:
                watching = all(row.watch_until_s is not None for row in rows)
                log.info("%s: %s", "a late upload is looked for" if watching else "not deleted yet", error)
                self._queue.missed_locked(list(rows), error)
            again, failure = {row.seq: 0.0 for row in rows}, error
        finally:
            with self._core.lock:
                now = self._core.clock.monotonic()
                self._queue.over_locked([nfc(row.key) for row in rows])
                for row in rows:
                    self._pending.deletes.claimed.discard(row.seq)
                    if row.watch_until_s is not None and row.seq not in self._pending.deletes.rows:
                        self._attempts.unwatched(row.key)
                    if row.seq in again and row.seq in self._pending.deletes.rows:
                        self._queue.add_locked(Item(DELETE, row.seq), now + again[row.seq])
        return failure
