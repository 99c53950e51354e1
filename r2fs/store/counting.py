"""Counts requests to the bucket, by verb and by what R2 charges for them.

Owns:  the counters, and R2's classes of requests (A and B are billed, the rest is free).
Never: sends anything.
Locks: self._lock, taken last of all and held for a few additions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType

# Verbs are named as the S3 API names its operations.
CLASS_A = frozenset(
    {
        "ListObjectsV2",
        "PutObject",
        "CopyObject",
        "CreateMultipartUpload",
        "UploadPart",
        "UploadPartCopy",
        "CompleteMultipartUpload",
    }
)
CLASS_B = frozenset({"GetObject", "HeadObject", "HeadBucket"})
FREE = frozenset({"DeleteObject", "DeleteObjects", "AbortMultipartUpload"})


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
        a = sum(n for verb, n in verbs.items() if verb in CLASS_A)
        b = sum(n for verb, n in verbs.items() if verb in CLASS_B)
        free = sum(verbs.values()) - a - b
        return RequestsView(MappingProxyType(verbs), a, b, free, retries, sent, received)
