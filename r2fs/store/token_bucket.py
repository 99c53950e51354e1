"""Token bucket: holds the bodies of one direction to a limit of bytes a second.

Owns:    the tokens, the order of the flows that wait for them, and the current hour of the timetable.
Never:   polls; wakes a thread while nothing is limited.
Threads: every method is thread-safe.
Locks:   `_lock`, a leaf, held for a few assignments. Where no limit is set, none is taken.

A flow pays before it moves bytes: it gets its turn while the tokens are not in debt, and takes all that it asks for. So
a second exceeds the limit by `piece` at most, besides BURST_S. Flows with a waiting program go first, in the order of
arrival; one of SHARE turns is left to the rest, since servers close idle connections.

A body that has begun without a limit ends without one: it has 8 MiB or one part as a rule.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event, Lock

from r2fs.model.flow import Flow, current
from r2fs.model.ports import Body, Clock, Download
from r2fs.model.settings.timetable import OFF, Timetable
from r2fs.model.views import LimitView

BURST_S = 0.1  # of unused tokens kept: a thread that wakes up later than that has lost some
PIECES = 16  # of a second's bytes
LEAST_PIECE = 1 << 10  # bytes
SHARE = 16  # turns, of which one is of a flow that no program waits for
LOOK_S = 600.0  # until the hour is looked up again: the clock or the time zone may have been changed
SOON_S = 0.001  # shortest wait
LONG_S = 3600.0  # a flow that is not the first waits to be woken up


class _Waiter:
    def __init__(self, flow: Flow, size: int) -> None:
        self.flow = flow
        self.size = size
        self.turn = Event()


class TokenBucket:
    """One direction. Without a limit until `change`."""

    def __init__(self, clock: Clock) -> None:
        # constant
        self._clock = clock
        # replaced under _lock, read without: None: nothing is limited at any hour
        self._timetable: Timetable | None = None
        # guarded by: _lock
        self._lock = Lock()
        self._rate: int | None = None  # of this hour
        self._known_s = 0.0, 0.0  # Clock.time() from and to which `_rate` is known
        self._level = 0.0  # bytes; below 0: in debt
        self._level_at_s = 0.0
        self._waiting: list[_Waiter] = []
        self._urgent_turns = 0  # in a row, while others waited

    def change(self, timetable: Timetable) -> None:
        """Hold to another limit from now on, flows that wait included."""
        with self._lock:
            self._timetable = None if timetable.is_off else timetable
            self._known_s = 0.0, 0.0
            self._wake_all()

    @property
    def timetable(self) -> Timetable:
        return self._timetable or OFF

    def lift(self) -> None:
        """Hold nothing any longer: the process is about to end."""
        self.change(OFF)

    def view(self) -> LimitView:
        timetable, now_s = self._timetable, self._clock.time()
        with self._lock:
            waiting = len(self._waiting)
        if timetable is None:
            return LimitView(str(OFF), None, None, None, 0)
        until_s = timetable.until(now_s)
        following = None if until_s is None else timetable.rate(until_s)
        return LimitView(str(timetable), timetable.rate(now_s), until_s, following, waiting)

    # ---- bodies
    def sending(self, body: Body) -> Body:
        """`body`, held to the limit while it is read."""
        return body if self._timetable is None else _Held(self, body)

    def receiving(self, download: Download, size: int, left: int) -> Iterator[bytes]:
        """Chunks of up to `size` of an answer that has `left` bytes, held to the limit while they are read."""
        return download.chunks(size) if self._timetable is None else self._held(download, size, left)

    def _held(self, download: Download, size: int, left: int) -> Iterator[bytes]:
        size = min(size, self.piece())
        chunks = download.chunks(size)
        while True:
            paid = min(size, left)
            self.take(paid)
            data = next(chunks, b"")
            self._give_back(paid - len(data))
            if not data:
                return
            left -= len(data)
            yield data

    def piece(self) -> int:
        """Return the most bytes that are moved in one turn, so that a second has several."""
        with self._lock:
            rate = self._rate_of_hour()
        return 1 << 62 if rate is None else max(LEAST_PIECE, rate // PIECES)

    # ---- tokens
    def take(self, size: int) -> None:
        """Return when this context's flow may move `size` bytes."""
        if self._timetable is None or size <= 0:
            return
        flow = current()
        with self._lock:
            if not self._waiting and self._pause_s() <= 0:
                self._level -= size
                return
            waiter = _Waiter(flow, size)
            self._waiting.append(waiter)
        flow.hold(self._clock.monotonic())
        try:
            while (pause_s := self._turn(waiter)) > 0:
                self._clock.wait(waiter.turn, pause_s)
                waiter.turn.clear()
        finally:
            flow.go_on(self._clock.monotonic())
            with self._lock:
                if waiter in self._waiting:  # the wait was broken off
                    self._waiting.remove(waiter)

    def _give_back(self, size: int) -> None:
        if size > 0:
            with self._lock:
                self._level += size

    def _turn(self, waiter: _Waiter) -> float:
        """Return 0 if the waiter has got its turn, else the seconds until the next look, unless it is woken up."""
        with self._lock:
            first = self._first()
            if first is not None and waiter is not first:
                first.turn.set()  # it may have become urgent since, in the place of this one
                return LONG_S
            pause_s = self._pause_s()
            if pause_s > 0:
                return pause_s
            self._level -= waiter.size
            self._waiting.remove(waiter)
            others = any(one.flow.urgent != waiter.flow.urgent for one in self._waiting)
            self._urgent_turns = self._urgent_turns + 1 if waiter.flow.urgent and others else 0
            if (first := self._first()) is not None:
                first.turn.set()
            return 0.0

    # ---- with _lock held
    def _first(self) -> _Waiter | None:
        urgent = next((one for one in self._waiting if one.flow.urgent), None)
        other = next((one for one in self._waiting if not one.flow.urgent), None)
        if urgent is None or (other is not None and self._urgent_turns >= SHARE - 1):
            return other
        return urgent

    def _pause_s(self) -> float:
        """Return the seconds until a flow may move bytes, or the hour ends."""
        rate = self._rate_of_hour()
        if rate is None:
            return 0.0
        now_s = self._clock.monotonic()
        self._level = min(rate * BURST_S, self._level + (now_s - self._level_at_s) * rate)
        self._level_at_s = now_s
        if self._level >= 0:
            return 0.0
        return max(SOON_S, min(-self._level / rate, self._known_s[1] - self._clock.time()))

    def _rate_of_hour(self) -> int | None:
        timetable, now_s = self._timetable, self._clock.time()
        if timetable is None:
            return None
        since_s, until_s = self._known_s
        if not since_s <= now_s < until_s:
            time.tzset()
            rate, change_s = timetable.rate(now_s), timetable.until(now_s)
            self._known_s = now_s, min(now_s + LOOK_S, now_s + LOOK_S if change_s is None else change_s)
            if rate != self._rate:
                self._rate = rate
                self._level, self._level_at_s = 0.0, self._clock.monotonic()
                self._wake_all()
        return self._rate

    def _wake_all(self) -> None:
        for waiter in self._waiting:
            waiter.turn.set()


class _Held:
    """A request's body, held to the limit each time that it is read."""

    def __init__(self, bucket: TokenBucket, body: Body) -> None:
        # constant
        self._bucket = bucket
        self._body = body

    def __len__(self) -> int:
        return len(self._body)

    def __bool__(self) -> bool:
        return True  # an empty body is a body

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, len(self._body) - self._body.tell())
        if size >= 0:
            size = left = min(size, left, self._bucket.piece())
        self._bucket.take(left)
        return self._body.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._body.seek(offset, whence)

    def tell(self) -> int:
        return self._body.tell()

    @property
    def md5_hex(self) -> str | None:
        return getattr(self._body, "md5_hex", None)


class Bandwidth:
    """The limits of one mount, of all its buckets together."""

    def __init__(self, clock: Clock) -> None:
        # constant
        self.up = TokenBucket(clock)
        self.down = TokenBucket(clock)

    def change(self, up: Timetable, down: Timetable) -> None:
        self.up.change(up)
        self.down.change(down)

    def lift(self) -> None:
        self.up.lift()
        self.down.lift()

    def view(self) -> dict[str, LimitView]:
        return {"up": self.up.view(), "down": self.down.view()}
