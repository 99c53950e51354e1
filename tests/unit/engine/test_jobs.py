"""The slots of downloads: what crawls leaves its own to others, and does not take all threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from r2fs.engine.content import jobs as downloads
from r2fs.engine.content.jobs import CRAWL, CRAWL_S, DownloadQueue
from r2fs.model.errors import TooSlow
from tests.support.clocks import ManualClock

LIMIT, SPARE = 2, 3


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def queue(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[DownloadQueue]:
    monkeypatch.setattr(downloads, "SPARE", SPARE)
    made = DownloadQueue(LIMIT, clock)
    threads = [threading.Thread(target=made.run, daemon=True) for _ in range(made.threads)]
    for thread in threads:
        thread.start()
    yield made
    made.stop(len(threads))
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


class Body:
    """A download that gives as much as it is told to, until its end."""

    def __init__(self, queue: DownloadQueue) -> None:
        self.queue = queue
        self.begun, self.end = threading.Event(), threading.Event()
        self.give = 0
        self.ended: BaseException | None = None

    def __call__(self) -> None:
        self.begun.set()
        try:
            while not self.end.wait(0.002):
                give, self.give = self.give, 0
                self.queue.moved(give)
        except TooSlow as error:
            self.ended = error


@pytest.fixture
def body(queue: DownloadQueue) -> Iterator[Callable[[], Body]]:
    made: list[Body] = []

    def make() -> Body:
        made.append(Body(queue))
        queue.submit(made[-1])
        return made[-1]

    yield make
    for one in made:
        one.end.set()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_no_more_than_so_many_run_at_once(queue: DownloadQueue, body: Callable[[], Body]) -> None:
    first = [body() for _ in range(LIMIT)]
    until(lambda: all(one.begun.is_set() for one in first))
    late = body()
    queue.relieve()
    assert not late.begun.wait(0.05)
    first[0].end.set()
    assert late.begun.wait(10)


def test_what_crawls_leaves_its_slot_to_others(
    queue: DownloadQueue, clock: ManualClock, body: Callable[[], Body]
) -> None:
    drips = [body() for _ in range(LIMIT)]
    until(lambda: all(one.begun.is_set() for one in drips))
    late = body()
    clock.advance(CRAWL_S)
    queue.relieve()
    assert late.begun.wait(10)
    assert not any(one.ended for one in drips), "they go on beside it"


def test_what_comes_as_fast_as_the_line_is_keeps_its_slot(
    queue: DownloadQueue, clock: ManualClock, body: Callable[[], Body]
) -> None:
    first = [body() for _ in range(LIMIT)]
    late = body()
    for _ in range(4):
        for one in first:
            one.give = round(CRAWL * CRAWL_S)
        until(lambda: not any(one.give for one in first))
        clock.advance(CRAWL_S)
        queue.relieve()
    assert not late.begun.is_set()


def test_slow_jobs_leave_slots_to_others(clock: ManualClock) -> None:
    queue = DownloadQueue(4, clock)
    threads = [threading.Thread(target=queue.run, daemon=True) for _ in range(queue.threads)]
    for thread in threads:
        thread.start()
    slow, urgent = [Body(queue) for _ in range(5)], Body(queue)
    for one in slow:
        assert queue.submit(one, downloads.SLOW)
    until(lambda: sum(one.begun.is_set() for one in slow) == 4 - downloads.SPARED)
    queue.submit(urgent)
    assert urgent.begun.wait(10)
    assert sum(one.begun.is_set() for one in slow) == 4 - downloads.SPARED
    for number, one in enumerate(slow):
        one.end.set()
        until(lambda: all(each.begun.is_set() for each in slow[: number + 2]))  # noqa: B023
    urgent.end.set()
    queue.stop(queue.threads)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_what_a_limit_of_ours_holds_does_not_crawl(
    queue: DownloadQueue, clock: ManualClock, body: Callable[[], Body]
) -> None:
    first = [body() for _ in range(LIMIT)]
    until(lambda: all(one.begun.is_set() for one in first))
    for slot in queue._running.values():
        slot.flow.hold(clock.monotonic())
    late = body()
    for _ in range(4):
        clock.advance(CRAWL_S)
        queue.relieve()
    for slot in queue._running.values():
        slot.flow.go_on(clock.monotonic())
    clock.advance(CRAWL_S / 2)
    queue.relieve()
    assert not late.begun.wait(0.05)
    clock.advance(CRAWL_S / 2)
    queue.relieve()
    assert late.begun.wait(10), "and it is judged by the time that is left"


def test_what_has_crawled_the_longest_ends_where_all_threads_crawl(
    queue: DownloadQueue, clock: ManualClock, body: Callable[[], Body]
) -> None:
    drips: list[Body] = []
    while len(drips) < LIMIT + SPARE:
        drips.append(body())
        until(drips[-1].begun.is_set)
        clock.advance(CRAWL_S)
        queue.relieve()
    assert queue._running.keys()
    late = body()
    until(lambda: drips[0].ended or late.begun.is_set())
    assert late.begun.wait(10)
    assert sum(one.ended is not None for one in drips) <= LIMIT


def test_slots_come_back(queue: DownloadQueue, clock: ManualClock, body: Callable[[], Body]) -> None:
    for _ in range(5):
        drips = [body() for _ in range(LIMIT)]
        until(lambda: all(one.begun.is_set() for one in drips))  # noqa: B023
        clock.advance(CRAWL_S)
        queue.relieve()
        for one in drips:
            one.end.set()
        until(lambda: not queue._running)
    assert queue._taken == LIMIT, "those that wait for a job"


def test_a_readers_job_is_seen_among_those_ahead_of_need(clock: ManualClock) -> None:
    queue = DownloadQueue(LIMIT, clock)
    queue.submit(lambda: None, downloads.AHEAD)
    assert not queue.has_urgent
    queue.submit(lambda: None, downloads.AHEAD)
    queue.submit(lambda: None, downloads.URGENT)
    assert queue.has_urgent
