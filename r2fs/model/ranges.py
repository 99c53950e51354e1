"""Sets of byte ranges: the local parts of a file, and the locally written ones. The owner of a RangeSet guards it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]


class RangeSet:
    """Disjoint, sorted, non-touching ranges.

    >>> s = RangeSet([(0, 4), (8, 12)])
    >>> s.add(4, 8); list(s)
    [(0, 12)]
    """

    __slots__ = ("_starts", "_stops")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in ranges:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """Add [start, stop), joined with ranges that overlap or touch."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def remove(self, start: int, stop: int) -> None:
        """Remove [start, stop), splitting ranges that reach over an end."""
        if start >= stop:
            return
        kept: list[Range] = []
        first = bisect_right(self._stops, start)
        last = bisect_left(self._starts, stop)
        if first >= last:
            return
        if self._starts[first] < start:
            kept.append((self._starts[first], start))
        if self._stops[last - 1] > stop:
            kept.append((stop, self._stops[last - 1]))
        self._starts[first:last] = [s for s, _ in kept]
        self._stops[first:last] = [e for _, e in kept]

    def covers(self, start: int, stop: int) -> bool:
        """True if every byte of [start, stop) is in the set; also for an empty range."""
        if start >= stop:
            return True
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and self._stops[at] >= stop

    def missing(self, start: int, stop: int) -> list[Range]:
        """Parts of [start, stop) missing in the set, in order."""
        out: list[Range] = []
        at = bisect_right(self._stops, start)
        while start < stop:
            if at == len(self._starts) or self._starts[at] >= stop:
                out.append((start, stop))
                break
            if self._starts[at] > start:
                out.append((start, self._starts[at]))
            start = self._stops[at]
            at += 1
        return out

    def within(self, start: int, stop: int) -> list[Range]:
        """Parts of [start, stop) in the set, in order."""
        if start >= stop:
            return []
        at = bisect_right(self._stops, start)
        out: list[Range] = []
        while at < len(self._starts) and self._starts[at] < stop:
            out.append((max(start, self._starts[at]), min(stop, self._stops[at])))
            at += 1
        return out

    def total(self) -> int:
        return sum(self._stops) - sum(self._starts)

    def copy(self) -> RangeSet:
        new = RangeSet()
        new._starts, new._stops = self._starts.copy(), self._stops.copy()
        return new

    def __iter__(self) -> Iterator[Range]:
        return zip(self._starts, self._stops, strict=True)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"RangeSet({list(self)!r})"
