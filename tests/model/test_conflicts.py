"""Two hosts write, append, delete, move and save the same names, in every order of their steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.model.hosts import Pair, length, orders

ONE = ("W", "A", "D", "M", "S")
TWO = ("WD", "DW", "MW", "AM", "SD", "MN", "DA")
EVERY = 5  # the short form plays one of so many
PARTS = 8  # of the long form with programs of two operations: each is a test of some minutes
REQUESTS = 4  # changing one name takes no more

Run = tuple[bool, tuple[str, str], tuple[int, ...], tuple[int, int] | None]

pytestmark = pytest.mark.expect_warnings(
    "another host wrote it first",
    "not deleted: the bucket holds",
    "changed in the bucket",
    "deleted in the bucket",
)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.end()


def between_steps(programs: Sequence[tuple[str, str]]) -> Iterator[Run]:
    for first, both in itertools.product((True, False), programs):
        for order in orders(*both):
            yield first, both, order, None


def inside_steps(programs: Sequence[tuple[str, str]]) -> Iterator[Run]:
    """All that is left of one host's program between two requests of a step of the other's."""
    for first, both in itertools.product((True, False), programs):
        mine, theirs = length(both[0]), length(both[1])
        for begun, theirs_begun in itertools.product(range(mine), range(theirs)):
            before = [1] * theirs_begun + [0] * begun
            order = [*before, 0, *[1] * (theirs - theirs_begun), *[0] * (mine - begun - 1)]
            for request in range(REQUESTS):
                yield first, both, tuple(order), (len(before), request)


def play(pair: Pair, runs: Iterator[Run]) -> None:
    for run in runs:
        pair.play(*run)
    print(f"{pair.runs} orders, {pair.lost_in_the_window} with a loss in the window of DELETE")
    assert pair.runs > 50


SINGLE = list(itertools.product(ONE, ONE))


def test_some_orders_of_single_operations(pair: Pair):
    play(pair, itertools.islice(between_steps(SINGLE), 0, None, EVERY))
    assert pair.lost_in_the_window == 0


def test_some_programs_inside_a_step_of_another(pair: Pair):
    play(pair, itertools.islice(inside_steps(SINGLE), 0, None, EVERY))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_order_of_single_operations(pair: Pair):
    play(pair, between_steps(SINGLE))
    assert pair.lost_in_the_window == 0


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_operation_inside_a_step_of_another(pair: Pair):
    play(pair, inside_steps(SINGLE))
    assert pair.lost_in_the_window > 0, "the window is there: who closes it may say so in SEMANTICS"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("begin", range(PARTS))
def test_orders_of_two_operations(pair: Pair, begin: int):
    play(pair, itertools.islice(between_steps(list(itertools.product(TWO, ONE))), begin, None, PARTS))
    assert pair.lost_in_the_window == 0


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("begin", range(PARTS))
def test_two_operations_inside_a_step_of_others(pair: Pair, begin: int):
    programs = [*itertools.product(TWO, (*ONE, *TWO)), *itertools.product(ONE, TWO)]
    play(pair, itertools.islice(inside_steps(programs), begin, None, PARTS))
