"""Fixtures of the disk floor."""

from __future__ import annotations

from threading import Event

import pytest


class SetClock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s

    def wait(self, event: Event, seconds: float) -> bool:
        self.now_s += seconds
        return event.is_set()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()
