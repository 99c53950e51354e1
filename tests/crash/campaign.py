"""A campaign: many rounds on one rig, and which point each is to end at.

Owns:  the choice: random moments and named points by turns; of the points, one that has ended fewest
       daemons so far. Commits of the journal count by the function that asks for them as well.
Never: compares; `rig.py` does.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from tests.crash.points import POINTS
from tests.crash.rig import Rig, Stats

TRIES = 3  # rounds in a row that a point is asked for without its being passed: then others first


class Campaign:
    def __init__(
        self,
        seed: str,
        points: Iterable[str] = POINTS,
        sites: bool = False,
        before: Stats | None = None,
    ) -> None:
        """`sites`: commits by who asks for them, too; `before`: what other rigs have done."""
        self._before = before or Stats()
        self._rng = random.Random(f"campaign {seed}")
        self._points = list(points)
        self._sites = sites
        self._asked: dict[str, int] = {}

    def next_point(self, stats: Stats) -> str | None:
        """None: a random moment."""
        wanted = self._points + (self._found(stats) if self._sites else [])
        if not wanted or self._rng.random() < 0.3:
            return None
        point = min(wanted, key=lambda name: (self._had(name, stats), self._rng.random()))
        self._asked[point] = self._asked.get(point, 0) + 1
        return point

    def _had(self, point: str, stats: Stats) -> int:
        """How much it has had: kills, and tries in vain. A single commit needs half of what a point does."""
        had = killed(self._before, point) + killed(stats, point)
        return (2 if "@" in point else 1) * (had + self._asked.get(point, 0) // TRIES)

    def _found(self, stats: Stats) -> list[str]:
        """Commits by who asks for them, where that happens often enough to be met."""
        often = max(1, stats.rounds // 20)
        return [
            name
            for name, count in stats.passes.items()
            if "@" in name and count > often and "boot" not in name
        ]


def killed(stats: Stats, point: str) -> int:
    """Daemons that ended there."""
    return sum(count for name, count in stats.kills.items() if point in (name, name.split("@")[0]))


def run(rig: Rig, rounds: int, campaign: Campaign) -> Stats:
    """So many rounds that count."""
    while rig.stats.rounds < rounds:
        rig.round(campaign.next_point(rig.stats))
        empty = rig.stats.empty
        assert empty <= 10 + rig.stats.rounds, f"{empty} rounds in which nothing was acknowledged"
    return rig.stats


def report(stats: Stats) -> str:
    """For people."""
    lines = [
        f"{stats.rounds} rounds ({stats.empty} more did not count: nothing was acknowledged in them)",
        f"{stats.acknowledged} calls acknowledged, {stats.files} files compared, {stats.kills.total()} kills",
        "calls under way at a kill: "
        + (", ".join(f"{name} {count}" for name, count in sorted(stats.undecided.items())) or "none"),
        "kills by point:",
        f"  {stats.kills['a moment']:6}  at a random moment",
    ]
    lines += [f"  {killed(stats, point):6}  {point}" for point in POINTS]
    sites = sorted(name for name in stats.kills if "@" in name)
    lines += [f"  {stats.kills[name]:6}  {name}" for name in sites]
    return "\n".join(lines)
