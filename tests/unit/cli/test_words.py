"""Words of single commands: names, units and remedies in what they print."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2fs.daemon.control import Request
from tests.unit.cli.conftest import Said

R2fs = Callable[..., Said]
MakeDaemon = Callable[..., Path]


def removal(count: int, size: int) -> dict[str, Any]:
    counts = {"unchanged": 0, "unsent": 0, "waiting": 0, "failed": 0, "listed": True, "errors": []}
    return {"report": {"found": count, "done": count, "bytes": size, **counts}, "stopped": None}


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (9999, "9999 B"), (10_000, "0.01 MB")])
def test_rm_counts_few_bytes_as_bytes(r2fs: R2fs, daemon: MakeDaemon, size: int, text: str) -> None:
    mount = daemon("takes", remove=lambda request: removal(1, size))
    assert r2fs("rm", mount / "d" / "a").out == f"deleted 1 object ({text}); 0 failed\n"


def test_a_name_that_no_bucket_can_have_is_wrong_usage(r2fs: R2fs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    said = r2fs("bucket", "create", "s3://Bad_Name")
    assert (said.code, "Bad_Name is not a valid bucket name" in said.err) == (2, True), said


def test_a_wrong_type_is_wrong_usage(r2fs: R2fs, home: Path) -> None:
    assert r2fs("set", "--content-type", "x", home).code == 2


def test_no_pins_are_told(r2fs: R2fs, daemon: MakeDaemon) -> None:
    daemon("takes", pins=lambda request: {"pins": []})
    assert r2fs("pin", "--list").out == "nothing is pinned\n"


def test_the_help_of_a_group_cuts_no_sentence(r2fs: R2fs) -> None:
    for group in ("queue", "cache", "bucket"):
        assert not re.search(r"[a-z ]\.\.\.$", r2fs(group, "--help").out, re.MULTILINE)


def test_a_path_of_the_queue_may_be_as_the_list_prints_it(r2fs: R2fs, daemon: MakeDaemon) -> None:
    asked: list[list[str] | None] = []

    def pending(request: Request) -> dict[str, Any]:
        asked.append(request.paths())
        return {"transfers": []}

    mount = daemon("takes", pending=pending)
    assert r2fs("queue", "list", mount, "a/b.wav", mount / "c").code == 0
    assert asked == [["a/b.wav", "c"]]
    assert r2fs("queue", "list", mount, "../other").code == 8


def test_the_help_of_a_mirror_names_no_setting_of_mounts_alone(r2fs: R2fs) -> None:
    text = r2fs("mirror", "--help").out
    for flag in ("--upload-threads", "--stop-timeout", "--local-patterns", "--endpoint-url", "--state-dir"):
        assert flag in text
    for flag in (
        "--cache-size",
        "--read-ahead",
        "--allow-other",
        "--driver",
        "--warn-hit-rate",
        "--take-over",
    ):
        assert flag not in text
    assert "--cache-size" in r2fs("mount", "--help").out


def test_config_show_of_a_directory_is_of_its_mount(
    r2fs: R2fs, daemon: MakeDaemon, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R2_ACCOUNT_ID", "a" * 32)
    in_force = {
        "cache_size": '"5GiB"',
        "read_ahead": '"128MiB"',
        "local_patterns": '["*.tmp"]',
        "read_only": "false",
    }
    mount = daemon("takes", settings=lambda request: {"settings": in_force})
    shown = r2fs("config", "show", mount, "--json").json
    assert shown["settings"]["cache_size"] == {"value": 5 << 30, "source": "in force"}
    assert shown["settings"]["local_patterns"] == {"value": ["*.tmp"], "source": "in force"}
    assert shown["settings"]["read_ahead"]["source"] == "default", "the same as a new mount would have"
    assert shown["derived"]["mounts"] == "r2://takes"
    assert "in force" in r2fs("config", "show", mount).out
    (home / "elsewhere").mkdir()
    refused = r2fs("config", "show", home / "elsewhere")
    assert (refused.code, "is not in a mount of r2fs" in refused.err) == (8, True)
