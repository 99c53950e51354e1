"""Upload worker: the loop of the upload threads.

Owns:    claimed tasks without a thread; the choice of the thread for a task.
Never:   decides or prepares a request (`writeback/preparation.py`).
Threads: `work` is the main of each upload thread; tasks without bytes to move run on the threads of `copies`.
Locks:   methods named _locked need Core.lock (30), and the others take it; none is held while a task runs.
Fails:   never: the error of a task is logged, and the thread continues.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from threading import Condition

from r2fs.engine.content.jobs import JobQueue
from r2fs.engine.inodes.core import Core
from r2fs.engine.writeback.preparation import Copy, Preparation, Task
from r2fs.engine.writeback.queue import UploadQueue

log = logging.getLogger(__name__)

COPY_THREADS = 16  # copies inside the bucket at once: a directory's rename is thousands
TOGETHER = 8  # small files claimed in a transaction, or half the number of threads


class Worker:
    def __init__(self, core: Core, queue: UploadQueue, preparation: Preparation) -> None:
        # constant
        self._core = core
        self._queue = queue
        self._preparation = preparation
        self.copies = JobQueue()  # for COPY_THREADS threads
        # added with Core.lock held, and taken by any thread without
        self._claimed: deque[Task] = deque()
        # guarded by: Core.lock
        self._copying = 0  # copies handed on and not ended
        self._resized = Condition(self._core.lock)  # threads above `upload_threads` wait for it

    # ------------------------------------------------------------------ the threads
    def work(self, number: int = 0) -> None:
        """Run tasks. `number`: of the thread; those from `upload_threads` on wait for a change of the settings."""
        while (task := self._next(number)) is not None:
            if isinstance(task, Copy) and self._hand_on(task):
                continue
            try:
                task()
            except Exception:  # a defect: logged, and the thread continues
                log.exception("an upload thread met an unexpected error")

    def _hand_on(self, task: Copy) -> bool:
        """Give the task to a thread of `copies`: a copy takes round trips, and no bandwidth. False: none is free."""
        with self._core.lock:
            if self._copying >= COPY_THREADS:
                return False
            self._copying += 1

        def run() -> None:
            try:
                task()
            finally:
                with self._core.lock:
                    self._copying -= 1

        if self.copies.submit(run):
            return True
        with self._core.lock:
            self._copying -= 1
        return False

    def stop(self) -> None:
        """End each thread after its task; requests on their way are cut off."""
        with self._core.lock:
            self._core.stopping = True
            self._core.ended.set()
            self._queue.stop_all_locked()
            self._core.changed.notify_all()
            self._resized.notify_all()
        self.copies.stop(COPY_THREADS)

    def resize(self) -> None:
        """Take up a change of `upload_threads`. Tasks under way end."""
        with self._core.lock:
            self._resized.notify_all()
            self._queue.waiting.changed.notify_all()

    def _next(self, number: int = 0) -> Task | None:
        if number < self._core.settings.upload_threads and (task := self._taken()) is not None:
            return task
        with self._core.lock:
            while not self._core.stopping:
                if number >= self._core.settings.upload_threads:
                    self._queue.waiting.changed.notify()  # it may have been woken up for an item
                    self._resized.wait()
                    continue
                if not self._claimed:
                    due = self._queue.quiet_at_locked() or self._queue.next_due()
                    wait_s = None if due is None else due - self._core.clock.monotonic()
                    if wait_s is None or wait_s > 0:
                        self._queue.waiting.changed.wait(wait_s)
                        continue
                if (task := self.take_due()) is not None:
                    return task
            return None

    def take_due(self) -> Task | None:
        """Claim due items; return a task, for the caller to run. None: no item is due."""
        with self._core.lock:
            if self._claimed and (task := self._taken()) is not None:
                return task
            self._claim_locked()
            task = self._taken()
            if task is not None:  # a thread for each of the others, and one that waits for the next item
                more = self._queue.next_due() is not None
                self._queue.waiting.changed.notify(len(self._claimed) + more)
            return task

    def _taken(self) -> Task | None:
        with suppress(IndexError):
            return self._claimed.popleft()
        return None

    def _claim_locked(self) -> None:
        """Claim the next due item, or small files together."""
        self._core.assert_held()
        now = self._core.clock.monotonic()
        if (task := self._queue.take_postponed_locked(now)) is not None:
            self._claimed.append(task)
        most = max(1, min(TOGETHER, self._core.settings.upload_threads // 2))
        while not self._claimed and (item := self._queue.take_locked(now)) is not None:
            items, small = [item], self._preparation.is_small_locked(item)
            while small and len(items) < most and (item := self._queue.take_locked(now)) is not None:
                items.append(item)
                small = self._preparation.is_small_locked(item)
            alone = [] if small or len(items) == 1 else [items.pop()]
            for group in (items, alone):
                self._claimed.extend(self._preparation.prepare_locked(group, now) if group else ())
