"""What was measured, and what it has to show.

Owns:    MEASURES (what each number is) and MUST_SHOW (which ratios are promised), as data; the samples.
Never:   measures. A ratio always compares two systems of one run, never a number of another day.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from scripts.lib.bench.floors import cost_to_floor

LOCAL, BARE, RCLONE, OURS, PORTABLE = "local", "bare", "rclone", "r2fs-kernel", "r2fs-libfuse"
PEERS = (RCLONE, "s3fs")
BEST_PEER = "best peer"


@dataclass(frozen=True)
class Measure:
    name: str
    title: str
    unit: str
    more_is_better: bool = True

    def better(self, values: Iterable[float]) -> float:
        return max(values) if self.more_is_better else min(values)


MEASURES = {
    measure.name: measure
    for measure in (
        # near: plain HTTP on loopback
        Measure("cold-read", "sequential read, cold", "MB/s"),
        Measure("cold-read-512", "… of twice the size", "MB/s"),
        Measure("read-first", "sequential read, cached, first", "MB/s"),
        Measure("read-again", "sequential read, cached, again", "MB/s"),
        Measure("random", "random 4 KiB reads, cached", "op/s"),
        Measure("write", "write a large file and close", "MB/s"),
        Measure("back", "read back what was just written", "MB/s"),
        Measure("sent", "… until that file is in the bucket", "s", more_is_better=False),
        Measure("create", "create files of 100 KB", "files/s"),
        Measure("created-read", "open + read + close of these", "files/s"),
        Measure("drained", "… until all are in the bucket", "s", more_is_better=False),
        Measure("remove", "rm -r of these", "files/s"),
        Measure("gone", "… until none is in the bucket", "s", more_is_better=False),
        Measure("cold-small", "small files in order, cold", "files/s"),
        Measure("cold-small-random", "small files in random order, cold", "files/s"),
        Measure("small", "small files, warm", "files/s"),
        Measure("cold-tree", "walk + stat of a tree, cold", "files/s"),
        Measure("tree", "walk + stat of a tree, warm", "files/s"),
        Measure("stat", "stat of all its files, warm", "op/s"),
        Measure("memory", "resident memory after the walks", "MB", more_is_better=False),
        Measure("memory-big", "resident memory after the large file", "MB", more_is_better=False),
        Measure("start-empty", "start until a file answers, first time", "ms", more_is_better=False),
        Measure("start-again", "… a tree of names kept", "ms", more_is_better=False),
        Measure("large-ls", "first ls of a million objects, second mount", "ms", more_is_better=False),
        Measure("large-find", "… find over all of them", "files/s"),
        Measure("large-find-warm", "… once more", "files/s"),
        Measure("large-memory", "… resident memory", "MB", more_is_better=False),
        Measure("hosts", "close on one host → open on another", "ms", more_is_better=False),
        Measure("far-hosts", "… by close-to-open, far: the slowest of ten", "ms", more_is_better=False),
        Measure("cp", "cp of a large file", "MB/s"),
        Measure("tar", "tar -x of files of 4 KiB", "files/s"),
        Measure("clone", "git clone of files of 4 KiB", "files/s"),
        # far: TLS, 40 ms, 60 MB/s a connection
        Measure("far-read", "sequential read, cold, far", "MB/s"),
        Measure("far-read-512", "… of twice the size, far", "MB/s"),
        Measure("far-ends", "first + last 64 KiB, cold, far", "ms", more_is_better=False),
        Measure("far-ends-used", "… of a mount in use", "ms", more_is_better=False),
        Measure("far-headers", "first 64 KiB of files in order, far", "ms/file", more_is_better=False),
        Measure("far-small", "small files in order, cold, far", "files/s"),
        Measure("far-small-random", "small files in random order, cold, far", "files/s"),
        Measure("far-tree", "walk + stat of a tree, cold, far", "files/s"),
        Measure("far-create", "create files of 100 KB, far", "files/s"),
        Measure("far-drained", "… until all are in the bucket, far", "s", more_is_better=False),
        # far, and 1 % of the answers 10 s late
        Measure("stall-p50", "cold small read, answers stall: median", "ms", more_is_better=False),
        Measure("stall-p99", "… 99 % of reads within", "ms", more_is_better=False),
        Measure("stall-p999", "… 99.9 % of reads within", "ms", more_is_better=False),
    )
}


@dataclass(frozen=True)
class Promise:
    """`of` (r2fs, kernel driver) is at least `factor` times as good as `against`."""

    measure: str
    factor: float
    against: str
    of: str = OURS

    def __str__(self) -> str:
        return f"{MEASURES[self.measure].title} ≥ {self.factor:g} × {self.against}"


@dataclass(frozen=True)
class Aim:
    """`of` (r2fs, kernel driver) reaches `value`, whatever others do: the line is the same on each machine."""

    measure: str
    value: float
    of: str = OURS

    def __str__(self) -> str:
        measure = MEASURES[self.measure]
        return f"{measure.title} {'≥' if measure.more_is_better else '≤'} {self.value:,g} {measure.unit}"


@dataclass(frozen=True)
class Cost:
    """The requests of `of` (r2fs, kernel driver) cost at most `most` times the floor's (see floors.py)."""

    measure: str
    most: float = 1.1
    of: str = OURS

    def __str__(self) -> str:
        return f"{MEASURES[self.measure].title}: requests ≤ {self.most:g} × the floor"


Shown = Promise | Aim | Cost

MUST_SHOW: tuple[Shown, ...] = (
    Promise("read-first", 0.9, LOCAL),
    Promise("read-again", 0.9, LOCAL),
    Promise("random", 0.8, LOCAL),
    Promise("write", 0.8, LOCAL),
    Promise("back", 0.9, LOCAL),
    Promise("stat", 0.9, BEST_PEER),
    Promise("tree", 5.0, BEST_PEER),
    Promise("small", 5.0, RCLONE),
    Promise("small", 0.5, LOCAL),
    Promise("create", 0.9, LOCAL),
    Promise("create", 2.0, RCLONE),
    Cost("create"),
    Promise("drained", 1 / 0.7, BEST_PEER),
    Promise("cold-read", 1.4, BEST_PEER),
    Promise("cold-read", 0.9, BARE),
    Promise("cold-read-512", 0.9, BARE),
    Promise("cold-small", 2.5, BEST_PEER),
    Aim("cold-small", 1500),
    Cost("cold-small"),
    Promise("cold-small-random", 1.3, BEST_PEER),
    Promise("cold-tree", 3.0, BEST_PEER),
    Cost("cold-tree"),
    Aim("memory", 80),
    Promise("tar", 1 / 1.3, LOCAL),
    Promise("clone", 1 / 1.3, LOCAL),
    Aim("start-again", 300),
    Aim("large-ls", 300),
    Aim("large-memory", 400),
    Aim("hosts", 1000),
    Promise("far-read", 1.5, BEST_PEER),
    Promise("far-read", 0.9, BARE),
    Promise("far-read-512", 0.9, BARE),
    Aim("far-ends", 50),
    Aim("far-ends-used", 50),
    Aim("far-headers", 8),
    Aim("far-small", 500),
    Promise("far-tree", 20.0, BEST_PEER),
    Promise("far-drained", 1.0, BEST_PEER),
    Aim("stall-p999", 400),  # twice the median and 300 ms
    # the upload, a round trip that has just missed it, and two of the open that finds it
    Aim("far-hosts", 170),
)
# without privileges there is no passthrough: the kernel's pages are what is left
MUST_SHOW_AS_USER: tuple[Shown, ...] = (
    Promise("read-again", 5.0, RCLONE),
    Promise("read-first", 1.0, RCLONE),
    Promise("cold-read", 1.0, RCLONE),
    Promise("write", 1.0, RCLONE),
)


@dataclass
class Cell:
    """One measure of one system."""

    samples: list[float] = field(default_factory=list)
    requests: dict[str, int] | None = None  # of the last sample, by verb

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> str:
        """min..max and the number of runs."""
        low, high = min(self.samples), max(self.samples)
        return f"{compact(low)}..{compact(high)} ·{len(self.samples)}"


def compact(value: float) -> str:
    return f"{value / 1000:,.0f}k" if value >= 10_000 else short(value)


def short(value: float) -> str:
    """Three digits are meant."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


@dataclass(frozen=True)
class Verdict:
    promise: Shown
    # how many times better than `against`, or than the aim or the bound; None: not measured
    ratio: float | None
    against: str  # which peer was the best; "" for an aim

    @property
    def factor(self) -> float:
        return self.promise.factor if isinstance(self.promise, Promise) else 1.0

    @property
    def met(self) -> bool | None:
        return None if self.ratio is None else self.ratio >= self.factor

    def __str__(self) -> str:
        return str(self.promise)


class Results:
    """Cells by measure and system, in the order of MEASURES."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str], Cell] = {}
        self._floors: dict[str, dict[str, int]] = {}

    def set_floor(self, measure: str, requests: Mapping[str, int]) -> None:
        """The smallest number of requests for the work of a row."""
        self._floors[measure] = dict(requests)

    def floor(self, measure: str) -> dict[str, int] | None:
        return self._floors.get(measure)

    def cost(self, measure: str, system: str) -> float | None:
        """Cost of the requests ÷ cost of the floor."""
        cell = self.cell(measure, system)
        return None if cell is None else cost_to_floor(cell.requests, self.floor(measure))

    def add(self, measure: str, system: str, value: float, requests: dict[str, int] | None = None) -> None:
        assert measure in MEASURES, measure
        cell = self._cells.setdefault((measure, system), Cell())
        cell.samples.append(value)
        if requests is not None:
            cell.requests = requests

    def set_requests(self, measure: str, system: str, requests: dict[str, int]) -> None:
        """Of all samples together."""
        self._cells[measure, system].requests = requests

    def cell(self, measure: str, system: str) -> Cell | None:
        return self._cells.get((measure, system))

    def measures(self) -> Iterator[Measure]:
        """Those of which there is anything."""
        there = {measure for measure, _ in self._cells}
        return (measure for name, measure in MEASURES.items() if name in there)

    def ratio(self, measure: str, system: str, to: str) -> float | None:
        """How many times better."""
        mine, theirs = self.cell(measure, system), self.cell(measure, to)
        if mine is None or theirs is None or not mine.median or not theirs.median:
            return None
        ratio = mine.median / theirs.median
        return ratio if MEASURES[measure].more_is_better else 1 / ratio

    def best_peer(self, measure: str) -> str | None:
        medians = {peer: cell.median for peer in PEERS if (cell := self.cell(measure, peer))}
        if not medians:
            return None
        best = MEASURES[measure].better(medians.values())
        return next(peer for peer, median in medians.items() if median == best)

    def verdicts(self, promises: Iterable[Shown]) -> list[Verdict]:
        """Of the promises whose measures were taken."""
        taken = {measure.name for measure in self.measures()}
        return [self._verdict(promise) for promise in promises if promise.measure in taken]

    def _verdict(self, promise: Shown) -> Verdict:
        if isinstance(promise, Promise):
            against = promise.against
            if against == BEST_PEER:
                against = self.best_peer(promise.measure) or BEST_PEER
            return Verdict(promise, self.ratio(promise.measure, promise.of, against), against)
        if isinstance(promise, Cost):
            cost = self.cost(promise.measure, promise.of)
            return Verdict(promise, promise.most / cost if cost else None, "")
        cell = self.cell(promise.measure, promise.of)
        if cell is None or not cell.median:
            return Verdict(promise, None, "")
        more = MEASURES[promise.measure].more_is_better
        return Verdict(promise, cell.median / promise.value if more else promise.value / cell.median, "")

    # ---- as JSON
    def to_json(self) -> dict[str, Any]:
        return {
            measure.name: {
                "title": measure.title,
                "unit": measure.unit,
                "more_is_better": measure.more_is_better,
                "systems": {
                    system: self._cell_to_json(measure.name, system, cell)
                    for (name, system), cell in self._cells.items()
                    if name == measure.name
                },
                "floor": self.floor(measure.name),
            }
            for measure in self.measures()
        }

    def _cell_to_json(self, measure: str, system: str, cell: Cell) -> dict[str, Any]:
        samples = cell.samples
        found = {
            "median": cell.median,
            "min": min(samples),
            "max": max(samples),
            "runs": len(samples),
            "samples": samples,
        }
        if cell.requests is not None:
            found |= {"requests": cell.requests, "cost_to_floor": self.cost(measure, system)}
        return found

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Results:
        results = cls()
        for measure, row in given.items():
            if row["floor"] is not None:
                results.set_floor(measure, row["floor"])
            for system, cell in row["systems"].items():
                results._cells[measure, system] = Cell(cell["samples"], cell.get("requests"))
        return results
