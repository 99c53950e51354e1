"""Jobs: a queue of slow work, for threads that service.py starts.

Owns:    the order: urgent before ahead-of-need, then first come first served.
Never:   starts a thread; swallows an error: a job that raises is logged with its traceback.
Threads: every method is thread-safe; `run` is the threads' main.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count
from queue import PriorityQueue

log = logging.getLogger(__name__)

URGENT, AHEAD = 0, 1
_STOP = 2

Job = Callable[[], None]


class JobQueue:
    def __init__(self) -> None:
        self._queue: PriorityQueue[tuple[int, int, Job | None]] = PriorityQueue()
        self._number = count()

    def submit(self, job: Job, priority: int = URGENT) -> None:
        self._queue.put((priority, next(self._number), job))

    def stop(self, threads: int) -> None:
        """Each of `threads` ends once the jobs before it are done."""
        for _ in range(threads):
            self._queue.put((_STOP, next(self._number), None))

    def run(self) -> None:
        while True:
            _, _, job = self._queue.get()
            if job is None:
                return
            try:
                job()
            except Exception:
                log.exception("a background job failed")
