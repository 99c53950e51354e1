"""Prices and floors of scripts/bench."""

from __future__ import annotations

import pytest

from scripts.lib.bench.floors import CLASS_A_USD, CLASS_B_USD, FLOORS, cost_to_floor, removed, upload, usd
from scripts.lib.bench.results import MEASURES
from scripts.lib.bench.sizes import MIB, Sizes


@pytest.mark.parametrize(
    ("requests", "price"),
    [
        ({"GET": 2, "HEAD": 1}, 3 * CLASS_B_USD),
        ({"PUT": 1, "LIST": 1, "POST": 1, "COPY": 1}, 4 * CLASS_A_USD),
        ({"DELETE": 1000}, 0.0),
        ({}, 0.0),
    ],
)
def test_price_by_class(requests: dict[str, int], price: float) -> None:
    assert usd(requests) == pytest.approx(price)


@pytest.mark.parametrize(
    ("requests", "floor", "expected"),
    [
        ({"GET": 500}, {"GET": 500}, 1.0),
        ({"GET": 500, "LIST": 1}, {"GET": 500}, 1.025),  # a LIST costs as much as 12.5 GETs
        ({"LIST": 20}, {"LIST": 10}, 2.0),
        ({}, {"GET": 1}, 0.0),
        ({"GET": 1}, {}, None),
        ({"DELETE": 1}, {"DELETE": 1}, None),  # free
        (None, {"GET": 1}, None),
        ({"GET": 1}, None, None),
    ],
)
def test_cost_to_floor(
    requests: dict[str, int] | None, floor: dict[str, int] | None, expected: float | None
) -> None:
    assert cost_to_floor(requests, floor) == (None if expected is None else pytest.approx(expected))


def test_floors_of_uploads_and_removals() -> None:
    assert upload(64 * MIB) == {"PUT": 1}
    assert upload(256 * MIB) == {"PUT": 16, "POST": 2}
    assert upload(256 * MIB + 1) == {"PUT": 17, "POST": 2}
    assert removed(1000) == {"LIST": 1, "DELETE": 1}
    assert removed(1001) == {"LIST": 2, "DELETE": 2}


def test_floors_are_of_rows_and_follow_the_sizes() -> None:
    assert FLOORS.keys() <= MEASURES.keys()
    floors = {measure: floor(Sizes()) for measure, floor in FLOORS.items()}
    assert floors["cold-tree"] == {"LIST": 10}
    assert floors["cold-read-512"] == {"GET": 128}
    assert floors["far-ends"] == {"GET": 2}
