"""Metrics: one snapshot of what the daemon does, as plain values for JSON.

Owns:  the names and units under which `r2fs status --json` and the control socket show it.
Never: counts anything itself: engine, cache and store do, and hand out frozen views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from r2fs.model.settings import Settings
from r2fs.model.views import AsideView, CacheView, QueueView, RoomView, TransferView

PARKED_SHOWN = 100  # in an answer, which is one line


def queue(view: QueueView) -> dict[str, Any]:
    """What is not yet in the bucket. `left`: names that owe it something; sizes in bytes."""
    return {**asdict(view), "left": view.files + view.directories + view.deletes}


def flushed(view: QueueView, parked: Sequence[TransferView], refusal: str | None) -> dict[str, Any]:
    """After a flush: the queue; what is parked of what was named, the first of it in full; and why the bucket
    refuses everything, if it does."""
    first = [asdict(transfer) for transfer in parked[:PARKED_SHOWN]]
    return {"queue": queue(view), "parked_count": len(parked), "parked": first, "refusal": refusal}


def cache(view: CacheView) -> dict[str, Any]:
    looks = view.hits + view.misses
    return {**asdict(view), "hit_rate": round(view.hits / looks, 4) if looks else None}


def room(view: RoomView) -> dict[str, Any]:
    """What is left for writers, of the dirty limit and of the disk; sizes in bytes."""
    return asdict(view)


def aside(view: AsideView) -> dict[str, Any]:
    """What was set aside, and waits for a person."""
    return asdict(view)


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


def health(store: object) -> dict[str, Any]:
    """Does the bucket answer; if not, for how many seconds, and why. Empty for a store that does not know."""
    found = getattr(store, "health", None)
    return asdict(found.view()) if found is not None else {}


def mount(settings: Settings, mountpoint: str, pid: int, state: str, driver: object) -> dict[str, Any]:
    return {
        "mountpoint": mountpoint,
        "url": settings.bucket.url,
        "name": settings.name,
        "pid": pid,
        "state": state,
        "read_only": settings.read_only,
        "driver": type(driver).__name__,
        "cache_dir": str(settings.cache_dir),
        "state_dir": str(settings.state_dir),
        "staging_dir": str(settings.staging_dir),
    }


def kernel(driver: object, path_of: Callable[[int], str | None]) -> dict[str, Any]:
    """What the driver tells of the kernel's side; drivers through libfuse know nothing of it.

    `open_files`: how each open inode is read and written, and why (`path` is null without a name);
    `requests`: by opcode.
    """
    modes, counts = getattr(driver, "mode_of_open_files", None), getattr(driver, "requests", None)
    return {
        "open_files": [{"path": path_of(m.ino), **asdict(m)} for m in modes()] if callable(modes) else None,
        "requests": counts() if callable(counts) else None,
    }
