"""Deleter: takes objects out of the bucket, each only in the version that was meant.

Owns:    looking before deleting: R2 takes no condition on DELETE, so a HEAD (or one LIST for
         many) just before narrows the window in which another host's version could go unseen; and when a
         delete that the bucket refuses is parked.
Never:   deletes what it has not just seen to be the version of the row.
Threads: `delete` runs on an upload thread, with rows that were claimed for it.
Locks:   Core.lock for the ledger; none while a request is on its way.
Fails:   StoreError, with the rows not yet done still pending.
"""

from __future__ import annotations

import logging
import os.path
from collections.abc import Callable, Iterable, Mapping

from r2fs.engine.content.durability import DiskSync
from r2fs.engine.inodes.listing_pages import Pages
from r2fs.engine.inodes.table import Tree
from r2fs.engine.pending.deletes import LATE_ATTEMPT_S
from r2fs.engine.pending.records import Records
from r2fs.model.errors import (
    BadCredentials,
    BucketMissing,
    ClockSkewed,
    ObjectMissing,
    R2fsError,
    Refused,
    StoreError,
)
from r2fs.model.keys import printable
from r2fs.model.records import ObjectInfo, PendingDelete

log = logging.getLogger(__name__)

LOOK_BY_LIST = 4  # from so many deletes on, a LIST of where they lie is cheaper than a HEAD for each
WATCH_FIRST_S = 10.0  # a late attempt is looked for after so long, and then after twice the time each
RETRY_S = 5.0  # one key's delete failed
REFUSALS = 3  # of one delete in a row, each after a look that was answered: then it is parked
REFUSED_AGAIN_S = 1.0  # between these: a right that was just given needs a moment to arrive everywhere

# Refused for what is no matter of the object: the look before may have been answered with an earlier key.
OF_EVERYTHING = (BadCredentials, BucketMissing, ClockSkewed)

Ours = Callable[[Mapping[str, str] | None, str], bool]


class Deleter:
    def __init__(self, records: Records, disk_sync: DiskSync) -> None:
        self._core = records.core
        self._store = records.core.store
        self._pending = records.pending
        self._disk_sync = disk_sync
        self._is_orphaned = records.attempts.is_orphaned
        # guarded by: Core.lock
        self._since: dict[int, float] = {}  # watch rows, by seq: Clock.monotonic()
        self._refusals: dict[int, int] = {}  # in a row, by seq
        self._alone: set[int] = set()  # seqs of rows whose batch was refused as a whole

    def delete(self, rows: list[PendingDelete], tree: Tree) -> dict[int, float]:
        """Carry the rows out. Which are to come again, by seq: after so many seconds."""
        again: dict[int, float] = {}
        rows = self._replaceable(rows, again)
        headed, listed = self._by_look(rows)
        if listed:
            found, unseen = self._list([row.key for row in listed])
            headed = [*headed, *(row for row in listed if row.key in unseen)]
            self._carry_out([row for row in listed if row.key not in unseen], found, tree, again)
        for row in headed:  # one by one: what was looked at first would wait for all other answers
            self._carry_out([row], self._head(row.key), tree, again)
        return again

    def _replaceable(self, rows: list[PendingDelete], again: dict[int, float]) -> list[PendingDelete]:
        """Without those whose object is all that is safe of a file that has another name now."""
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

    def _carry_out(
        self, rows: list[PendingDelete], seen: Mapping[str, ObjectInfo], tree: Tree, again: dict[int, float]
    ) -> None:
        """`seen`: what the bucket holds now at each row's key; no entry: nothing."""
        doomed: list[PendingDelete] = []
        with self._core.lock:
            tree.count_change()
            for row in rows:
                info = seen.get(row.key)
                if info is not None and self._is_meant(row, info):
                    doomed.append(row)
                elif row.watch_until_s is not None:
                    self._look_again(row, again)
                else:
                    # what is ours has a row that watches for it, or a delete of its own
                    if info is not None and not (
                        self._ours(info) or self._pending.deletes.hides(row.key, info.etag, tree.tick)
                    ):
                        log.warning("%s: not deleted: the bucket holds another version", printable(row.key))
                    self._pending.deletes.drop(row.seq, tree.tick if info is None else None)
        self._core.crash_point("delete_looked")
        failed = self._remove(doomed)
        self._core.crash_point("deleted")
        done: list[PendingDelete] = []
        with self._core.lock, self._pending.transaction():
            tree.count_change()
            for row in doomed:
                error = failed.get(row.key)
                if isinstance(error, Refused) and row.seq not in self._alone:
                    self._refused(row, seen[row.key], error, again)
                    continue
                self._refusals.pop(row.seq, None)
                if error is not None:
                    again[row.seq] = RETRY_S if row.seq not in self._alone else 0.0
                    log.info("%s: not deleted yet: %s", printable(row.key), error)
                    continue
                done.append(row)
                if row.watch_until_s is not None:  # there may be more than one
                    self._pending.deletes.carried_out(row.key, seen[row.key].etag, tree.tick)
                    self._look_again(row, again)
                else:
                    self._pending.deletes.drop(row.seq, tree.tick)
        self._core.crash_point("delete_journalled")
        _say_done(done)

    def _refused(self, row: PendingDelete, seen: ObjectInfo, error: Refused, again: dict[int, float]) -> None:
        """Try a refused delete a few times, then park it. What a watch found is parked as a delete of that version."""
        refusals = self._refusals[row.seq] = self._refusals.get(row.seq, 0) + 1
        if refusals < REFUSALS:
            log.info("%s: not deleted yet: %s", printable(row.key), error)
            again[row.seq] = REFUSED_AGAIN_S
            return
        del self._refusals[row.seq]
        parked = row
        if row.watch_until_s is not None:
            parked = self._pending.deletes.add(row.key, seen.etag)
            self._look_again(row, again)
        self._pending.on_commit(lambda: self._pending.deletes.park(parked.seq, str(error)))
        log.error("%s: its delete is parked, and what the bucket has is shown: %s", printable(row.key), error)

    def _is_meant(self, row: PendingDelete, info: ObjectInfo) -> bool:
        """Is what the bucket holds the version that is to go? Directories' objects are all alike: empty."""
        if row.etag is None:  # bytes at a directory's key are another tool's, even where we copied them
            foreign = row.key.endswith("/") and info.size
            return (
                self._ours(info) and not foreign and not self._pending.deletes.is_refused(row.key, info.etag)
            )
        return info.etag == row.etag or (row.key.endswith("/") and info.size == 0)

    def _look_again(self, row: PendingDelete, again: dict[int, float]) -> None:
        """A late attempt is looked for ever more seldom, until nobody expects it any more."""
        assert row.watch_until_s is not None
        now = self._core.clock.monotonic()
        if row.seq not in self._since:  # the wall clock counts only for what an earlier run has waited
            left = min(max(0.0, row.watch_until_s - self._core.clock.time()), LATE_ATTEMPT_S)
            self._since[row.seq] = now - (LATE_ATTEMPT_S - left)
        waited = now - self._since[row.seq]
        if waited >= LATE_ATTEMPT_S:
            del self._since[row.seq]
            self._pending.deletes.drop(row.seq)
        else:
            again[row.seq] = min(max(WATCH_FIRST_S, waited), LATE_ATTEMPT_S - waited)

    def _remove(self, rows: list[PendingDelete]) -> Mapping[str, StoreError]:
        """The errors of those that were not deleted, by key. Raises what concerns all requests."""
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
        """A batch was refused as a whole. Where three of its keys are refused by themselves, all are; else the
        server does not take batches, or not one with a key like these: the others come again one by one."""
        probed = {row.seq: row for row in (rows[0], rows[len(rows) // 2], rows[-1])}
        refused: dict[str, StoreError] = {}
        again = [row for row in rows if row.seq not in probed]
        for row in probed.values():  # each after a look of its own, as everywhere
            info = self._head(row.key).get(row.key)
            with self._core.lock:
                meant = info is not None and self._is_meant(row, info)
            if meant:
                refused |= self._remove_each([row.key])
            else:
                again.append(row)
        if len(refused) < len(probed):
            with self._core.lock:
                self._alone.update(row.seq for row in again)
        return refused | {row.key: error for row in again}

    # ------------------------------------------------------------------ looking
    def _by_look(self, rows: list[PendingDelete]) -> tuple[list[PendingDelete], list[PendingDelete]]:
        """Those to be looked at by a HEAD each, and those by a LIST."""
        # The bucket may list a name that is not ASCII in another spelling: HEAD finds it in any.
        # Where a late attempt may be, only HEAD's metadata tell whose object it is.
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
        try:
            return {key: self._store.head(key)}
        except ObjectMissing:
            return {}

    def _list(self, keys: list[str]) -> tuple[dict[str, ObjectInfo], set[str]]:
        """Pages of where the keys lie, as long as they pay; the keys of which nothing is known after.

        A key that was not listed is known to be missing only if every page was read: not every
        server lists in the order of keys.
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

    def _ours(self, info: ObjectInfo) -> bool:
        return self._is_orphaned(info.metadata, info.key)


def _say_done(rows: list[PendingDelete]) -> None:
    """One line for a batch; each key of it only in detail."""
    if rows:
        more = f", and {len(rows) - 1} more" if len(rows) > 1 else ""
        log.info("%s: deleted in the bucket%s", printable(rows[0].key), more)
    for row in rows[1:]:
        log.debug("%s: deleted in the bucket", printable(row.key))
