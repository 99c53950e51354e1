"""Protocols of systemd, without a library: sd_notify(3), sd_listen_fds(3), watchdog, and priorities for the journal.

A notification that cannot be sent is logged.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from threading import Event
from typing import TYPE_CHECKING

from r2fs.daemon.log_format import JsonFormatter, LineFormatter

if TYPE_CHECKING:  # commands find daemons with this module, and need no engine's values
    from r2fs.model.ports import Clock

log = logging.getLogger(__name__)

PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class ServiceManager:
    """Notifies the service manager; without NOTIFY_SOCKET every call does nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@name" is in the abstract namespace: the kernel wants a NUL for the "@"
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environ)
        size = environ.get("FDSTORE", "")
        self._store_size = int(size) if size.isdigit() else 0

    def ready(self, status: str) -> None:
        # MAINPID: with --background under a unit another process runs than the started one
        self._send(READY=1, MAINPID=os.getpid(), STATUS=status)

    def stopping(self, status: str) -> None:
        self._send(STOPPING=1, STATUS=status)

    def extend(self, seconds: float, status: str) -> None:
        """Report progress while stopping: TimeoutStopSec restarts at `seconds` from now."""
        self._send(EXTEND_TIMEOUT_USEC=int(seconds * 1e6), STATUS=status)

    def watchdog(self) -> None:
        self._send(WATCHDOG=1)

    @property
    def is_there(self) -> bool:
        return bool(self._address)

    @property
    def stores(self) -> bool:
        """True if the manager keeps descriptors for this unit, which systemd shows from version 254 on, our unit before."""
        return bool(self._address) and self._store_size > 0

    def store(self, fd: int, name: str) -> None:
        """Store a descriptor until the unit is stopped: every later start of the unit gets it.

        FDPOLL=0: else the manager would wake at each request of the mount.
        """
        self._send([fd], FDSTORE=1, FDNAME=name, FDPOLL=0)

    def unstore(self, name: str) -> None:
        self._send(FDSTOREREMOVE=1, FDNAME=name)

    def _send(self, fds: Sequence[int] = (), /, **fields: object) -> None:
        if not self._address:
            return
        lines = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.connect(self._address)
                socket.send_fds(to, [lines.encode()], fds)
        except OSError as error:
            log.warning("the service manager gets no message: %s", error)


LISTEN = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
LISTEN_START = 3  # number of the first descriptor passed
LISTEN_DIGITS = 5  # digits of LISTEN_FDS at most: more is no number of descriptors


def handed_over(environ: MutableMapping[str, str], name: str) -> int | None:
    """The descriptor of this name from the service manager, to be closed by the caller. Call once: others are closed."""
    pid, count, names = (environ.pop(variable, "") for variable in LISTEN)
    if pid != str(os.getpid()) or not count.isdigit() or len(count) > LISTEN_DIGITS:
        return None
    found = None
    called = names.split(":")
    for index in range(int(count)):
        fd = LISTEN_START + index
        try:
            os.set_inheritable(fd, False)
        except OSError as error:
            log.warning("LISTEN_FDS says %s, but descriptor %d is not there: %s", count, fd, error.strerror)
            break
        if found is None and index < len(called) and called[index] == name:
            found = fd
        else:
            os.close(fd)
    return found


def hand_over(environ: MutableMapping[str, str], name: str, fd: int) -> None:
    """Pass a descriptor over a following execve(), as the manager passes stored ones."""
    if fd != LISTEN_START:
        os.dup2(fd, LISTEN_START)
    os.set_inheritable(LISTEN_START, True)
    environ.update(zip(LISTEN, (str(os.getpid()), "1", name), strict=True))


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Seconds within which the manager wants a sign of life from this process."""
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 1e6


def run_watchdog(manager: ServiceManager, answers: Callable[[], bool], stop: Event, clock: Clock) -> None:
    """Ping twice in each interval, after each answer of the mount: a mount that hangs gets its daemon restarted.

    `answers` may hang; then no ping is sent, as intended.
    """
    if manager.watchdog_s is None:
        return
    while not clock.wait(stop, manager.watchdog_s / 2):
        if answers():
            manager.watchdog()
        else:
            log.error("the mount does not answer: the service manager gets no sign of life")


class JournalFormatter(LineFormatter):
    """Prefixes each line with its priority, which journald takes off again."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{PRIORITY.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class JournalJsonFormatter(JsonFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"<{PRIORITY.get(record.levelno, 6)}>{super().format(record)}"


def stderr_is_journal(environ: Mapping[str, str]) -> bool:
    """JOURNAL_STREAM names the device and inode of the stream that leads to the journal."""
    stream = environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"
