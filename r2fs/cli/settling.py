"""Take-over window: the time between a daemon's death and its successor's card, without a daemon to ask.

Owns:  the time that a command waits for the end of this window.
Never: waits for a mount without a take-over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from r2fs.daemon import client
from r2fs.daemon.handover import keeper

NOTICED_S = 3.0  # for the holder to notice its daemon's death; milliseconds on an idle machine
STARTED_S = 15.0  # for a daemon that the holder starts again
POLL_S = 0.05


def await_settled(named: Path | None, started: bool, clock: Callable[[], float] = time.monotonic) -> None:
    """Wait until each mount has a daemon, or a holder that has noticed the death of its daemon.

    With `started`, wait also for daemons that holders are starting.
    """
    begun_s = clock()
    while waits := [what for card in _dead(named) if (what := _waits_for(card, started))]:
        if clock() - begun_s > min(waits):
            return
        time.sleep(POLL_S)


def _dead(named: Path | None) -> list[client.Daemon]:
    return [card for card in client.daemons(os.environ, named, dead=True) if not card.alive]


def _waits_for(card: client.Daemon, started: bool) -> float:
    """Seconds worth waiting for a change of this mount; 0 if none is expected."""
    status = keeper.ask(card.socket.with_suffix(".holder"), {"op": "status"})
    if status is None:
        return 0.0
    if status.get("daemon") is not None:  # the dead daemon, or a successor before it has written its card
        return STARTED_S if started else NOTICED_S
    return STARTED_S if started and status.get("starts_it") else 0.0
