"""Processes of the benchmark: work that runs beside it with a time limit, and what a process holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
WORK_S = 300.0  # s3fs walks 10,000 far files in two hundred


class Broken(Exception):
    """A system did not start, end, or do its work."""


class Job:
    """Work in a process of its own that has been begun."""

    def __init__(self, system: str, name: str, child: subprocess.Popen[str]) -> None:
        self._system = system
        self._name = name
        self._child = child

    def result(self, given: str | None = None, timeout_s: float = WORK_S) -> dict[str, float]:
        """Waits for it. Raises Broken."""
        try:
            output, errors = self._child.communicate(given, timeout=timeout_s)
        except BaseException as error:
            self._child.kill()  # and no waiting: what hangs in a mount dies with the mount, in stop()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise Broken(f"{self._system}: {self._name} not done after {timeout_s:.0f} s") from None
        if self._child.returncode:
            last = errors.strip().splitlines()[-1:] or [f"exit status {self._child.returncode}"]
            raise Broken(f"{self._system}: {self._name} failed: {last[0][:500]}")
        result: dict[str, float] = json.loads(output)
        return result


def begin(system: str, name: str, module: str, *arguments: str) -> Job:
    child = subprocess.Popen(
        [sys.executable, "-m", f"scripts.lib.bench.{module}", *arguments],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return Job(system, name, child)


# ------------------------------------------------------------------ processes
def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
