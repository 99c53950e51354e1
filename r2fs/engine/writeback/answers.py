"""Answers: the end of each attempt. Answers of many small files arrive together, and end in a common transaction.

Owns:    successes waiting for Core.lock; an attempt's descriptor, keys and place in the queue until its end.
Never:   decides the meaning of an answer (`writeback/verdict.py`).
Threads: every method; the next holder of the lock resolves all waiting successes.
Locks:   takes Core.lock.
Fails:   never because of the journal: after a failed write the attempt stays open, and the answer is resolved later.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from functools import partial

from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.attempts import UploadJob
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.queue import UploadQueue
from r2fs.engine.writeback.resolve import Answer, Resolver
from r2fs.engine.writeback.success import Stored
from r2fs.engine.writeback.upload import Sent
from r2fs.model.errors import LocalError, NoSpace

log = logging.getLogger(__name__)

TOGETHER = 16  # successes in a transaction: some milliseconds, in which programs wait for the lock
NOT_JOURNALLED = "an upload has ended, and the journal could not be told yet: %s"


class Answers:
    def __init__(self, records: Records, storage: Storage, queue: UploadQueue, resolver: Resolver) -> None:
        # constant
        self._core = records.core
        self._contents = storage.contents
        self._part_hasher = storage.part_hasher
        self._queue = queue
        self._resolver = resolver
        # added by any thread without the lock, and taken with Core.lock held
        self._stored: deque[Stored] = deque()

    def resolve(self, node: Node, job: UploadJob, answer: Answer, begun: bool) -> None:
        """Resolve an answer, and end its attempt. Not `begun`: no request was sent, since a step before it failed."""
        if not isinstance(answer, Sent):
            self._resolve(node, job, answer, begun)
            return
        self._stored.append(Stored(node, job, answer))
        with self._core.lock:
            while self._stored:  # else another thread has resolved the answer
                self._record_locked(list(self._taken_locked()))

    def _taken_locked(self) -> Iterator[Stored]:
        self._core.assert_held()
        for _ in range(TOGETHER):
            if self._stored:
                yield self._stored.popleft()

    def _record_locked(self, stored: list[Stored]) -> None:
        self._core.assert_held()
        if len(stored) > 1:
            try:
                self._resolver.successes.record_locked(stored)
            except (NoSpace, LocalError):  # each alone: the disk may have room for some
                pass
            except Exception:  # a defect of a single answer
                log.exception("%d answers met an unexpected error, and are resolved one by one", len(stored))
            else:
                for each in stored:
                    self._end_locked(each.node, each.job)
                return
        for node, job, sent in stored:
            try:
                self._resolve(node, job, sent, True)
            except Exception:  # a defect: logged, and the others are resolved
                log.exception("an upload's answer met an unexpected error")

    def _resolve(self, node: Node, job: UploadJob, answer: Answer, begun: bool) -> None:
        refusal: Exception | None = None  # of the journal
        try:
            self._resolver.resolve(node, job, answer, begun)
        except (NoSpace, LocalError) as error:
            refusal = error
        finally:
            with self._core.lock:
                if refusal is None:
                    self._end_locked(node, job)
                else:
                    self._queue.log_locked(NOT_JOURNALLED, refusal)
                    self._queue.postpone_locked(partial(self._resolve, node, job, answer, begun))

    def _end_locked(self, node: Node, job: UploadJob) -> None:
        self._core.assert_held()
        if job.fd >= 0:
            self._part_hasher.uploaded(node, job.fd)
            os.close(job.fd)
        self._queue.ended_locked(node, job.attempt)
        self._queue.over_locked({job.key, job.base.key} if job.copy and job.base else {job.key})
        self._queue.pace.wrote(job.key)
        if not node.sending:
            self._contents.close_unused(node)
