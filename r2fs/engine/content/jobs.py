"""Work queues: slow work for threads that `r2fs/daemon/threads.py` starts; and the queue of downloads, with slots.

Owns:    the order: urgent jobs before jobs ahead of need, before slow ones, then first in, first out; how many jobs run
         at once.
Never:   starts a thread; swallows an error: a job that raises is logged with its traceback.
Threads: every method is thread-safe; `run` is the main function of the threads.
Locks:   `_lock` (leaf); `_free` (leaf), a condition: for a few assignments, and to wait for a slot.
Fails:   `DownloadQueue.moved` raises TooSlow in the thread of a download that must end.

A download slower than CRAWL gives its slot back and continues on one of SPARE further threads. If all of these are
in use, the one that has crawled longest ends. Downloads that no reader waits for are not judged.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Condition, Lock, get_ident

from r2fs.model import causes
from r2fs.model.causes import Cause
from r2fs.model.errors import TooSlow
from r2fs.model.flow import Flow, flowing
from r2fs.model.ports import Clock

log = logging.getLogger(__name__)

URGENT, AHEAD, SLOW = 0, 1, 2  # SLOW: a program with a rule waits, and others do not

SPARED = 2  # slots that SLOW jobs leave
SPARE = 16  # threads for slow downloads
# Bytes a second: several times a voice's stream. A line of 2 Mbit/s gives eight downloads as much.
CRAWL = 32 << 10
CRAWL_S = 5.0  # period over which a download's rate is judged

Job = Callable[[], None]


class JobQueue:
    def __init__(self) -> None:
        # constant
        # an item for each job, and for each thread that has to end
        self._queued: SimpleQueue[None] = SimpleQueue()
        # guarded by: _lock
        self._lock = Lock()
        self._jobs: tuple[deque[tuple[Job, Cause]], ...] = (deque(), deque(), deque())  # by priority
        self._stopped = False

    def submit(self, job: Job, priority: int = URGENT) -> bool:
        """Queue a job, to be done for the cause of this thread. False: the threads are about to end, and will not do it."""
        cause = causes.now()
        if priority == AHEAD:
            cause = cause._replace(purpose=causes.AHEAD)
        with self._lock:
            if not self._stopped:
                self._jobs[priority].append((job, cause))
                self._queued.put(None)
            return not self._stopped

    @property
    def has_urgent(self) -> bool:
        """True if a reader's job waits for a thread."""
        return bool(self._jobs[URGENT])

    def stop(self, threads: int) -> None:
        """End each of `threads` after the jobs queued so far; later ones are refused."""
        with self._lock:
            self._stopped = True
            for _ in range(threads):
                self._queued.put(None)

    def run(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        self._queued.get()
        with self._lock:
            first = next((jobs for jobs in self._jobs if jobs), None)
            if first is None:
                return False
            job, cause = first.popleft()
        try:
            with causes.caused_by(cause):
                self._do(job)
        except Exception:
            log.exception("a background job failed")
        return True

    def _do(self, job: Job) -> None:
        job()


@dataclass(slots=True, eq=False)
class _Slot:
    """State of a running download. guarded by: DownloadQueue._free; `moved` is written by its own thread."""

    since_s: float  # begin of the period that is judged next, later by `flow.held_s`
    flow: Flow  # constant
    moved: int = 0  # bytes downloaded so far
    before: int = 0  # bytes downloaded before `since_s`
    crawls: bool = False
    has_to_end: bool = False


class SlottedQueue(JobQueue):
    """Queue with `limit` running jobs at most, on as many threads or more."""

    spare = 0  # threads above the limit

    def __init__(self, limit: int) -> None:
        super().__init__()
        # guarded by: _free
        self._free = Condition()
        self._limit = limit
        self._most = limit  # so far
        self._taken = 0  # slots: threads that run a job or wait for one, but for those with a slow job

    @property
    def limit(self) -> int:
        """Number of jobs at once."""
        return self._limit

    @property
    def threads(self) -> int:
        """Number of threads of the queue: after a lower limit, surplus threads wait."""
        return self._most + self.spare

    def resize(self, limit: int) -> None:
        """Set another limit. Jobs that have begun end; the threads of a higher one are the caller's to start."""
        with self._free:
            surplus, self._limit = self._limit - limit, limit
            self._most = max(self._most, limit)
            self._free.notify_all()
        for _ in range(surplus):
            self.submit(_nothing)  # a thread that waits for a job keeps its slot until it has had one

    def run(self) -> None:
        while True:
            with self._free:
                while self._taken >= self._limit and not self._stopped:
                    self._free.wait()
                self._taken += 1
            try:
                while self._do_next():
                    if self._taken > self._limit:  # read without the lock: looked at again after the next job
                        break
                else:
                    return
            finally:
                with self._free:
                    self._taken -= 1
                    self._free.notify()

    def stop(self, threads: int) -> None:
        super().stop(threads)
        with self._free:
            self._free.notify_all()


def _nothing() -> None:
    pass


class DownloadQueue(SlottedQueue):
    spare = SPARE

    def __init__(self, limit: int, clock: Clock) -> None:
        super().__init__(limit)
        # constant
        self._clock = clock
        # guarded by: _free
        self._running: dict[int, _Slot] = {}  # by thread; in order of their begin
        self._slow = 0  # SLOW jobs queued or running
        self._slow_later: deque[tuple[Job, Cause]] = deque()

    def submit(self, job: Job, priority: int = URGENT) -> bool:
        """Queue a job. Of SLOW jobs no more than `limit` less SPARED run at once."""
        if priority != SLOW:
            return super().submit(job, priority)
        with self._free:
            if self._slow >= max(1, self._limit - SPARED):
                self._slow_later.append((job, causes.now()))
                return not self._stopped
            self._slow += 1
        return super().submit(partial(self._do_slow, job), SLOW)

    def _do_slow(self, job: Job) -> None:
        try:
            job()
        finally:
            with self._free:
                self._slow -= 1
                later = self._slow_later.popleft() if self._slow_later else None
            if later is not None:
                with causes.caused_by(later[1]):
                    self.submit(later[0], SLOW)

    def _do(self, job: Job) -> None:
        slot = _Slot(self._clock.monotonic(), Flow())
        with self._free:
            self._running[get_ident()] = slot
        try:
            with flowing(slot.flow):
                job()
        finally:
            with self._free:
                del self._running[get_ident()]
                self._taken += slot.crawls  # as if it had kept its slot: `run` gives it back

    def moved(self, count: int) -> None:
        """Count `count` bytes downloaded by this thread's job. Raises TooSlow if the job must end."""
        slot = self._running.get(get_ident())
        if slot is None:  # a thread of another queue
            return
        slot.moved += count
        if slot.has_to_end:
            raise TooSlow("it came too slowly, and others need its place")

    def relieve(self) -> None:
        """Free slots held by slow downloads: a reader waits for a job."""
        now_s = self._clock.monotonic()
        with self._free:
            if self._taken < self._limit:
                return
            for slot in self._running.values():
                spent_s = now_s - slot.flow.held_s(now_s)  # a limit of our own is no slow server
                took_s = spent_s - slot.since_s
                if slot.crawls or took_s < CRAWL_S:
                    continue
                if slot.moved - slot.before < CRAWL * took_s:
                    slot.crawls = True
                    self._taken -= 1
                    self._free.notify()
                slot.since_s, slot.before = spent_s, slot.moved
            crawling = [slot for slot in self._running.values() if slot.crawls]
            for slot in crawling[: max(0, len(crawling) - SPARE)]:
                slot.has_to_end = True
