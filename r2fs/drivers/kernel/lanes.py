"""Lanes: worker threads for requests that have to wait, in groups that cannot starve each other.

Owns:    the threads, which start at their first use and then stay, and the lane of each opcode.
Never:   parses a request.
Threads: submit() from any thread. The workers are daemon threads: a hanging download does not keep
         the process from ending.
Locks:   a lane's own, never held while a task runs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from r2fs.drivers.kernel.wire import Op

log = logging.getLogger(__name__)

Task = Callable[[], None]

# Threads by the awaited resource. The network: a bucket that does not answer fills `cold`, `fetch` and `list`,
# and requests that need this host's disk alone continue. The disk, or uploads above the dirty limit: writers fill
# `open` and `write`, and reads and fsync continue. Threads start at need and cost little when idle.
COLD_THREADS: Final = 48
LIST_THREADS: Final = 32
OPEN_THREADS: Final = 48
FETCH_THREADS: Final = 48
WRITE_THREADS: Final = 32
KEEP_THREADS: Final = 16
NAME_THREADS: Final = 16
FETCH: Final = (Op.READ, Op.LSEEK)
WRITE: Final = (Op.CREATE, Op.WRITE, Op.FLUSH)
KEEP: Final = (
    Op.FSYNC, Op.FSYNCDIR, Op.FALLOCATE, Op.SETATTR, Op.RELEASE, Op.COPY_FILE_RANGE, Op.COPY_FILE_RANGE_64,
)  # fmt: skip
LANE_STOP_S: Final = 1.0  # for requests that still wait after the unmount: their answers are not read


class Lane:
    """At most `limit` tasks at once; further ones wait in order."""

    def __init__(self, name: str, limit: int) -> None:
        # constant
        self.name = name
        self._limit = limit
        # thread-safe by themselves
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        # guarded by: _lock
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def submit(self, task: Task) -> None:
        self._tasks.put(task)
        if self._idle.acquire(blocking=False):
            return
        with self._lock:
            if len(self._threads) < self._limit:
                name = f"{self.name}-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def stop(self, deadline: float) -> None:
        """End the threads after the tasks already submitted; wait for them until time.monotonic() is `deadline`."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._tasks.put(None)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except Exception:
                log.exception("%s: a task failed", self.name)
            self._idle.release()


class Lanes:
    """The lane of each opcode. Lanes are separate by the awaited resource, so that none fills the place of another."""

    def __init__(self) -> None:
        # constant
        self._open = Lane("fuse-open", OPEN_THREADS)
        self._fetch = Lane("fuse-fetch", FETCH_THREADS)
        self._write = Lane("fuse-write", WRITE_THREADS)
        self._keep = Lane("fuse-keep", KEEP_THREADS)
        self._names = Lane("fuse-names", NAME_THREADS)
        self._cold = Lane("fuse-cold", COLD_THREADS)
        self._far_fetch = Lane("fuse-far", FETCH_THREADS)
        self._list = Lane("fuse-list", LIST_THREADS)
        self.near = self._by_op()  # where a request waits for this host
        self.far = self._far_by_op()  # where a request waits for the network

    def _by_op(self) -> dict[int, Lane]:
        lanes = dict.fromkeys(map(int, Op), self._names) | {int(Op.OPEN): self._open}
        for ops, lane in ((FETCH, self._fetch), (WRITE, self._write), (KEEP, self._keep)):
            lanes |= dict.fromkeys(map(int, ops), lane)
        return lanes

    def _far_by_op(self) -> dict[int, Lane]:
        return (
            dict.fromkeys(map(int, Op), self._list)
            | dict.fromkeys((int(Op.OPEN), int(Op.CREATE)), self._cold)
            | dict.fromkeys(map(int, FETCH), self._far_fetch)
        )

    def stop(self) -> None:
        deadline = time.monotonic() + LANE_STOP_S
        near = (self._open, self._fetch, self._write, self._keep, self._names)
        for lane in (*near, self._cold, self._far_fetch, self._list):
            lane.stop(deadline)
