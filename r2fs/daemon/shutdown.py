"""Shutdown: ends the daemon's parts in order, once.

The order: take-over → uploads → engine's threads → store, cache, journal → outcome to the clients that wait → control
socket. stopping.py decides when, and how long uploads may take.

Threads: run() from two, the driver's and the one that detached a busy mount: the second waits for the first.
Locks:   _lock (no rank), held for the whole of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack

from r2fs.daemon import state_directories
from r2fs.daemon.control import ControlServer
from r2fs.daemon.parts import Parts
from r2fs.daemon.stopping import Stopping, count_left, exit_code, left_text
from r2fs.daemon.threads import Threads
from r2fs.model import amounts
from r2fs.model.errors import MountError
from r2fs.model.views import QueueView

log = logging.getLogger(__name__)

WORKERS_END_S = 15.0  # a thread that is in a request ends with it; the bytes that it sends are journalled
LAST_ANSWERS_S = 3.0  # for clients of the control socket, before it is closed
LATE_END_S = 3.0  # likewise, when the time for uploads is over: a request that is cut off is made again
RESTART_END_S = 3.0  # programs wait for the successor: a request that is cut off is made again


def threads_end_s(left: QueueView) -> float:
    """Longest wait for threads in a request. With changes left, the time for uploads is over, and requests that are cut
    off are made again by the next daemon."""
    return LATE_END_S if count_left(left) else WORKERS_END_S


class Shutdown:
    """`closing` closes store, cache, engine and journal, in the opposite order of their building."""

    def __init__(
        self, parts: Parts, stopping: Stopping, control: ControlServer, threads: Threads, closing: ExitStack
    ) -> None:
        # constant
        self._parts = parts
        self._stopping = stopping
        self._control = control
        self._threads = threads
        self._closing = closing
        # guarded by: _lock
        self._lock = threading.Lock()
        self._code: int | None = None

    def run(self) -> int:
        """Drain and close everything, once; return the exit code."""
        with self._lock:
            if self._code is None:
                self._code = self._run()
            return self._code

    def _run(self) -> int:
        self._parts.takeover.end()
        self._tell_limit()
        left = self._stopping.drain(self._parts.engine)
        self._stop_threads(threads_end_s(left))
        self._control.withdraw()
        self._closing.close()
        self._log_outcome(left)
        self._stopping.finish(left)
        self._control.finish(LAST_ANSWERS_S)
        return exit_code(left)

    def _tell_limit(self) -> None:
        """Say why it may take long: a limit of bandwidth holds until the end, for others share the line."""
        limit = self._parts.store.bandwidth.up.view()
        if limit.rate is not None and count_left(self._parts.engine.queue_view()):
            log.info(
                "uploads are held to %s a second (upload_limit); r2fs limit DIR --up off lifts that",
                amounts.size(limit.rate),
            )

    def _stop_threads(self, limit_s: float) -> None:
        def stop() -> None:
            self._parts.engine.stop()
            self._parts.store.bandwidth.lift()  # no body is sent any more: those that wait for their turn find out

        self._threads.stop(stop, limit_s)

    def _log_outcome(self, left: QueueView) -> None:
        if not count_left(left):
            log.info("everything is in the bucket")
            state_directories.forget(self._parts.settings, self._parts.environ)
            return
        log.warning("not in the bucket: %s; kept, and sent at the next mount", left_text(left, parked=True))

    def abandon(self) -> None:
        """Close everything after a start that failed: nothing is pending."""
        with self._lock:
            self._code = MountError.exit_code
            if not self._parts.adopted:
                self._parts.driver.unmount(lazy=True)  # serve() may have failed after it had mounted
                self._parts.takeover.end()
            self._stop_threads(WORKERS_END_S)
            self._control.finish(LAST_ANSWERS_S)

    def succeed(self, execute: Callable[[], None]) -> None:
        """Close everything but the session, and call `execute`, which becomes the next daemon. Does not return.

        The lock stays held until then: no other thread may begin the final shutdown.
        """
        with self._lock:
            self._stop_threads(RESTART_END_S)
            self._control.withdraw()
            self._closing.close()
            self._control.finish(LAST_ANSWERS_S)
            execute()
