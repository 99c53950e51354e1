"""Throughput: how much of an upload has left this host, and how fast.

Owns:    the marks of one attempt, and the estimate made from them.
Never:   waits for anything; looks at a socket.
Threads: `add` in any sending thread, without a lock; the rest in any.

A byte counts as sent when it is in a socket's buffer. These buffers, the receiver's among them, swallow
megabytes at once and then take what the line takes. So the rate is the median of what went in each second but
the first, and what the first second took beyond that rate is counted as not gone yet.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from statistics import median

MARK_S = 1.0  # between two marks
MARKS = 9  # the latest: eight seconds tell the rate
BUFFERS_MAX = 32 << 20  # bytes: more is not in the buffers of a few connections, but was sent fast
STALLED_S = 5.0  # nothing was taken for so long: there is no rate


class Throughput:
    def __init__(self) -> None:
        self.sent = 0  # bytes, in buffers or beyond
        self._begun_s = 0.0  # at the first byte; times are Clock.monotonic()
        self._last_s = 0.0  # at the last one
        self._first: tuple[float, int] | None = None  # the first mark
        self._marks: deque[tuple[float, int]] = deque(maxlen=MARKS)  # it and those after it

    def add(self, count: int, now_s: float) -> None:
        if not self.sent:
            self._begun_s = now_s
        self.sent += count
        self._last_s = now_s
        if now_s - (self._marks[-1][0] if self._marks else self._begun_s) >= MARK_S:
            self._first = self._first or (now_s, self.sent)
            self._marks.append((now_s, self.sent))

    def rate(self, now_s: float, size: int) -> float:
        """Bytes a second; 0 while it is not known, or nothing moves."""
        if self.sent < size and now_s - self._last_s >= STALLED_S:
            return 0.0
        return self._rate()

    def _rate(self) -> float:
        slopes = [(b - a) / (until - since) for (since, a), (until, b) in pairwise(list(self._marks))]
        return median(slopes) if slopes else 0.0

    def gone(self, now_s: float, size: int) -> int:
        """Bytes of `size` that have left this host, estimated; never all of them: the bucket says when it has all."""
        rate = self._rate()
        if not rate or self._first is None:
            return 0
        first_s, swallowed = self._first
        buffered = min(max(0.0, swallowed - rate * (first_s - self._begun_s)), BUFFERS_MAX)
        drained = rate * (now_s - self._last_s) if self.sent >= size else 0.0
        return max(0, min(int(self.sent - buffered + drained), size - 1))
