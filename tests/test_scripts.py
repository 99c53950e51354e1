"""The scripts that a newcomer runs first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "scripts.lib.demo", "--minutes", "0.5"]


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("r2fs-demo-"))


def test_the_demo_passes_and_leaves_nothing(repo_root: Path, tmp_path: Path):
    done = subprocess.run(
        DEMO,
        cwd=repo_root,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All as it should be" in done.stdout
    assert "requests: PutObject" in done.stdout
    assert left_in(tmp_path) == []


def test_an_interrupted_demo_leaves_nothing(repo_root: Path, tmp_path: Path):
    with subprocess.Popen(
        DEMO,
        cwd=repo_root,
        env=os.environ | {"TMPDIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "the same work on the mount" in line:
                recorded = list((tmp_path / "home").rglob("*"))
                demo.send_signal(signal.SIGTERM)
                demo.send_signal(signal.SIGINT)  # an impatient person
        demo.wait(60)
    assert demo.returncode == 130
    assert left_in(tmp_path) == []
    assert recorded == []  # of a state directory that the demo deletes


def test_setting_up_again_takes_no_time(repo_root: Path):
    if not (repo_root / ".venv" / "r2fs-installed").exists():
        pytest.skip("not set up by scripts/*: there is no .venv")
    setup = ["bash", "-c", '. scripts/lib/setup.sh; setup demo; echo "$python"']
    subprocess.run(setup, cwd=repo_root, check=True, capture_output=True, timeout=110)
    begun = time.monotonic()
    done = subprocess.run(setup, cwd=repo_root, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str(repo_root / ".venv" / "bin" / "python")
    assert "install" not in done.stderr
    assert time.monotonic() - begun < 10  # 0.1 s on an idle machine


@pytest.mark.parametrize(
    ("words", "says"), [((), "usage: scripts/deb [DIRECTORY]"), (("none",), "none is no directory")]
)
def test_deb_says_what_is_missing(repo_root: Path, words: tuple[str, ...], says: str):
    done = subprocess.run(
        [sys.executable, "-m", "scripts.lib.deb", *words],
        cwd=repo_root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr
