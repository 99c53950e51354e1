from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from r2fs.model.ranges import RangeSet

TOP = 40
edges = st.integers(0, TOP)
operations = st.lists(st.tuples(st.sampled_from(["add", "remove"]), edges, edges), max_size=25)


def runs(numbers: set[int]) -> list[tuple[int, int]]:
    """The maximal runs of a set of integers."""
    starts = sorted(n for n in numbers if n - 1 not in numbers)
    stops = sorted(n + 1 for n in numbers if n + 1 not in numbers)
    return list(zip(starts, stops, strict=True))


@given(operations, edges, edges)
def test_a_range_set_is_a_set_of_integers(steps: list[tuple[str, int, int]], start: int, stop: int):
    ranges, model = RangeSet(), set[int]()
    for step, first, last in steps:
        getattr(ranges, step)(first, last)
        model = model | set(range(first, last)) if step == "add" else model - set(range(first, last))
        assert list(ranges) == runs(model)
    asked = set(range(start, stop))
    assert ranges.total() == len(model)
    assert ranges.covers(start, stop) == (asked <= model)
    assert ranges.missing(start, stop) == runs(asked - model)
    assert ranges.within(start, stop) == runs(asked & model)
    assert bool(ranges) == bool(model)
    assert len(ranges) == len(runs(model))
    assert ranges == RangeSet(runs(model))


@given(st.lists(st.tuples(edges, edges), max_size=12))
def test_the_order_of_adding_does_not_matter(pairs: list[tuple[int, int]]):
    assert RangeSet(pairs) == RangeSet(reversed(pairs))


def test_a_copy_is_another_set():
    first = RangeSet([(0, 4)])
    second = first.copy()
    second.add(8, 12)
    assert list(first) == [(0, 4)]
    assert first != second
    assert repr(second) == "RangeSet([(0, 4), (8, 12)])"


def test_offsets_beyond_32_bits():
    terabyte = 1 << 40
    ranges = RangeSet([(terabyte, 5 * terabyte)])
    ranges.remove(2 * terabyte, 3 * terabyte)
    assert ranges.missing(0, 5 * terabyte) == [(0, terabyte), (2 * terabyte, 3 * terabyte)]
    assert ranges.total() == 3 * terabyte
