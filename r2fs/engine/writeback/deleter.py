"""Deleter: takes objects out of the bucket, each only in the version of its row.

Owns:    the look before a delete: R2 takes no condition on DELETE, so a HEAD (or one LIST for many) just before
         narrows the window for the loss of another host's version; the parking of refused deletes.
Never:   deletes an object without having just seen the version of the row.
Threads: those of `writeback/deletes.py`.
Locks:   methods named _locked need Core.lock; the others take it, and hold none while a request is on its way.
Fails:   StoreError for a cause of the whole bucket, LocalError of this host's disk; rows not carried out stay.
"""

from __future__ import annotations

import logging
import os.path
from collections.abc import Iterable, Mapping

from r2fs.engine.content.durability import DiskSync
from r2fs.engine.inodes.listing_pages import Pages
from r2fs.engine.pending.deletes import LATE_ATTEMPT_S
from r2fs.engine.pending.records import Records
from r2fs.model.errors import (
    BadCredentials,
    BucketMissing,
    ClockSkewed,
    R2fsError,
    Refused,
    StoreError,
)
from r2fs.model.keys import printable
from r2fs.model.records import ObjectInfo, PendingDelete

log = logging.getLogger(__name__)

LOOK_BY_LIST = 4  # from so many deletes on, a LIST around their keys is cheaper than a HEAD for each
WATCH_FIRST_S = 10.0  # until the first look for a late attempt; then twice the time each
RETRY_S = 5.0  # after a failure of one key's delete
REFUSALS = 3  # of one delete in a row, each after a look that was answered: then it is parked
REFUSED_AGAIN_S = 1.0  # between refusals: a new permission needs a moment to arrive everywhere

# Refusals with a cause beside the object: the look before may have been answered with an earlier key.
OF_EVERYTHING = (BadCredentials, BucketMissing, ClockSkewed)

RetryIn = dict[int, float]  # by seq: seconds until the row is due again


class Deleter:
    """Looks at objects, and deletes each in the version of its row."""

    def __init__(self, records: Records, disk_sync: DiskSync) -> None:
        # constant
        self._core = records.core
        self._store = records.core.store
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts
        self._disk_sync = disk_sync
        # guarded by: Core.lock
        self._since: dict[int, float] = {}  # watch rows, by seq: Clock.monotonic()
        self._refusals: dict[int, int] = {}  # in a row, by seq
        self._alone: set[int] = set()  # seqs of rows of a batch refused as a whole
        self._done: set[int] = set()  # seqs of deletes carried out, until the journal has room to say so

    def delete(self, rows: list[PendingDelete], again: RetryIn) -> None:
        """Carry the rows out; enter into `again` those due again."""
        rows = self._replaceable(rows, again)
        headed, listed = self._by_look(rows)
        if listed:
            found, unseen = self._list([row.key for row in listed])
            headed = [*headed, *(row for row in listed if row.key in unseen)]
            self._carry_out([row for row in listed if row.key not in unseen], found, again)
        for row in headed:  # one by one: the first look would be old by the last answer
            self._carry_out([row], self._head(row.key), again)

    def delete_seen(self, rows: list[PendingDelete], seen: Mapping[str, ObjectInfo], again: RetryIn) -> None:
        """Carry out rows whose objects a LIST has just shown, `seen` by key; enter into `again` those due again."""
        self._carry_out(self._replaceable(rows, again), seen, again)

    def is_done_locked(self, row: PendingDelete) -> bool:
        """True for a delete that was carried out, and not journalled yet."""
        self._core.assert_held()
        return row.seq in self._done

    def _replaceable(self, rows: list[PendingDelete], again: RetryIn) -> list[PendingDelete]:
        """The rows, less any with an object that has the only safe bytes of a renamed file."""
        try:
            self._disk_sync.before_replacing([row.key for row in rows])
            return rows
        except R2fsError:
            ready = []
        for row in rows:
            try:
                self._disk_sync.before_replacing([row.key])
                ready.append(row)
            except R2fsError as error:
                log.info("%s: not deleted yet: %s", printable(row.key), error)
                again[row.seq] = RETRY_S
        return ready

    def _carry_out(self, rows: list[PendingDelete], seen: Mapping[str, ObjectInfo], again: RetryIn) -> None:
        """`seen`: the object at each row's key, as the bucket has it now; no entry: no object."""
        with self._core.lock:
            self._tree.count_change()
            meant = [row for row in rows if self._is_meant_or_done_locked(row, seen.get(row.key), again)]
        self._core.crash_point("delete_looked")
        failed = self._remove(meant)
        self._core.crash_point("deleted")
        with self._core.lock:
            self._done.update(row.seq for row in meant if row.key not in failed and row.watch_until_s is None)
            with self._pending.transaction:
                self._tree.count_change()
                done = [
                    row
                    for row in meant
                    if self._answered_locked(row, seen[row.key], failed.get(row.key), again)
                ]
            self._done.difference_update(row.seq for row in done)
        self._core.crash_point("delete_journalled")
        _log_done(done)

    def _is_meant_or_done_locked(self, row: PendingDelete, info: ObjectInfo | None, again: RetryIn) -> bool:
        """True if the object is to be deleted. Else the row is done, or watches on."""
        self._core.assert_held()
        if info is not None and row.seq not in self._done and self._is_meant_locked(row, info):
            return True
        if row.watch_until_s is not None:
            self._look_again_locked(row, again)
            return False
        # An object of this host has a watching row, or a delete of its own.
        if info is not None and not (
            self._attempts.is_orphaned(info.metadata, info.key)
            or self._pending.deletes.hides(row.key, info.etag, self._tree.tick)
        ):
            log.warning("%s: not deleted: the bucket holds another version", printable(row.key))
        self._pending.deletes.drop(row.seq, self._tree.tick if info is None else None)
        self._done.discard(row.seq)
        return False

    def _answered_locked(
        self, row: PendingDelete, seen: ObjectInfo, error: StoreError | None, again: RetryIn
    ) -> bool:
        """True if the object was deleted: the row is done, or watches on, since a second object may appear."""
        self._core.assert_held()
        if isinstance(error, Refused) and row.seq not in self._alone:
            self._refused_locked(row, seen, error, again)
            return False
        self._refusals.pop(row.seq, None)
        if error is not None:
            again[row.seq] = RETRY_S if row.seq not in self._alone else 0.0
            log.info("%s: not deleted yet: %s", printable(row.key), error)
            return False
        if row.watch_until_s is not None:
            self._pending.deletes.carried_out(row.key, seen.etag, self._tree.tick)
            self._look_again_locked(row, again)
        else:
            self._pending.deletes.drop(row.seq, self._tree.tick)
        return True

    def _refused_locked(self, row: PendingDelete, seen: ObjectInfo, error: Refused, again: RetryIn) -> None:
        """Repeat a refused delete a few times, then park: for a watch, a delete of the version found."""
        self._core.assert_held()
        refusals = self._refusals[row.seq] = self._refusals.get(row.seq, 0) + 1
        if refusals < REFUSALS:
            log.info("%s: not deleted yet: %s", printable(row.key), error)
            again[row.seq] = REFUSED_AGAIN_S
            return
        del self._refusals[row.seq]
        parked = row
        if row.watch_until_s is not None:
            parked = self._pending.deletes.add(row.key, seen.etag)
            self._look_again_locked(row, again)
        self._pending.on_commit(lambda: self._pending.deletes.park(parked.seq, str(error)))
        log.error("%s: its delete is parked, and what the bucket has is shown: %s", printable(row.key), error)

    def _is_meant_locked(self, row: PendingDelete, info: ObjectInfo) -> bool:
        """True if the object is the version of the row. Directories' objects are all alike: empty."""
        self._core.assert_held()
        if row.etag is None:  # bytes at a directory's key are another tool's, even after a copy by this host
            foreign = row.key.endswith("/") and info.size
            ours = self._attempts.is_late(info)
            return ours and not foreign and not self._pending.deletes.is_refused(row.key, info.etag)
        return info.etag == row.etag or (row.key.endswith("/") and info.size == 0)

    def _look_again_locked(self, row: PendingDelete, again: RetryIn) -> None:
        """Look for a late attempt again, at growing intervals, until LATE_ATTEMPT_S have passed."""
        self._core.assert_held()
        assert row.watch_until_s is not None
        now = self._core.clock.monotonic()
        if row.seq not in self._since:  # the wall clock counts only for the wait of an earlier run
            left = min(max(0.0, row.watch_until_s - self._core.clock.time()), LATE_ATTEMPT_S)
            self._since[row.seq] = now - (LATE_ATTEMPT_S - left)
        waited = now - self._since[row.seq]
        if waited >= LATE_ATTEMPT_S:
            del self._since[row.seq]
            self._pending.deletes.drop(row.seq)
        else:
            again[row.seq] = min(max(WATCH_FIRST_S, waited), LATE_ATTEMPT_S - waited)

    # ------------------------------------------------------------------ requests
    def _remove(self, rows: list[PendingDelete]) -> Mapping[str, StoreError]:
        """Delete; return errors by key. Raises errors with a cause of all requests."""
        keys = [row.key for row in rows]
        if len(keys) <= 1:
            return self._remove_each(keys)
        try:
            return self._store.delete_many(keys)
        except OF_EVERYTHING:
            raise
        except Refused as error:
            return self._explore(rows, error)

    def _remove_each(self, keys: Iterable[str]) -> dict[str, StoreError]:
        failed: dict[str, StoreError] = {}
        for key in keys:
            try:
                self._store.delete(key)
            except OF_EVERYTHING:
                raise
            except Refused as error:
                failed[key] = error
        return failed

    def _explore(self, rows: list[PendingDelete], error: Refused) -> dict[str, StoreError]:
        """Probe three keys of a batch refused as a whole. If each is refused by itself, all rows are refused; else the
        server takes no batches, or none with such a key, and the others are sent one by one."""
        probed = {row.seq: row for row in (rows[0], rows[len(rows) // 2], rows[-1])}
        refused: dict[str, StoreError] = {}
        again = [row for row in rows if row.seq not in probed]
        for row in probed.values():  # each after a look of its own, as everywhere
            info = self._core.head(row.key)
            with self._core.lock:
                meant = info is not None and self._is_meant_locked(row, info)
            if meant:
                refused |= self._remove_each([row.key])
            else:
                again.append(row)
        if len(refused) < len(probed):
            with self._core.lock:
                self._alone.update(row.seq for row in again)
        return refused | {row.key: error for row in again}

    def _by_look(self, rows: list[PendingDelete]) -> tuple[list[PendingDelete], list[PendingDelete]]:
        """The rows to be looked at by a HEAD each, and by a LIST."""
        # The bucket may list a non-ASCII name in another spelling: HEAD finds any. At a watched key only HEAD's
        # metadata name the host of the object.
        with self._core.lock:
            alone = {
                row.seq for row in rows if not row.key.isascii() or self._pending.deletes.watched(row.key)
            }
            alone |= self._alone & {row.seq for row in rows}
            self._alone -= alone
        listed = [row for row in rows if row.seq not in alone]
        if len(listed) < LOOK_BY_LIST:
            return rows, []
        return [row for row in rows if row.seq in alone], listed

    def _head(self, key: str) -> dict[str, ObjectInfo]:
        info = self._core.head(key)
        return {} if info is None else {key: info}

    def _list(self, keys: list[str]) -> tuple[dict[str, ObjectInfo], set[str]]:
        """LIST pages around the keys, while cheaper than HEADs; return the objects found, and the keys without an answer.

        An unlisted key is known to be missing only after every page: not every server lists in the order of keys.
        """
        found: dict[str, ObjectInfo] = {}
        wanted, token = set(keys), None
        prefix = os.path.commonprefix(keys)
        pages = Pages(prefix or self._store.url)
        for _ in range(max(1, len(keys) // LOOK_BY_LIST)):
            page = self._store.list_page(prefix, token=token)
            token = pages.turn(page)
            for info in page.objects:
                if info.key in wanted:
                    found[info.key] = info
                    wanted.discard(info.key)
            if token is None or not wanted:
                return found, set()
        return found, wanted


def _log_done(rows: list[PendingDelete]) -> None:
    """Log one line for a batch at INFO; each further key at DEBUG."""
    if rows:
        more = f", and {len(rows) - 1} more" if len(rows) > 1 else ""
        log.info("%s: deleted in the bucket%s", printable(rows[0].key), more)
    for row in rows[1:]:
        log.debug("%s: deleted in the bucket", printable(row.key))
