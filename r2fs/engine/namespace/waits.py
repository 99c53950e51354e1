"""Waits for listings: how long a program waits for an answer of the bucket.

With a bucket that does not answer (an outage) names are shown as known, without a wait. A directory that an earlier
mount has saved is shown after SAVED_WAIT_S in all for a walk, one of many pages at once; its LIST follows.

Threads: every method is thread-safe. Locks: takes Core.lock for changes; a look at an outage needs none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from r2fs.engine.content.jobs import AHEAD, Job, JobQueue
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node, Refresh
from r2fs.engine.inodes.protected import bucket_of
from r2fs.model.errors import BUCKET_WIDE, R2fsError, Retryable
from r2fs.model.ports import Caller

AWAY = (Retryable, *BUCKET_WIDE)  # errors without information on the directory
NEWS_WAIT_S = 3.0  # limit of the wait for a known directory: a page of LIST takes less
SLICE_S = 1.0  # interval at which a wait checks for interruption
SAVED_WAIT_S = 0.25  # limit of the wait for a directory as an earlier mount has saved it: longer is felt
PAUSE_S = 5.0  # without such a wait; then there is one again
FEW_PAGES = 3  # of LIST, at most: more take longer


class Outages:
    """Buckets that did not answer the last request for a listing or a name."""

    def __init__(self, core: Core) -> None:
        self._core = core
        # guarded by: Core.lock
        self._away: dict[str, bool] = {}  # by bucket: the last request got no answer
        self._assumed = False  # of a bucket without a request so far

    def at_key(self, key: str) -> bool:
        """True if the last request in the key's bucket got no answer."""
        bucket = self._core.settings.bucket
        return self._away.get(bucket.split(key)[0] if bucket.several else "", self._assumed)

    def at(self, node: Node) -> bool:
        """True if the last request in the node's bucket got no answer."""
        return self._away.get(bucket_of(self._core, node), self._assumed)

    def heard_locked(self, node: Node, error: R2fsError | None) -> None:
        """Note the end of a request in the node's bucket."""
        self._core.assert_held()
        self._away[bucket_of(self._core, node)] = isinstance(error, AWAY)

    def wait(
        self,
        caller: Caller,
        refresh: Refresh,
        directory: Node,
        known: bool = True,
        at_most_s: float | None = None,
    ) -> None:
        """Wait for the end of `refresh`, or NEWS_WAIT_S without a page (`read_timeout` if nothing is `known`); in all
        `at_most_s`, whose end is no outage."""
        clock, limit_s = self._core.clock, self._core.settings.read_timeout_s
        if known:
            limit_s = min(NEWS_WAIT_S, limit_s)
        ends_s = None if at_most_s is None else clock.monotonic() + at_most_s
        while not refresh.done.is_set() and not self._core.stopping:
            left_s = (refresh.heard_s + limit_s if ends_s is None else ends_s) - clock.monotonic()
            if left_s <= 0 and ends_s is not None:
                return
            if left_s <= 0:
                self._silent(directory)
                return
            clock.wait(refresh.done, min(left_s, SLICE_S))
            if not refresh.done.is_set():
                caller.about_to_fetch()

    def _silent(self, node: Node) -> None:
        with self._core.lock:
            self._away[bucket_of(self._core, node)] = True

    def assume(self) -> None:
        """Note an outage before the first request."""
        with self._core.lock:
            self._assumed = True

    def assume_none(self) -> None:
        """Wait for the next answers again: a person wants news."""
        with self._core.lock:
            self._away.clear()
            self._assumed = False


class Behind:
    """Saved directories, which are listed one at a time, so that LISTs of a tree cross directories."""

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

    @contextmanager
    def counted(self, limit_s: float | None) -> Iterator[None]:
        """Count the wait of the block, unless the wait has no limit."""
        since_s = self._core.clock.monotonic()
        yield
        if limit_s is not None:
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
