"""Counts requests to the bucket: by operation, by R2's class, by directory and by program; and keeps the last ones.

Owns:    the counters, R2's classes of requests (A and B are billed, the rest is free), and the bounds: DIRECTORIES,
         PROGRAMS and RECENT entries, about 3 MB at most. Further directories and programs are counted as OTHERS.
Never:   outlives the daemon; knows prices.
Locks:   that of the counters, taken last of all and held for a few additions.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from types import MappingProxyType

from r2fs.model import causes
from r2fs.model.causes import Cause

# Operations are named as the S3 API names them.
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
CLASSES = ("A", "B", "free")

# Upper limits of the latency's classes, seconds: a near server answers in a few milliseconds, a stuck one in a minute.
LIMITS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
NO_ANSWER = "none"  # in place of a status
DIRECTORIES = 5000
PROGRAMS = 200
RECENT = 5000  # requests
OTHERS = "\0others"  # no directory and no program has this name

Counts = tuple[int, ...]  # of class A, of class B, free


def kind_of(verb: str) -> int:
    """Return the index in CLASSES of a request's class."""
    return 0 if verb in CLASS_A else 1 if verb in CLASS_B else 2


def directory_of(key: str) -> str:
    """
    >>> directory_of("takes/07.wav"), directory_of("takes/"), directory_of("07.wav")
    ('takes', 'takes', '')
    """
    return key.rpartition("/")[0]


@dataclass(slots=True, eq=False)
class Sent:
    """A request. The fields with a default are set by its answer."""

    at_s: float  # seconds since 1970
    verb: str
    key: str  # of its object, or the prefix of a LIST; of several objects, the first
    cause: Cause
    size: int  # bytes of its body
    status: int | None = None  # None: no answer, or not yet
    took_s: float | None = None


@dataclass(frozen=True, slots=True)
class LatencyView:
    """Times from a request to the head of its answer."""

    counts: tuple[int, ...]  # for each of LIMITS_S, and one more for those above
    sum_s: float


@dataclass(frozen=True, slots=True)
class RequestsView:
    """Requests that reached a server so far: those that were refused or not answered, and retries, are billed too."""

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


class _Book:
    """The counters of all buckets of a mount. guarded by: lock"""

    def __init__(self) -> None:
        self.lock = Lock()
        self.verbs: Counter[str] = Counter()
        self.retries = 0
        self.sent = 0
        self.received = 0
        self.statuses: Counter[str] = Counter()
        self.latencies: dict[str, list[int]] = {}
        self.sums_s: dict[str, float] = {}
        self.directories: dict[str, list[int]] = {}
        self.programs: dict[str, list[int]] = {}
        self.recent: deque[Sent] = deque(maxlen=RECENT)

    def add(self, sent: Sent, count: int) -> None:
        """Add `count` (-1: take back) to the counters of the request."""
        kind = kind_of(sent.verb)
        self.verbs[sent.verb] += count
        self.sent += count * sent.size
        _counts(self.directories, directory_of(sent.key), DIRECTORIES)[kind] += count
        _counts(self.programs, sent.cause.program, PROGRAMS)[kind] += count


def _counts(table: dict[str, list[int]], name: str, limit: int) -> list[int]:
    found = table.get(name)
    if found is None:
        if len(table) >= limit and name != OTHERS:
            return _counts(table, OTHERS, limit)
        found = table[name] = [0, 0, 0]
    return found


class RequestCounter:
    """Thread-safe. `prefix` is put before the keys: a bucket's name, in a mount of several."""

    def __init__(self, prefix: str = "", book: _Book | None = None) -> None:
        # constant
        self._prefix = prefix
        self._book = book or _Book()

    def of_bucket(self, name: str) -> RequestCounter:
        """Return a counter of one bucket of several, which counts in this one."""
        return RequestCounter(f"{name}/", self._book)

    def request(self, verb: str, key: str = "", sent_bytes: int = 0) -> Sent:
        """Count a request that is about to be sent, for the cause of this thread."""
        sent = Sent(time.time(), verb, self._prefix + key, causes.now(), sent_bytes)
        book = self._book
        with book.lock:
            book.add(sent, 1)
            book.recent.append(sent)
        return sent

    def not_sent(self, sent: Sent) -> None:
        """Take one of `request` back: there was no connection to send it on."""
        book = self._book
        with book.lock:
            book.add(sent, -1)
            if not book.verbs[sent.verb]:
                del book.verbs[sent.verb]
            if sent in book.recent:  # else so many were sent since
                book.recent.remove(sent)

    def answered(self, sent: Sent, took_s: float, status: int | None) -> None:
        """Note the end of one of `request`; `status` is None where no answer came."""
        book = self._book
        with book.lock:
            sent.status, sent.took_s = status, took_s
            book.statuses[NO_ANSWER if status is None else str(status)] += 1
            if sent.verb not in book.latencies:
                book.latencies[sent.verb], book.sums_s[sent.verb] = [0] * (len(LIMITS_S) + 1), 0.0
            book.latencies[sent.verb][bisect_left(LIMITS_S, took_s)] += 1
            book.sums_s[sent.verb] += took_s

    def latencies(self) -> Mapping[str, LatencyView]:
        """Latency by verb."""
        book = self._book
        with book.lock:
            return {
                verb: LatencyView(tuple(counts), book.sums_s[verb]) for verb, counts in book.latencies.items()
            }

    def retried(self) -> None:
        with self._book.lock:
            self._book.retries += 1

    def received(self, count: int) -> None:
        with self._book.lock:
            self._book.received += count

    def by_directory(self) -> Mapping[str, Counts]:
        """Requests of each class, by directory of their keys."""
        with self._book.lock:
            return {name: tuple(counts) for name, counts in self._book.directories.items()}

    def by_program(self) -> Mapping[str, Counts]:
        with self._book.lock:
            return {name: tuple(counts) for name, counts in self._book.programs.items()}

    def recent(self) -> tuple[Sent, ...]:
        """Return the last RECENT requests, the oldest first."""
        with self._book.lock:
            return tuple(self._book.recent)

    def view(self) -> RequestsView:
        book = self._book
        with book.lock:
            verbs = dict(book.verbs)
            retries, sent, received = book.retries, book.sent, book.received
            statuses = dict(book.statuses)
        kinds = [0, 0, 0]
        for verb, n in verbs.items():
            kinds[kind_of(verb)] += n
        a, b, free = kinds
        return RequestsView(MappingProxyType(verbs), a, b, free, retries, sent, received, statuses)
