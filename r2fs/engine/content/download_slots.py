"""Downloads: the queue of GETs, of which no more than so many run at once, those that crawl not counted.

Owns:    the slots. A job that brings less than CRAWL gives its slot back, and goes on beside the others, on one of
         SPARE threads more; where these are used up as well, the one that has crawled the longest ends.
Never:   starts a thread; judges a job that nobody waits for.
Threads: every method is thread-safe; `run` is the main of `limit` + SPARE threads.
Locks:   `_free` (leaf), a condition: for a few assignments, and to wait for a slot.
Fails:   `moved` raises TooSlow in the thread of a job that has to end.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Condition, get_ident

from r2fs.engine.jobs import Job, JobQueue
from r2fs.model.errors import TooSlow
from r2fs.model.ports import Clock

SPARE = 16  # threads for what crawls
CRAWL = (
    32 << 10
)  # bytes a second: several times a voice's stream; a line of 2 Mbit/s gives eight downloads as much
CRAWL_S = 5.0  # for so long, before a job counts as crawling


@dataclass(slots=True, eq=False)
class _Slot:
    """One job that runs. guarded by: DownloadQueue._free; `moved` is written by its own thread."""

    since_s: float  # of the stretch that is judged next
    moved: int = 0  # bytes, of all of it
    before: int = 0  # bytes, of the stretches before
    crawls: bool = False
    has_to_end: bool = False


class DownloadQueue(JobQueue):
    def __init__(self, limit: int, clock: Clock) -> None:
        super().__init__()
        # constant
        self._limit = limit
        self._clock = clock
        # guarded by: _free
        self._free = Condition()
        self._taken = 0  # slots: threads that run a job, or wait for one, but for those whose job crawls
        self._running: dict[int, _Slot] = {}  # by thread; in the order in which they began

    @property
    def threads(self) -> int:
        return self._limit + SPARE

    def run(self) -> None:
        while True:
            with self._free:
                while self._taken >= self._limit and not self._stopped:
                    self._free.wait()
                self._taken += 1
            try:
                if not self._do_next():
                    return
            finally:
                with self._free:
                    self._taken -= 1
                    self._free.notify()

    def stop(self, threads: int) -> None:
        super().stop(threads)
        with self._free:
            self._free.notify_all()

    def _do(self, job: Job) -> None:
        slot = _Slot(self._clock.monotonic())
        with self._free:
            self._running[get_ident()] = slot
        try:
            job()
        finally:
            with self._free:
                del self._running[get_ident()]
                self._taken += slot.crawls  # as if it had had a slot all the time: `run` gives it back

    def moved(self, count: int) -> None:
        """So many bytes came, in this thread's job."""
        slot = self._running.get(get_ident())
        if slot is None:  # not one of this queue's threads
            return
        slot.moved += count
        if slot.has_to_end:
            raise TooSlow("it came too slowly, and others need its place")

    def relieve(self) -> None:
        """Somebody waits for a job: what crawls is not to be what it waits for."""
        now_s = self._clock.monotonic()
        with self._free:
            if self._taken < self._limit:
                return
            for slot in self._running.values():
                took_s = now_s - slot.since_s
                if slot.crawls or took_s < CRAWL_S:
                    continue
                if slot.moved - slot.before < CRAWL * took_s:
                    slot.crawls = True
                    self._taken -= 1
                    self._free.notify()
                slot.since_s, slot.before = now_s, slot.moved
            crawling = [slot for slot in self._running.values() if slot.crawls]
            for slot in crawling[: max(0, len(crawling) - SPARE)]:
                slot.has_to_end = True
