"""Signals: whether the process behind an INTERRUPT is to stop, or goes on after the signal.

Owns:  this decision, from /proc.
Never: sends a signal.

The kernel reports any signal to a waiting caller as INTERRUPT, once for each request, and a
request that is answered EINTR ends the program's call with EINTR even if its handler asks for
restarts. A Go program gets SIGURG all the time, a shell SIGCHLD: for these a file system
goes on, as a disk does. A program that is being killed or stopped must not wait: only those
signals end a request.
"""

from __future__ import annotations

import signal
from typing import Final

STOP: Final = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# A signal that ends its process by default shows as SIGKILL pending on every thread.
STOP_MASK: Final = sum(1 << number - 1 for number in STOP)


def wants_to_stop(pid: int) -> bool:
    """True if a signal that ends the thread `pid` (as in a request) is pending. An invisible process counts as stopping."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
            pending = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
    except OSError:
        return True
    return any(mask & STOP_MASK for mask in pending)
