"""Ratios and promises of scripts/bench, without measuring anything."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from scripts.lib.bench import screen
from scripts.lib.bench.results import (
    BEST_PEER,
    LOCAL,
    MEASURES,
    MUST_SHOW,
    MUST_SHOW_AS_USER,
    OURS,
    RCLONE,
    Aim,
    Cell,
    Cost,
    Promise,
    Results,
)
from scripts.lib.bench.server import SENT, TOTAL
from scripts.lib.bench.systems import SYSTEMS


@pytest.fixture
def results() -> Results:
    found = Results()
    for value in (100.0, 900.0, 110.0):
        found.add("tree", OURS, value)
    found.add("tree", RCLONE, 20.0)
    found.add("tree", "s3fs", 10.0)
    found.add("far-ends", OURS, 50.0, {"GET": 2})
    found.add("far-ends", RCLONE, 100.0, {"GET": 3, "HEAD": 1})
    return found


def test_ratio_is_of_medians(results: Results) -> None:
    assert results.ratio("tree", OURS, RCLONE) == 110.0 / 20.0


def test_ratio_says_how_many_times_better(results: Results) -> None:
    assert results.ratio("far-ends", OURS, RCLONE) == 2.0


def test_no_ratio_to_what_was_not_measured(results: Results) -> None:
    assert results.ratio("tree", OURS, LOCAL) is None
    assert results.ratio("stat", OURS, RCLONE) is None


@pytest.mark.parametrize(("measure", "best"), [("tree", RCLONE), ("far-ends", RCLONE), ("stat", None)])
def test_best_peer(results: Results, measure: str, best: str | None) -> None:
    assert results.best_peer(measure) == best


def test_best_peer_where_less_is_better(results: Results) -> None:
    results.add("far-ends", "s3fs", 60.0)
    assert results.best_peer("far-ends") == "s3fs"


def test_verdicts(results: Results) -> None:
    promises = (
        Promise("tree", 5.0, BEST_PEER),
        Promise("tree", 6.0, RCLONE),
        Promise("tree", 0.9, LOCAL),
        Promise("stat", 1.0, RCLONE),
    )
    verdicts = results.verdicts(promises)
    assert [(verdict.against, verdict.met) for verdict in verdicts] == [
        (RCLONE, True),
        (RCLONE, False),
        (LOCAL, None),  # said, not passed over: the promise's measure was taken
    ]


def test_promises_name_what_there_is() -> None:
    for promise in MUST_SHOW + MUST_SHOW_AS_USER:
        assert promise.measure in MEASURES
        assert promise.of in SYSTEMS
        if isinstance(promise, Promise):
            assert promise.against in {*SYSTEMS, BEST_PEER}


@pytest.mark.parametrize(
    ("aim", "ratio", "met"),
    [
        (Aim("tree", 100), 1.1, True),  # more is better
        (Aim("tree", 220), 0.5, False),
        (Aim("far-ends", 45), 0.9, False),  # less is better
        (Aim("far-ends", 100), 2.0, True),
    ],
)
def test_an_aim_is_held_against_the_median(results: Results, aim: Aim, ratio: float, met: bool) -> None:
    (verdict,) = results.verdicts((aim,))
    assert verdict.ratio == pytest.approx(ratio)
    assert verdict.met is met


def test_an_aim_of_what_was_not_measured(results: Results) -> None:
    (verdict,) = results.verdicts((Aim("tree", 1, of=LOCAL),))
    assert verdict.met is None
    assert results.verdicts((Aim("stat", 1),)) == []


def test_cost_is_held_against_the_floor(results: Results) -> None:
    assert results.cost("far-ends", OURS) is None  # no floor is known
    results.set_floor("far-ends", {"GET": 2})
    assert results.cost("far-ends", OURS) == pytest.approx(1.0)
    assert results.cost("far-ends", RCLONE) == pytest.approx(2.0)
    assert results.cost("tree", OURS) is None  # its requests were not counted


@pytest.mark.parametrize(
    ("of", "ratio", "met"), [(OURS, 1.1, True), (RCLONE, 0.55, False), ("s3fs", None, None)]
)
def test_a_cost_is_a_promise(results: Results, of: str, ratio: float | None, met: bool | None) -> None:
    results.set_floor("far-ends", {"GET": 2})
    (verdict,) = results.verdicts((Cost("far-ends", of=of),))
    assert verdict.ratio == (None if ratio is None else pytest.approx(ratio))
    assert verdict.met is met


def test_each_cell_says_runs_and_spread(results: Results) -> None:
    cell = results.to_json()["tree"]["systems"][OURS]
    assert (cell["runs"], cell["min"], cell["median"], cell["max"]) == (3, 100.0, 110.0, 900.0)
    found = results.cell("tree", OURS)
    assert found is not None
    assert found.spread == "100..900 ·3"
    assert Cell([12_345.6, 2.5]).spread == "2.50..12k ·2"


def test_json_there_and_back(results: Results) -> None:
    results.set_floor("far-ends", {"GET": 2})
    again = Results.from_json(json.loads(json.dumps(results.to_json())))
    assert again.to_json() == results.to_json()
    assert again.ratio("tree", OURS, RCLONE) == results.ratio("tree", OURS, RCLONE)


def test_tables_say_what_is_not_met(results: Results) -> None:
    results.set_floor("far-ends", {"GET": 2})
    console = Console(width=screen.WIDTH, record=True, file=io.StringIO())
    systems = [OURS, RCLONE, "s3fs"]
    promises = (Promise("tree", 5.0, BEST_PEER), Promise("tree", 6.0, RCLONE))
    for table in (
        screen.numbers(results, systems),
        screen.requests(results, systems),
        screen.promises(results.verdicts(promises)),
    ):
        console.print(table)
    text = console.export_text()
    for expected in (
        *("1 HEAD", "5.50 × (rclone)", "not met", "walk + stat of a tree, warm ≥ 5 × best peer"),
        *("100..900 ·3", "2.00 ×", "2 GET"),
    ):
        assert expected in text


def test_plot(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is in the bench extra: scripts/bench installs it")
    from scripts.lib.bench.plot import draw

    draw({"": results, "as a user: ": results}, "a machine", tmp_path / "plot.svg")
    assert (
        "walk + stat" in (tmp_path / "plot.svg").read_text() or (tmp_path / "plot.svg").stat().st_size > 1000
    )


def test_seaweedfs_counts_are_read() -> None:
    text = (
        'SeaweedFS_s3_request_total{bucket="",code="403",type="LIST"} 15\n'
        'SeaweedFS_s3_request_total{bucket="reads",code="200",type="GET"} 2\n'
        'SeaweedFS_s3_request_total{bucket="reads",code="404",type="GET"} 1.2e+03\n'
        'SeaweedFS_s3_time_to_first_byte_millisecond_sum{bucket="reads",type="GET"} 7\n'
        'SeaweedFS_s3_time_to_first_byte_millisecond_count{bucket="reads",type="GET"} 1\n'
    )
    assert TOTAL.findall(text) == [("reads", "GET", "2"), ("reads", "GET", "1.2e+03")]
    assert SENT.findall(text) == [("reads", "1")]
