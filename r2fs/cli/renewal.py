"""Renewal of a grant: a file with the credentials, written anew long before they end, for mounts without a key.

Owns:   the file: mode 0600, replaced as a whole. It stays at the end: mounts go on until its credentials end.
Never:  knows how the credentials are made; ends by a failure once they were made, since the last ones are valid yet.
Fails:  with the error of the first grant, and DirectoryUnusable.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from r2fs.cli import show
from r2fs.model import owned_paths
from r2fs.model.errors import DirectoryUnusable, R2fsError

# A reader of the file (botocore) asks again in the last 15 minutes of a life, and must in the last ten.
SHORTEST_S = 1200
SHARE = 4  # of a life, after which the next begins: three quarters are left at any time
RETRY_S = 30.0
LOOK_S = 60.0  # a host that has slept goes by the time of day
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def renew(make: Callable[[], str], file: Path, life_s: float) -> None:
    """Write what `make` returns to `file`, again and again, until a signal of STOP_SIGNALS."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # process 1 of a container has no default actions
    done = False
    while True:
        wait_s = life_s / SHARE
        try:
            _write(file, make())
            done = True
        except R2fsError as error:
            if not done:
                raise
            show.complain(str(error))
            wait_s = min(RETRY_S, wait_s)
        if _stopped_within(wait_s):
            return


def _stopped_within(seconds: float) -> bool:
    """Wait for a signal. False: by the clock of the day, `seconds` are over."""
    end_s = time.time() + seconds
    while (left_s := end_s - time.time()) > 0:
        if signal.sigtimedwait(STOP_SIGNALS, min(LOOK_S, left_s)) is not None:
            return True
    return False


def _write(file: Path, text: str) -> None:
    try:
        with owned_paths.directory(file.parent) as directory:
            owned_paths.replace_file(directory, file.name, text.encode())
    except OSError as error:
        raise DirectoryUnusable(f"{os.fspath(file)} cannot be written: {error.strerror}") from None
