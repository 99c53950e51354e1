"""A clock that stands until a test moves it."""

from __future__ import annotations

from threading import Event


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
