"""Schedule: when an upload or delete may be sent: its due time, the pause of its bucket, the pace of its key, and the
requests and inodes that it waits for.

Owns:  a heap of items for each bucket, and how many upload threads one bucket may have: a bucket that does not answer,
       or refuses everything, delays no item of another bucket;
       the number of failed requests; the last error, with its time, until its inode or delete is done; of each bucket,
       refusals in a row and the time without requests;
       the least time between two writes of a key;
       the keys with a request on their way, and the rules of the order:
       a write to a key, or its deletion, waits while
         - another request for the key is on its way,
         - a node still needs the object at the key (a rename's copy, bytes missing on this host),
         - for the delete of a rename's old key, the renamed inode is pending,
         - and, for any delete, the own object of the directory above the key is on its way: the bucket would
           lose the directory with its last file.
Never: decides the next attempt (`writeback/verdict.py`, `writeback/deletes.py`), or the delay of an item
       (`writeback/queue.py`).
Locks: Core.lock around every method.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import DELETE, Item, PendingStore, Token
from r2fs.engine.pending.tally import stays_here
from r2fs.engine.writeback.implied_directories import ImpliedDirectories
from r2fs.model.errors import BUCKET_WIDE, R2fsError
from r2fs.model.keys import nfc
from r2fs.model.ports import Clock
from r2fs.model.records import PendingDelete

REFUSALS = 3  # in a row, without a success: then the bucket is taken to refuse everything
OUTAGE_FIRST_S, OUTAGE_CAP_S = 0.5, 15.0  # pause after "no answer": short, since recovery is quick
PACED_KEYS = 1000  # keys in Pace before expired ones are dropped


# ------------------------------------------------------------------ buckets that fail
@dataclass(frozen=True, slots=True)
class LastError:
    text: str
    at_s: float  # Clock.time()
    inodes: frozenset[int]  # the inodes concerned
    deletes: frozenset[int]  # the deletes, by seq


@dataclass(slots=True)
class _OfBucket:
    refused: int = 0  # requests refused by the whole bucket, since start
    in_a_row: int = 0
    refusal: R2fsError | None = None
    not_before_s: float = 0.0  # Clock.monotonic(): end of the pause after an outage
    pause_s: float = 0.0  # of the next one; 0 after a success
    uploads: int = 0  # taken since start


class Failures:
    def __init__(self, core: Core, pending_store: PendingStore) -> None:
        # constant
        self._core = core
        self._pending = pending_store
        self._several = core.settings.bucket.several
        # guarded by: Core.lock
        self.count = 0
        self._only = _OfBucket()  # of a mount of one bucket
        self._buckets: dict[str, _OfBucket] = {} if self._several else {"": self._only}
        self._last: LastError | None = None

    def _at(self, key: str) -> _OfBucket:
        """The bucket of a key."""
        return self._of(self._core.settings.bucket.split(key)[0]) if self._several else self._only

    def _of(self, bucket: str) -> _OfBucket:
        return self._buckets.setdefault(bucket, _OfBucket()) if self._several else self._only

    def of_upload_locked(self, ino: int, key: str, error: Exception) -> None:
        self._note(key, error, frozenset([ino]), frozenset())

    def of_deletes_locked(self, rows: Sequence[PendingDelete], error: Exception) -> None:
        """Note the failure of a request for these rows, all of one bucket."""
        self._note(rows[0].key, error, frozenset(), frozenset(row.seq for row in rows))

    def _note(self, key: str, error: Exception, inodes: frozenset[int], deletes: frozenset[int]) -> None:
        self._core.assert_held()
        self.count += 1
        self._last = LastError(str(error), self._core.clock.time(), inodes, deletes)
        if isinstance(error, BUCKET_WIDE):
            bucket = self._at(key)
            bucket.refused += 1
            bucket.in_a_row += 1
            bucket.refusal = error

    def recovered_locked(self, key: str) -> None:
        """Note a success: the outage is over, and the bucket does not refuse all requests."""
        self._core.assert_held()
        bucket = self._at(key)
        bucket.pause_s = 0.0
        bucket.in_a_row = 0

    def uploaded_locked(self, key: str) -> None:
        """Note a successful upload, which is a success as for `recovered_locked`."""
        self._core.assert_held()
        bucket = self._at(key)
        bucket.pause_s, bucket.in_a_row = 0.0, 0
        bucket.uploads += 1

    def uploads_at(self, key: str) -> int:
        """The number of uploads that the key's bucket has taken since start."""
        return self._at(key).uploads

    def outage_locked(self, key: str) -> None:
        """Pause: the bucket did not answer, or refuses all requests."""
        self._core.assert_held()
        bucket = self._at(key)
        bucket.pause_s = min(OUTAGE_CAP_S, max(OUTAGE_FIRST_S, bucket.pause_s * 2))
        bucket.not_before_s = self._core.clock.monotonic() + bucket.pause_s * random.uniform(0.5, 1.0)

    def pause_ends_s(self, bucket: str) -> float:
        """Clock.monotonic(): the end of the bucket's pause."""
        return (self._of(bucket) if self._several else self._only).not_before_s

    def is_failing(self, bucket: str) -> bool:
        """True from an outage on until the next success."""
        return self._of(bucket).pause_s > 0

    def end_pause_locked(self) -> None:
        self._core.assert_held()
        for bucket in self._buckets.values():
            bucket.not_before_s = min(bucket.not_before_s, self._core.clock.monotonic())

    def last_locked(self) -> LastError | None:
        """The last error; None once its inode or delete is sent, deleted or given up."""
        self._core.assert_held()
        last = self._last
        if last is not None and not (
            any(ino in self._pending.inodes for ino in last.inodes)
            or any(seq in self._pending.deletes.rows for seq in last.deletes)
        ):
            self._last = last = None
        return last

    def refusals_locked(self) -> dict[str, int]:
        """The number of refusals by each bucket as a whole, since start."""
        self._core.assert_held()
        return {name: bucket.refused for name, bucket in self._buckets.items()}

    def refusal_locked(self, buckets: Collection[str] = ()) -> R2fsError | None:
        """The refusal of all requests by one of the buckets (none named: of any); None: none is known."""
        self._core.assert_held()
        chosen = [self._of(name) for name in buckets] if buckets else list(self._buckets.values())
        return next((bucket.refusal for bucket in chosen if bucket.in_a_row >= REFUSALS), None)

    def refuses_again_locked(self, bucket: str, before: Mapping[str, int]) -> bool:
        """True if the bucket refuses all requests, and has done so since `refusals_locked` returned `before`."""
        self._core.assert_held()
        found = self._of(bucket)
        return found.in_a_row >= REFUSALS and found.refused > before.get(bucket if self._several else "", 0)


# ------------------------------------------------------------------ keys
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


class Dependencies:
    def __init__(self, records: Records, implied: ImpliedDirectories) -> None:
        # constant
        self._core = records.core
        self._pending = records.pending
        self._implied = implied
        # guarded by: Core.lock
        self._busy: set[str] = set()  # NFC keys with a request on their way

    def begin_locked(self, keys: Iterable[str]) -> None:
        """Note requests for these keys, in NFC."""
        self._core.assert_held()
        self._busy.update(keys)

    def end_locked(self, keys: Iterable[str]) -> None:
        self._core.assert_held()
        self._busy.difference_update(keys)

    def put_blocker_locked(self, node: Node, keys: Iterable[str]) -> Token | None:
        """The request or inode that this node, with its `keys_of`, has to wait for; None: none."""
        self._core.assert_held()
        assert node.pending is not None
        for key in keys:
            if key in self._busy:
                return ("key", key)
        needing = self._pending.needing(node.pending.key, other_than=node)
        return ("ino", needing.ino) if needing is not None else None

    def delete_blocker_locked(self, row: PendingDelete) -> Token | None:
        """The request or inode that the row has to wait for; None: none."""
        self._core.assert_held()
        if nfc(row.key) in self._busy:
            return ("key", nfc(row.key))
        after = self._pending.inodes.get(row.after_ino) if row.after_ino is not None else None
        patterns = self._core.settings.local_patterns  # a local-only file is pending for ever
        if after is not None and not stays_here(after.pending, patterns):
            return ("ino", after.ino)
        above = self._implied.pending_above_locked(row)
        if above is not None:
            return ("ino", above.ino)
        needing = self._pending.needing(row.key)
        return ("ino", needing.ino) if needing is not None else None

    def in_a_ring_locked(self, node: Node, ends: Container[int]) -> bool:
        """True if the node waits for itself, as each of two files with swapped names does.

        `ends`: inodes with an end of their wait in sight.
        """
        self._core.assert_held()
        seen: set[int] = set()
        other: Node | None = node
        while other is not None and other.pending is not None and other.ino not in seen:
            if other.ino in ends:
                return False
            seen.add(other.ino)
            other = self._pending.needing(other.pending.key, other_than=other)
            if other is node:
                return True
        return False


def keys_of(node: Node) -> set[str]:
    """The keys, in NFC, written or copied from by an upload of this node."""
    assert node.pending is not None
    keys = {nfc(node.pending.key)}
    if not node.pending.changed and node.base is not None:
        keys.add(nfc(node.base.key))
    return keys


# ------------------------------------------------------------------ due times
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


class Schedule:
    def __init__(self, core: Core, pending_store: PendingStore, failures: Failures) -> None:
        # constant
        self._core = core
        self._pending = pending_store
        self._failures = failures
        self.several = core.settings.bucket.several
        # guarded by: Core.lock
        self._heaps: dict[str, Heap] = {}
        # tasks of upload threads, by bucket; of several buckets alone
        self._under_way: Counter[str] = Counter()

    def bucket_of(self, item: Item) -> str:
        """The bucket of an item; empty in a mount of one bucket."""
        if not self.several:
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
        bucket = self.bucket_of(item)
        heap = self._heaps.get(bucket)
        if heap is None:
            heap = self._heaps[bucket] = Heap()
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
