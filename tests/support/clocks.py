"""Clocks that a test moves."""

from __future__ import annotations

from threading import Event

from r2fs.model.ports import SystemClock


class ManualClock:
    """wait() takes no time: it moves the clock on, and notes for how long was to be waited."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self._monotonic_s = 1000.0
        self._time_s = now_s
        self.waited: list[float] = []

    def monotonic(self) -> float:
        return self._monotonic_s

    def time(self) -> float:
        return self._time_s

    def advance(self, seconds: float) -> None:
        self._monotonic_s += seconds
        self._time_s += seconds

    def set_back(self, seconds: float) -> None:
        """Somebody sets the clock on the wall; the monotonic one does not care."""
        self._time_s -= seconds

    def wait(self, event: Event, seconds: float) -> bool:
        if event.is_set():
            return True
        self.waited.append(seconds)
        self.advance(seconds)
        return False


class Later(SystemClock):
    """The system's clock, which a test moves on."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self._ahead_s

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead_s

    def advance(self, seconds: float) -> None:
        self._ahead_s += seconds
