"""Fields of a status as plain values for JSON, from the views of engine, cache and store.

Owns:  the names and units of `r2fs status --json` and the control socket. exposition.py has those for Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from r2fs.model import amounts
from r2fs.model.errors import R2fsError
from r2fs.model.records import Version
from r2fs.model.settings import Settings
from r2fs.model.settings.options import TABLE
from r2fs.model.views import CacheView, DownloadView, QueueView, TransferView

PARKED_SHOWN = 100  # in an answer, a single line
OPENS_JUDGED = (
    100  # opens before the hit rate is compared with its limit: the first opens of a new cache all miss
)


def fields_of(view: TransferView | QueueView | Version) -> dict[str, Any]:
    """The fields of a view with plain values; dataclasses.asdict takes five times as long, to copy each."""
    return {name: getattr(view, name) for name in type(view).__slots__}


def queue(view: QueueView) -> dict[str, Any]:
    """Pending changes. `left`: number of names with one; `rate`: bytes a second of all uploads on their way; `left_s`:
    seconds until all but parked files are sent, at this rate, null while unknown; sizes in bytes."""
    rate = sum((transfer.rate for transfer in view.transfers), 0.0)
    rest = max(0, view.bytes - view.parked_bytes - sum(transfer.sent for transfer in view.transfers))
    return {
        **fields_of(view),
        "transfers": [fields_of(transfer) for transfer in view.transfers],
        "directory_objects": [fields_of(version) for version in view.directory_objects],
        "left": view.files + view.directories + view.deletes,
        "rate": rate,
        "left_s": rest / rate if rate else None,
    }


def downloads(
    views: Sequence[DownloadView], paths_of: Callable[[Sequence[int]], Mapping[int, str]]
) -> list[dict[str, Any]]:
    """Downloads in progress, in the form of the queue's transfers; `sent`: bytes on this host."""
    paths = paths_of([view.ino for view in views])
    found = [
        TransferView(
            paths.get(view.ino, ""),
            "download",
            "downloading",
            view.size,
            view.here,
            view.rate,
            view.age_s,
            None,
        )
        for view in views
    ]
    return [fields_of(transfer) for transfer in found]


def flushed(
    view: QueueView, parked: Sequence[TransferView], refusal: R2fsError | None, paths: Sequence[str] = ()
) -> dict[str, Any]:
    """Result of a flush: the queue, the parked files below the given paths (the first in full), and the bucket's refusal,
    in the words for a file at or below these paths if one was tried."""
    return {
        "queue": queue(view),
        "parked_count": len(parked),
        "parked": [fields_of(transfer) for transfer in parked[:PARKED_SHOWN]],
        "refusal": None if refusal is None else _reason_at(view, paths) or str(refusal),
        "refusal_kind": None if refusal is None else type(refusal).__name__,
    }


def _reason_at(view: QueueView, paths: Sequence[str]) -> str | None:
    """The reason of the first transfer at or below the paths that failed."""
    tops = [path.strip("/") for path in paths]
    return next(
        (
            transfer.reason
            for transfer in view.transfers
            if transfer.reason
            and any(top and f"{transfer.path.rstrip('/')}/".startswith(f"{top}/") for top in tops)
        ),
        None,
    )


def cache(view: CacheView, surplus: int = 0) -> dict[str, Any]:
    """Clean content. `surplus`: number of files fetched ahead and not opened."""
    looks = view.hits + view.misses
    rate = round(view.hits / looks, 4) if looks else None
    return {**asdict(view), "hit_rate": rate, "surplus": surplus}


def warnings(settings: Settings, queue_view: QueueView, cache_view: CacheView) -> list[str]:
    """Sentences on amounts past the limits of the settings."""
    found = []
    if 0 < settings.warn_cache_size < cache_view.bytes:
        limit = amounts.size(settings.warn_cache_size)
        found.append(f"the cache holds {amounts.size(cache_view.bytes)}, more than {limit} (warn_cache_size)")
    left = queue_view.files + queue_view.directories + queue_view.deletes
    if 0 < settings.warn_queue < left:
        found.append(f"{left} changes are pending, more than {settings.warn_queue} (warn_queue)")
    looks = cache_view.hits + cache_view.misses
    if looks >= OPENS_JUDGED and cache_view.hits / looks < settings.warn_hit_rate / 100:
        rate = f"{cache_view.hits / looks:.0%}"
        limit = f"{settings.warn_hit_rate} %"
        found.append(f"the cache serves {rate} of {looks} opens, less than {limit} (warn_hit_rate)")
    return found


def settings(in_force: Settings) -> dict[str, str]:
    """The settings in force by name, in TOML, but for those of bucket and keys; without a value they are left out."""
    found = {o: getattr(in_force, o.field) for o in TABLE if hasattr(in_force, o.field)}
    return {o.name: o.kind.write(value) for o, value in found.items() if value is not None}


def requests(store: Any) -> dict[str, Any]:
    """Requests to the bucket by verb and class."""
    view = store.requests()
    return {
        **fields_of(view),
        "by_verb": dict(view.by_verb),
        "by_status": dict(view.by_status),
        "total": view.total,
    }


def bandwidth(store: Any) -> dict[str, Any]:
    """The limits of bandwidth of both directions, "up" and "down"; rates in bytes a second, null: no limit."""
    return {way: asdict(view) for way, view in store.bandwidth.view().items()}


def buckets(settings: Settings, store: object) -> list[dict[str, Any]]:
    """The buckets of a mount of several; else none."""
    names: Sequence[str] = getattr(store, "names", ()) if settings.bucket.several else ()
    return [{"name": name, "read_only": settings.bucket.member(name).read_only} for name in names]


def kernel(driver: object, paths_of: Callable[[Sequence[int]], Mapping[int, str]]) -> dict[str, Any]:
    """The kernel's side, from the driver; empty for drivers through libfuse.

    `open_files`: mode of each open inode, and its reason (`path` is null without a name);
    `requests`: by opcode.
    """
    modes, counts = getattr(driver, "mode_of_open_files", None), getattr(driver, "requests", None)
    opened = list(modes()) if callable(modes) else []
    paths = paths_of([mode.ino for mode in opened])  # one hold of the engine's lock, however many are open
    return {
        "open_files": [{"path": paths.get(m.ino), **asdict(m)} for m in opened] if callable(modes) else None,
        "requests": counts() if callable(counts) else None,
    }
