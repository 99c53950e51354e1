"""File map: the ranges of a sparse file that are present, and of these the ones that this host wrote.

Never: touches a file; takes a lock (the file's is around every call).
"""

from __future__ import annotations

from typing import NamedTuple, Self

from r2fs.model.ranges import RangeSet


class Snapshot(NamedTuple):
    """The maps at one moment, as the journal and the cache keep them."""

    present: RangeSet
    own: RangeSet  # of a complete file: all of it, since its writes are not seen
    base_limit: int


class FileMap:
    """Ranges of a file of `size` bytes.

    present     bytes that are in the file
    own         of these, bytes that this host wrote, or that became zeros here
    base_limit  end of the base version's bytes that still count: a truncate lowers it for good
    """

    def __init__(self, size: int) -> None:
        self.size = self.base_limit = size
        self.present, self.own = RangeSet(), RangeSet()

    @classmethod
    def within(cls, size: int, present: RangeSet, own: RangeSet | None, base_limit: int | None) -> Self:
        """Ranges up to `size`; what lies past it is left out."""
        made = cls(size)
        made.present, made.own = present.copy(), own.copy() if own else made.own
        made.base_limit = size if base_limit is None else base_limit
        stop = max(size, made.last())
        made.present.remove(size, stop)
        made.own.remove(size, stop)
        return made

    def last(self) -> int:
        """End of the last present range."""
        return max((stop for _, stop in self.present), default=0)

    @property
    def is_whole(self) -> bool:
        return self.present.covers(0, self.size)

    def add_base(self, start: int, stop: int) -> None:
        """Count bytes of the base as present."""
        self.present.add(start, min(stop, self.base_limit, self.size))

    def add_own(self, start: int, stop: int) -> None:
        """Count [start, stop) as this host's, and the zeros between the old end and it."""
        start = min(start, self.size)
        self.present.add(start, stop)
        self.own.add(start, stop)
        self.size = max(self.size, stop)

    def resize(self, size: int) -> None:
        """Cut, or extend by zeros of this host."""
        if size >= self.size:
            self.add_own(self.size, size)
            return
        self.present.remove(size, self.size)
        self.own.remove(size, self.size)
        self.base_limit = min(self.base_limit, size)
        self.size = size

    def snapshot(self) -> Snapshot:
        return Snapshot(self.present.copy(), self.own.copy(), self.base_limit)

    def check(self) -> None:
        """Raise AssertionError where an invariant is broken. For tests."""
        assert self.base_limit >= 0
        for start, stop in self.own:
            assert self.present.covers(start, stop), "own bytes that are not here"
        for start, stop in self.present:
            assert 0 <= start < stop <= self.size, "bytes past the end"
        for start, stop in self.present.missing(0, self.size):
            assert stop <= self.base_limit, f"hole {start}-{stop} that nothing can fill"
