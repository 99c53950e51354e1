"""Spending: the cost of this calendar month's requests (UTC), over restarts, compared with the budgets of the settings.

Storage is not counted, which no request of a mount can change at once; nor is the free tier, which is the account's.
Threads: `run` in a thread of its own; `view` from any.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock

from r2fs.disk.spent import Spent, SpentFile
from r2fs.model import amounts
from r2fs.model.ports import Clock
from r2fs.model.prices import Prices
from r2fs.model.settings import Settings
from r2fs.store.counting import RequestCounter

log = logging.getLogger(__name__)

LOOK_S = 1.0  # between two looks at the budget
WRITE_S = 60.0  # between two writes of the file


@dataclass(frozen=True, slots=True)
class SpentView:
    month: str  # "2026-11", in UTC
    class_a: int  # requests
    class_b: int
    dollars: float
    warn: float  # dollars; 0: no limit
    limit: float  # likewise

    @property
    def over(self) -> bool:
        """True if nothing is to be fetched ahead of need."""
        return 0 < self.limit < self.dollars


class Spending:
    """`settings` returns those in force; `set_frugal` is called with each change of the budget's state."""

    def __init__(
        self,
        file: SpentFile,
        counter: RequestCounter,
        settings: Callable[[], Settings],
        set_frugal: Callable[[bool], None],
        clock: Clock,
    ) -> None:
        # constant
        self._file = file
        self._counter = counter
        self._settings = settings
        self._set_frugal = set_frugal
        self._clock = clock
        # guarded by: _lock
        self._lock = Lock()
        self._before = file.read() or Spent(self._month(), 0, 0)  # what is not in the counter
        self._written = self._before
        self._frugal = False

    def _month(self) -> str:
        return time.strftime("%Y-%m", time.gmtime(self._clock.time()))

    def _now_locked(self) -> Spent:
        """The requests of this month; at its beginning, from zero."""
        view, month = self._counter.view(), self._month()
        if month != self._before.month:
            self._before = Spent(month, -view.class_a, -view.class_b)
        return Spent(month, self._before.class_a + view.class_a, self._before.class_b + view.class_b)

    def view(self) -> SpentView:
        with self._lock:
            spent = self._now_locked()
        settings = self._settings()
        return SpentView(
            *spent,
            dollars=prices_of(settings).of_requests(spent.class_a, spent.class_b),
            warn=settings.warn_cost,
            limit=settings.prefetch_cost,
        )

    def look(self) -> None:
        """Compare the cost with the budget, and change the engine's way if needed."""
        view = self.view()
        with self._lock:
            changed, self._frugal = view.over != self._frugal, view.over
        if not changed:
            return
        self._set_frugal(view.over)
        if view.over:
            log.warning("%s: nothing is fetched ahead of need any more", over_limit(view))
        else:
            log.info("the requests of this month are within prefetch_cost: files are fetched ahead again")

    def save(self) -> None:
        """Write the file, if there were requests since the last time."""
        with self._lock:
            spent = self._now_locked()
            if spent != self._written:
                self._file.write(spent)
                self._written = spent

    def run(self, ended: Event) -> None:
        """Watch the budget until `ended`."""
        due_s = self._clock.monotonic() + WRITE_S
        while True:
            self.look()
            if self._clock.wait(ended, LOOK_S):
                return
            if self._clock.monotonic() >= due_s:
                self.save()
                due_s = self._clock.monotonic() + WRITE_S


def prices_of(settings: Settings) -> Prices:
    return Prices(settings.price_storage, settings.price_class_a, settings.price_class_b)


def over_limit(view: SpentView) -> str:
    """The sentence on a cost past `prefetch_cost`."""
    cost, limit = amounts.dollars(view.dollars), amounts.dollars(view.limit)
    return f"the requests of {view.month} cost {cost}, more than {limit} (prefetch_cost)"


def warnings(view: SpentView) -> list[str]:
    """Sentences on a cost past the limits of the settings."""
    found = []
    if 0 < view.warn < view.dollars:
        cost, limit = amounts.dollars(view.dollars), amounts.dollars(view.warn)
        found.append(f"the requests of {view.month} cost {cost}, more than {limit} (warn_cost)")
    if view.over:
        found.append(f"{over_limit(view)}: nothing is fetched ahead of need")
    return found
