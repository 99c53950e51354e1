"""Jobs: a queue of slow work, for threads that service.py starts.

Owns:    the order: urgent before ahead-of-need, then first come first served.
Never:   starts a thread; swallows an error: a job that raises is logged with its traceback.
Locks:   self._lock (leaf).
Threads: every method is thread-safe; `run` is the threads' main.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count
from queue import PriorityQueue
from threading import Lock

log = logging.getLogger(__name__)

URGENT, AHEAD = 0, 1
_STOP = 2

Job = Callable[[], None]


class JobQueue:
    def __init__(self) -> None:
        self._queue: PriorityQueue[tuple[int, int, Job | None]] = PriorityQueue()
        self._number = count()
        # guarded by: _lock
        self._lock = Lock()
        self._stopped = False

    def submit(self, job: Job, priority: int = URGENT) -> bool:
        """False: it will not be done, the threads are about to end."""
        with self._lock:
            if not self._stopped:
                self._queue.put((priority, next(self._number), job))
            return not self._stopped

    def stop(self, threads: int) -> None:
        """Each of `threads` ends once the jobs before it are done; there will be no others."""
        with self._lock:
            self._stopped = True
            for _ in range(threads):
                self._queue.put((_STOP, next(self._number), None))

    def run(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        _, _, job = self._queue.get()
        if job is None:
            return False
        try:
            self._do(job)
        except Exception:
            log.exception("a background job failed")
        return True

    def _do(self, job: Job) -> None:
        job()
