"""Random operations, remote ones, crashes and faults among them, against the reference model.

A failure prints its seed: `python -m tests.model.play SEED` plays it again and shrinks it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.play import play

STEPS = 300
SHORT = range(1, 13)
LONG = range(1, 335)  # 100,000 steps


def run(seed: int, base: Path) -> None:
    played = play(seed, STEPS, base)
    assert played.failure is None, f"seed {seed}, step {played.steps}:\n{played.failure}"
    assert played.steps == STEPS


@pytest.mark.expect_warnings
@pytest.mark.parametrize("seed", SHORT)
def test_a_short_run(seed: int, tmp_path: Path) -> None:
    run(seed, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.expect_warnings
def test_a_long_run(tmp_path: Path) -> None:
    for seed in LONG:
        base = tmp_path / str(seed)
        base.mkdir()
        run(seed, base)
