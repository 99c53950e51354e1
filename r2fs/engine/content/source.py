"""State of downloads: the version and the ranges under way of one file, and how long GETs take until their first bytes.

Never:   downloads.
Locks:   Source.lock (rank 35): a SparseFile's may be taken inside; neither a request nor Core.lock under it.
         Hedges._lock (leaf).

Of a hundred GETs one is much slower than the others, on another server or connection than the next one would be
(Dean and Barroso, "The Tail at Scale", 2013). A second GET beside it, a hedge, costs little as long as few are sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from threading import Lock

from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.content.windows import SAMPLE_S, Sequence, Windows
from r2fs.model.flow import Flow
from r2fs.model.ports import Clock
from r2fs.model.ranges import Range, RangeSet
from r2fs.model.records import ObjectInfo, Version

WHOLE = 1 << 62  # bytes: no limit
NEARLY = 1 << 20  # bytes: a cancelled GET that lacks no more ends, since its connection can be used again
SLOW_S = 3.0  # of a GET that no reader waits for: by then TCP's slow start is over, over any distance
KEEP = 256  # GETs of a kind whose times are known
ENOUGH = 20  # GETs before any is called late
LATE = 4  # medians
LEAST_S = (
    0.05  # below that a second GET is no faster than the first: threads wake up that late on a busy host
)
SHARE = 50  # GETs for each second GET: 2 %


class Hedges:
    """Times to the first chunk of the last GETs of each kind, and the number of second GETs. Thread-safe.

    `kind`: bytes of the chunks in which a GET's body is read.
    """

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


class Abandoned(Exception):
    """A download ended early: no reader needs the rest."""


class Piece:
    """A range that one GET downloads, or a second one beside a silent one: queued, or under way.

    All fields but the constants are guarded by Source.lock.
    """

    def __init__(
        self,
        start: int,
        stop: int,
        sequence: Sequence | None = None,
        first: Piece | None = None,
        urgent: bool = True,
    ) -> None:
        """`sequence`: ahead of whose reads. `first`: the silent GET beside which it is. `urgent`: a reader waits for it."""
        # constant
        self.start = start
        self.stop = stop
        self.first = self if first is None else first
        self._sequence = sequence
        self._cancelled = sequence.cancelled if sequence is not None else 0
        # guarded by: Source.lock
        self._at = start  # next byte to arrive
        self._kind = 0  # of the GET under way: `Hedges`
        self._heard_s: float | None = (
            None  # Clock.monotonic() of its last bytes, or of the request; None: queued
        )
        self._sent_s = 0.0  # Clock.monotonic() of the request
        self._writer: Piece | None = None  # of a hidden pair: the one that writes
        self.hedged = first is not None  # True for both of a pair
        self._urgent = urgent
        self._flow: Flow | None = None  # of the download under way; None: queued
        self._held_s = 0.0  # of the flow, when bytes last arrived

    def begin(self, flow: Flow) -> bool:
        """Note that a thread downloads the piece, as `flow`. False: another one does, or did."""
        if self._flow is not None:
            return False
        self._flow, flow.urgent = flow, self._urgent
        return True

    @property
    def begun(self) -> bool:
        """True if a thread downloads the piece."""
        return self._flow is not None

    @property
    def urgent(self) -> bool:
        """True if a reader waits for the piece."""
        return self._urgent

    @property
    def is_slow(self) -> bool:
        """True if no reader waits for the piece, and its GET brings bytes for SLOW_S already."""
        return not self._urgent and self._heard_s is not None and self._heard_s - self._sent_s >= SLOW_S

    def promote(self) -> bool:
        """Note that a reader waits for the piece by now. True: it is queued behind what no reader waits for."""
        if self._urgent:
            return False
        self._urgent = True
        if self._flow is not None:
            self._flow.urgent = True
        return self._flow is None

    @property
    def held(self) -> bool:
        """True while the piece is queued, or a limit of bandwidth holds it."""
        return self._flow is None or self._flow.held_since_s is not None

    def held_s(self, now_s: float) -> float:
        """Return the seconds for which a limit has held the download so far."""
        return 0.0 if self._flow is None else self._flow.held_s(now_s)

    def sent(self, at: int, kind: int, now_s: float) -> None:
        """Note that a GET from byte `at` on is sent."""
        self._at, self._kind, self._heard_s = at, kind, now_s
        self._sent_s = now_s
        self._held_s = self.held_s(now_s)

    def heard(self, size: int, now_s: float) -> float:
        """Note that `size` bytes have arrived.

        Return the seconds since the ones before, or since the request, without those for which a limit held it.
        """
        held_s = self.held_s(now_s)
        silent_s = now_s - (now_s if self._heard_s is None else self._heard_s) - (held_s - self._held_s)
        self._at, self._heard_s, self._held_s = self._at + size, now_s, held_s
        return silent_s

    def hide(self) -> bool:
        """Note that bytes are hidden until all are there. False: the other of the pair writes them.

        Two writers of hidden bytes could leave a mixture of which one wrote a wrong part after the other's check.
        """
        return self.first._claim(self)

    def _claim(self, writer: Piece) -> bool:
        if self._writer is None:
            self._writer = writer
        return self._writer is writer

    def hedge(self, hedges: Hedges, now_s: float) -> tuple[Piece | None, float | None]:
        """Return a second piece for the rest if the GET is late; and the seconds until it will be, if it may be."""
        if self.hedged or self._writer is not None:
            return None, None
        if self._heard_s is None:  # about to be sent: from then on at least as long
            return None, LEAST_S
        late_s = hedges.late_s(self._kind)
        if late_s is None:
            return None, None
        left_s = self._heard_s + late_s + (self.held_s(now_s) - self._held_s) - now_s
        if left_s > 0:
            return None, left_s
        if not hedges.take():
            return None, None
        self.hedged = True
        return Piece(self._at, self.stop, first=self), None

    @property
    def cancelled(self) -> bool:
        """True if the reader has gone elsewhere since."""
        return self._sequence is not None and self._sequence.cancelled != self._cancelled


@dataclass(eq=False)
class Source:
    version: Version  # replaced only by another version of the same bytes: a rename's copy
    content: SparseFile  # constant
    on_info: Callable[[ObjectInfo], None]  # constant: called with each answer's metadata
    # constant: called if the bucket no longer has this version; may replace it
    on_lost: Callable[[Version], None]
    ino: int = 0  # constant
    lock: Lock = field(default_factory=Lock)
    # guarded by: lock
    coming: RangeSet = field(default_factory=RangeSet)  # ranges of `pieces`
    pieces: list[Piece] = field(default_factory=list)  # queued, or under way
    later: deque[Piece] = field(default_factory=deque)  # of `pieces`, those past a limit, in order
    wanted: list[Range] = field(default_factory=list)  # ranges that readers wait for: not to be released
    windows: Windows = field(default_factory=Windows)
    begun: bool = False  # a read has requested bytes
    allowed: int = WHOLE  # bytes that may be in the file at once; changed by `content/streaming.py` alone
    recorded: bool = False  # the history has its download
    trouble: str | None = None  # the last attempt's transient error; None: it succeeded

    def add(self, pieces: list[Piece]) -> None:
        """Add pieces that are about to be queued. With `lock` held."""
        for piece in pieces:
            self.pieces.append(piece)
            self.coming.add(piece.start, piece.stop)

    def awaited(self, start: int, stop: int) -> list[Piece]:
        """Return the pieces that bring bytes of [start, stop). With `lock` held."""
        return [piece for piece in self.pieces if piece.start < stop and start < piece.stop]

    def begin(self, piece: Piece, flow: Flow) -> bool:
        """Note that a thread downloads a piece, as `flow`. With `lock` held. False: it is not to.

        A piece that no reader waits for is kept for later while as many of the file are under way as the line has room
        for: a GET past them would open a connection, on which TCP starts slowly, while one that is used comes free.
        """
        if not piece.urgent and self._free_gets() <= 0:
            self.later.append(piece)
            return False
        return piece.begin(flow)

    def _free_gets(self) -> int:
        return self.windows.rate.gets - sum(piece.begun for piece in self.pieces)

    def remove(self, piece: Piece) -> list[Piece]:
        """Remove a piece whose download has ended; return those kept for later that follow. With `lock` held."""
        self.pieces.remove(piece)
        self.coming.remove(piece.start, piece.stop)
        for other in self.pieces if piece.hedged else ():
            self.coming.add(other.start, other.stop)
        following: list[Piece] = []
        while self.later and len(following) < max(1, self._free_gets()):
            first = self.later.popleft()
            if not first.begun and first in self.pieces:
                following.append(first)
        return following

    def measured(self, clock: Clock, hedges: Hedges, piece: Piece, at: int, kind: int) -> Measured:
        """Measure the GET inside the block, which downloads a piece from byte `at` on."""
        hedges.sent()
        with self.lock:
            piece.sent(at, kind, clock.monotonic())
            return Measured(self, clock.monotonic, hedges, piece)

    def is_abandoned(self, piece: Piece, at: int) -> bool:
        """True if no reader needs the bytes of a piece from `at` on.

        The file is closed, its reader is elsewhere, the other GET of a pair has brought them, or the line is too slow for
        so many GETs ahead of a reader: that was not known when a first read opened a window.
        """
        if self.content.closed or (piece.hedged and not self.content.missing(at, piece.stop)):
            return True
        is_over = piece.cancelled and not (piece.start < at and piece.stop - at <= NEARLY)
        if not is_over and not piece.is_slow:
            return False
        with self.lock:
            if any(start < piece.stop and at < stop for start, stop in self.wanted):
                return False
            return is_over or self._free_gets() < -1  # the reader's own is one more


class Measured:
    """One GET of a Source, for the block in which it runs: its time to the first byte, its bytes and its duration."""

    def __init__(self, source: Source, now_s: Callable[[], float], hedges: Hedges, piece: Piece) -> None:
        """With the Source's lock held."""
        self._source = source
        self._now_s = now_s
        self._hedges = hedges
        self._piece = piece
        self._begun_s = self._since_s = now_s()  # of the GET, and of its sample
        self._arrived_before = source.windows.rate.arrived
        self._has_bytes = False

    def arrived(self, size: int, kind: int, hidden: bool) -> None:
        """Count a chunk, before it is written. Raises Abandoned if the other GET of a pair writes hidden bytes."""
        now_s = self._now_s()
        with self._source.lock:
            self._source.windows.rate.add(size)
            if now_s - self._since_s >= SAMPLE_S:
                self._sample(now_s)
            silent_s = self._piece.heard(size, now_s)
            writes = not hidden or self._piece.hide()
        if not self._has_bytes:
            self._has_bytes = True
            self._hedges.first_byte(kind, silent_s)
        if not writes:
            raise Abandoned

    def __enter__(self) -> Measured:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._since_s == self._begun_s:
            with self._source.lock:
                self._sample(self._now_s())

    def _sample(self, now_s: float) -> None:
        """Count a sample of the rate, and begin the next one. With the Source's lock held."""
        rate = self._source.windows.rate
        rate.sample(self._arrived_before, now_s - self._since_s)
        self._since_s, self._arrived_before = now_s, rate.arrived
