"""Outcomes: what the end of an attempt means for the node that it was made for.

Owns:    the way from an answer of the bucket (stored, 412, an error) to a state.
Never:   sends; drops a staged byte that the bucket does not have.
Threads: called by upload threads, without the lock.
Locks:   takes Core.lock. What was decided before the request is checked again: the node may have
         been renamed, written or unlinked while it was on its way.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from r2fs.engine.content.part_digests import has_bytes_of
from r2fs.engine.content.storage import Storage
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.stat import fill, shown_of, together
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import InodeChange
from r2fs.engine.pending.upload_job import UploadJob
from r2fs.engine.writeback.conflicts import Conflicts
from r2fs.engine.writeback.delete_batches import Deletes
from r2fs.engine.writeback.directory_object_answers import (
    Correction,
    after_loss,
    after_refusal,
    expect,
)
from r2fs.engine.writeback.failures import BUCKET_WIDE
from r2fs.engine.writeback.foreign_metadata import changed_while_sending, found_at_key, says_the_same
from r2fs.engine.writeback.queue import UploadQueue
from r2fs.engine.writeback.stored_attributes import keep
from r2fs.model import transitions
from r2fs.model.errors import (
    BodyDamaged,
    BodyWithdrawn,
    LocalError,
    NoSpace,
    ObjectMissing,
    PermissionRefused,
    PreconditionFailed,
    QuotaUsedUp,
    R2fsError,
    Refused,
    Retryable,
    SyncFailed,
    Unavailable,
    UploadMissing,
)
from r2fs.model.keys import nfc, printable
from r2fs.model.metadata import ATTEMPT, Facts, attributes_from, remembered
from r2fs.model.mime import content_type
from r2fs.model.pending import Hold, Retry, Staged
from r2fs.model.records import Kind, ObjectInfo, Version
from r2fs.model.states import State
from r2fs.model.transitions import expecting

log = logging.getLogger(__name__)

# An attempt that ends so may be in the bucket: its last byte was sent, or what is there is damaged.
MAY_BE_STORED = (Unavailable, UploadMissing, NoSpace, LocalError, BodyDamaged)
OWN_REFUSALS = 3  # 403s of one file, while others are taken, before it is PARKED


class Resolver:
    def __init__(self, records: Records, storage: Storage, queue: UploadQueue, deletes: Deletes) -> None:
        # constant
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts
        self._contents = storage.contents
        self._hydration = storage.hydration
        self._disk_sync = storage.disk_sync
        self._queue = queue
        self._deletes = deletes
        self.conflicts = Conflicts(records)
        # guarded by: Core.lock
        self.uploaded = self.uploaded_bytes = 0
        self.markers = 0  # of these, directories

    def stored(self, node: Node, claim: UploadJob, version: Version, facts: Facts) -> None:
        with self._core.lock:
            # Before the row goes: new metadata alone leave the ETag, and what is remembered of it, as they were.
            self._core.cache.remember(version.key, version.etag, remembered(facts))
            self._queue.recovered()
            if node.pending is None and not node.deleted and node.base == version:
                return  # the journal knows already: what came after failed, and this is asked again
            if not self._still(node, claim):  # unlinked while it was on its way
                with self._pending.transaction():
                    self._attempts.drop(claim.attempt)
                    self._left_behind(claim.key, version, None)
                self._count(claim)
                return
            pending = node.pending
            assert pending is not None
            moved = pending.key != claim.key
            if not claim.copy and node.content is not None:
                node.content.unwatch()
            pinned, change = self._learned(node, claim, version, facts)
            following = transitions.stored(
                pending,
                None if moved else version.etag,
                rebased=not claim.copy,
                carries_body=node.carries_body,
                keep_hold=node.sync_failed,
            )
            staged = pending.staged
            with self._pending.transaction():
                if pending.state is State.UPLOADING:
                    self._contents.keep_name(node)
                self._attempts.arrived(node.ino, claim.attempt)
                self._pending.cleared(claim.key, version.etag)
                if moved:
                    self._left_behind(claim.key, version, node)
                self._pending.commit(node, following, **change)
                if not moved:
                    keep(self._core, self._tree, self._pending, node, version, facts)
            node.pinned = pinned  # what was learned on the way is not shown
            self._core.crash_point("put_committed")
            self._count(claim)
            if claim.copy and claim.base is not None and nfc(claim.base.key) != nfc(claim.key):
                self._disk_sync.copied(claim.base.key)
            if claim.copy:
                self._contents.rebased(node)
                if staged is None and claim.base is not None and not node.is_dir:
                    self._contents.rekeyed(node, claim.base)
            if following is None:
                self._now_clean(node, claim, None if staged is None else staged.file)
            self._queue.gone([claim.key])
            self._queue.schedule(node)

    def _learned(
        self, node: Node, claim: UploadJob, version: Version, facts: Facts
    ) -> tuple[Facts | None, InodeChange]:
        """What the stored metadata teach of the node: the attributes to be shown on, and its fields' new values.

        What was learned on the way is not shown: looking at a file does not change it.
        """
        change = InodeChange(base=version, base_metadata=facts)
        learning = not node.metadata_known or not node.mtime_known
        pinned = shown_of(node) if node.shown and learning else node.pinned
        if node.metadata_known:
            news = changed_while_sending(node, claim, facts)
            pinned = None if news else pinned
            change |= news
        if not node.mtime_known and facts.mtime_ns is not None:
            change["mtime_ns"] = facts.mtime_ns
        if node.content_type is None and facts.content_type != content_type(node.name):
            change["content_type"] = facts.content_type  # by its first bytes
        if not node.metadata_known:  # the next upload keeps it, too
            fill(node, facts)
        return pinned, change

    def _count(self, claim: UploadJob) -> None:
        self.uploaded += 1
        self.markers += claim.kind is Kind.DIRECTORY
        self.uploaded_bytes += 0 if claim.copy else claim.size

    def _now_clean(self, node: Node, claim: UploadJob, staged: str | None) -> None:
        assert node.base is not None
        node.size, node.metadata_known = node.base.size, True
        self._tree.arrived(node)
        if node.is_dir and node.listing is not None:
            node.listing.marker = node.base
        if staged is not None:
            self._contents.settled(node, staged)
        log.info("%s: in the bucket (%d bytes)", printable(claim.key), node.base.size)

    def _left_behind(self, key: str, version: Version, after: Node | None) -> None:
        """The attempt got there, but its key is no longer the node's: that version is to go.

        Where another node has that key by now, it overwrites this version, and not what was there before.
        """
        self._pending.cleared(key, version.etag)
        self._pending.take_over_deletes(key)  # meant for what this attempt has overwritten
        heir = self._pending.pending_at(key)
        if heir is not None:
            assert heir.pending is not None
            self._pending.commit(heir, expecting(heir.pending, version.etag))
        else:
            self._deletes.add(self._pending.add_delete(key, version.etag, after))

    def _still(self, node: Node, claim: UploadJob) -> bool:
        """True if the attempt is the node's."""
        flight = node.pending.in_flight if node.pending is not None else None
        return flight is not None and flight.attempt == claim.attempt

    def refuted(self, node: Node, claim: UploadJob, error: PreconditionFailed) -> None:
        """412. Ours, nobody's, or somebody's: only the last is a conflict."""
        if error.source:
            self._source_lost(node, claim, error)
            return
        try:
            info = self._core.store.head(claim.key)
        except ObjectMissing:
            with self._core.lock:  # another host deleted what we had started from: the name is free
                self._again(node, claim, error, expect(None))
            return
        except R2fsError as later:
            self.failed(node, claim, later)
            return
        made_by = (info.metadata or {}).get(ATTEMPT)
        if made_by == claim.attempt:
            self.stored(node, claim, info.version, claim.facts)
            return
        if node.is_dir:
            self._at_directory(node, claim, info, error)
            return
        same = made_by is not None and has_bytes_of(claim, info)
        with self._core.lock:
            ours = self._attempts.is_ours(info.metadata, claim.key) or info.etag == claim.expected_etag
            if ours or _has_moved(node, claim):
                self._again(node, claim, error, expect(info.etag))
            elif same:
                self._with_metadata_there(node, claim, error, attributes_from(info), expect(info.etag))
            elif self._still(node, claim):
                assert node.pending is not None
                self._attempts.drop(claim.attempt)
                if node.pending.state is State.STALE_UPLOAD:  # found again, and named, after the last close
                    self._pending.commit(node, transitions.conflict_seen(node.pending))
                else:
                    self.conflicts.keep_both(node, info)
                    self._queue.schedule(node)

    def _at_directory(self, node: Node, claim: UploadJob, info: ObjectInfo, error: R2fsError) -> None:
        """An empty object that says what this host would store will do. Else the next attempt stores both hosts'
        metadata there; it is parked where the object holds other bytes than those of the directory's old key."""
        there = attributes_from(info)
        with self._core.lock:
            ours, moved = self._attempts.is_ours(info.metadata, claim.key), _has_moved(node, claim)
            self._attempts.accepted(info.metadata)  # not to be deleted as a late one
            wanted = claim.facts if ours and node.metadata_known else together(there, claim.facts)
            correction = after_refusal(claim, info, ours)
            if moved and not ours:  # another host's directory of the old name stays
                self._again(node, claim, error)
            elif not info.size and not claim.copy and (moved or self._will_do(node, claim, info, wanted)):
                self.stored(node, claim, info.version, there)
            elif correction is None:
                if self._still(node, claim):
                    self._attempts.drop(claim.attempt)
                    self.park(node, f"{printable(claim.key)}: another object is at the directory's new key")
            elif ours:
                self._again(node, claim, error, correction)
            else:
                self._with_metadata_there(node, claim, error, there, correction)

    def _will_do(self, node: Node, claim: UploadJob, info: ObjectInfo, wanted: Facts) -> bool:
        """True if the empty object says what is wanted, or the server has refused If-Match with the very ETag that it
        shows, and not for the first time: SeaweedFS does so for ever for a directory that a file below has made."""
        there = attributes_from(info)
        if says_the_same(there, wanted):
            return True
        if info.etag != claim.expected_etag or node.pending is None or not node.pending.retry.failures:
            return False
        if not says_the_same(replace(there, mtime_ns=wanted.mtime_ns), wanted):
            log.info("%s: this server takes no metadata of it from here", printable(claim.key))
        return True

    def _with_metadata_there(
        self, node: Node, claim: UploadJob, error: R2fsError, there: Facts, correction: Correction
    ) -> None:
        """`_again`, with another host's metadata of the same bytes merged into the node's."""
        if not self._still(node, claim):
            self._attempts.drop(claim.attempt)
            return
        news = found_at_key(node, claim, there)
        self._again(node, claim, error, replace(correction, change=correction.change | news))
        if news:
            node.pinned = None

    def _source_lost(self, node: Node, claim: UploadJob, error: R2fsError) -> None:
        """The object that a rename was to copy is not there in that version any more."""
        assert claim.base is not None
        try:
            info = self._core.store.head(claim.base.key)
        except ObjectMissing:
            info = None
        except R2fsError as later:
            self.failed(node, claim, later)
            return
        with self._core.lock:
            if not self._still(node, claim):
                return
            pending = node.pending
            assert pending is not None
            if node.is_dir:
                self._again(node, claim, error, after_loss(claim, info))
                return
            if node.content is None and (pending.staged or self._core.cache.contains(claim.base)):
                self._contents.of(node)
            if pending.changed:  # opened for writing since: its own bytes go next
                self._again(node, claim, error)
            elif self._is_own_copy(node, claim, info):
                assert info is not None
                self._again(node, claim, error, expect(info.etag, InodeChange(base=info.version)))
                self._contents.rebased(node)
                self._contents.rekeyed(node, claim.base)
            elif pending.key == claim.base.key or node.content is None or not node.content.complete:
                self._follow_source(node, claim, info)
            else:
                boot = self._core.staging.boot
                staged = pending.staged or Staged(self._contents.stage(node), boot=boot)
                staged = replace(staged, size=node.content.size)
                self._pending.commit(node, transitions.sends_own(pending, staged))
                self._again(node, claim, error)

    def _is_own_copy(self, node: Node, claim: UploadJob, info: ObjectInfo | None) -> bool:
        """Is what is there now its base with new metadata, by an earlier attempt whose answer was lost?

        A copy of an object that was sent in parts has another ETag.
        """
        assert claim.base is not None
        in_place = nfc(claim.key) == nfc(claim.base.key)
        return info is not None and in_place and self._hydration.is_copy(node, claim.base, info)

    def _follow_source(self, node: Node, claim: UploadJob, info: ObjectInfo | None) -> None:
        """This host has no bytes of its own to keep: what another host did to the source is what holds.

        A rename takes the newer version along. New metadata alone was meant for the old bytes, and is void.
        """
        parent, pending = node.parent, node.pending
        assert parent is not None and pending is not None and claim.base is not None
        renamed = pending.key != claim.base.key
        key = printable(claim.base.key)
        with self._pending.transaction():
            self._attempts.drop(claim.attempt)
            self._pending.commit(node, transitions.unlinked(pending))
        if info is None:
            log.warning("%s: deleted in the bucket before what was done here got there", key)
            self._tree.gone(node)
            return
        self._core.kernel.forget_name(parent.ino, node.name)
        what = (
            "it was renamed here: the newer one is renamed" if renamed else "its attributes were changed here"
        )
        log.warning("%s: changed in the bucket while %s", key, what)
        newer = self._tree.replace(node, info)
        if renamed:
            following = self._pending.begin(newer, pending.key, False, pending.expected_etag)
            self._pending.commit(newer, transitions.retargeted(following))
            self._queue.schedule(newer)

    def _again(
        self, node: Node, claim: UploadJob, error: R2fsError, correction: Correction | None = None
    ) -> None:
        """It was not stored, and may be tried at once."""
        self._attempts.drop(claim.attempt)
        if not self._still(node, claim):
            return
        assert node.pending is not None
        failures = node.pending.retry.failures + 1
        retry = replace(node.pending.retry, failures=failures)
        self._retry(node, error, retry, correction, moved=_has_moved(node, claim))
        if failures > 1:
            self._queue.retry_later(node, error)

    def _retry(
        self,
        node: Node,
        error: Exception,
        retry: Retry,
        correction: Correction | None = None,
        moved: bool = False,
    ) -> None:
        pending = node.pending
        assert pending is not None
        change = InodeChange()
        if correction is not None:
            pending, change = correction.apply(pending, moved), correction.change
        self._pending.commit(node, transitions.failed(pending, str(error), retry), **change)
        self._queue.schedule(node)

    def failed(self, node: Node, claim: UploadJob, error: Exception, sent: bool = True) -> None:
        """Not `sent`: something else was to be done first, and was not."""
        if sent and isinstance(error, ObjectMissing) and claim.copy:
            self._source_lost(node, claim, error)
            return
        with self._core.lock:
            unknown = isinstance(error, R2fsError) and error.unknown
            if sent and (unknown or isinstance(error, MAY_BE_STORED)):
                self._attempts.doubt(claim.attempt)  # the last byte may have been sent: the object may appear
            else:
                self._not_stored(claim)
            if not isinstance(error, BodyWithdrawn):
                self._queue.failures.of_upload(claim.ino, error)
            if self._still(node, claim):
                self._answer(node, claim, error)

    def _answer(self, node: Node, claim: UploadJob, error: Exception) -> None:
        """What an error means for the node."""
        assert node.pending is not None
        retry, key = node.pending.retry, printable(claim.key)
        once_more = replace(retry, failures=retry.failures + 1)
        if isinstance(error, BodyWithdrawn):
            self._retry(node, error, retry)
        elif isinstance(error, PermissionRefused) and self._is_its_own(node):
            self.park(node, str(error))
        elif isinstance(error, BUCKET_WIDE):
            log.error("%s: not uploaded, will be tried again: %s", key, error)
            refused_at = self.uploaded if retry.refused_at is None else retry.refused_at
            self._retry(node, error, replace(once_more, refused_at=refused_at))
            self._queue.outage()
        elif isinstance(error, Unavailable):
            log.info("%s: not uploaded yet: %s", key, error)
            self._retry(node, error, once_more)
            self._queue.outage()
        elif isinstance(error, Retryable | UploadMissing | NoSpace | LocalError):
            log.info("%s: not uploaded yet: %s", key, error)
            self._retry(node, error, once_more)
            self._queue.retry_later(node, error)
        else:
            reason = (
                str(error) if isinstance(error, Refused | SyncFailed) else f"{type(error).__name__}: {error}"
            )
            self.park(node, reason, passing=isinstance(error, QuotaUsedUp))

    def _is_its_own(self, node: Node) -> bool:
        """Is it this file alone that may not be written, again and again, while others are?"""
        pending = node.pending
        assert pending is not None
        refused_at = pending.retry.refused_at
        return (
            pending.retry.failures >= OWN_REFUSALS and refused_at is not None and self.uploaded > refused_at
        )

    def park(self, node: Node, reason: str, passing: bool = False) -> None:
        """Kept and not sent, until a person or the next mount; if the cause is `passing`, until it is due."""
        assert node.pending is not None
        log.error("%s: parked, its bytes are kept here: %s", printable(self._tree.path(node)), reason)
        following = transitions.refused(node.pending, Hold(reason, passing))
        self._pending.commit(node, following)
        if following.state is State.PARKED and passing:
            self._queue.probe_later(node)

    def park_queued(self, node: Node, reason: str) -> None:
        """`park` for a node that has no attempt on its way."""
        assert node.pending is not None
        log.error("%s: parked, its bytes are kept here: %s", printable(self._tree.path(node)), reason)
        self._pending.commit(node, transitions.parked(node.pending, Hold(reason)))

    def _not_stored(self, claim: UploadJob) -> None:
        self._attempts.drop(claim.attempt)
        row = self._pending.watched(claim.key)
        if row is not None and not self._attempts.any_at(claim.key):
            self._pending.drop_delete(row.seq)


def _has_moved(node: Node, claim: UploadJob) -> bool:
    """Was it renamed while the attempt was on its way? Then what is at the old key is no rival of it."""
    return node.pending is not None and node.pending.key != claim.key
