"""Resolver: ends each attempt by its answer. Successes that wait for the lock share a transaction.

Owns:    the end of a successful attempt: its commit, then content, cache and queue; the number of uploads;
         an attempt's descriptor, keys and place in the queue until its end.
Never:   sends; drops a staged byte missing in the bucket; decides (`writeback/verdict.py`), or ends an attempt that
         stored nothing (`writeback/failed_attempts.py`).
Threads: upload threads, without the lock; the next holder of the lock resolves all waiting successes.
Locks:   takes Core.lock (30); methods named _locked need it. The inode is looked at anew: it may have been renamed,
         written or unlinked while the request was on its way.
Fails:   never because of the journal: after a failed write the attempt stays open, and its answer is resolved later.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.attempts import UploadJob
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback import verdict
from r2fs.engine.writeback.deletes import Deletes
from r2fs.engine.writeback.failed_attempts import FailedAttempts
from r2fs.engine.writeback.metadata import keep_locked, learned_locked
from r2fs.engine.writeback.queue import UploadQueue
from r2fs.engine.writeback.upload import Sent
from r2fs.model import transitions
from r2fs.model.errors import LocalError, NoSpace
from r2fs.model.keys import nfc, printable
from r2fs.model.metadata import Facts
from r2fs.model.pending import State
from r2fs.model.records import Kind, Version

log = logging.getLogger(__name__)

TOGETHER = 16  # successes in a transaction: some milliseconds, in which programs wait for the lock
NOT_JOURNALLED = "an upload has ended, and the journal could not be told yet: %s"

Answer = Sent | Exception  # of the store, or of this disk


class Stored(NamedTuple):
    """A successful attempt of `node`."""

    node: Node
    job: UploadJob
    sent: Sent


class Resolver:
    def __init__(self, records: Records, storage: Storage, queue: UploadQueue, deletes: Deletes) -> None:
        # constant
        self._records = records
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts
        self._contents = storage.contents
        self._staged_files = storage.staged_files
        self._disk_sync = storage.disk_sync
        self._part_hasher = storage.part_hasher
        self._queue = queue
        self._deletes = deletes
        self.failed = FailedAttempts(records, storage, queue, self._found_locked)
        # guarded by: Core.lock
        self.uploaded = self.uploaded_bytes = 0
        self.markers = 0  # of these, directories
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
                count = min(TOGETHER, len(self._stored))
                self._resolve_together_locked([self._stored.popleft() for _ in range(count)])

    def _resolve_together_locked(self, stored: list[Stored]) -> None:
        self._core.assert_held()
        if len(stored) > 1:
            try:
                self._record_locked(stored)
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
            if isinstance(answer, Sent):
                with self._core.lock:
                    self._record_locked([Stored(node, job, answer)])
            else:
                self.failed.resolve(node, job, answer, begun)
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
            if job.size >= self._core.settings.multipart_threshold:
                self._part_hasher.uploaded(node, job.fd)
            os.close(job.fd)
        self._queue.ended_locked(job)
        self._queue.pace.wrote(job.key)
        if not node.sending:
            self._contents.close_unused(node)

    def _found_locked(self, node: Node, job: UploadJob, sent: Sent) -> None:
        """Record an object that a look at the bucket has found to be the attempt's."""
        self._record_locked([Stored(node, job, sent)])

    # ------------------------------------------------------------------ stored
    def _record_locked(self, stored: Sequence[Stored]) -> None:
        """Commit the end of these attempts together; then bring memory, cache and queue in line."""
        self._core.assert_held()
        files: list[tuple[Node, str]] = []  # to enter the cache
        with self._pending.transaction:
            following = [self._commit_locked(*each, files) for each in stored]
        self._core.crash_point("put_committed")
        with ExitStack() as committed:  # each, also after a failure: the commit stands
            committed.callback(lambda: self._staged_files.settled(*files))
            for step in reversed(following):
                committed.callback(step)

    def _commit_locked(
        self, node: Node, job: UploadJob, sent: Sent, files: list[tuple[Node, str]]
    ) -> Callable[[], None]:
        """Put the inode's state after the upload in place; return the step after the commit."""
        self._core.assert_held()
        version = sent.version
        view = verdict.View(
            node.pending,
            recorded=node.pending is None and not node.deleted and node.base == version,
            carries_body=node.carries_body,
            keep_hold=node.sync_failed,
        )
        match verdict.after_stored(job, version, view):
            case verdict.Step.ORPHANED:
                self._attempts.drop(job.attempt)
                self.left_behind_locked(job, version, None)
                return partial(self._count_locked, job)
            case verdict.Commit() as decided:
                staged, clean = node.pending and node.pending.staged, decided.following is None
                pinned = self._put_locked(node, job, sent, decided)
                if staged is not None and clean:
                    files.append((node, staged.file))
                return partial(self._settle_locked, node, job, pinned, clean, staged is not None)
        return lambda: None

    def _put_locked(self, node: Node, job: UploadJob, sent: Sent, decided: verdict.Commit) -> Facts | None:
        """Write the new state; return the attributes to be shown from now on."""
        self._core.assert_held()
        pending = node.pending
        assert pending is not None
        if not job.copy and node.content is not None:
            node.content.unwatch()
        pinned, change = learned_locked(self._core, node, job, sent.version, sent.facts)
        if pending.state is State.UPLOADING:
            self._staged_files.keep_name(node)
        self._attempts.arrived(node.ino, job.attempt)
        if self._pending.deletes.watches:  # each begins with every version at its key suspect
            self._pending.deletes.cleared(job.key, sent.version.etag)
        self._overwritten_locked(job)
        if decided.moved:
            self.left_behind_locked(job, sent.version, node)
        self._pending.commit(node, decided.following, **change)
        if not decided.moved:
            keep_locked(self._records, node, sent.version, sent.facts)
        return pinned

    def _settle_locked(
        self, node: Node, job: UploadJob, pinned: Facts | None, clean: bool, staged: bool
    ) -> None:
        """Bring content and queue in line with the commit. `staged`: the inode had a staged file."""
        self._core.assert_held()
        node.pinned = pinned  # metadata learned on the way are not shown
        self._count_locked(job)
        if job.copy:
            if job.base is not None and nfc(job.base.key) != nfc(job.key):
                self._disk_sync.copied(job.base.key)
            self._contents.rebased(node)
            if not staged and job.base is not None and not node.is_dir:
                self._contents.rekeyed(node, job.base)
        if clean:
            assert node.base is not None
            node.size, node.metadata_known = node.base.size, True
            self._tree.arrived(node)
            if node.is_dir and node.listing is not None:
                node.listing.marker = node.base
            log.info("%s: in the bucket (%d bytes)", printable(job.key), node.base.size)
        self._queue.gone_locked([job.key])
        if not clean:
            self._queue.schedule_locked(node)

    def _count_locked(self, job: UploadJob) -> None:
        self._core.assert_held()
        self.uploaded += 1
        self._queue.failures.uploaded_locked(job.key)
        self.markers += job.kind is Kind.DIRECTORY
        self.uploaded_bytes += 0 if job.copy else job.size

    def left_behind_locked(self, job: UploadJob, version: Version, after: Node | None) -> None:
        """Delete the attempt's object, at an earlier key of the inode.

        If another inode has the key by now, its upload overwrites this version.
        """
        self._core.assert_held()
        key = job.key
        self._pending.deletes.cleared(key, version.etag)
        self._overwritten_locked(job)
        heir = self._pending.pending_at(key)
        if heir is None:
            self._deletes.add_overtaken_locked(key, version.etag, after)
            return
        assert heir.pending is not None
        if heir.pending.expected_etag in (None, job.expected_etag):  # else a newer version is known
            self._pending.commit(heir, transitions.expecting(heir.pending, version.etag))

    def _overwritten_locked(self, job: UploadJob) -> None:
        """Drop the delete of the version that the attempt replaced, and not of another host's since.

        Such a row is added during the request, when a late attempt of another inode is found at the key.
        """
        self._core.assert_held()
        if job.expected_etag is None:
            return
        done = self._pending.deletes.of_version(job.key, job.expected_etag)
        if done is not None:
            self._pending.deletes.drop(done.seq)
