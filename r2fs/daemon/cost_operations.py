"""Control operations on the cost, of a mount and a mirror: cost, why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from r2fs.daemon import metrics
from r2fs.daemon.control import Request
from r2fs.daemon.parts import MirrorParts, Parts
from r2fs.daemon.spending import prices_of
from r2fs.engine.namespace.file_views import FileViews
from r2fs.model.prices import DAY_S, MONTH_S
from r2fs.model.settings import Settings
from r2fs.store.counting import CLASSES, OTHERS, RECENT, Counts, RequestCounter, Sent, directory_of, kind_of

if TYPE_CHECKING:  # a mount imports nothing of a mirror
    from r2fs.mirror.receipts import MirrorReceipts

SHOWN = 1000  # directories, programs, or requests in an answer


class CostOperations:
    def __init__(self, parts: Parts | MirrorParts, sizes: FileViews | MirrorReceipts) -> None:
        self._engine = parts.engine
        self._spending = parts.spending
        self._store = parts.store
        self._sizes = sizes
        self._started_at_s = parts.started_at_s

    def cost(self, request: Request) -> dict[str, object]:
        """Requests, storage and their cost. `list`: of all objects by a listing, else of the known ones; `path`: the
        directory whose parts are listed."""
        listed = request.flag("list")
        if listed:
            stored = self._sizes.listed(lambda view: request.heartbeat(**asdict(view)), request.gone.is_set)
        else:
            stored = self._sizes.known()
        since_s = time.time() - self._started_at_s
        settings, counter = self._engine.settings, self._store.counter
        path = request.text("path").strip("/") if "path" in request.message else ""
        return {
            "started_at_s": self._started_at_s,
            **cost(
                settings,
                metrics.requests(self._store),
                {**asdict(stored), "listed": listed},
                since_s,
            ),
            "month": self._month(),
            "by_directory": by_directory(settings, counter, path),
            "by_program": [
                {"program": name, **priced}
                for name, priced in dearest(settings, counter.by_program()).items()
            ],
        }

    def _month(self) -> dict[str, object]:
        view = self._spending.view()
        return {
            "month": view.month,
            "class_a": view.class_a,
            "class_b": view.class_b,
            "dollars": view.dollars,
            "warn_cost": view.warn,
            "prefetch_cost": view.limit,
        }

    def why(self, request: Request) -> dict[str, object]:
        """The requests of the object at `path`, or of those below a directory, among the last ones."""
        view = self._engine.receipts.locate(request.text("path"))
        last = self._store.counter.recent()
        is_of = _is_below(view.key) if view.is_dir else _is_of(view.key)
        found = [sent for sent in last if is_of(sent)]
        prices = prices_of(self._engine.settings)
        kinds = [kind_of(sent.verb) for sent in found]
        return {
            "key": view.key,
            "requests": [_fields(sent) for sent in found[-SHOWN:]],
            "count": len(found),
            "dollars": prices.of_requests(kinds.count(0), kinds.count(1)),
            "kept": RECENT,
            "since_at_s": last[0].at_s if len(last) == RECENT else self._started_at_s,
        }


def _is_of(key: str) -> Callable[[Sent], bool]:
    """Requests of one object: those at its key, and LISTs of names with the same beginning."""
    directory = f"{directory_of(key)}/" if "/" in key else ""

    def is_of(sent: Sent) -> bool:
        begins = sent.verb == "ListObjectsV2" and len(sent.key) > len(directory) and key.startswith(sent.key)
        return sent.key == key or begins

    return is_of


def _is_below(key: str) -> Callable[[Sent], bool]:
    """Requests of a directory and of all below it."""
    prefix = f"{key.rstrip('/')}/" if key else ""
    return lambda sent: sent.key.startswith(prefix)


def _fields(sent: Sent) -> dict[str, object]:
    return {
        "at_s": sent.at_s,
        "request": sent.verb,
        "class": CLASSES[kind_of(sent.verb)],
        "key": sent.key,
        "program": sent.cause.program,
        "purpose": sent.cause.purpose,
        "sent_bytes": sent.size,
        "status": sent.status,
        "took_s": sent.took_s,
    }


def dearest(settings: Settings, counts: Mapping[str, Iterable[int]]) -> dict[str, dict[str, Any]]:
    """The names with the highest cost, at most SHOWN, each with its requests and their price."""
    prices = prices_of(settings)
    found = {}
    for name, (a, b, free) in counts.items():
        priced = {"class_a": a, "class_b": b, "free": free, "dollars": prices.of_requests(a, b)}
        found["others" if name == OTHERS else name] = priced
    order = sorted(found, key=lambda name: (-found[name]["dollars"], -found[name]["free"], name))
    return {name: found[name] for name in order[:SHOWN]}


def by_directory(settings: Settings, counter: RequestCounter, path: str) -> list[dict[str, Any]]:
    """Requests of each directory directly in `path`, with all below it; "": of `path` itself; null: of directories
    beyond the limit of the counter, wherever they are."""
    top = f"{settings.bucket.prefix}{path}".strip("/")
    sums: dict[str, Counts] = {}
    counted = counter.by_directory()
    for directory, counts in counted.items():
        if directory == top:
            name = ""
        elif directory.startswith(f"{top}/" if top else ""):
            name = directory[len(top) :].lstrip("/").partition("/")[0]
        else:
            continue
        if directory != OTHERS:
            before = sums.get(name, (0, 0, 0))
            sums[name] = tuple(one + more for one, more in zip(before, counts, strict=True))
    found = [{"directory": name, **priced} for name, priced in dearest(settings, sums).items()]
    if OTHERS in counted:
        found.append({"directory": None, **dearest(settings, {OTHERS: counted[OTHERS]})["others"]})
    return found


def cost(
    settings: Settings, requests: Mapping[str, Any], stored: Mapping[str, Any], since_s: float
) -> dict[str, Any]:
    """Cost of the requests of `since_s` seconds, and of the same rate for a day and a month; of `stored` for a month.
    Dollars, without the free tier."""
    prices = prices_of(settings)
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
