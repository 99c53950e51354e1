"""Behind: saved directories, shown at once and listed behind the programs.

Owns:    the wait for a saved directory: SAVED_WAIT_S in all for a walk, none for a directory of many pages. The order
         of LISTs: one at a time, so LISTs of a tree cross directories (`tree_listing.py`).
Threads: every method is thread-safe. Locks: takes Core.lock.
"""

from __future__ import annotations

from collections import deque
from functools import partial

from r2fs.engine.content.jobs import AHEAD, Job, JobQueue
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Refresh

SAVED_WAIT_S = 0.25  # limit of the wait for a directory as an earlier mount has saved it: longer is felt
PAUSE_S = 5.0  # without such a wait; then there is one again
FEW_PAGES = 3  # of LIST, at most: more take longer


class Behind:
    def __init__(self, core: Core, queue: JobQueue) -> None:
        # constant
        self._core = core
        self._queue = queue
        # guarded by: Core.lock
        self._left_s = SAVED_WAIT_S
        self._waited_s = float("-inf")  # Clock.monotonic(): the end of the last wait
        self._jobs: deque[Job] = deque()
        self._runs = False

    # ------------------------------------------------------------------ the wait
    def wait_s(self, pages: int) -> float:
        """Return the limit of the wait for a saved directory of so many pages."""
        with self._core.lock:
            now = self._core.clock.monotonic()
            if now - self._waited_s > PAUSE_S:
                self._left_s = SAVED_WAIT_S
            self._waited_s = now
            return self._left_s if pages <= FEW_PAGES else 0.0

    def waited(self, since_s: float) -> None:
        """Count a wait that began at Clock.monotonic() `since_s`."""
        with self._core.lock:
            self._waited_s = self._core.clock.monotonic()
            self._left_s = max(0.0, self._left_s - (self._waited_s - since_s))

    # ------------------------------------------------------------------ LISTs
    def add(self, refresh: Refresh, list_it: Job) -> None:
        """Queue `list_it`, to run once, after earlier jobs."""
        with self._core.lock:
            self._jobs.append(partial(self.once, refresh, list_it))
            if self._runs:
                return
            self._runs = True
        self._queue.submit(self._next, AHEAD)

    def once(self, refresh: Refresh, list_it: Job) -> None:
        with self._core.lock:
            begun, refresh.begun = refresh.begun, True
            refresh.heard_s = refresh.heard_s if begun else self._core.clock.monotonic()
        if not begun:
            list_it()

    def _next(self) -> None:
        with self._core.lock:
            job = self._jobs.popleft()
        try:
            job()
        finally:
            with self._core.lock:
                self._runs = bool(self._jobs)
                goes_on = self._runs
            if goes_on:
                self._queue.submit(self._next, AHEAD)
