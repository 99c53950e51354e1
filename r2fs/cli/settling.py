"""Take-over window: between the death of a daemon and its successor's card nobody can be asked.

Owns:  how long a command waits for that to be over.
Never: waits for a mount that nothing takes over: nothing would come.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from r2fs.daemon import client
from r2fs.daemon.handover import keeper

NOTICED_S = 3.0  # for the holder to see that its daemon has gone; milliseconds on a machine that is not busy
STARTED_S = 15.0  # for a daemon that it starts again
POLL_S = 0.05


def await_settled(named: Path | None, started: bool, clock: Callable[[], float] = time.monotonic) -> None:
    """Return once each mount has a daemon, or a holder that knows that it has none; with `started` also wait for
    the daemons that holders are starting."""
    begun_s = clock()
    while waits := [what for card in _dead(named) if (what := _waits_for(card, started))]:
        if clock() - begun_s > min(waits):
            return
        time.sleep(POLL_S)


def _dead(named: Path | None) -> list[client.Daemon]:
    return [card for card in client.daemons(os.environ, named, dead=True) if not card.alive]


def _waits_for(card: client.Daemon, started: bool) -> float:
    """Seconds that the change is worth waiting for; 0: none comes."""
    status = keeper.ask(card.socket.with_suffix(".holder"), {"op": "status"})
    if status is None:
        return 0.0
    if status.get("daemon") is not None:  # the dead one, or a successor that has not yet written its card
        return STARTED_S if started else NOTICED_S
    return STARTED_S if started and status.get("starts_it") else 0.0
