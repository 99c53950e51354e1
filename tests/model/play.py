"""Playing: one seed to its end, or a list of operations; a failure comes back shrunk.

`python -m tests.model.play SEED [STEPS]` plays one seed and prints what it finds.
"""

from __future__ import annotations

import gc
import logging
import re
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.model.generate import Generator, Op, configuration
from tests.model.runner import Runner
from tests.model.shrink import Operations, listing, shrink


@dataclass
class Played:
    steps: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    failure: str | None = None
    operations: Operations = field(default_factory=list)


def play(seed: int, steps: int, base: Path) -> Played:
    """Until the end, or the first failure (not shrunk yet)."""
    played = Played()
    runner = None
    try:
        runner = Runner(base, configuration(seed))
        generator = Generator(seed)
        for number in range(steps):
            last = number == steps - 1
            operation: Op = {"op": "drain", "deep": True} if last else generator.next(runner)
            played.operations.append(operation)
            played.kinds[operation["op"]] += 1
            played.steps += 1
            runner.step(operation)
    except Exception as error:
        played.failure = "".join(traceback.format_exception(error)[-12:])
    finally:
        if runner is not None:
            played.points.update(runner.world.points)
            played.crashes.update(runner.world.crashed_at)
            runner.world.end()
    return played


def replay(operations: Operations, config: dict[str, Any], base: Path) -> str | None:
    """What fails, or None."""
    runner = None
    try:
        runner = Runner(base, config)
        runner.run(operations)
    except Exception as error:
        return "".join(traceback.format_exception(error)[-8:])
    finally:
        if runner is not None:
            runner.world.end()
    return None


def shrunk(played: Played, config: dict[str, Any], tries: int = 400) -> tuple[Operations, str]:
    """A short list that fails in the same way, and how it does."""
    said: list[str] = []
    kind = _kind(played.failure or "")

    def fails(operations: Operations) -> bool:
        with tempfile.TemporaryDirectory(prefix="model-", ignore_cleanup_errors=True) as base:
            failure = replay(operations, config, Path(base))
        if failure is None or _kind(failure) != kind:
            return False
        said.append(failure)
        return True

    operations = shrink(played.operations, fails, tries)
    return operations, said[-1] if said else f"does not come again: {played.failure}"


def _kind(failure: str) -> str:
    """The class of the error and the gist of its words: shrinking must not slip to another failure."""
    last = failure.strip().splitlines()[-1] if failure else ""
    return re.sub(r"[^:]*/[^:]*: |'[^']*'|[\d<>]+", "", last)[:60]


def main() -> None:
    first = int(sys.argv[1])
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 300
    last = int(sys.argv[3]) if len(sys.argv) > 3 else first
    logging.disable(logging.CRITICAL)
    total: Counter[str] = Counter()
    for seed in range(first, last + 1):
        base = Path(tempfile.mkdtemp(prefix="model-"))
        played = play(seed, steps, base)
        shutil.rmtree(base, ignore_errors=True)
        total["steps"] += played.steps
        if played.failure:
            print(f"seed {seed} failed after {played.steps} steps:\n{played.failure}")
            operations, said = shrunk(played, configuration(seed))
            print(f"{configuration(seed)}\n{listing(operations)}\n{said}")
            sys.exit(1)
        gc.collect()
    print(f"seeds {first}-{last}: {total['steps']} steps without a difference")


if __name__ == "__main__":
    main()
