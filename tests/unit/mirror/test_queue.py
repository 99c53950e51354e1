"""The queue of a mirror: one thread for a name, no touch lost, and what is shown of it."""

from __future__ import annotations

import threading

import pytest

from r2fs.mirror.queue import Counts, Item, Verb, WorkQueue
from tests.support.clocks import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def queue(clock: ManualClock) -> WorkQueue:
    return WorkQueue(clock)


def take(queue: WorkQueue) -> Item:
    item = queue.take()
    assert item is not None
    return item


def test_the_first_due_is_the_first_taken(queue: WorkQueue, clock: ManualClock) -> None:
    queue.touch("later", Verb.UPLOAD, 1, in_s=10)
    queue.touch("now", Verb.UPLOAD, 2)
    assert take(queue).name == "now"
    clock.advance(10)
    assert take(queue).name == "later"


def test_no_more_are_worked_on_at_once_than_the_limit(queue: WorkQueue) -> None:
    for name in ("a", "b"):
        queue.touch(name, Verb.UPLOAD, 1)
    queue.resize(1)
    assert take(queue).name == "a"
    taken: list[str] = []
    waiting = threading.Thread(target=lambda: taken.append(take(queue).name))
    waiting.start()
    waiting.join(0.2)
    assert taken == []
    queue.done("a", Counts())
    waiting.join(20)
    assert taken == ["b"]


def test_a_name_touched_while_it_is_worked_on_is_due_again(queue: WorkQueue) -> None:
    queue.touch("a", Verb.UPLOAD, 1)
    assert take(queue).name == "a"
    queue.touch("a", Verb.UPLOAD, 2)
    queue.done("a", Counts(sent=1))
    assert take(queue).name == "a"
    queue.done("a", Counts(sent=1))
    assert len(queue) == 0
    assert queue.counts.sent == 2


def test_a_parked_name_waits_for_a_touch_or_a_person(queue: WorkQueue) -> None:
    queue.touch("a", Verb.UPLOAD, 1)
    queue.park(take(queue).name, "refused")
    view = queue.view((), 0)
    assert (view.files, view.parked, view.failed, view.last_error) == (1, 1, 1, "refused")
    assert [(t.path, t.state, t.reason) for t in view.transfers] == [("a", "parked", "refused")]
    queue.retry()
    assert queue.view((), 0).parked == 1
    queue.retry(["a"], parked=True)
    assert take(queue).hurried
    queue.park("a", "refused")
    queue.touch("a", Verb.UPLOAD, 1)
    assert take(queue).name == "a"


def test_downloads_are_not_what_the_bucket_lacks(queue: WorkQueue) -> None:
    queue.touch("up", Verb.UPLOAD, 5)
    queue.touch("down", Verb.DOWNLOAD, 7)
    queue.touch("gone", Verb.DELETE, 0)
    view = queue.view((), 0)
    assert (view.files, view.bytes, view.deletes) == (1, 5, 1)
    queue.drop_downloads()
    assert sorted(item.name for item in queue.items()) == ["gone", "up"]


def test_a_failed_name_is_tried_later(queue: WorkQueue, clock: ManualClock) -> None:
    queue.touch("a", Verb.UPLOAD, 1)
    queue.later(take(queue).name, 5, "no answer", failed=True)
    assert queue.items()[0].tries == 1
    clock.advance(5)
    assert take(queue).reason == "no answer"


def test_a_stopped_queue_gives_nothing(queue: WorkQueue) -> None:
    queue.touch("a", Verb.UPLOAD, 1)
    queue.stop()
    assert queue.take() is None
    assert not queue.wait(lambda items: False, 10)


def test_a_file_that_was_open_is_waited_for_after_a_touch(queue: WorkQueue) -> None:
    queue.touch("a", Verb.UPLOAD, 1)
    queue.later(take(queue).name, 0.5, is_open=True)
    assert queue.items()[0].is_open
    queue.touch("a", Verb.UPLOAD, 1, in_s=10)
    assert not queue.items()[0].is_open
