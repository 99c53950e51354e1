"""Schedule: due times of uploads and deletes, by bucket, and the pace of each key.

Owns:    a heap of items for each bucket; the least time between two writes of a key; how many upload threads one
         bucket may have: a bucket that does not answer, or refuses everything, delays no item of another bucket.
Never:   decides when an item is due, or how long a pause is (`writeback/failures.py`).
Locks:   Core.lock around every method.
"""

from __future__ import annotations

import heapq
from collections import Counter
from itertools import count

from r2fs.engine.inodes.core import Core
from r2fs.engine.pending.store import DELETE, Item, PendingStore
from r2fs.engine.writeback.failures import Failures
from r2fs.model.keys import nfc
from r2fs.model.ports import Clock

PACED_KEYS = 1000  # keys in Pace before expired ones are dropped


class Heap:
    """Due times by item. Not thread-safe."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._due: dict[Item, float] = {}
        self._number = count()

    def add(self, item: Item, due: float) -> None:
        """Add `item` at `due` (Clock.monotonic()); its earlier entry is void."""
        self._due[item] = due
        heapq.heappush(self._heap, (due, next(self._number), item))

    def next_due(self) -> float | None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # void
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> Item | None:
        """Remove and return the item with the earliest due time, if that has passed."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, _, item = heapq.heappop(self._heap)
        del self._due[item]
        return item

    def hasten(self, now: float) -> None:
        """Make every item due at `now`."""
        for item in list(self._due):
            self.add(item, now)


class Pace:
    """Least time between two writes of a key: R2 answers 429 to an earlier one, and bills it. Not thread-safe."""

    def __init__(self, clock: Clock, interval_s: float) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._free_at: dict[str, float] = {}  # by NFC key

    def wrote(self, key: str) -> None:
        now = self._clock.monotonic()
        if len(self._free_at) >= PACED_KEYS:
            self._free_at = {key: free for key, free in self._free_at.items() if free > now}
        if self._interval_s:
            self._free_at[nfc(key)] = now + self._interval_s

    def free_at(self, key: str) -> float:
        """Clock.monotonic() of the next permitted write of the key."""
        return self._free_at.get(nfc(key), float("-inf"))


class Schedule:
    def __init__(self, core: Core, pending_store: PendingStore, failures: Failures) -> None:
        # constant
        self._core = core
        self._pending = pending_store
        self._failures = failures
        # guarded by: Core.lock
        self._heaps: dict[str, Heap] = {}
        # tasks of upload threads, by bucket; of several buckets alone
        self._under_way: Counter[str] = Counter()

    def bucket_of(self, item: Item) -> str:
        """The bucket of an item; empty in a mount of one bucket."""
        if not self._core.settings.bucket.several:
            return ""
        key = ""
        if item.verb == DELETE:
            row = self._pending.deletes.rows.get(item.number)
            key = row.key if row is not None else ""
        else:
            node = self._pending.inodes.get(item.number)
            key = node.pending.key if node is not None and node.pending is not None else ""
        return self._core.settings.bucket.split(key)[0]

    def add(self, item: Item, due: float) -> bool:
        """Add `item` at `due` (Clock.monotonic()). True if no item of its bucket is due earlier."""
        heap = self._heaps.setdefault(self.bucket_of(item), Heap())
        heap.add(item, due)
        return heap.next_due() == due

    def take(self, now: float, bucket: str | None = None) -> Item | None:
        """Remove and return the item due longest, of `bucket` if given, where no pause keeps it and a thread is free."""
        names = list(self._heaps) if bucket is None else [bucket] if bucket in self._heaps else []
        due = {name: at for name in names if (at := self._due_at(name)) is not None and at <= now}
        return self._heaps[min(due, key=lambda name: due[name])].take(now) if due else None

    def next_due(self) -> float | None:
        """Clock.monotonic() at which an item can be taken; None: no item, or the end of a task has to be waited for."""
        return min((at for name in self._heaps if (at := self._due_at(name)) is not None), default=None)

    def hasten(self, now: float) -> None:
        """Make every item due at `now`."""
        for heap in self._heaps.values():
            heap.hasten(now)

    def _due_at(self, name: str) -> float | None:
        due = self._heaps[name].next_due()
        if due is None or (name and self._under_way[name] >= self._share(name)):
            return None
        return max(due, self._failures.pause_ends_s(name))

    # ------------------------------------------------------------------ threads
    def begin(self, bucket: str) -> None:
        """Count a task of one bucket of several."""
        self._under_way[bucket] += 1

    def end(self, bucket: str) -> None:
        self._under_way[bucket] -= 1

    def _share(self, bucket: str) -> int:
        """The number of tasks that one bucket of several may have at once."""
        if self._failures.is_failing(bucket):
            return 1
        return max(1, self._core.settings.upload_threads * 3 // 4)
