from __future__ import annotations

import threading
import time

import pytest

from r2fs.drivers.kernel.lanes import Lane


def test_tasks_run_and_threads_stay_within_the_limit() -> None:
    lane, gate, running, most = Lane("lane", 3), threading.Event(), [0], [0]
    lock, done = threading.Lock(), threading.Semaphore(0)

    def task() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        gate.wait(10)
        with lock:
            running[0] -= 1
        done.release()

    for _ in range(10):
        lane.submit(task)
    gate.set()
    for _ in range(10):
        assert done.acquire(timeout=10)
    assert 1 <= most[0] <= 3
    lane.stop(time.monotonic() + 10)


def test_an_idle_thread_is_used_again() -> None:
    lane, names = Lane("lane", 5), set[str]()
    for _ in range(5):
        done = threading.Event()

        def task(done: threading.Event = done) -> None:
            names.add(threading.current_thread().name)
            done.set()

        lane.submit(task)
        assert done.wait(10)
        deadline = time.monotonic() + 10
        while lane._idle._value == 0 and time.monotonic() < deadline:
            time.sleep(0.001)  # until it says that it is idle
    assert names == {"lane-0"}
    lane.stop(time.monotonic() + 10)


@pytest.mark.expect_warnings("a task failed")
def test_a_task_that_fails_ends_nothing() -> None:
    lane, done = Lane("lane", 1), threading.Event()

    def bad() -> None:
        raise ValueError

    lane.submit(bad)
    lane.submit(done.set)
    assert done.wait(10)
    lane.stop(time.monotonic() + 10)


def test_stopping_does_not_wait_for_a_stuck_task() -> None:
    lane, gate = Lane("lane", 1), threading.Event()

    def stuck() -> None:
        gate.wait(30)

    lane.submit(stuck)
    lane.stop(time.monotonic() + 0.01)
    gate.set()
