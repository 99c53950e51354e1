"""Metrics: one snapshot of the daemon's state, as plain values for JSON.

Owns:  the names and units of `r2fs status --json` and the control socket. exposition.py has those for Prometheus.
Never: counts: engine, cache and store do, and return frozen views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from r2fs.model.errors import R2fsError
from r2fs.model.settings import Settings
from r2fs.model.views import AsideView, CacheView, QueueView, RoomView, TransferView

PARKED_SHOWN = 100  # in an answer, a single line


def queue(view: QueueView) -> dict[str, Any]:
    """Pending changes. `left`: number of names with one; sizes in bytes."""
    return {**asdict(view), "left": view.files + view.directories + view.deletes}


def flushed(view: QueueView, parked: Sequence[TransferView], refusal: R2fsError | None) -> dict[str, Any]:
    """Result of a flush: the queue, the parked files below the given paths (the first in full), and the bucket's refusal."""
    return {
        "queue": queue(view),
        "parked_count": len(parked),
        "parked": [asdict(transfer) for transfer in parked[:PARKED_SHOWN]],
        "refusal": None if refusal is None else str(refusal),
        "refusal_kind": None if refusal is None else type(refusal).__name__,
    }


def cache(view: CacheView) -> dict[str, Any]:
    looks = view.hits + view.misses
    return {**asdict(view), "hit_rate": round(view.hits / looks, 4) if looks else None}


def room(view: RoomView) -> dict[str, Any]:
    """Space left for writers, of the dirty limit and of the disk; sizes in bytes."""
    return asdict(view)


def aside(view: AsideView) -> dict[str, Any]:
    """Files and journals in quarantine, until a person decides."""
    return asdict(view)


def requests(store: object) -> dict[str, Any]:
    """Requests to the bucket by verb and class; empty for a store without counts."""
    view = getattr(store, "requests", None)
    view = view() if callable(view) else view
    if view is None or not is_dataclass(view) or isinstance(view, type):
        return {}
    names = getattr(view, "__slots__", ())
    values = {name: getattr(view, name) for name in names}
    plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    return {**plain, "total": getattr(view, "total", None)}


def health(store: object) -> dict[str, Any]:
    """State of the bucket: available, or seconds without an answer and the reason. Empty for a store without health."""
    found = getattr(store, "health", None)
    return asdict(found.view()) if found is not None else {}


def buckets(settings: Settings, store: object) -> list[dict[str, Any]]:
    """The buckets of a mount of several; else none."""
    names: Sequence[str] = getattr(store, "names", ()) if settings.bucket.several else ()
    return [{"name": name, "read_only": settings.bucket.member(name).read_only} for name in names]


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
    """The kernel's side, from the driver; empty for drivers through libfuse.

    `open_files`: mode of each open inode, and its reason (`path` is null without a name);
    `requests`: by opcode.
    """
    modes, counts = getattr(driver, "mode_of_open_files", None), getattr(driver, "requests", None)
    return {
        "open_files": [{"path": path_of(m.ino), **asdict(m)} for m in modes()] if callable(modes) else None,
        "requests": counts() if callable(counts) else None,
    }
