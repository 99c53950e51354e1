"""The line to the far server of scripts/bench: delay, cap, slow start and stalls, by a clock that is a number."""

from __future__ import annotations

import itertools

import pytest

from scripts.lib.bench.link import INITIAL_WINDOW, PIECE, Line, Stalls, Way

ROUND_TRIP_S = 0.040
DELAY_S = ROUND_TRIP_S / 2
RATE = 60e6


def way(rate: float | None = RATE) -> Way:
    """Of a connection that is there at 0."""
    return Way(Line(ROUND_TRIP_S, rate), opened_at=-ROUND_TRIP_S)


def test_a_new_connection_costs_a_round_trip() -> None:
    opened = Way(Line(ROUND_TRIP_S, None), opened_at=5.0)
    ((time, size),) = opened.arrivals(5.0, 1)
    assert time == pytest.approx(5.0 + ROUND_TRIP_S + DELAY_S)
    assert size == 1


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 17])
@pytest.mark.parametrize("rate", [None, RATE])
def test_every_byte_arrives_in_order_and_not_before_the_delay(size: int, rate: float | None) -> None:
    pieces = list(way(rate).arrivals(1.0, size))
    assert sum(size for _, size in pieces) == size
    times = [time for time, _ in pieces]
    assert times == sorted(times)
    assert times[0] >= 1.0 + DELAY_S - 1e-9


def test_without_a_cap_there_is_the_delay_alone() -> None:
    assert {time for time, _ in way(None).arrivals(1.0, 100 * PIECE)} == {1.0 + DELAY_S}


def test_the_first_window_arrives_at_once_and_the_next_one_a_round_trip_later() -> None:
    pieces = list(way().arrivals(0.0, 2 * INITIAL_WINDOW))
    first = sum(size for time, size in pieces if time < ROUND_TRIP_S)
    assert first == INITIAL_WINDOW
    assert pieces[-1][0] == pytest.approx(ROUND_TRIP_S + DELAY_S, abs=0.002)


def test_slow_start_doubles_what_arrives_in_each_round_trip() -> None:
    pieces = list(way().arrivals(0.0, 20_000_000))
    in_trip = [
        sum(size for time, size in pieces if trip <= (time - DELAY_S) / ROUND_TRIP_S < trip + 1)
        for trip in range(6)
    ]
    for before, after in itertools.pairwise(in_trip):
        assert after == pytest.approx(2 * before, rel=0.25)


def test_a_grown_connection_is_as_fast_as_the_cap() -> None:
    used = way()
    *_, (grown, _) = used.arrivals(0.0, 60_000_000)
    start = grown - DELAY_S
    *_, (end, _) = used.arrivals(start, 30_000_000)
    assert end - grown == pytest.approx(30_000_000 / RATE, rel=0.01)


def test_the_cap_holds_over_many_small_sends() -> None:
    used = way()
    *_, (grown, _) = used.arrivals(0.0, 60_000_000)
    last = 0.0
    for number in range(1000):
        *_, (last, _) = used.arrivals(grown + number * 1e-6, 30_000)
    assert last - grown >= 1000 * 30_000 / RATE - 0.001


def test_what_comes_after_a_stall_waits_behind_it() -> None:
    used = way()
    used.hold(until=10.0)
    assert next(used.arrivals(1.0, 1))[0] == pytest.approx(10.0 + DELAY_S)
    assert next(used.arrivals(2.0, 1))[0] >= 10.0 + DELAY_S


def test_one_answer_of_a_hundred_is_late() -> None:
    stalls = Stalls(one_in=100, seconds=10.0)
    late = [stalls.next_answer() for _ in range(1000)]
    assert late.count(10.0) == 10
    assert late.count(0.0) == 990
    assert late[0] == 0.0


def test_no_stalls() -> None:
    stalls = Stalls(one_in=None, seconds=10.0)
    assert {stalls.next_answer() for _ in range(200)} == {0.0}
