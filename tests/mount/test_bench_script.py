"""scripts/bench works: on real mounts, with the peers that are installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lib.bench.cases import CASES
from scripts.lib.bench.results import MEASURES
from scripts.lib.bench.systems import SYSTEMS

SECONDS = 240
SOME = ["write", "small"]


def bench(repo: Path, tmp_path: Path, *arguments: str) -> dict[str, object]:
    command = [sys.executable, "-m", "scripts.lib.bench", "--quick", "--directory", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--json", str(tmp_path / "report.json"), *arguments],
        cwd=repo,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as child:
        try:
            output, _ = child.communicate(timeout=SECONDS)
        except BaseException:
            child.terminate()  # it unmounts and ends what it started
            raise
    assert child.returncode == 0, output
    assert "Has to show" in output
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"], "something is left behind"
    report: dict[str, object] = json.loads((tmp_path / "report.json").read_text())
    return report


@pytest.mark.timeout(SECONDS + 30)
def test_some_cases(repo_root: Path, tmp_path: Path) -> None:
    report = bench(repo_root, tmp_path, "--systems", "local", "r2fs-kernel", "--only", *SOME)
    measures = report["measures"]
    assert isinstance(measures, dict)
    assert set(measures["small"]["systems"]) == {"local", "r2fs-kernel"}
    assert measures["small_cold"]["systems"]["r2fs-kernel"]["requests"]["GET"] == 20
    assert measures["write"]["systems"]["r2fs-kernel"]["requests"]["PUT"] == 1


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 30)
def test_every_case_and_system(repo_root: Path, tmp_path: Path) -> None:
    missing = [need for system in SYSTEMS.values() if (need := system.missing())]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}: scripts/bench installs it")
    report = bench(repo_root, tmp_path)
    measures = report["measures"]
    assert isinstance(measures, dict)
    assert set(measures) == set(MEASURES)
    assert set(measures["read_again"]["systems"]) == set(SYSTEMS)


def test_no_case_is_forgotten() -> None:
    assert set(SOME) < set(CASES)
