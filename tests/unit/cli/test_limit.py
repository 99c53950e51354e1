"""`r2fs limit` and the lines of `r2fs status`: limits of bandwidth, what holds now, and until when."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r2fs.cli.status_text import limit_lines
from r2fs.cli.storing import store_of
from r2fs.daemon.control import Request
from r2fs.daemon.operations import CommonOperations
from r2fs.model.ports import SystemClock
from r2fs.model.settings import Settings
from r2fs.model.settings.loading import settings_of
from r2fs.model.settings.sources import Flag, gather
from r2fs.store.token_bucket import Bandwidth
from tests.support import schemas
from tests.unit.cli.conftest import Said

R2fs = Callable[..., Said]
MakeDaemon = Callable[..., Path]


class Store:
    def __init__(self) -> None:
        self.bandwidth = Bandwidth(SystemClock())


@pytest.fixture
def changed() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def limit(changed: list[tuple[str, str]]) -> Callable[[Request], Any]:
    settings = settings_of(gather("file:///takes"))

    def note(new: Settings) -> None:
        changed.append((str(new.upload_limit), str(new.download_limit)))

    engine = SimpleNamespace(settings=settings, change_settings=note)
    parts: Any = SimpleNamespace(target="/mnt", engine=engine, store=Store(), spending=None, started_at_s=0.0)
    return CommonOperations(parts, None).limit  # type: ignore[arg-type]  # stops nothing


def test_limits_are_shown_and_set(
    r2fs: R2fs, daemon: MakeDaemon, limit: Callable[[Request], Any], changed: list[tuple[str, str]]
) -> None:
    mount = daemon("takes", limit=limit)
    said = r2fs("limit", mount)
    assert (said.code, said.out) == (0, "upload limit     none\ndownload limit   none\n")
    assert not changed
    said = r2fs("limit", mount, "--up", "2M")
    assert said.out == "upload limit     2.0 MiB/s\ndownload limit   none\n"
    assert changed == [("2MiB", "off")]
    found = r2fs("limit", mount, "--down", "80Mbit", "--json").json
    schemas.check(found, schemas.SCHEMAS["limit"], "limit")
    assert (found["up"]["rate"], found["down"]["rate"]) == (2 << 20, 10_000_000)
    assert r2fs("limit", mount, "--up", "off").out.startswith("upload limit     none\n")
    assert changed[-1] == ("off", "10000000")


def test_a_wrong_one_is_refused_with_the_remedy(r2fs: R2fs, daemon: MakeDaemon) -> None:
    said = r2fs("limit", daemon("takes"), "--up", "Mo-Fr 08:00 = 5M")
    assert said.code == 2
    assert "--up: '08:00' has no end" in said.err
    assert '"Mo-Fr 08:00-20:00 = 5M, else off"' in said.err


def test_a_store_without_a_mount_keeps_to_the_limits(home: Path) -> None:
    (home / "bucket").mkdir()
    limits = {"upload_limit": "2M", "download_limit": "80Mbit"}
    settings = settings_of(
        gather(f"file://{home}/bucket", flags={n: Flag(v, "test") for n, v in limits.items()})
    )
    with store_of(settings, None, None, check=False) as store:
        assert [store.bandwidth.view()[way].rate for way in ("up", "down")] == [2 << 20, 10_000_000]


def test_a_line_says_until_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    until_s = time.mktime((2026, 11, 30, 20, 0, 0, 0, 0, -1))
    up = {"setting": "x", "rate": 5 << 20, "until_s": until_s, "then": None, "waiting": 3}
    off = {"setting": "off", "rate": None, "until_s": None, "then": None, "waiting": 0}
    lines = limit_lines({"up": up, "down": off})
    monkeypatch.undo()
    time.tzset()
    assert lines == [("upload limit", "5.0 MiB/s until Mon 20:00 CET, then none; 3 transfers held by it")]
