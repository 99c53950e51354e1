"""The cost of a month's requests: over restarts, at the turn of the month, and past its limits."""

from __future__ import annotations

import calendar
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from r2fs.daemon import spending
from r2fs.daemon.spending import Spending
from r2fs.disk.spent import NAME, SpentFile
from r2fs.model.settings import Bucket, Settings
from r2fs.store.counting import RequestCounter
from tests.support.clocks import ManualClock

NOVEMBER = calendar.timegm((2026, 11, 30, 23, 0, 0))


class Daemon:
    def __init__(
        self, state: Path, clock: ManualClock, warn_cost: float = 0.0, prefetch_cost: float = 0.0
    ) -> None:
        # A dollar for each request of class A.
        settings = Settings(Bucket("s3", "studio"), state, state, state, price_class_a=1e6, price_class_b=0.0)
        self.settings = replace(settings, warn_cost=warn_cost, prefetch_cost=prefetch_cost)
        self.counter = RequestCounter()
        self.frugal: list[bool] = []
        self.spending = Spending(
            SpentFile(state), self.counter, lambda: self.settings, self.frugal.append, clock
        )

    def send(self, count: int) -> None:
        for _ in range(count):
            self.counter.request("PutObject", "a")
        self.spending.look()


def test_a_month_goes_on_in_the_next_daemon(tmp_path: Path) -> None:
    clock = ManualClock(NOVEMBER)
    daemon = Daemon(tmp_path, clock)
    daemon.send(3)
    daemon.spending.save()
    later = Daemon(tmp_path, clock)
    later.send(2)
    view = later.spending.view()
    assert (view.month, view.class_a, view.class_b, view.dollars) == ("2026-11", 5, 0, 5.0)


@pytest.mark.expect_warnings("fetched ahead of need any more")
def test_a_month_begins_at_nothing(tmp_path: Path) -> None:
    clock = ManualClock(NOVEMBER)
    daemon = Daemon(tmp_path, clock, prefetch_cost=2.0)
    daemon.send(3)
    daemon.spending.save()
    clock.advance(3600.0)
    daemon.spending.look()
    assert (daemon.spending.view().month, daemon.spending.view().class_a) == ("2026-12", 0)
    assert daemon.frugal == [True, False]
    daemon.send(1)
    daemon.spending.save()
    assert Daemon(tmp_path, clock).spending.view().class_a == 1


@pytest.mark.expect_warnings("fetched ahead of need any more")
def test_the_limits_and_their_sentences(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    daemon = Daemon(tmp_path, ManualClock(NOVEMBER), warn_cost=1.0, prefetch_cost=2.0)
    daemon.send(1)
    assert spending.warnings(daemon.spending.view()) == [], "at a limit, not past it"
    daemon.send(1)
    assert spending.warnings(daemon.spending.view()) == [
        "the requests of 2026-11 cost 2.00 $, more than 1.00 $ (warn_cost)"
    ]
    assert daemon.frugal == []
    with caplog.at_level(logging.WARNING):
        daemon.send(1)
        daemon.send(1)
    (warned,) = caplog.records
    assert "more than 2.00 $ (prefetch_cost): nothing is fetched ahead of need any more" in warned.message
    caplog.clear()
    assert daemon.frugal == [True], "once"
    assert spending.warnings(daemon.spending.view())[1].endswith(
        "(prefetch_cost): nothing is fetched ahead of need"
    )
    daemon.settings = replace(daemon.settings, prefetch_cost=100.0)
    daemon.spending.look()
    assert daemon.frugal == [True, False]
    daemon.settings = replace(daemon.settings, warn_cost=0.0, prefetch_cost=0.0)
    assert spending.warnings(daemon.spending.view()) == [], "off by default"


@pytest.mark.expect_warnings("counted from now on")
@pytest.mark.parametrize(
    "text", ["", "[1]", '{"month": 1}', '{"month": "2026-11", "class_a": "x", "class_b": 1}']
)
def test_a_damaged_file_counts_as_none(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / NAME).write_text(text)
    daemon = Daemon(tmp_path, ManualClock(NOVEMBER))
    assert daemon.spending.view().class_a == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    caplog.clear()
    daemon.send(1)
    daemon.spending.save()
    assert Daemon(tmp_path, ManualClock(NOVEMBER)).spending.view().class_a == 1


def test_a_file_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "gone", ManualClock(NOVEMBER))
    daemon.send(1)
    daemon.spending.save()
    assert not (tmp_path / "gone" / NAME).exists()
