"""Reload: what a changed settings file does to a running daemon."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r2fs.daemon.reload import LIVE, Reload, Source, compare
from r2fs.model.errors import SettingsError
from r2fs.model.ports import SystemClock
from r2fs.model.settings import Bucket, Credentials, Settings
from r2fs.model.settings.options import BY_NAME
from r2fs.model.settings.timetable import BandwidthLimit
from r2fs.store.token_bucket import Bandwidth

BASE = Settings(
    Bucket("s3", "b", credentials=Credentials("id", "secret")), Path("/c"), Path("/s"), Path("/r")
)


def test_what_can_change_is_a_setting() -> None:
    assert set(BY_NAME) >= LIVE
    assert {BY_NAME[name].field for name in LIVE} <= set(Settings.__dataclass_fields__)


def test_the_readme_lists_what_can_change() -> None:
    text = (Path(__file__).resolve().parents[3] / "README.md").read_text()
    (paragraph,) = (
        line for line in text.splitlines() if line.startswith("A changed settings file takes effect")
    )
    assert set(re.findall(r"`([a-z_]+)`", paragraph)) == LIVE


@pytest.mark.parametrize(
    ("change", "live", "later", "credentials"),
    [
        ({}, {}, (), False),
        ({"cache_size": 1, "freshness_s": 2.0}, {"cache_size": 1, "freshness_s": 2.0}, (), False),
        ({"local_patterns": ("*.tmp",)}, {"local_patterns": ("*.tmp",)}, (), False),
        ({"upload_threads": 9, "umask": 0o77}, {"upload_threads": 9}, ("umask",), False),
        ({"bucket": replace(BASE.bucket, credentials=Credentials("id", "new"))}, {}, (), True),
        ({"bucket": replace(BASE.bucket, name="other")}, {}, ("the bucket or the way to it",), False),
    ],
)
def test_differences(
    change: dict[str, Any], live: dict[str, Any], later: tuple[str, ...], credentials: bool
) -> None:
    found = compare(BASE, replace(BASE, **change))
    assert (found.live, found.later, found.credentials) == (live, later, credentials)


class Daemon:
    """The parts that a reload changes, and readings of the settings as a test gives them."""

    def __init__(self) -> None:
        self.readings: list[Settings | SettingsError] = []
        self.engine_has = self.timeout_s = None
        self.renewed = 0
        keys = SimpleNamespace(generation=3, renew=self.renew)
        self.settings = BASE
        self.bandwidth = Bandwidth(SystemClock())
        store = SimpleNamespace(keys=keys, bandwidth=self.bandwidth)
        parts = SimpleNamespace(settings=BASE, engine=self, store=store)
        self.reload = Reload(Source((), self.read), parts, self, self, SystemClock())  # type: ignore[arg-type]
        self.reload._read = BASE

    def read(self) -> Settings:
        found = self.readings.pop(0)
        if isinstance(found, SettingsError):
            raise found
        return found

    def change_settings(self, settings: Any) -> None:
        self.engine_has = self.settings = settings

    def workers(self) -> list[tuple[str, None]]:
        return [(f"upload-{number}", None) for number in range(self.settings.upload_threads)]

    def start_workers(self, workers: list[tuple[str, None]]) -> None:
        self.started = [name for name, _ in workers]

    def change_timeout(self, timeout_s: Any) -> None:
        self.timeout_s = timeout_s

    def renew(self, since: int) -> bool:
        self.renewed += 1
        return since == 3


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    before = logging.getLogger("r2fs").level
    yield Daemon()
    logging.getLogger("r2fs").setLevel(before)


def test_limits_and_levels_are_taken_up(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "r2fs")
    daemon.readings = [replace(BASE, cache_size=1 << 30, stop_timeout_s=5.0, log_level="debug")]
    daemon.reload.reload()
    assert daemon.engine_has is not None
    assert (daemon.engine_has.cache_size, daemon.timeout_s) == (1 << 30, 5.0)
    assert logging.getLogger("r2fs").level == logging.DEBUG
    assert 'cache_size = "1GiB"' in caplog.text


def test_threads_of_a_higher_number_are_started(daemon: Daemon) -> None:
    daemon.readings = [replace(BASE, upload_threads=BASE.upload_threads + 2)]
    daemon.reload.reload()
    assert daemon.started == [f"upload-{number}" for number in range(BASE.upload_threads + 2)]


def test_a_limit_of_bandwidth_holds_at_once_and_one_of_a_command_stays(daemon: Daemon) -> None:
    limit = BandwidthLimit().parse
    daemon.readings = [
        replace(BASE, upload_limit=limit("5M")),
        replace(BASE, upload_limit=limit("5M"), quota=7),
    ]
    daemon.reload.reload()
    assert str(daemon.bandwidth.up.timetable) == "5MiB"
    daemon.settings = replace(daemon.settings, download_limit=limit("1M"))  # by r2fs limit
    daemon.reload.reload()
    assert [str(way.setting) for way in daemon.bandwidth.view().values()] == ["5MiB", "1MiB"]


@pytest.mark.expect_warnings("the settings stay as they are")
def test_a_wrong_file_changes_nothing(daemon: Daemon) -> None:
    daemon.readings = [SettingsError("cache_size: no size (config.toml:3)"), replace(BASE, quota=7)]
    daemon.reload.reload()
    assert daemon.engine_has is None
    daemon.reload.reload()
    assert daemon.engine_has is not None
    assert daemon.engine_has.quota == 7


@pytest.mark.expect_warnings("take effect at r2fs restart")
def test_what_needs_a_restart_is_said(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    daemon.readings = [replace(BASE, umask=0o77), replace(BASE, umask=0o77)]
    daemon.reload.reload()
    assert "umask" in caplog.text
    caplog.clear()
    daemon.reload.reload()
    assert caplog.text == ""


def test_a_new_key_is_taken_up(daemon: Daemon) -> None:
    daemon.readings = [replace(BASE, bucket=replace(BASE.bucket, credentials=Credentials("id", "new")))]
    daemon.reload.reload()
    assert daemon.renewed == 1
