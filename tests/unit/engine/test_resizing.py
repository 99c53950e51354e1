"""Numbers of threads that a changed setting takes up: more at once, and fewer after what has begun."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from r2fs.engine.content.jobs import SlottedQueue
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore
from tests.support.probes import taken


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Gauge:
    """Work that lasts until it is let go; counts how much of it is under way."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self.running = self.most = self.allowed = 0
        self.by: set[str] = set()  # names of the threads at work

    def __call__(self) -> None:
        name = threading.current_thread().name
        with self._free:
            self.running += 1
            self.by.add(name)
            self.most = max(self.most, self.running)
            assert self._free.wait_for(lambda: self.allowed, 30)
            self.allowed -= 1
            self.by.discard(name)
            self.running -= 1

    def let_go(self, count: int) -> None:
        with self._free:
            self.allowed += count
            self._free.notify_all()


@pytest.fixture
def queue() -> Iterator[SlottedQueue]:
    made = SlottedQueue(2)
    yield made
    made.stop(made.threads)


def start(queue: SlottedQueue, count: int) -> None:
    for _ in range(count):
        threading.Thread(target=queue.run, daemon=True).start()


def test_a_queue_runs_more_and_fewer(queue: SlottedQueue) -> None:
    gauge = Gauge()
    start(queue, 2)
    for _ in range(12):
        queue.submit(gauge)
    until(lambda: gauge.running == 2)
    queue.resize(5)
    assert queue.threads == 5
    start(queue, 3)
    until(lambda: gauge.running == 5)
    queue.resize(1)
    assert queue.threads == 5, "those above the limit wait"
    gauge.let_go(4)
    until(lambda: gauge.running == 1)
    gauge.most = 0
    gauge.let_go(7)
    until(lambda: gauge.running == 1 and taken(queue) == 1)
    assert gauge.most <= 1
    gauge.let_go(1)


def test_threads_that_wait_for_a_job_give_their_slots_back(queue: SlottedQueue) -> None:
    gauge = Gauge()
    start(queue, 2)
    until(lambda: taken(queue) == 2)
    queue.resize(1)
    until(lambda: taken(queue) == 1)
    for _ in range(2):
        queue.submit(gauge)
    until(lambda: gauge.running == 1)
    time.sleep(0.05)
    assert gauge.running == 1
    gauge.let_go(2)


class Slow(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.gauge = Gauge()

    def put(self, *args: Any, **named: Any) -> str:
        self.gauge()
        return super().put(*args, **named)


@pytest.fixture
def store() -> Slow:
    return Slow()


def change(engine: Engine, **changes: int) -> None:
    """As a reload does it."""
    before = {name for name, _ in engine.fs.workers()}
    engine.fs.change_settings(replace(engine.fs.settings, **changes))  # type: ignore[arg-type]
    for name, work in engine.fs.workers():
        if name not in before:
            threading.Thread(target=work, name=name, daemon=True).start()


def test_uploads_run_more_and_fewer_at_once(make: MakeEngine, store: Slow) -> None:
    engine = make(upload_threads=1)
    for number in range(20):
        engine.write(f"{number}", b"x")
    until(lambda: store.gauge.running == 1)
    change(engine, upload_threads=4)
    until(lambda: store.gauge.running == 4)
    change(engine, upload_threads=1)
    while store.gauge.by - {"upload-0"}:  # which goes on with others meanwhile
        store.gauge.let_go(1)
        until(lambda: not store.gauge.allowed)
    until(lambda: store.gauge.running == 1)
    store.gauge.most = 0
    store.gauge.let_go(19 - len(store.keys()))
    until(lambda: len(store.keys()) == 19)
    assert store.gauge.most <= 1
    change(engine, upload_threads=2)
    engine.write("last", b"x")
    until(lambda: store.gauge.running == 2)
    store.gauge.let_go(10)
    engine.drain()


def test_downloads_take_up_another_number(make: MakeEngine) -> None:
    engine = make(download_threads=4, part_threads=2)
    threads = engine.downloads.threads
    change(engine, download_threads=6, part_threads=3)
    assert (engine.downloads.limit, engine.downloads.threads) == (6, threads + 2)
    assert (engine.parts.limit, engine.parts.threads) == (3, 3)
    change(engine, download_threads=1, part_threads=1)
    assert (engine.downloads.limit, engine.downloads.threads) == (1, threads + 2)
    engine.write("a", b"x" * 10)
    engine.store.gauge.let_go(1)
    engine.drain()
    assert engine.read("a") == b"x" * 10
