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
    Promise,
    Results,
)
from scripts.lib.bench.server import SENT, TOTAL
from scripts.lib.bench.systems import SYSTEMS


@pytest.fixture
def results() -> Results:
    found = Results()
    for value in (100.0, 900.0, 110.0):
        found.add("walk", OURS, value)
    found.add("walk", RCLONE, 20.0)
    found.add("walk", "s3fs", 10.0)
    found.add("ends", OURS, 50.0, {"GET": 2})
    found.add("ends", RCLONE, 100.0, {"GET": 3, "HEAD": 1})
    return found


def test_ratio_is_of_medians(results: Results) -> None:
    assert results.ratio("walk", OURS, RCLONE) == 110.0 / 20.0


def test_ratio_says_how_many_times_better(results: Results) -> None:
    assert results.ratio("ends", OURS, RCLONE) == 2.0


def test_no_ratio_to_what_was_not_measured(results: Results) -> None:
    assert results.ratio("walk", OURS, LOCAL) is None
    assert results.ratio("stat", OURS, RCLONE) is None


@pytest.mark.parametrize(("measure", "best"), [("walk", RCLONE), ("ends", RCLONE), ("stat", None)])
def test_best_peer(results: Results, measure: str, best: str | None) -> None:
    assert results.best_peer(measure) == best


def test_best_peer_where_less_is_better(results: Results) -> None:
    results.add("ends", "s3fs", 60.0)
    assert results.best_peer("ends") == "s3fs"


def test_verdicts(results: Results) -> None:
    promises = (
        Promise("walk", 5.0, BEST_PEER),
        Promise("walk", 6.0, RCLONE),
        Promise("walk", 0.9, LOCAL),
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
        assert promise.against in {*SYSTEMS, BEST_PEER}
        assert promise.of in SYSTEMS


def test_json_there_and_back(results: Results) -> None:
    again = Results.from_json(json.loads(json.dumps(results.to_json())))
    assert again.to_json() == results.to_json()
    assert again.ratio("walk", OURS, RCLONE) == results.ratio("walk", OURS, RCLONE)


def test_tables_say_what_is_not_met(results: Results) -> None:
    console = Console(width=screen.WIDTH, record=True, file=io.StringIO())
    systems = [OURS, RCLONE, "s3fs"]
    promises = (Promise("walk", 5.0, BEST_PEER), Promise("walk", 6.0, RCLONE))
    for table in (
        screen.numbers(results, systems),
        screen.requests(results, systems),
        screen.promises(results.verdicts(promises)),
    ):
        console.print(table)
    text = console.export_text()
    for expected in ("1 HEAD", "5.50 × (rclone)", "not met", "walk + stat of a tree, warm ≥ 5 × best peer"):
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
