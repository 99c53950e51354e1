"""Lanes: worker threads for requests that have to wait, in groups that cannot starve each other.

Owns:    the threads, which start when they are first needed and then stay.
Never:   knows FUSE.
Threads: submit() from any thread. The workers are daemons: a download that hangs does not keep
         the process from ending.
Locks:   none of its own; never held while a task runs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

log = logging.getLogger(__name__)

Task = Callable[[], None]


class Lane:
    """At most `limit` tasks at once; further ones wait in order."""

    def __init__(self, name: str, limit: int) -> None:
        # constant
        self.name = name
        self._limit = limit
        # thread-safe by themselves
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        # guarded by: _lock
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def submit(self, task: Task) -> None:
        self._tasks.put(task)
        if self._idle.acquire(blocking=False):
            return
        with self._lock:
            if len(self._threads) < self._limit:
                name = f"{self.name}-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def stop(self, deadline: float) -> None:
        """No task starts after those already submitted; waits for them until time.monotonic() is `deadline`."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._tasks.put(None)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except Exception:
                log.exception("%s: a task failed", self.name)
            self._idle.release()
