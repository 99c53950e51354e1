"""Counts requests to the bucket, by verb and by what R2 charges for them.

Owns:  the counters, and R2's classes of requests (A and B are billed, the rest is free).
Never: sends anything.
Locks: self._lock, taken last of all and held for a few additions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from types import MappingProxyType

# Verbs are named as the S3 API names its operations.
CLASS_A = frozenset(
    {
        "ListBuckets",
        "ListObjectsV2",
        "PutObject",
        "CopyObject",
        "CreateMultipartUpload",
        "UploadPart",
        "UploadPartCopy",
        "CompleteMultipartUpload",
        "ListMultipartUploads",
    }
)
CLASS_B = frozenset({"GetObject", "HeadObject", "HeadBucket"})
FREE = frozenset({"DeleteObject", "DeleteObjects", "AbortMultipartUpload"})


# Upper limits of the latency's classes, seconds: a near server answers in a few milliseconds, a stuck one in a minute.
LIMITS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
NO_ANSWER = "none"  # in place of a status


@dataclass(frozen=True, slots=True)
class LatencyView:
    """Times from a request to the head of its answer."""

    counts: tuple[int, ...]  # for each of LIMITS_S, and one more for those above
    sum_s: float


@dataclass(frozen=True, slots=True)
class RequestsView:
    """Requests that reached a server so far, retries, refused ones and those whose answer was lost included:
    they are billed too. One that found no server is none."""

    by_verb: Mapping[str, int]
    class_a: int
    class_b: int
    free: int
    retries: int
    sent_bytes: int  # of bodies, as announced to the server
    received_bytes: int  # of bodies of GET
    by_status: Mapping[str, int] = field(default_factory=dict)  # answers; NO_ANSWER: none came

    @property
    def total(self) -> int:
        return self.class_a + self.class_b + self.free


class RequestCounter:
    """Thread-safe."""

    def __init__(self) -> None:
        # guarded by: _lock
        self._lock = Lock()
        self._verbs: Counter[str] = Counter()
        self._retries = 0
        self._sent = 0
        self._received = 0
        self._statuses: Counter[str] = Counter()
        self._latencies: dict[str, list[int]] = {}
        self._sums_s: dict[str, float] = {}

    def request(self, verb: str, sent_bytes: int = 0) -> None:
        with self._lock:
            self._verbs[verb] += 1
            self._sent += sent_bytes

    def not_sent(self, verb: str, sent_bytes: int = 0) -> None:
        """Take one of `request` back: there was no connection to send it on."""
        with self._lock:
            self._verbs[verb] -= 1
            self._sent -= sent_bytes
            if not self._verbs[verb]:
                del self._verbs[verb]

    def answered(self, verb: str, took_s: float, status: int | None) -> None:
        """Note the end of one of `request`; `status` is None where no answer came."""
        with self._lock:
            self._statuses[NO_ANSWER if status is None else str(status)] += 1
            counts = self._latencies.setdefault(verb, [0] * (len(LIMITS_S) + 1))
            counts[bisect_left(LIMITS_S, took_s)] += 1
            self._sums_s[verb] = self._sums_s.get(verb, 0.0) + took_s

    def latencies(self) -> Mapping[str, LatencyView]:
        """Latency by verb."""
        with self._lock:
            return {
                verb: LatencyView(tuple(counts), self._sums_s[verb])
                for verb, counts in self._latencies.items()
            }

    def retried(self) -> None:
        with self._lock:
            self._retries += 1

    def received(self, count: int) -> None:
        with self._lock:
            self._received += count

    def view(self) -> RequestsView:
        with self._lock:
            verbs = dict(self._verbs)
            retries, sent, received = self._retries, self._sent, self._received
            statuses = dict(self._statuses)
        a = sum(n for verb, n in verbs.items() if verb in CLASS_A)
        b = sum(n for verb, n in verbs.items() if verb in CLASS_B)
        free = sum(verbs.values()) - a - b
        return RequestsView(MappingProxyType(verbs), a, b, free, retries, sent, received, statuses)
