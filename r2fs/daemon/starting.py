"""Steps of a start before the daemon's threads run, and their interruption by a signal; the heap's bounds.

Fails:   StateLocked; KeyboardInterrupt at SIGINT and Stopped at SIGTERM or SIGHUP, within `interruptible`.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import logging
import os
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from r2fs import __version__
from r2fs.disk.journal.journal import Journal
from r2fs.model import amounts, mount_record
from r2fs.model.errors import R2fsError, Retryable, SettingsError, StateLocked
from r2fs.model.keys import printable
from r2fs.model.ports import CrashPoint
from r2fs.model.settings import Settings
from r2fs.store.health import HealthView

log = logging.getLogger(__name__)

POLL_S = 0.02  # between two tries of a lock that is about to be released
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of mallopt(3)
# Bytes: no less than a READ of 1 MiB takes, or each would be mapped, filled with zeros page by page, and unmapped. glibc
# raises both thresholds by itself, up to 32 MiB.
LARGE_BUFFER = (1 << 20) + (64 << 10)
# Free bytes at the heap's end from which on they are returned: with fewer, each READ would give back its buffer's pages,
# and the next one have them filled with zeros again (measured: a fifth of the daemon's CPU in a cold read).
SPARE_HEAP = 4 * LARGE_BUFFER
SHOWN = 5  # keys in an error
DESCRIPTORS = 65536  # far more than a pipeline holds open at once


class Stopped(BaseException):
    """SIGTERM or SIGHUP before the mount."""


@contextmanager
def interruptible(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Let `signals`, which are blocked, end the body. A signal that is already pending ends it at once.

    A stop must not have to wait for the timeouts of a silent server.
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
    """Open the journal; StateLocked where another daemon still has it after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return Journal.open(settings.state_dir, settings.staging_dir, crash_point)
        except StateLocked:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def raise_descriptor_limit() -> None:
    """Raise the limit of descriptors: each open, staged or idle file holds one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def bound_heap() -> None:
    """Keep freed memory from staying with the process; before any thread is started. Of glibc; elsewhere nothing.

    By default each of some fifty threads has an arena of its own in which the buffers of its downloads stay, and a first
    large buffer raises the sizes from which on memory is returned.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    for parameter, value in (
        (M_ARENA_MAX, 2),
        (M_MMAP_THRESHOLD, LARGE_BUFFER),
        (M_TRIM_THRESHOLD, SPARE_HEAP),
    ):
        mallopt(parameter, value)


def trim_heap() -> None:
    """Give back memory that is free between blocks in use, some MB after downloads. Of glibc; elsewhere nothing."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:
        return
    trim(0)


def freeze_modules() -> None:
    """Leave modules and classes out of all later garbage collections, which begin now: they stay. Before the first inode,
    which may go."""
    gc.freeze()
    gc.enable()


def tell_health(view: HealthView, name: str) -> None:
    """Log once when the bucket is lost, and once when it is back: readers of the log rely on both.

    `name`: of several buckets, the one; else empty.
    """
    bucket = f"the bucket {name}" if name else "the bucket"
    if view.answers:
        log.warning("%s answers again, after %.0f s", bucket, view.for_s)
    else:
        log.warning(
            "%s does not answer: changes are kept on this host and sent later: %s", bucket, view.reason
        )


def check_buckets(journal: Journal, settings: Settings) -> None:
    """Raise SettingsError where the journal has changes of a bucket that is not among those of this mount."""
    bucket = settings.bucket
    if not bucket.members or bucket.every:
        return
    here = {member.name for member in bucket.members}
    rows = journal.read()
    keys = [row.key for row in rows.inodes if row.key is not None]
    keys += [row.key for row in rows.deletes if row.watch_until_s is None]
    left = sorted(key for key in keys if bucket.split(key)[0] not in here)
    if left:
        names = sorted({bucket.split(key)[0] for key in left})
        shown = ", ".join(printable(key) for key in left[:SHOWN]) + (", …" if len(left) > SHOWN else "")
        words = " ".join(f"--bucket {name}" for name in [*sorted(here), *names])
        raise SettingsError(
            f"{amounts.counted(len(left), 'change')} of {', '.join(names)} not sent yet ({shown}), which this mount "
            f"would leave out: mount with {words} until {'it is' if len(left) == 1 else 'they are'} sent"
        )


def socket_name(settings: Settings) -> str:
    """The name of a mount's files in the run directory: one for each state directory, which one daemon locks."""
    state = hashlib.sha256(os.fsencode(settings.state_dir)).hexdigest()
    return f"{settings.state_dir.name}-{state[:6]}"


def card(settings: Settings, target: Path) -> dict[str, object]:
    """The content of the card beside the control socket, by which commands find this daemon."""
    return {
        "pid": os.getpid(),
        "mountpoint": str(target),
        "url": settings.bucket.url,
        "name": settings.name,
        "version": __version__,
        "state_dir": str(settings.state_dir),
        "since": time.time_ns(),  # distinguishes daemons with one pid
    }


def answers(store: Any, settings: Settings) -> bool:
    """Raise the error of an unusable bucket. False: it does not answer, and an earlier mount has left state to use.

    Without such state the silence is an error: a wrong endpoint does not answer either.
    """
    try:
        store.check()
    except Retryable as error:
        if not (settings.state_dir / mount_record.NAME).exists():
            raise
        log.warning("mounted without the bucket, from journal and cache: %s", error)
        return False
    return True


def check_late(store: Any) -> None:
    """Check the bucket after a take-over and log an error: programs must not wait for an answer."""
    try:
        store.check()
    except R2fsError as error:
        log.error("the bucket cannot be used: %s", error)
