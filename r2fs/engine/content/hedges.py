"""Hedges: a second GET for one that is silent for longer than others of its kind.

Owns:    the times to the first byte of the last GETs of each kind, and the number of second GETs.
Never:   sends a request.
Threads: every method is thread-safe.
Locks:   `_lock` (leaf).

Of a hundred GETs one is much slower than the others, on another server or connection than the next one would be
(Dean and Barroso, "The Tail at Scale", 2013). A second GET for it costs little as long as few are sent.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from statistics import median
from threading import Lock

KEEP = 256  # GETs of a kind whose times are known
ENOUGH = 20  # GETs before any is called late
LATE = 4  # medians
LEAST_S = (
    0.05  # below that a second GET is no faster than the first: threads wake up that late on a busy host
)
SHARE = 50  # GETs for each second GET: 2 %


class Hedges:
    """`kind`: of a GET: bytes of the chunks in which its body is read, since the first one counts."""

    def __init__(self) -> None:
        self._lock = Lock()
        # guarded by: _lock
        self._first_byte_s: dict[int, deque[float]] = {}  # by kind; the latest last
        self._sent = 0
        self._hedges = 0

    def sent(self) -> None:
        """Count a GET."""
        with self._lock:
            self._sent += 1

    def first_byte(self, kind: int, seconds: float) -> None:
        """Note the time to a GET's first chunk."""
        with self._lock:
            self._first_byte_s.setdefault(kind, deque(maxlen=KEEP)).append(seconds)

    def soonest_s(self) -> float:
        """Return the least known time to the first chunk, by any GET; 0: none is known."""
        with self._lock:
            return min((min(known) for known in self._first_byte_s.values()), default=0.0)

    def late_s(self, kind: int) -> float | None:
        """Return the seconds of silence after which a GET is late: max(p99, 4 × median). None: too few are known."""
        with self._lock:
            known = sorted(self._first_byte_s.get(kind, ()))
        if len(known) < ENOUGH:
            return None
        return max(known[ceil(0.99 * len(known)) - 1], LATE * median(known), LEAST_S)

    def take(self) -> bool:
        """Count a second GET. False: of the GETs so far too many were."""
        with self._lock:
            if (self._hedges + 1) * SHARE > self._sent:
                return False
            self._hedges += 1
            return True
