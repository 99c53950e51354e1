"""Preparation: a due item becomes a task; for an upload, its attempt from the claim to the end of its request.

Owns:    the way from an item through its plan to a claim in the journal, for several items in a common transaction.
Never:   sends bytes (`writeback/upload.py`), decides the next action or the meaning of an answer
         (`writeback/plan.py`, `writeback/verdict.py`), or deletes (`writeback/deletes.py`).
Threads: tasks run on the upload threads, and on the threads for copies.
Locks:   methods named _locked need Core.lock (30), and the others take it; none is held while a request is on
         its way. Decisions are checked again after: the node may have been renamed, written or unlinked.
Fails:   an attempt's error ends in a state: another attempt later, conflict, or PARKED. Where the journal cannot
         be written, the item or the answer is repeated.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from r2fs.disk.body import Gate
from r2fs.disk.filecalls import local_error
from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.stat import facts_of
from r2fs.engine.pending.attempts import UploadJob
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import DELETE, PUT, InodeChange, Item
from r2fs.engine.writeback import plan
from r2fs.engine.writeback.deletes import Deletes
from r2fs.engine.writeback.metadata import UnreadMetadata
from r2fs.engine.writeback.queue import Upload, UploadQueue, is_transient
from r2fs.engine.writeback.resolve import Answer, Resolver
from r2fs.engine.writeback.schedule import keys_of
from r2fs.engine.writeback.upload import Uploader
from r2fs.engine.writeback.upload_hydration import UploadHydration
from r2fs.model.causes import Cause, caused_by
from r2fs.model.errors import LocalError, NoSpace, R2fsError, StateDamaged, Unavailable
from r2fs.model.keys import printable
from r2fs.model.pending import InFlight, State
from r2fs.model.transitions import claimed, expecting, released

log = logging.getLogger(__name__)

# Between two looks at a closed file that a program could still write to: as long as it is closed. The kernel drops its
# own descriptor a moment after the last close; a mapping may stay for hours.
CLOSED_S, MAPPED_S = 0.002, 1.0
SMALL = 1 << 20  # bytes: the claims of files below are worth a common transaction

Task = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Copy:
    """A task without bytes to move between this host and the bucket."""

    run: Task

    def __call__(self) -> None:
        self.run()


class Preparation:
    def __init__(
        self, records: Records, storage: Storage, queue: UploadQueue, deletes: Deletes, uploader: Uploader
    ) -> None:
        # constant
        self._core = records.core
        self._pending = records.pending
        self._attempts = records.attempts
        self._contents = storage.contents
        self._staged_files = storage.staged_files
        self._disk_sync = storage.disk_sync
        self._queue = queue
        self._deletes = deletes
        self._uploader = uploader
        self.resolver = Resolver(records, storage, queue, deletes)
        self._unread_metadata = UnreadMetadata(records)
        self._upload_hydration = UploadHydration(records, storage, queue, self.resolver.failed)

    def is_small_locked(self, item: Item) -> bool:
        """True for a small file to be sent, in a mount of a single bucket: several have shares of the threads."""
        self._core.assert_held()
        if item.verb != PUT or self._queue.schedule.several:
            return False
        node = self._pending.inodes.get(item.number)
        pending = node.pending if node is not None else None
        return (
            pending is not None
            and pending.state is State.QUEUED
            and pending.changed
            and pending.staged is not None
            and pending.size < SMALL
        )

    def prepare_locked(self, items: Sequence[Item], now: float) -> list[Task]:
        """Return the tasks of due items, all claimed in a common transaction; after a failure, each alone."""
        self._core.assert_held()
        try:
            with self._pending.transaction if len(items) > 1 else nullcontext():
                tasks = [self._task_locked(item, now) for item in items]
            return [task for task in tasks if task is not None]
        except (NoSpace, LocalError) as error:
            failure: Exception = error
        except Exception as error:  # a defect: logged, and the thread continues
            log.exception("%s: could not be prepared for its upload", items)
            failure = error
        if len(items) > 1:
            return [task for item in items for task in self.prepare_locked([item], now)]
        self._queue.put_off_locked(items[0], failure)
        return []

    # ------------------------------------------------------------------ one item
    def _task_locked(self, item: Item, now: float) -> Task | None:
        """The task for a due item; None: the item is done, or waits."""
        self._core.assert_held()
        if not self._queue.schedule.several:
            return self._begun_locked(item, now)
        bucket = self._queue.schedule.bucket_of(item)  # by its row, which may be gone after
        return self._counted_locked(self._begun_locked(item, now), bucket)

    def _begun_locked(self, item: Item, now: float) -> Task | None:
        self._core.assert_held()
        if item.verb == DELETE:
            rows = self._deletes.prepare_locked(item, now)
            return partial(self._or_later, item, partial(self._deletes.carry_out, rows)) if rows else None
        node = self._due_node_locked(item)
        return None if node is None else self._planned_locked(node, item, now)

    def _due_node_locked(self, item: Item) -> Node | None:
        """The QUEUED node of the item; None: sent, removed or opened since the item was added."""
        self._core.assert_held()
        node = self._pending.inodes.get(item.number)
        if node is None or node.pending is None:
            return None
        if node.pending.state is State.PARKED and is_transient(node.pending):
            self._pending.commit(node, released(node.pending, keep_reason=True))
        if node.pending.state is not State.QUEUED or self._queue.is_local_only_locked(node):
            return None
        return node

    def _planned_locked(self, node: Node, item: Item, now: float) -> Task | None:
        """Carry the plan out; return its part without the lock, if any."""
        self._core.assert_held()
        assert node.pending is not None
        keys = keys_of(node)
        match plan.plan(node.pending, self._view_locked(node, keys, now)):
            case plan.Park(reason):
                self.resolver.failed.park_queued_locked(node, reason)
            case plan.Step.HYDRATE:
                return partial(self._or_later, item, partial(self._upload_hydration.complete, node))
            case plan.Step.MATERIALIZE:
                return partial(self._or_later, item, self._upload_hydration.task(node))
            case plan.Step.DROP:
                self._queue.implied.drop_locked(node)
            case plan.Wait(token):
                self._queue.waiting.block(item, token)
            case plan.Defer(until_s):
                self._queue.add_locked(item, until_s)
            case plan.Step.SEND:
                return self._send_locked(node, keys, item, now)
        return None

    def _view_locked(self, node: Node, keys: Collection[str], now: float) -> plan.View:
        """The view for the plan of a QUEUED inode."""
        self._core.assert_held()
        pending = node.pending
        assert pending is not None
        missing = content = None
        if pending.changed and pending.staged is not None:
            content = node.content
            try:
                self._staged_files.require(node)
            except StateDamaged as error:
                missing = str(error)
        implied, dependencies, kept, child = self._queue.implied, self._queue.dependencies, False, None
        blocker = dependencies.put_blocker_locked(node, keys)
        if blocker is None and node.is_dir and implied.may_do_without_locked(node):
            kept, child = implied.is_kept_locked(node), implied.awaited_locked(node)
        return plan.View(
            now_s=now,
            free_at_s=self._queue.pace.free_at(pending.key),
            sync_failed=node.sync_failed,
            missing=missing,
            incomplete=(content is not None and not content.complete)
            or (pending.changed and pending.lists_ranges),
            kept_by_child=kept,
            awaited_child=None if child is None else child.ino,
            crowded=self._queue.crowded_locked(pending.size if pending.changed else 0),
            blocker=blocker,
            in_ring=blocker is not None
            and dependencies.in_a_ring_locked(node, self._upload_hydration.under_way),
        )

    # ------------------------------------------------------------------ one attempt
    def _send_locked(self, node: Node, keys: Collection[str], item: Item, now: float) -> Task | None:
        """Claim the node; return the task for its upload."""
        self._core.assert_held()
        pending = node.pending
        assert pending is not None
        # A delete of an earlier inode's object at the key would take this inode's object, too, if both have the same
        # bytes and so the same ETag: the overwrite does the work of the delete.
        if self._pending.deletes.rows and self._pending.deletes.any_at(pending.key):
            with self._pending.transaction:
                left_there = self._pending.deletes.take_over(pending.key)
                if left_there is not None and pending.expected_etag is None:  # else a newer one is known
                    self._pending.commit(node, expecting(pending, left_there))
        self._pending.keep_bytes(pending.key, by=node)
        fd = None
        if pending.changed and pending.staged is not None:
            fd = self._staged_files.closed_fd(node)
            if fd is None:  # the end of its writes is not known yet
                self._queue.add_locked(item, now + min(max(CLOSED_S, now - node.flushed_s), MAPPED_S))
                return None
        try:
            job = self._claim_locked(node, keys, fd)
        except BaseException:
            if fd is not None:
                os.close(fd)
            raise
        self._pending.on_rollback(partial(self._unclaim_locked, node, job))
        shared = job.expected_etag is not None and self._is_shared_locked(job.key, node)
        cause = Cause(self._core.history.author_locked(node.ino), "upload")
        attempt = partial(self._or_later, item, partial(self._attempt, node, job, shared, cause))
        return Copy(attempt) if job.copy else attempt

    def _claim_locked(self, node: Node, keys: Collection[str], fd: int | None) -> UploadJob:
        """Journal the attempt, and copy its input from the node."""
        self._core.assert_held()
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
        with self._pending.transaction:
            begun, resumed = self._uploader.begun_locked(node.ino, pending.key, fd)
            attempt = self._attempts.begin(node, pending.key, resumed, node.base if copy else None)
            self._pending.commit(node, claimed(pending, InFlight(attempt, pending.key), size), **change)
        if node.is_dir:
            self._queue.implied.needs_object_locked(node)
        upload = Upload(node, attempt, pending.key, size or 0, Gate())
        self._queue.begin_locked(upload, keys)
        self._pending.on_commit(lambda: self._core.crash_point("claimed"))

        def sent(count: int) -> None:
            upload.bytes.add(count, self._core.clock.monotonic())

        return UploadJob(
            node.ino, node.kind, pending.key, keys, node.name, attempt, pending.expected_etag, facts_of(node),
            node.metadata_known or node.base is None, node.base_metadata, node.base, copy,
            body, -1 if fd is None else fd, size or 0, upload.gate, sent, self._contents.edits(node), begun,
        )  # fmt: skip

    def _unclaim_locked(self, node: Node, job: UploadJob) -> None:
        """Undo what a claim has changed in memory: its transaction failed."""
        self._core.assert_held()
        if job.fd >= 0:
            os.close(job.fd)
        self._queue.ended_locked(job)

    def _is_shared_locked(self, key: str, node: Node) -> bool:
        """True if another file began as the object at `key`, so that its bytes or metadata may have to be saved. An
        attempt that expects no object replaces none."""
        self._core.assert_held()
        return self._disk_sync.has_copied(key) or any(
            other is not node for other in self._pending.based_on(key)
        )

    def _attempt(self, node: Node, job: UploadJob, shared: bool, cause: Cause) -> None:
        """Send the job, and resolve its answer."""
        with caused_by(cause):
            self.resolver.resolve(node, job, *self._answer_to(node, job, shared))

    def _answer_to(self, node: Node, job: UploadJob, shared: bool) -> tuple[Answer, bool]:
        """Send the job; return the answer or the error, and whether the job's own request was tried."""
        begun = False
        answer: Answer
        try:
            if shared:
                self._disk_sync.before_replacing([job.key], by=node)
                self._unread_metadata.before_replacing(job.key, by=node)
            begun = True
            answer = self._uploader.send(job)
            self._core.crash_point("sent")
        except OSError as error:
            answer = local_error(error, job.key)
        except R2fsError as error:
            answer = error
        except Exception as error:  # a defect: logged, and the file is sent again
            log.exception("%s: the upload met an unexpected error", printable(job.key))
            answer = Unavailable(f"{printable(job.key)}: {error!r}")
        return answer, begun

    def _counted_locked(self, task: Task | None, bucket: str) -> Task | None:
        """The task, counted among those of its bucket until it ends; in a mount of several buckets."""
        self._core.assert_held()
        if task is None:
            return None
        self._queue.schedule.begin(bucket)
        self._pending.on_rollback(partial(self._queue.schedule.end, bucket))

        def run() -> None:
            try:
                task()
            finally:
                with self._core.lock:
                    self._queue.schedule.end(bucket)
                    self._queue.waiting.changed.notify()

        return Copy(run) if isinstance(task, Copy) else run

    def _or_later(self, item: Item, task: Task) -> None:
        """Run the task; where the journal cannot be written, the item is due again."""
        try:
            task()
        except (NoSpace, LocalError) as error:
            with self._core.lock:
                self._queue.put_off_locked(item, error)
