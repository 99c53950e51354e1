"""Metrics: one snapshot of what the daemon does, as plain values for JSON.

Owns:  the names and units under which `r2fs status --json` and the control socket show it.
Never: counts anything itself: engine, cache and store do, and hand out frozen views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, Protocol

from r2fs.model.records import CacheView, QueueView
from r2fs.model.settings import Settings


class Viewed(Protocol):
    """What the engine shows of itself."""

    def queue_view(self) -> QueueView: ...
    def cache_view(self) -> CacheView: ...


def queue(view: QueueView) -> dict[str, Any]:
    """What is not yet in the bucket. `left`: names that owe it something; sizes in bytes."""
    return {**asdict(view), "left": view.files + view.deletes}


def cache(view: CacheView) -> dict[str, Any]:
    looks = view.hits + view.misses
    return {**asdict(view), "hit_rate": round(view.hits / looks, 4) if looks else None}


def requests(store: object) -> dict[str, Any]:
    """Requests to the bucket by verb and class; empty for a store that counts none."""
    view = getattr(store, "requests", None)
    view = view() if callable(view) else view
    if view is None or not is_dataclass(view) or isinstance(view, type):
        return {}
    names = getattr(view, "__slots__", ())
    values = {name: getattr(view, name) for name in names}
    plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    return {**plain, "total": getattr(view, "total", None)}


def mount(settings: Settings, mountpoint: str, pid: int, state: str, driver: object) -> dict[str, Any]:
    view = getattr(driver, "view", None)
    return {
        "mountpoint": mountpoint,
        "url": settings.bucket.url,
        "name": settings.name,
        "pid": pid,
        "state": state,
        "read_only": settings.read_only,
        "driver": type(driver).__name__,
        "driver_view": view() if callable(view) else None,
        "cache_dir": str(settings.cache_dir),
        "state_dir": str(settings.state_dir),
        "staging_dir": str(settings.staging_dir),
    }
