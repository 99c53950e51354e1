"""Flow: the transfer of a thread, for the limits of bandwidth: its turn among others, and the time held by a limit.

The engine knows the purpose of a transfer, the store the bytes: between both lies the port ObjectStore. So the flow
is a property of the context of the thread. `store/token_bucket.py` does the waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Flow:
    """Written by its own thread, but for `urgent`; each field may be read by any."""

    urgent: bool = True  # a program waits for it; False: its turn comes after those
    held_since_s: float | None = None  # Clock.monotonic() of the wait under way
    _held_s: float = 0.0  # of the waits before

    def held_s(self, now_s: float) -> float:
        """Return the seconds that a limit has held this flow so far."""
        since_s = self.held_since_s
        return self._held_s if since_s is None else self._held_s + max(0.0, now_s - since_s)

    def hold(self, now_s: float) -> None:
        self.held_since_s = now_s

    def go_on(self, now_s: float) -> None:
        self._held_s, self.held_since_s = self.held_s(now_s), None


_current: ContextVar[Flow] = ContextVar("_current")


def current() -> Flow:
    """Return the flow of this context; a thread that was given none has one of its own, urgent."""
    found = _current.get(None)
    if found is None:
        found = Flow()
        _current.set(found)
    return found


def spent_s(now_s: float) -> float:
    """Return `now_s`, less the time for which a limit has held this context's flow: for durations."""
    found = _current.get(None)
    return now_s if found is None else now_s - found.held_s(now_s)


@contextmanager
def flowing(flow: Flow) -> Iterator[None]:
    """Make `flow` the current one inside the block."""
    token = _current.set(flow)
    try:
        yield
    finally:
        _current.reset(token)
