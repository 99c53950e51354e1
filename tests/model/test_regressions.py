"""Failures that the model found, shrunk: each a list of operations, named by what was wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.generate import Op
from tests.model.play import replay

CONFIG: dict[str, Any] = {
    "prefix": "",
    "small_file": 0,
    "read_ahead": 256,
    "multipart_threshold": 1 << 30,
    "part_size": 256,
    "cache_size": 1 << 30,
    "upload_delay_s": 1.0,
}


def check(operations: list[Op], base: Path, **config: Any) -> None:
    failure = replay(operations, CONFIG | config, base)
    assert failure is None, failure


@pytest.mark.expect_warnings
def test_a_conflict_keeps_whatever_extension_the_name_has(tmp_path: Path) -> None:
    """The model's own defect: it knew conflict names of .wav files alone (seed 192)."""
    operations: list[Op] = [
        {"op": "unlink", "path": "f0"},
        {"op": "outage", "on": True},
        {"op": "remote_set", "path": "f0.tmp", "size": 4, "tag": 51},
        {"op": "open", "slot": "A", "path": "f0.tmp", "flags": "rc"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path)
