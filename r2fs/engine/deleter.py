"""Deleter: takes objects out of the bucket, each only in the version that was meant.

Owns:    looking before deleting: R2 takes no condition on DELETE, so a HEAD (or one LIST for
         many) just before narrows the window in which another host's version could go unseen.
Never:   deletes what it has not just seen to be the version of the row.
Threads: `delete` runs on an upload thread, with rows that were claimed for it.
Locks:   Core.lock for the ledger; none while a request is on its way.
Fails:   StoreError, with the rows not yet done still pending.
"""

from __future__ import annotations

import logging
import os.path
from collections.abc import Callable, Mapping

from r2fs.engine.core import Core
from r2fs.engine.ledger import LATE_ATTEMPT_S, Ledger
from r2fs.engine.syncing import Syncing
from r2fs.engine.tree import Tree
from r2fs.model.errors import ObjectMissing, R2fsError
from r2fs.model.keys import printable
from r2fs.model.records import ObjectInfo, OwedDelete

log = logging.getLogger(__name__)

LOOK_BY_LIST = 4  # from so many deletes on, a LIST of where they lie is cheaper than a HEAD for each
WATCH_FIRST_S = 10.0  # a late attempt is looked for after so long, and then after twice the time each
RETRY_S = 5.0  # one key's delete failed

Ours = Callable[[Mapping[str, str] | None, str], bool]


class Deleter:
    def __init__(self, core: Core, ledger: Ledger, syncing: Syncing, is_forsaken: Ours) -> None:
        self._core = core
        self._store = core.store
        self._ledger = ledger
        self._syncing = syncing
        self._is_forsaken = is_forsaken
        self._since: dict[int, float] = {}  # guarded by Core.lock: watch rows, by seq: Clock.monotonic()

    def delete(self, rows: list[OwedDelete], tree: Tree) -> dict[int, float]:
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

    def _replaceable(self, rows: list[OwedDelete], again: dict[int, float]) -> list[OwedDelete]:
        """Without those whose object is all that is safe of a file that has another name now."""
        try:
            self._syncing.before_replacing([row.key for row in rows])
            return rows
        except R2fsError:
            ready = []
        for row in rows:
            try:
                self._syncing.before_replacing([row.key])
                ready.append(row)
            except R2fsError as error:
                log.info("%s: not deleted yet: %s", printable(row.key), error)
                again[row.seq] = RETRY_S
        return ready

    def _carry_out(
        self, rows: list[OwedDelete], seen: Mapping[str, ObjectInfo], tree: Tree, again: dict[int, float]
    ) -> None:
        """`seen`: what the bucket holds now at each row's key; no entry: nothing."""
        doomed: list[OwedDelete] = []
        with self._core.lock:
            tree.tick += 1
            for row in rows:
                info = seen.get(row.key)
                if info is not None and self._is_meant(row, info):
                    doomed.append(row)
                elif row.watch_until_s is not None:
                    self._look_again(row, again)
                else:
                    # what is ours has a row that watches for it, or a delete of its own
                    if info is not None and not (
                        self._ours(info) or self._ledger.hides(row.key, info.etag, tree.tick)
                    ):
                        log.warning("%s: not deleted: the bucket holds another version", printable(row.key))
                    self._ledger.drop_delete(row.seq, tree.tick if info is None else None)
        self._core.crash_point("delete_looked")
        failed = self._remove([row.key for row in doomed])
        self._core.crash_point("deleted")
        with self._core.lock, self._ledger.transaction():
            tree.tick += 1
            for row in doomed:
                if row.key in failed:
                    again[row.seq] = RETRY_S
                elif row.watch_until_s is not None:  # there may be more than one
                    self._ledger.carried_out(row.key, seen[row.key].etag, tree.tick)
                    self._look_again(row, again)
                else:
                    self._ledger.drop_delete(row.seq, tree.tick)
        self._core.crash_point("delete_journalled")

    def _is_meant(self, row: OwedDelete, info: ObjectInfo) -> bool:
        """Is what the bucket holds the version that is to go? Directories' objects are all alike: empty."""
        if row.etag is None:  # bytes at a directory's key are another tool's, even where we copied them
            return self._ours(info) and not (row.key.endswith("/") and info.size)
        return info.etag == row.etag or (row.key.endswith("/") and info.size == 0)

    def _look_again(self, row: OwedDelete, again: dict[int, float]) -> None:
        """A late attempt is looked for ever more seldom, until nobody expects it any more."""
        assert row.watch_until_s is not None
        now = self._core.clock.monotonic()
        if row.seq not in self._since:  # the wall clock counts only for what an earlier run has waited
            left = min(max(0.0, row.watch_until_s - self._core.clock.time()), LATE_ATTEMPT_S)
            self._since[row.seq] = now - (LATE_ATTEMPT_S - left)
        waited = now - self._since[row.seq]
        if waited >= LATE_ATTEMPT_S:
            del self._since[row.seq]
            self._ledger.drop_delete(row.seq)
        else:
            again[row.seq] = min(max(WATCH_FIRST_S, waited), LATE_ATTEMPT_S - waited)

    def _remove(self, keys: list[str]) -> set[str]:
        if len(keys) <= 1:
            for key in keys:
                self._store.delete(key)
            return set()
        failed = self._store.delete_many(keys)
        for key, error in failed.items():
            log.info("%s: not deleted yet: %s", printable(key), error)
        return set(failed)

    # ------------------------------------------------------------------ looking
    def _by_look(self, rows: list[OwedDelete]) -> tuple[list[OwedDelete], list[OwedDelete]]:
        """Those to be looked at by a HEAD each, and those by a LIST."""
        # The bucket may list a name that is not ASCII in another spelling: HEAD finds it in any.
        # Where a late attempt may be, only HEAD's metadata tell whose object it is.
        with self._core.lock:
            alone = {row.seq for row in rows if not row.key.isascii() or self._ledger.watched(row.key)}
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
        for _ in range(max(1, len(keys) // LOOK_BY_LIST)):
            page = self._store.list_page(prefix, token=token)
            for info in page.objects:
                if info.key in wanted:
                    found[info.key] = info
                    wanted.discard(info.key)
            token = page.token
            if token is None or not wanted:
                return found, set()
        return found, wanted

    def _ours(self, info: ObjectInfo) -> bool:
        return self._is_forsaken(info.metadata, info.key)
