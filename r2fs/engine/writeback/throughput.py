"""Throughput: bytes of an upload that have left this host, and their rate.

Owns:    the marks of an attempt, and the estimate from these marks.
Never:   waits; reads a socket's state.
Threads: `add` in any sending thread, without a lock; the rest in any.

A byte counts as sent when it is in a socket's buffer. Buffers, the receiver's included, take megabytes at once and
then as much as the line carries. So the rate is the median over the seconds after the first, and bytes of the first
second beyond that rate count as still buffered.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from statistics import median

MARK_S = 1.0  # between two marks
MARKS = 9  # the latest: the rate is that of eight seconds
BUFFERS_MAX = 32 << 20  # bytes in the buffers of a few connections, at most
STALLED_S = 5.0  # without progress: no rate


class Throughput:
    def __init__(self) -> None:
        self.sent = 0  # bytes, in buffers or beyond
        self._begun_s = 0.0  # of the first byte; times are Clock.monotonic()
        self._last_s = 0.0  # of the last byte
        self._first: tuple[float, int] | None = None  # the first mark
        self._marks: deque[tuple[float, int]] = deque(maxlen=MARKS)  # the first and later marks

    def add(self, count: int, now_s: float) -> None:
        if not self.sent:
            self._begun_s = now_s
        self.sent += count
        self._last_s = now_s
        if now_s - (self._marks[-1][0] if self._marks else self._begun_s) >= MARK_S:
            self._first = self._first or (now_s, self.sent)
            self._marks.append((now_s, self.sent))

    def rate(self, now_s: float, size: int) -> float:
        """Return bytes a second; 0 while unknown or stalled."""
        if self.sent < size and now_s - self._last_s >= STALLED_S:
            return 0.0
        return self._rate()

    def _rate(self) -> float:
        slopes = [(b - a) / (until - since) for (since, a), (until, b) in pairwise(list(self._marks))]
        return median(slopes) if slopes else 0.0

    def gone(self, now_s: float, size: int) -> int:
        """Estimate the bytes of `size` that have left this host; never all: only the answer proves that."""
        rate = self._rate()
        if not rate or self._first is None:
            return 0
        first_s, swallowed = self._first
        buffered = min(max(0.0, swallowed - rate * (first_s - self._begun_s)), BUFFERS_MAX)
        drained = rate * (now_s - self._last_s) if self.sent >= size else 0.0
        return max(0, min(int(self.sent - buffered + drained), size - 1))
