"""A line to a far server, as arithmetic: when each byte arrives, and which answers are stalled.

Owns:  the model of one way of one TCP connection: delay, largest rate, slow start.
Never: reads a clock or a socket. Callers hand in the time; far.py moves the bytes.

Slow start follows RFC 6928 and RFC 5681: ten segments at first, one more for each that is acknowledged,
until the window is what the rate holds in one round trip. No loss, and no restart after a pause.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

SEGMENT = 1460  # bytes of payload of an Ethernet frame
INITIAL_WINDOW = 10 * SEGMENT
PIECE = 64 << 10  # bytes that arrive at once; 1.1 ms at 60 MB/s
STEP = 4 * SEGMENT  # smallest piece while the window is what limits


@dataclass(frozen=True)
class Line:
    """Settings of all connections. `bytes_per_s`: of each connection and way; None: no cap, no slow start."""

    round_trip_s: float = 0.040
    bytes_per_s: float | None = 60e6


class Way:
    """One way of one connection."""

    def __init__(self, line: Line, opened_at: float) -> None:
        """The connection is there one round trip after `opened_at` (the handshake)."""
        # constant
        self._line = line
        self._full_window = (line.bytes_per_s or 0.0) * line.round_trip_s
        # state
        self._free_at = opened_at + line.round_trip_s  # when the sender may put the next byte on the line
        self._window = float(INITIAL_WINDOW)
        self._flying = 0  # bytes sent and not acknowledged
        self._acks: deque[tuple[float, int]] = deque()

    def hold(self, until: float) -> None:
        """Send nothing before `until`: what comes later waits behind it, as on any connection."""
        self._free_at = max(self._free_at, until)

    def arrivals(self, now: float, size: int) -> Iterator[tuple[float, int]]:
        """When `size` bytes that are handed in at `now` arrive, piece by piece: (time, bytes), in order."""
        at = max(self._free_at, now)
        rate = self._line.bytes_per_s
        delay = self._line.round_trip_s / 2
        while size:
            if rate is None:
                piece, sent = min(size, PIECE), at
            else:
                at, piece = self._may_send(at, min(size, PIECE))
                sent = at + piece / rate
                self._fly(piece, sent)
            size -= piece
            at = self._free_at = sent
            yield sent + delay, piece

    def _may_send(self, at: float, wanted: int) -> tuple[float, int]:
        """Time and number of the next bytes that the window lets out; not before `at`."""
        self._acknowledge(at)
        # single bytes of room are saved up: they would be as many pieces
        while self._window - self._flying < min(wanted, STEP):
            at = max(at, self._acks[0][0])
            self._acknowledge(at)
        return at, min(wanted, int(self._window) - self._flying)

    def _fly(self, size: int, sent: float) -> None:
        if self._window < self._full_window:
            self._flying += size
            self._acks.append((sent + self._line.round_trip_s, size))

    def _acknowledge(self, now: float) -> None:
        while self._acks and self._acks[0][0] <= now:
            _, size = self._acks.popleft()
            self._flying -= size
            self._window += size


class Stalls:
    """Which answers are late: one of every `one_in`, counted over all connections, by `seconds`."""

    def __init__(self, one_in: int | None, seconds: float) -> None:
        self._one_in = one_in
        self._seconds = seconds
        self._answers = 0

    def next_answer(self) -> float:
        """Seconds by which the answer that begins now is late."""
        self._answers += 1
        # in the middle of each hundred: the first requests of a mount are not the ones that a reader waits for
        late = self._one_in is not None and self._answers % self._one_in == self._one_in // 2
        return self._seconds if late else 0.0
