"""Quiet: what one system's work leaves to the machine is not in the next one's time.

That is work which goes on behind it, and memory. A virtual machine may give memory that was freed back to
its host, some seconds later (free page reporting): who writes into such a page waits for it ten times as
long as for the copy, and who comes in time and gets pages that somebody has just freed does not. Here two
seconds decided about a factor of ten for the same write(2), on the local disk, too.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

IDLE: Final = 0.9  # share of the processors' time
LOOK_S: Final = 0.25
PATIENCE_S: Final = 10.0  # somebody else's work may never end
LEAST_S: Final = 1.0
REPORTED_S: Final = 4.0  # the kernel reports what has been free for two seconds


class Quiet:
    """Waits for a quiet machine; the less, the more often it was in vain: a busy machine may stay busy."""

    def __init__(self) -> None:
        self.waits = 0
        self.in_vain = 0
        self._in_a_row = 0

    def settle(self) -> None:
        """Return when written pages are on the disk and the processors are idle, or after a while."""
        os.sync()
        self.waits += 1
        end = time.monotonic() + max(LEAST_S, PATIENCE_S / (1 + self._in_a_row))
        before = _times()
        while time.monotonic() < end:
            time.sleep(LOOK_S)
            now = _times()
            if now[0] - before[0] >= IDLE * (now[1] - before[1]):
                self._in_a_row = 0
                return
            before = now
        self.in_vain += 1
        self._in_a_row += 1


def settle_memory() -> None:
    """After Quiet.settle, for work that takes much memory: none is at hand that somebody has just freed."""
    time.sleep(REPORTED_S)


def _times() -> tuple[int, int]:
    """Ticks: idle, and all (proc_stat(5)). Waiting for the disk is not idle."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3], sum(ticks)
