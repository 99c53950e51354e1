"""Failed attempts: each answer that is no success (412, a lost source, an error) is carried out by its verdict.

Owns:    the way from such an answer to a transition: another attempt, the name of a conflict copy, or PARKED.
Never:   sends; drops a staged byte that the bucket does not have; decides (`writeback/verdict.py`).
Threads: upload threads.
Locks:   takes Core.lock (30); methods named _locked need it. The inode is looked at anew, after a HEAD: it may have
         been renamed, written or unlinked while the request was on its way.
Fails:   NoSpace and LocalError of the journal: the answer is resolved later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from r2fs.engine.content.digests import has_bytes_of
from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.attempts import UploadJob
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import InodeChange
from r2fs.engine.writeback import verdict
from r2fs.engine.writeback.metadata import found_at_key
from r2fs.engine.writeback.queue import UploadQueue
from r2fs.engine.writeback.upload import Sent
from r2fs.engine.writeback.verdict import Step, Verdict, View
from r2fs.model import transitions
from r2fs.model.errors import BUCKET_WIDE, BodyWithdrawn, ObjectMissing, PreconditionFailed, R2fsError
from r2fs.model.keys import MAX_KEY_BYTES, SYMLINK_SUFFIX, conflict_name, nfc, printable
from r2fs.model.metadata import ATTEMPT, remembered
from r2fs.model.pending import Hold, Pending, Staged, State
from r2fs.model.records import Kind, ObjectInfo

log = logging.getLogger(__name__)


class FailedAttempts:
    def __init__(
        self,
        records: Records,
        storage: Storage,
        queue: UploadQueue,
        stored_locked: Callable[[Node, UploadJob, Sent], None],
    ) -> None:
        """`stored_locked` records an attempt whose object turns out to be in the bucket."""
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts
        self._contents = storage.contents
        self._staged_files = storage.staged_files
        self._own_copies = storage.own_copies
        self._queue = queue
        self._stored_locked = stored_locked

    def resolve(self, node: Node, job: UploadJob, answer: Exception, begun: bool) -> None:
        """Not `begun`: no request was sent, since a step before it failed."""
        if isinstance(answer, PreconditionFailed) and not answer.source:
            self._refused(node, job, answer)
        elif isinstance(answer, PreconditionFailed) or (
            begun and job.copy and isinstance(answer, ObjectMissing)
        ):
            self._source_lost(node, job, answer)
        else:
            self._failed(node, job, answer, begun)

    def _refused(self, node: Node, job: UploadJob, error: PreconditionFailed) -> None:
        """Resolve a 412 by a HEAD of the key."""
        try:
            found = self._core.head(job.key)
        except R2fsError as later:
            self._failed(node, job, later)
            return
        made_by = (found.metadata or {}).get(ATTEMPT) if found is not None else None
        same = found is not None and made_by not in (None, job.attempt) and has_bytes_of(job, found)
        with self._core.lock:
            ours = found is not None and self._attempts.is_ours(found.metadata, job.key)
            view = replace(self._view_locked(node), ours=ours, same_bytes=same)
            decided = verdict.after_refusal(job, found, view)
            stays = node.is_dir or isinstance(decided, verdict.Stored)
            if found is not None and stays and made_by != job.attempt:
                self._attempts.accepted(found.metadata)  # not to be deleted as a late one
            if decided in (Step.CONFLICT_WHILE_OPEN, Step.KEEP_BOTH) or isinstance(decided, verdict.Park):
                self._attempts.drop(job.attempt)
            self._carry_out_locked(node, job, decided, error, found)

    def _source_lost(self, node: Node, job: UploadJob, error: Exception) -> None:
        """Resolve the loss of the object to copy by a HEAD of its key."""
        assert job.base is not None
        try:
            found = self._core.head(job.base.key)
        except R2fsError as later:
            self._failed(node, job, later)
            return
        with self._core.lock:
            view = self._view_locked(node)
            if view.is_current(job) and not node.is_dir:
                assert node.pending is not None
                if node.content is None and (node.pending.staged or self._core.cache.contains(job.base)):
                    self._contents.of(node)
                view = replace(
                    view,
                    own_copy=found is not None and self._own_copies.is_copy(node, job.base, found),
                    all_here=node.content is not None and node.content.complete,
                )
            self._carry_out_locked(node, job, verdict.after_source_lost(job, found, view), error, found)

    def _failed(self, node: Node, job: UploadJob, error: Exception, begun: bool = True) -> None:
        with self._core.lock:
            if begun and verdict.may_be_stored(error):
                self._attempts.doubt(job.attempt)
            else:
                self._attempts.drop(job.attempt)
                row = self._pending.deletes.watched(job.key)
                if row is not None and not self._attempts.any_at(job.key):
                    self._pending.deletes.drop(row.seq)
            if not isinstance(error, BodyWithdrawn):
                self._queue.failures.of_upload_locked(job.ino, job.key, error)
            view = replace(self._view_locked(node), uploaded=self._queue.failures.uploads_at(job.key))
            self._carry_out_locked(node, job, verdict.after_error(job, error, view), error)

    def _view_locked(self, node: Node) -> View:
        self._core.assert_held()
        return View(
            node.pending,
            carries_body=node.carries_body,
            keep_hold=node.sync_failed,
            metadata_known=node.metadata_known,
        )

    # ------------------------------------------------------------------ the verdicts
    def _carry_out_locked(
        self,
        node: Node,
        job: UploadJob,
        decided: Verdict,
        error: Exception,
        found: ObjectInfo | None = None,
    ) -> None:
        self._core.assert_held()
        match decided:
            case verdict.Stored(version, facts, refuses_metadata):
                if refuses_metadata:
                    log.info("%s: this server takes no metadata of it from here", printable(job.key))
                self._core.cache.remember(version.key, version.etag, remembered(facts))
                self._stored_locked(node, job, Sent(version, facts))
            case verdict.Again():
                self._again_locked(node, job, error, decided)
            case Step.CONFLICT_WHILE_OPEN:
                assert node.pending is not None
                self._pending.commit(node, transitions.conflict_seen(node.pending))
            case Step.KEEP_BOTH:
                assert found is not None
                self._keep_both_locked(node, found)
                self._queue.schedule_locked(node)
            case Step.FOLLOW_SOURCE:
                self._follow_source_locked(node, job, found)
            case Step.SEND_OWN:
                self._send_own_locked(node, job, error)
            case verdict.TryLater():
                self._try_later_locked(node, job, error, decided)
            case verdict.Park(hold):
                assert node.pending is not None
                self._park_locked(node, transitions.refused(node.pending, hold))

    def _again_locked(
        self, node: Node, job: UploadJob, error: Exception, decided: verdict.Again = verdict.AT_ONCE
    ) -> None:
        """Another attempt at once; from the second failure in a row on, after a back-off."""
        self._core.assert_held()
        self._attempts.drop(job.attempt)
        view = self._view_locked(node)
        if not view.is_current(job):
            return
        assert node.pending is not None
        news = InodeChange() if decided.merge is None else found_at_key(node, job, decided.merge)
        retry = node.pending.retry._replace(failures=node.pending.retry.failures + 1)
        pending = decided.correction.apply(node.pending, view.has_moved(job))
        change = decided.correction.change | news
        self._pending.commit(node, transitions.failed(pending, str(error), retry), **change)
        self._queue.schedule_locked(node)
        if retry.failures > 1:
            self._queue.retry_later_locked(node, error)
        if news:
            node.pinned = None
        if decided.rebased:
            assert job.base is not None
            self._contents.rebased(node)
            self._contents.rekeyed(node, job.base)

    def _send_own_locked(self, node: Node, job: UploadJob, error: Exception) -> None:
        self._core.assert_held()
        pending, content = node.pending, node.content
        assert pending is not None and content is not None
        if pending.staged is not None:
            staged = pending.staged._replace(size=content.size)
            self._pending.commit(node, transitions.sends_own(pending, staged))
        else:
            with self._staged_files.staging(node) as file:
                staged = Staged(file, size=content.size, boot=self._core.staging.boot)
                self._pending.commit(node, transitions.sends_own(pending, staged))
        self._again_locked(node, job, error)

    def _follow_source_locked(self, node: Node, job: UploadJob, found: ObjectInfo | None) -> None:
        """Take the source's newer version, `found`, along with a rename; None: the name goes.

        New metadata alone were meant for the old bytes, and are void.
        """
        self._core.assert_held()
        parent, pending = node.parent, node.pending
        assert parent is not None and pending is not None and job.base is not None
        renamed = pending.key != job.base.key
        key = printable(job.base.key)
        newer = None if found is None else self._tree.unplaced(parent, node.name, found)
        with self._pending.transaction:  # with the newer one's row: else a kill here would undo the rename
            self._attempts.drop(job.attempt)
            self._pending.commit(node, transitions.unlinked(pending))
            if newer is not None and renamed:
                following = self._pending.begin(newer, pending.key, False, pending.expected_etag)
                self._pending.commit(newer, transitions.retargeted(following))
        if found is None:
            log.warning("%s: deleted in the bucket before what was done here got there", key)
            self._tree.gone(node)
            return
        what = (
            "it was renamed here: the newer one is renamed" if renamed else "its attributes were changed here"
        )
        log.warning("%s: changed in the bucket while %s", key, what)
        self._core.kernel.forget_name(parent.ino, node.name)
        self._queue.schedule_locked(self._tree.replace(node, found, newer))

    def _try_later_locked(
        self, node: Node, job: UploadJob, error: Exception, decided: verdict.TryLater
    ) -> None:
        self._core.assert_held()
        assert node.pending is not None
        if isinstance(error, BUCKET_WIDE):
            log.error("%s: not uploaded, will be tried again: %s", printable(job.key), error)
        elif not isinstance(error, BodyWithdrawn):
            log.info("%s: not uploaded yet: %s", printable(job.key), error)
        self._pending.commit(node, transitions.failed(node.pending, str(error), decided.retry))
        self._queue.schedule_locked(node)
        if decided.pause is verdict.Pause.BUCKET:
            self._queue.failures.outage_locked(job.key)
        elif decided.pause is verdict.Pause.FILE:
            self._queue.retry_later_locked(node, error)

    # ------------------------------------------------------------------ parked
    def _park_locked(self, node: Node, following: Pending) -> None:
        """Keep the bytes and stop retrying, until a person or the next mount; a transient cause is tried when due."""
        self._core.assert_held()
        path = printable(self._tree.path(node))
        log.error("%s: parked, its bytes are kept here: %s", path, following.reason)
        self._pending.commit(node, following)
        if following.state is State.PARKED and following.hold is not None and following.hold.transient:
            self._queue.probe_later_locked(node)

    def park_queued_locked(self, node: Node, reason: str) -> None:
        """Park a node that has no attempt on its way."""
        self._core.assert_held()
        assert node.pending is not None
        self._park_locked(node, transitions.parked(node.pending, Hold(reason)))

    # ------------------------------------------------------------------ conflicts
    def _keep_both_locked(self, node: Node, theirs: ObjectInfo) -> None:
        """Give the node a conflict name; the object in the bucket under its key keeps the name."""
        self._core.assert_held()
        parent, name = node.parent, node.name
        assert parent is not None and node.pending is not None
        meant_for = node.pending.conflict_of or node.pending.key
        new_name = self._free_name_locked(parent, _name_of(meant_for, node))
        new_key = self._tree.key(parent) + new_name + (SYMLINK_SUFFIX if node.kind is Kind.SYMLINK else "")
        self._pending.commit(node, transitions.conflict_renamed(node.pending, new_key, meant_for))
        self._core.crash_point("conflict_journalled")
        self._tree.move(node, parent, new_name)
        self._tree.show(parent, theirs)
        self._core.kernel.forget_name(parent.ino, name)
        self._core.kernel.forget_name(parent.ino, new_name)
        log.warning(
            "%s: another host wrote it first; this host's content is kept as %s",
            printable(name),
            printable(self._tree.path(node)),
        )

    def _free_name_locked(self, parent: Node, name: str) -> str:
        self._core.assert_held()
        host, when = self._core.settings.host, self._core.clock.time()
        above = self._core.settings.bucket.split(self._tree.key(parent))[1]
        room = MAX_KEY_BYTES - len((above + SYMLINK_SUFFIX).encode())
        number = 1
        while True:
            candidate = conflict_name(name, host, when, number)
            if len(candidate.encode()) > room and len(name) > 1:
                name = name[1:]  # the key would be too long
            elif candidate in parent.children():
                number += 1
            else:
                return candidate


def _name_of(key: str, node: Node) -> str:
    """The node's last name before the conflict, as the tree shows it."""
    last = key.rpartition("/")[2]
    return nfc(last.removesuffix(SYMLINK_SUFFIX) if node.kind is Kind.SYMLINK else last)
