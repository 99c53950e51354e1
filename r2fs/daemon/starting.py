"""Starting: what a daemon does once before its threads run, and how a signal ends it there.

Owns:    limits of the process, the wait for a lock that a killed daemon still holds, what a lost bucket is told
         by, and the name of a mount's files in the run directory.
Never:   keeps anything: service.py does.
Fails:   StateLocked; KeyboardInterrupt at SIGINT and Stopped at SIGTERM or SIGHUP, within `interruptible`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from r2fs.disk.journal.journal import Journal
from r2fs.model import mount_record
from r2fs.model.errors import R2fsError, Retryable, StateLocked
from r2fs.model.ports import CrashPoint
from r2fs.model.settings import Settings
from r2fs.store.health import HealthView

log = logging.getLogger(__name__)

POLL_S = 0.02  # how often a lock that is about to come free is tried
DESCRIPTORS = 65536  # far more than a pipeline holds open at once


class Stopped(BaseException):
    """SIGTERM or SIGHUP, before there was anything to stop."""


@contextmanager
def interruptible(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """`signals`, which are blocked, end what is done inside. One that came before ends it at once.

    Whoever waits for a silent server must not have to wait for its timeouts when asked to stop.
    """

    def end(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, end) for number in signals}
    try:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def open_journal(settings: Settings, patience_s: float, crash_point: CrashPoint) -> Journal:
    """The journal; StateLocked where another daemon still has it after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return Journal.open(settings.state_dir, settings.staging_dir, crash_point)
        except StateLocked:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def raise_descriptor_limit() -> None:
    """Open files, staged files and files that rest each hold a descriptor: as many as this user may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def tell_health(view: HealthView) -> None:
    """Once when the bucket is lost, and once when it is back: who reads the log counts on both."""
    if view.answers:
        log.warning("the bucket answers again, after %.0f s", view.for_s)
    else:
        log.warning(
            "the bucket does not answer: what is written is kept here and sent later: %s", view.reason
        )


def socket_name(settings: Settings) -> str:
    """One for each state directory: that is what only one daemon can have."""
    state = hashlib.sha256(os.fsencode(settings.state_dir)).hexdigest()
    return f"{settings.state_dir.name}-{state[:6]}"


def answers(store: Any, settings: Settings) -> bool:
    """Raises what is wrong with the bucket. False: it does not answer, and an earlier mount has left what can be
    used without it; only then, since a wrong endpoint does not answer either."""
    try:
        store.check()
    except Retryable as error:
        if not (settings.state_dir / mount_record.NAME).exists():
            raise
        log.warning("mounted without the bucket, from what is kept here: %s", error)
        return False
    return True


def check_late(store: Any) -> None:
    """After a take-over: a bucket that does not answer just now is no reason to leave programs waiting."""
    try:
        store.check()
    except R2fsError as error:
        log.error("the bucket cannot be used as it should: %s", error)
