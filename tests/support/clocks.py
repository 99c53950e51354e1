"""Clocks that a test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Event, Lock, Thread

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


class SharedClock:
    """Time of several threads: it moves on, to the next end of a wait, when each of them waits."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self._lock = Lock()
        self._now_s = 0.0
        self._began_s = now_s
        self._threads = 0
        self._ends: dict[Event, float] = {}  # of the waits under way

    def monotonic(self) -> float:
        return self._now_s

    def time(self) -> float:
        return self._began_s + self._now_s

    def expect(self, threads: int) -> None:
        self._threads = threads

    def thread(self, work: Callable[[], object]) -> Callable[[], None]:
        """Main of one of the threads."""

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads -= 1
                    self._move()

        return run

    def wait(self, event: Event, seconds: float) -> bool:
        with self._lock:
            self._ends[event] = end_s = self._now_s + seconds
            self._move()
        try:
            while not event.wait(0.0005):
                with self._lock:
                    if self._now_s >= end_s:
                        return False
                    self._move()
            return True
        finally:
            with self._lock:
                self._ends.pop(event, None)

    def _move(self) -> None:
        """With the lock held. A wait whose event is set is about to end."""
        if len(self._ends) == self._threads and not any(event.is_set() for event in self._ends):
            self._now_s = max(self._now_s, min(self._ends.values(), default=0.0))

    def run_together(self, works: Iterable[Callable[[], object]]) -> None:
        """Run each in a thread of this clock, and wait for their ends."""
        threads = [Thread(target=self.thread(work), daemon=True) for work in works]
        self.expect(len(threads))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
