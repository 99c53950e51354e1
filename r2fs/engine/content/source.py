"""Source: the version from which one file's missing ranges are downloaded, and the ranges under way.

Owns:    the state of one file's downloads, for `content/hydrate.py`, `content/download.py` and `content/streaming.py`.
Never:   downloads, or decides.
Locks:   `lock` (rank 35): a SparseFile's may be taken inside; neither a request nor Core.lock under it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.content.windows import Sequence, Windows
from r2fs.model.ports import Clock
from r2fs.model.ranges import Range, RangeSet
from r2fs.model.records import ObjectInfo, Version

WHOLE = 1 << 62  # bytes: no limit
NEARLY = 1 << 20  # bytes: a cancelled GET that lacks no more ends, since its connection can be used again


class Abandoned(Exception):
    """A download ended early: no reader needs the rest."""


class Piece:
    """A range that one GET downloads: queued, or under way."""

    def __init__(self, start: int, stop: int, sequence: Sequence | None) -> None:
        """`sequence`: ahead of whose reads; None: a reader waits for it."""
        self.start = start
        self.stop = stop
        self._sequence = sequence
        self._cancelled = sequence.cancelled if sequence is not None else 0

    @property
    def cancelled(self) -> bool:
        """True if the reader has gone elsewhere since."""
        return self._sequence is not None and self._sequence.cancelled != self._cancelled


@dataclass(eq=False)
class Source:
    version: Version  # replaced only by another version of the same bytes: a rename's copy
    content: SparseFile  # constant
    on_info: Callable[[ObjectInfo], None]  # constant: called with each answer's metadata
    on_lost: Callable[[Version], None]  # constant: called if the bucket no longer has this version
    ino: int = 0  # constant
    lock: threading.Lock = field(default_factory=threading.Lock)
    # guarded by: lock
    coming: RangeSet = field(default_factory=RangeSet)
    wanted: list[Range] = field(default_factory=list)  # ranges that readers wait for: not to be released
    windows: Windows = field(default_factory=Windows)
    begun: bool = False  # a read has requested bytes
    allowed: int = WHOLE  # bytes that may be in the file at once; changed by `content/streaming.py` alone
    trouble: str | None = None  # the last attempt's transient error; None: it succeeded

    @contextmanager
    def measured(self, clock: Clock) -> Iterator[Measured]:
        """Measure the GET inside the block, for the file's rate."""
        with self.lock:
            measured = Measured(self, clock.monotonic, self.windows.rate.arrived)
        try:
            yield measured
        finally:
            measured.ended()

    def is_abandoned(self, piece: Piece, at: int) -> bool:
        """True if no reader needs the bytes of a piece from `at` on: the file is closed, or its reader is elsewhere."""
        if self.content.closed:
            return True
        if not piece.cancelled or (piece.start < at and piece.stop - at <= NEARLY):
            return False
        with self.lock:
            return not any(start < piece.stop and at < stop for start, stop in self.wanted)


class Measured:
    """One GET of a Source: its time to the first byte, its bytes and its duration."""

    def __init__(self, source: Source, now_s: Callable[[], float], arrived_before: int) -> None:
        self._source = source
        self._now_s = now_s
        self._begun_s = now_s()
        self._arrived_before = arrived_before
        self._has_bytes = False

    def arrived(self, size: int) -> None:
        with self._source.lock:
            rate = self._source.windows.rate
            if not self._has_bytes:
                rate.first_byte(self._now_s() - self._begun_s)
            rate.add(size)
        self._has_bytes = True

    def ended(self) -> None:
        with self._source.lock:
            self._source.windows.rate.ended(self._arrived_before, self._now_s() - self._begun_s)
