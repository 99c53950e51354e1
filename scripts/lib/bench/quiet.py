"""Quiet: what one system's work leaves to the machine is not in the next one's time."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

IDLE: Final = 0.9  # share of the processors' time
LOOK_S: Final = 0.25
PATIENCE_S: Final = 10.0  # somebody else's work may never end


def settle() -> None:
    """Return when written pages are on the disk and the processors are idle, or after a while."""
    os.sync()
    end = time.monotonic() + PATIENCE_S
    before = _times()
    while time.monotonic() < end:
        time.sleep(LOOK_S)
        now = _times()
        if now[0] - before[0] >= IDLE * (now[1] - before[1]):
            return
        before = now


def _times() -> tuple[int, int]:
    """Ticks: idle, and all (proc_stat(5)). Waiting for the disk is not idle."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3], sum(ticks)
