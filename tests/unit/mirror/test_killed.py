"""A mirror that is killed at any line, and the next one: nothing is lost, and nothing is kept twice without a conflict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def killed(directory: Path, repo_root: Path, stride: int) -> int:
    """Number of kills."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.mirror_killed", str(directory), str(stride)],
        cwd=repo_root,
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return int(run.stdout.split()[0])


def test_killed_at_many_lines(tmp_path: Path, repo_root: Path) -> None:
    assert killed(tmp_path / "killed", repo_root, 97) > 20


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_killed_at_each_line(tmp_path: Path, repo_root: Path) -> None:
    assert killed(tmp_path / "killed", repo_root, 1) > 2000
