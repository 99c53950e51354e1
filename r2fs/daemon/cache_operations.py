"""Operations of the control socket on the cache and on the cost: cache_check, cache_clear, cost.

Owns:    the answers' fields; the projection of requests to a day and a month.
Threads: each operation runs in a thread of its own, many at once.
Locks:   none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from r2fs.daemon import metrics
from r2fs.daemon.control import Request
from r2fs.daemon.parts import Parts
from r2fs.model.prices import DAY_S, MONTH_S, Prices
from r2fs.model.settings import Settings
from r2fs.model.views import CacheCheckView


class CacheOperations:
    def __init__(self, parts: Parts, started_at_s: float) -> None:
        self._engine = parts.engine
        self._store = parts.store
        self._started_at_s = started_at_s

    def table(self) -> dict[str, Callable[[Request], Mapping[str, object]]]:
        return {"cache_check": self.check, "cache_clear": self.clear, "cost": self.cost}

    def check(self, request: Request) -> dict[str, object]:
        """Compare cached files with their ETags, and drop those that differ."""

        def progress(view: CacheCheckView) -> None:
            request.heartbeat(**asdict(view))

        return asdict(self._engine.maintenance.cache_care.check(progress, request.gone.is_set))

    def clear(self, request: Request) -> dict[str, object]:
        """Remove all clean content that is not open."""
        before, after = self._engine.maintenance.cache_care.clear()
        return {
            "removed": before.entries - after.entries,
            "removed_bytes": before.bytes - after.bytes,
            "entries": after.entries,
            "bytes": after.bytes,
        }

    def cost(self, request: Request) -> dict[str, object]:
        """Requests, storage and their cost. `list`: of all objects by a listing, else of the known ones."""
        listed = request.message.get("list") is True
        sizes = self._engine.maintenance.stored_sizes
        if listed:
            stored = sizes.listed(lambda view: request.heartbeat(**asdict(view)), request.gone.is_set)
        else:
            stored = sizes.known()
        since_s = time.time() - self._started_at_s
        return {
            "started_at_s": self._started_at_s,
            **cost(
                self._engine.maintenance.settings,
                metrics.requests(self._store),
                {**asdict(stored), "listed": listed},
                since_s,
            ),
        }


def cost(
    settings: Settings, requests: Mapping[str, Any], stored: Mapping[str, Any], since_s: float
) -> dict[str, Any]:
    """Cost of the requests of `since_s` seconds, and of the same rate for a day and a month; of `stored` for a month.
    Dollars, without the free tier."""
    prices = Prices(settings.price_storage, settings.price_class_a, settings.price_class_b)
    counts = {name: int(requests.get(name, 0)) for name in ("class_a", "class_b", "free")}

    def priced(requests: Mapping[str, float]) -> dict[str, float]:
        return {**requests, "dollars": prices.of_requests(requests["class_a"], requests["class_b"])}

    def during(seconds: float) -> dict[str, float]:
        factor = seconds / since_s if since_s > 0 else 0.0
        return priced({name: count * factor for name, count in counts.items()})

    month = during(MONTH_S)
    storage = prices.of_storage(stored["bytes"])
    return {
        "since_s": since_s,
        "requests": {
            "since_start": priced(counts),
            "per_day": during(DAY_S),
            "per_month": month,
        },
        "storage": {**stored, "dollars_per_month": storage},
        "dollars_per_month": storage + month["dollars"],
        "prices": asdict(prices),
    }
