"""Schedule: which pending item is due next; Pace: when a key may be written.

Owns:  a heap of due times, rebuilt from the journal at start: losing it loses nothing.
Locks: every method is called with Core.lock held.
"""

from __future__ import annotations

import heapq
from itertools import count

from r2fs.engine.pending.store import Item
from r2fs.model.keys import nfc
from r2fs.model.ports import Clock


class Schedule:
    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._due: dict[Item, float] = {}
        self._number = count()

    def add(self, item: Item, due: float) -> None:
        """At `due` (Clock.monotonic()); an earlier entry of the same item is void."""
        self._due[item] = due
        heapq.heappush(self._heap, (due, next(self._number), item))

    def remove(self, item: Item) -> None:
        self._due.pop(item, None)

    def next_due(self) -> float | None:
        self._skip_void()
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> Item | None:
        """The item that is due the longest."""
        self._skip_void()
        if not self._heap or self._heap[0][0] > now:
            return None
        _, _, item = heapq.heappop(self._heap)
        del self._due[item]
        return item

    def hasten(self, now: float) -> None:
        """All that wait for their time are due now."""
        for item in list(self._due):
            self.add(item, now)

    def _skip_void(self) -> None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)


REMEMBERED = 1000  # keys, before those whose time is over are forgotten


class Pace:
    """R2 takes one write of a key in `interval_s`: one that comes earlier is refused, and billed."""

    def __init__(self, clock: Clock, interval_s: float) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._free_at: dict[str, float] = {}  # by NFC key

    def wrote(self, key: str) -> None:
        now = self._clock.monotonic()
        if len(self._free_at) >= REMEMBERED:
            self._free_at = {key: free for key, free in self._free_at.items() if free > now}
        if self._interval_s:
            self._free_at[nfc(key)] = now + self._interval_s

    def free_at(self, key: str) -> float:
        """Clock.monotonic() from when on the key may be written."""
        return self._free_at.get(nfc(key), float("-inf"))
