"""Threads of the daemon, except a driver's own, and the event that ends them.

Threads: start() from any; stop() once. Threads to join are started before stop().
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)


class Threads:
    def __init__(self) -> None:
        self.ended = threading.Event()  # ends the loops of the service
        self._joined: list[threading.Thread] = []  # appended before stop()
        self._workers: set[str] = set()  # names; changed before the daemon serves, and by the reload

    def start(self, name: str, work: Callable[[], None], joined: bool = False) -> None:
        """Run `work` in a daemon thread: a thread that hangs in a request does not keep the process.

        With `joined`, stop() waits for its end.
        """

        def guarded() -> None:
            try:
                work()
            except Exception:
                log.exception("the thread %s ended by an unexpected error", name)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        if joined:
            self._joined.append(thread)
        thread.start()

    def start_workers(self, workers: Sequence[tuple[str, Callable[[], None]]]) -> None:
        """Start those that do not run yet, by their names. stop() waits for their end."""
        for name, work in workers:
            if name not in self._workers and not self.ended.is_set():
                self._workers.add(name)
                self.start(name, work, joined=True)

    def stop(self, stop_work: Callable[[], None], limit_s: float) -> None:
        """Set `ended`, call `stop_work`, and wait for the joined threads, `limit_s` seconds at most in all."""
        self.ended.set()
        stop_work()
        deadline = time.monotonic() + limit_s
        for thread in self._joined:
            thread.join(max(0.0, deadline - time.monotonic()))
        if alive := [thread.name for thread in self._joined if thread.is_alive()]:
            log.info("still in a request at the end: %s", ", ".join(alive))
