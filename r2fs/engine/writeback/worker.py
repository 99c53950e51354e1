"""Upload worker: what an upload thread does for an item that is due.

Owns:    the threads' loop, and one attempt from its claim to its end.
Never:   sends bytes itself (`writeback/upload.py`), says what an answer means (`writeback/resolve.py`), or deletes
         (`writeback/delete_batches.py`).
Threads: `work` is the main of each upload thread, which hand what moves no bytes to the threads of `copies`.
Locks:   Core.lock (30) for every decision; none while a request is on its way. What was decided is checked
         again after: the node may have been renamed, written or unlinked meanwhile.
Fails:   an attempt's error ends in a state: try again later, conflict, or PARKED. Where the journal cannot
         be written, the item or the answer comes again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from r2fs.disk.body import Gate
from r2fs.disk.durable import local_error
from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.stat import facts_of
from r2fs.engine.jobs import JobQueue
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import InodeChange
from r2fs.engine.pending.upload_job import UploadJob
from r2fs.engine.pending.waiting import DELETE, Item
from r2fs.engine.writeback import plan
from r2fs.engine.writeback.bringing import Materializing
from r2fs.engine.writeback.delete_batches import Deletes
from r2fs.engine.writeback.dependencies import keys_of
from r2fs.engine.writeback.kept_metadata import KeptMetadata
from r2fs.engine.writeback.queue import Upload, UploadQueue, is_transient
from r2fs.engine.writeback.resolve import Resolver
from r2fs.engine.writeback.upload import Uploader
from r2fs.model.errors import (
    LocalError,
    NoSpace,
    PreconditionFailed,
    R2fsError,
    StateDamaged,
    Unavailable,
)
from r2fs.model.keys import printable
from r2fs.model.pending import InFlight
from r2fs.model.states import State
from r2fs.model.transitions import claimed, expecting, released

log = logging.getLogger(__name__)

MAPPED_S = 1.0  # how often a file is looked at that a program closed and still has mapped for writing
COPY_THREADS = 16  # copies inside the bucket at once: a directory's rename is thousands of them

Task = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Copy:
    """A task that moves no bytes between here and the bucket."""

    run: Task

    def __call__(self) -> None:
        self.run()


class Worker:
    def __init__(
        self, records: Records, storage: Storage, queue: UploadQueue, deletes: Deletes, uploader: Uploader
    ) -> None:
        # constant
        self._core = records.core
        self._pending = records.pending
        self._attempts = records.attempts
        self._contents = storage.contents
        self._disk_sync = storage.disk_sync
        self._queue = queue
        self._deletes = deletes
        self._uploader = uploader
        self.resolver = Resolver(records, storage, queue, deletes)
        self._kept_metadata = KeptMetadata(records)
        self._materializing = Materializing(records, storage, queue, self.resolver)
        self.copies = JobQueue()  # for COPY_THREADS threads
        # guarded by: Core.lock
        self._copying = 0  # copies handed on, and not ended

    # ------------------------------------------------------------------ the threads
    def work(self) -> None:
        while (task := self._next()) is not None:
            if isinstance(task, _Copy) and self._hand_on(task):
                continue
            try:
                task()
            except Exception:  # a defect: said, and the others go on
                log.exception("an upload thread met an unexpected error")

    def _hand_on(self, task: _Copy) -> bool:
        """To a thread for copies, if one is free: they take round trips, and no bandwidth."""
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
        """Threads return after what they are at; what is on its way is cut off."""
        with self._core.lock:
            self._core.stopping = True
            self._core.ended.set()
            self._queue.stop_all()
            self._core.changed.notify_all()
        self.copies.stop(COPY_THREADS)

    def _next(self) -> Task | None:
        with self._core.lock:
            while not self._core.stopping:
                due = self._queue.quiet_at()
                if due is None:
                    task = self.take_due()
                    if task is not None:
                        return task
                    due = self._queue.next_due()
                wait_s = None if due is None else max(0.0, due - self._core.clock.monotonic())
                self._queue.waiting.changed.wait(wait_s)
            return None

    def take_due(self) -> Task | None:
        """The next task that is due, claimed for the caller, who is to run it. None: nothing is."""
        with self._core.lock:
            now, changed = self._core.clock.monotonic(), self._queue.waiting.changed
            if (postponed := self._queue.take_postponed(now)) is not None:
                changed.notify()  # there may be more that is due
                return postponed
            while (item := self._queue.take(now)) is not None:
                task = None
                try:
                    task = self._task(item, now)
                except (NoSpace, LocalError) as error:
                    self._queue.put_off(item, error)
                except Exception as error:  # a defect: said, and the thread goes on with the others
                    log.exception("%s: could not be prepared for its upload", item)
                    self._queue.put_off(item, error)
                if task is not None:
                    changed.notify()  # there may be more that is due
                    return self._guarded(item, task)
            return None

    def _guarded(self, item: Item, task: Task) -> Task:
        """The task; where the journal cannot be written, it comes again."""

        def run() -> None:
            try:
                task()
            except (NoSpace, LocalError) as error:
                with self._core.lock:
                    self._queue.put_off(item, error)

        return _Copy(run) if isinstance(task, _Copy) else run

    # ------------------------------------------------------------------ one item
    def _task(self, item: Item, now: float) -> Task | None:
        """The task for an item that is due; None: there is nothing to do any more, or it waits."""
        if item.verb == DELETE:
            rows = self._deletes.prepare(item, now)
            return partial(self._deletes.carry_out, rows) if rows else None
        node = self._pending.inodes.get(item.number)
        if node is None or node.pending is None:
            return None
        if node.pending.state is State.PARKED and is_transient(node.pending):
            self._pending.commit(node, released(node.pending, keep_reason=True))
        # It may have been renamed since it was due.
        if node.pending.state is not State.QUEUED or self._queue.rests(node):
            return None
        match plan.plan(node.pending, self._look(node, now)):
            case plan.Park(reason):
                self.resolver.park_queued(node, reason)
            case plan.Hydrate():
                return partial(self._materializing.complete, node)
            case plan.Materialize():
                return self._materializing.task(node)
            case plan.Drop():
                self._queue.implied.drop(node)
            case plan.Wait(token):
                self._queue.block(item, token)
            case plan.Defer(until_s):
                self._queue.add(item, until_s)
            case plan.Send():
                return self._send(node, item, now)
        return None

    def _look(self, node: Node, now: float) -> plan.View:
        """What the plan for a QUEUED inode depends on."""
        pending = node.pending
        assert pending is not None
        missing = content = None
        try:
            content = self._contents.of(node) if pending.changed and pending.staged else None
        except StateDamaged as error:
            missing = str(error)
        implied, kept, child = self._queue.implied, False, None
        blocker = self._queue.dependencies.put_blocker(node)
        if blocker is None and implied.may_do_without(node):
            kept, child = implied.is_kept(node), implied.awaited(node)
        return plan.View(
            now_s=now,
            free_at_s=self._queue.pace.free_at(pending.key),
            sync_failed=node.sync_failed,
            missing=missing,
            incomplete=content is not None and (not content.complete or pending.lists_ranges),
            kept_by_child=kept,
            awaited_child=None if child is None else child.ino,
            blocker=blocker,
            in_ring=blocker is not None
            and self._queue.dependencies.in_a_ring(node, self._materializing.coming),
        )

    def _send(self, node: Node, item: Item, now: float) -> Task | None:
        """Claim it, and the task that sends it."""
        pending = node.pending
        assert pending is not None
        # A delete of what an earlier inode left at the key would take this one's object, too, where
        # both have the same bytes and so the same ETag: overwriting what it was meant for does its work.
        if self._pending.has_deletes(pending.key):
            with self._pending.transaction():
                left_there = self._pending.take_over_deletes(pending.key)
                if left_there is not None and pending.expected_etag is None:  # else it knows of a newer one
                    self._pending.commit(node, expecting(pending, left_there))
        self._pending.keep_bytes(pending.key, by=node)
        fd = None
        if pending.changed and pending.staged is not None:
            fd = self._contents.sealed_fd(node)
            if fd is None:  # a program closed it and still has it mapped: its end is not known yet
                self._queue.add(item, now + MAPPED_S)
                return None
        try:
            job = self._claim(node, fd)
        except BaseException:
            if fd is not None:
                os.close(fd)
            raise
        attempt = partial(self._attempt, node, job)
        return _Copy(attempt) if job.copy else attempt

    # ------------------------------------------------------------------ one attempt
    def _claim(self, node: Node, fd: int | None) -> UploadJob:
        pending = node.pending
        assert pending is not None
        body = None
        if node.carries_body or node.is_dir:
            body = os.fsencode(node.target) if node.target is not None else b""
        copy = not pending.changed and node.base is not None
        size, change = None, InodeChange()
        if fd is not None:
            stat = os.fstat(fd)  # a mapping may have written after the last close
            size, change = stat.st_size, InodeChange(mtime_ns=stat.st_mtime_ns)
        with self._pending.transaction():
            resumed = self._uploader.resumable(node.ino, pending.key, fd)
            attempt = self._attempts.begin(node, pending.key, resumed, node.base if copy else None)
            self._pending.commit(node, claimed(pending, InFlight(attempt, pending.key), size), **change)
        self._queue.implied.needs_object(node)
        upload = Upload(node, attempt, pending.key, Gate())
        self._queue.begin(upload, keys_of(node))
        self._core.crash_point("claimed")

        def sent(count: int) -> None:
            upload.bytes.add(count, self._core.clock.monotonic())

        return UploadJob(
            node.ino, node.kind, pending.key, node.name, attempt, pending.expected_etag, facts_of(node),
            node.metadata_known or node.base is None, node.base_metadata, node.base, copy,
            body, -1 if fd is None else fd, size or 0, upload.gate, sent, self._contents.edits(node),
        )  # fmt: skip

    def _attempt(self, node: Node, claim: UploadJob) -> None:
        begun = False
        try:
            self._disk_sync.before_replacing([claim.key], by=node)
            self._kept_metadata.before_replacing(claim.key, by=node)
            begun = True
            sent = self._uploader.send(claim)
            self._core.crash_point("sent")
        except PreconditionFailed as error:
            self._conclude(node, claim, lambda why=error: self.resolver.refuted(node, claim, why))  # type: ignore[misc]
        except OSError as error:
            ours = local_error(error, claim.key)
            self._conclude(node, claim, lambda: self.resolver.failed(node, claim, ours, begun))
        except R2fsError as error:
            self._conclude(node, claim, lambda why=error: self.resolver.failed(node, claim, why, begun))  # type: ignore[misc]
        except Exception as error:  # a defect: said, and the file is sent again
            log.exception("%s: the upload met an unexpected error", printable(claim.key))
            again = Unavailable(f"{printable(claim.key)}: {error!r}")
            self._conclude(node, claim, lambda: self.resolver.failed(node, claim, again, begun))
        else:
            self._conclude(node, claim, lambda: self.resolver.stored(node, claim, sent.version, sent.facts))

    def _conclude(self, node: Node, claim: UploadJob, decide: Task) -> None:
        """What the answer means. Where the journal cannot be written, the attempt stays open until it can."""
        concluded = True
        try:
            decide()
        except (NoSpace, LocalError) as error:
            with self._core.lock:
                self._queue.say("an upload has ended, and the journal could not be told yet: %s", error)
            concluded = False
        finally:
            with self._core.lock:
                if concluded:
                    if claim.fd >= 0:
                        os.close(claim.fd)
                    self._over(node, claim)
                else:
                    self._queue.postpone(lambda: self._conclude(node, claim, decide))

    def _over(self, node: Node, claim: UploadJob) -> None:
        self._queue.ended(node, claim.attempt)
        self._queue.over({claim.key, claim.base.key} if claim.copy and claim.base else {claim.key})
        self._queue.pace.wrote(claim.key)
        if node.content is not None and not node.handles and not node.sending:
            self._contents.closed(node)
