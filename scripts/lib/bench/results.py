"""What was measured, and what it has to show.

Owns:    MEASURES (what each number is) and MUST_SHOW (which ratios are promised), as data; the samples.
Never:   measures. A ratio always compares two systems of one run, never a number of another day.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

LOCAL, RCLONE, OURS, PORTABLE = "local", "rclone", "r2fs-kernel", "r2fs-libfuse"
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
        Measure("read_cold", "sequential read, cold", "MB/s"),
        Measure("read_first", "sequential read, cached, first", "MB/s"),
        Measure("read_again", "sequential read, cached, again", "MB/s"),
        Measure("random", "random 4 KiB reads, cached", "op/s"),
        Measure("ends", "first + last 64 KiB, cold, at 40 ms", "ms", more_is_better=False),
        Measure("write", "write a large file and close", "MB/s"),
        Measure("back", "read back what was just written", "MB/s"),
        Measure("sent", "… until that file is in the bucket", "s", more_is_better=False),
        Measure("create", "create files of 100 KB", "files/s"),
        Measure("drained", "… until all are in the bucket", "s", more_is_better=False),
        Measure("remove", "rm -r of these", "files/s"),
        Measure("gone", "… until none is in the bucket", "s", more_is_better=False),
        Measure("small_cold", "open + read + close of 4 KiB files, cold", "files/s"),
        Measure("small", "open + read + close of 4 KiB files, warm", "files/s"),
        Measure("walk_cold", "walk + stat of a tree, cold", "files/s"),
        Measure("walk_far", "walk + stat of a tree, cold, at 40 ms", "files/s"),
        Measure("walk", "walk + stat of a tree, warm", "files/s"),
        Measure("stat", "stat of all its files, warm", "op/s"),
        Measure("memory", "resident memory after the walks", "MB", more_is_better=False),
        Measure("memory_big", "resident memory after the large file", "MB", more_is_better=False),
    )
}


@dataclass(frozen=True)
class Promise:
    """`of` (r2fs, kernel driver) is at least `factor` times what `against` reaches."""

    measure: str
    factor: float
    against: str
    of: str = OURS


MUST_SHOW = (
    Promise("read_first", 0.9, LOCAL),
    Promise("read_again", 0.9, LOCAL),
    Promise("random", 0.8, LOCAL),
    Promise("write", 0.8, LOCAL),
    Promise("back", 0.9, LOCAL),
    Promise("stat", 0.9, BEST_PEER),
    Promise("walk", 5.0, BEST_PEER),
    Promise("small", 5.0, RCLONE),
    Promise("create", 2.0, RCLONE),
)
# without privileges there is no passthrough: the kernel's pages are what is left
MUST_SHOW_AS_USER = (
    Promise("read_again", 5.0, RCLONE),
    Promise("read_first", 1.0, RCLONE),
    Promise("read_cold", 1.0, RCLONE),
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


@dataclass(frozen=True)
class Verdict:
    promise: Promise
    ratio: float | None  # None: one of the two was not measured
    against: str  # which peer was the best

    @property
    def met(self) -> bool | None:
        return None if self.ratio is None else self.ratio >= self.promise.factor

    def __str__(self) -> str:
        promise = self.promise
        return f"{MEASURES[promise.measure].title} ≥ {promise.factor:g} × {promise.against}"


class Results:
    """Cells by measure and system, in the order of MEASURES."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str], Cell] = {}

    def add(self, measure: str, system: str, value: float, requests: dict[str, int] | None = None) -> None:
        assert measure in MEASURES, measure
        cell = self._cells.setdefault((measure, system), Cell())
        cell.samples.append(value)
        if requests is not None:
            cell.requests = requests

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

    def verdicts(self, promises: Iterable[Promise]) -> list[Verdict]:
        """Of the promises whose measures were taken."""
        taken = {measure.name for measure in self.measures()}
        found = []
        for promise in promises:
            if promise.measure not in taken:
                continue
            against = promise.against
            if against == BEST_PEER:
                against = self.best_peer(promise.measure) or BEST_PEER
            found.append(Verdict(promise, self.ratio(promise.measure, promise.of, against), against))
        return found

    # ---- as JSON
    def to_json(self) -> dict[str, Any]:
        return {
            measure.name: {
                "title": measure.title,
                "unit": measure.unit,
                "more_is_better": measure.more_is_better,
                "systems": {
                    system: {"median": cell.median, "samples": cell.samples}
                    | ({} if cell.requests is None else {"requests": cell.requests})
                    for (name, system), cell in self._cells.items()
                    if name == measure.name
                },
            }
            for measure in self.measures()
        }

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Results:
        results = cls()
        for measure, row in given.items():
            for system, cell in row["systems"].items():
                results._cells[measure, system] = Cell(cell["samples"], cell.get("requests"))
        return results
