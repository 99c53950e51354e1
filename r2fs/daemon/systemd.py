"""systemd: readiness, status, watchdog and journal by their documented protocols, without a library.

Owns:  sd_notify(3) datagrams, WATCHDOG_USEC, and the `<3>` prefixes of sd-daemon(3).
Never: starts a thread; fails: a notification that cannot be sent is logged.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from threading import Event

from r2fs.model.ports import Clock

log = logging.getLogger(__name__)

PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class Notifier:
    """Tells the service manager; without NOTIFY_SOCKET every call does nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@name" is a name in the abstract namespace: the kernel wants a NUL there
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environ)

    def ready(self, status: str) -> None:
        # MAINPID: --background under a unit leaves another process than the one that was started
        self._send(READY=1, MAINPID=os.getpid(), STATUS=status)

    def stopping(self, status: str) -> None:
        self._send(STOPPING=1, STATUS=status)

    def extend(self, seconds: float, status: str) -> None:
        """Stopping, and still busy: counts `seconds` from now, whatever TimeoutStopSec says."""
        self._send(EXTEND_TIMEOUT_USEC=int(seconds * 1e6), STATUS=status)

    def watchdog(self) -> None:
        self._send(WATCHDOG=1)

    def _send(self, **fields: object) -> None:
        if not self._address:
            return
        lines = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.connect(self._address)
                to.sendall(lines.encode())
        except OSError as error:
            log.warning("the service manager cannot be told: %s", error)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Seconds within which the manager wants a sign of life from this process."""
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 1e6


def run_watchdog(notifier: Notifier, answers: Callable[[], bool], stop: Event, clock: Clock) -> None:
    """Ping twice in each interval, but only after the mount has answered: a mount that hangs is restarted.

    `answers` may hang; then no ping goes out, which is the point.
    """
    if notifier.watchdog_s is None:
        return
    while not clock.wait(stop, notifier.watchdog_s / 2):
        if answers():
            notifier.watchdog()
        else:
            log.error("the mount does not answer: the service manager gets no sign of life")


class JournalFormatter(logging.Formatter):
    """Prefixes each line with its priority, which journald takes off again."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{PRIORITY.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def stderr_is_journal(environ: Mapping[str, str]) -> bool:
    """JOURNAL_STREAM names the device and inode of the stream that leads to the journal."""
    stream = environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"
