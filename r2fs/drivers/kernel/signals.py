"""Does the process behind an INTERRUPT want to stop, or was it only told something?

Owns:  that question, answered from /proc.
Never: sends a signal.

The kernel reports any signal to a waiting caller as INTERRUPT, once for each request, and a
request that is answered EINTR ends the program's call with EINTR whether its handler asks for
restarts or not. A Go program gets SIGURG all the time, a shell SIGCHLD: for these a file
system goes on, as a disk does. A program that is being killed, or that somebody wants to stop,
must not wait: only those signals end a request.
"""

from __future__ import annotations

import signal
from typing import Final

STOP: Final = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# A signal that ends its process by default shows as SIGKILL pending on every thread.
STOP_MASK: Final = sum(1 << number - 1 for number in STOP)


def wants_to_stop(pid: int) -> bool:
    """`pid` is a thread's number, as in a request. One that cannot be seen counts as stopping."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
            pending = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
    except OSError:
        return True
    return any(mask & STOP_MASK for mask in pending)
