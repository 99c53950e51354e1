"""Verdict: the meaning of the bucket's answer to an upload, for the inode. Pure: no lock, no request, no disk.

Invariant: bytes at a key that ends in `/` are never overwritten: new metadata are a copy of the object onto itself.
           Another host's object is never overwritten without a merge of its metadata, and its bytes never at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from r2fs.engine.inodes.stat import together
from r2fs.engine.pending.attempts import UploadJob
from r2fs.engine.pending.store import InodeChange
from r2fs.model import transitions
from r2fs.model.errors import (
    BUCKET_WIDE,
    BodyDamaged,
    BodyWithdrawn,
    LocalError,
    NoSpace,
    PermissionRefused,
    QuotaUsedUp,
    R2fsError,
    Refused,
    Retryable,
    SyncFailed,
    Unavailable,
    UploadMissing,
)
from r2fs.model.keys import nfc, printable
from r2fs.model.metadata import ATTEMPT, Facts, attributes_from
from r2fs.model.pending import Hold, Pending, Retry, State
from r2fs.model.records import Kind, ObjectInfo, Version

# After these the attempt's object may be in the bucket: its last byte was sent, or the object is damaged.
MAY_BE_STORED = (Unavailable, UploadMissing, NoSpace, LocalError, BodyDamaged)
OWN_REFUSALS = 3  # 403s of one file, while others are taken, before it is PARKED
_COMPARED = ("mode", "uid", "gid", "mtime_ns", "extra")


@dataclass(frozen=True, slots=True)
class View:
    """The inode at the time of the answer: renamed, written or unlinked, perhaps, since the attempt began."""

    pending: Pending | None
    recorded: bool = False  # the journal has this very answer already
    carries_body: bool = False  # Node.carries_body
    keep_hold: bool = False  # this disk failed to sync its bytes
    metadata_known: bool = False
    ours: bool = False  # the object found was made by an attempt of this host
    same_bytes: bool = False  # the object found has the bytes of the job, and was made by r2fs
    own_copy: bool = False  # the object found is a copy of the base, by an attempt of this inode
    all_here: bool = False  # all its bytes are on this host
    uploaded: int = 0  # uploads of this mount that succeeded

    def is_current(self, job: UploadJob) -> bool:
        """True while the attempt is the inode's: false after an unlink."""
        flight = self.pending.in_flight if self.pending is not None else None
        return flight is not None and flight.attempt == job.attempt

    def has_moved(self, job: UploadJob) -> bool:
        """True after a rename since the attempt began: the object at the old key is no rival."""
        return self.pending is not None and self.pending.key != job.key


# ------------------------------------------------------------------ verdicts
class Step(Enum):
    """Verdicts without values."""

    NOTHING = "no inode waits for the attempt, and no object of the attempt is in the bucket"
    RECORDED = (
        "the journal has the answer: a step after its commit failed, and the answer is resolved once more"
    )
    ORPHANED = "no inode waits for the attempt: its object is to be deleted"
    CONFLICT_WHILE_OPEN = (
        "another host's object is at the key, and a program writes: resolved after the last close"
    )
    KEEP_BOTH = "another host's object keeps the key; the inode gets a conflict name"
    FOLLOW_SOURCE = "no bytes of this host; what another host made of the source holds, its deletion too"
    SEND_OWN = "the object to copy is gone, and all bytes are on this host: they are sent"


@dataclass(frozen=True, slots=True)
class Commit:
    """Put `following` in place. `moved`: the object is at a key that the inode has left, and is to be deleted."""

    following: Pending | None
    moved: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """The object found is this attempt's, or has its bytes and metadata."""

    version: Version
    facts: Facts
    refuses_metadata: bool = False  # the server keeps other metadata than those that were sent


@dataclass(frozen=True, slots=True)
class Correction:
    """New knowledge of the object at the key, and of the base: the next attempt starts from it."""

    expects: bool = False  # `expected_etag` counts
    expected_etag: str | None = None
    changed: bool | None = None  # None: unchanged
    change: InodeChange = field(default_factory=InodeChange)

    def apply(self, pending: Pending, moved: bool) -> Pending:
        """`moved`: renamed since the attempt began, so that the object at its key says nothing of the new one."""
        expected = self.expected_etag if self.expects and not moved else pending.expected_etag
        return transitions.corrected(
            pending, expected, pending.changed if self.changed is None else self.changed
        )


@dataclass(frozen=True, slots=True)
class Again:
    """Not stored: another attempt, with `merge`, another host's metadata of the same bytes, merged into the inode's."""

    correction: Correction = Correction()
    merge: Facts | None = None
    rebased: bool = False  # the base has another version by a copy of this host's


AT_ONCE = Again()


class Pause(Enum):
    """Time before the next attempt."""

    NONE = "none"
    FILE = "file"  # the file's own back-off
    BUCKET = "bucket"  # as after an outage: for all


@dataclass(frozen=True, slots=True)
class TryLater:
    retry: Retry
    pause: Pause


@dataclass(frozen=True, slots=True)
class Park:
    hold: Hold


Verdict = Step | Stored | Again | TryLater | Park


# ------------------------------------------------------------------ stored
def after_stored(job: UploadJob, version: Version, view: View) -> Step | Commit:
    """The verdict of a success."""
    if view.recorded:
        return Step.RECORDED
    if not view.is_current(job):
        return Step.ORPHANED
    assert view.pending is not None
    moved = view.has_moved(job)
    following = transitions.stored(
        view.pending,
        None if moved else version.etag,
        rebased=not job.copy,
        carries_body=view.carries_body,
        keep_hold=view.keep_hold,
    )
    return Commit(following, moved)


# ------------------------------------------------------------------ 412
def after_refusal(job: UploadJob, found: ObjectInfo | None, view: View) -> Verdict:
    """The verdict of a 412, with `found` at the key now: an object of this host, none, or another host's.

    Only the last is a conflict.
    """
    if found is None:  # another host deleted the version that this host started from: the name is free
        return Again(expect(None))
    if (found.metadata or {}).get(ATTEMPT) == job.attempt:
        return Stored(found.version, job.facts)
    if job.kind is Kind.DIRECTORY:
        return _at_directory(job, found, view)
    if view.ours and view.same_bytes and says_the_same(there := attributes_from(found), job.facts):
        # An earlier attempt without an answer: sent once more, it would undo another host's delete meanwhile.
        return Stored(found.version, there)
    if view.ours or found.etag == job.expected_etag or view.has_moved(job):
        return Again(expect(found.etag))
    if view.same_bytes:
        return Again(expect(found.etag), merge=attributes_from(found))
    if not view.is_current(job):
        return Step.NOTHING
    assert view.pending is not None
    return Step.CONFLICT_WHILE_OPEN if view.pending.state is State.STALE_UPLOAD else Step.KEEP_BOTH


def _at_directory(job: UploadJob, found: ObjectInfo, view: View) -> Verdict:
    """An empty object with the metadata that this host would store will do. Else the next attempt stores both hosts'
    metadata there. Parked where the object holds other bytes than those of the directory's old key."""
    moved = view.has_moved(job)
    if moved and not view.ours:  # another host's directory of the old name stays
        return AT_ONCE
    there = attributes_from(found)
    wanted = job.facts if view.ours and view.metadata_known else together(there, job.facts)
    if not found.size and not job.copy:
        if moved or says_the_same(there, wanted):
            return Stored(found.version, there)
        if _is_refused_for_ever(job, found, view):
            but_time = replace(there, mtime_ns=wanted.mtime_ns)
            return Stored(found.version, there, refuses_metadata=not says_the_same(but_time, wanted))
    correction = _for_directory(job, found, view.ours)
    if correction is not None:
        return Again(correction, merge=None if view.ours else there)
    if not view.is_current(job):
        return Step.NOTHING
    return Park(Hold(f"{printable(job.key)}: another object is at the directory's new key"))


def _is_refused_for_ever(job: UploadJob, found: ObjectInfo, view: View) -> bool:
    """True if the server has refused If-Match with the very ETag that it shows, and not for the first time: SeaweedFS
    does so for a directory that a file below has made."""
    return found.etag == job.expected_etag and view.pending is not None and view.pending.retry.failures > 0


def says_the_same(there: Facts, ours: Facts) -> bool:
    typed = ours.content_type in (None, there.content_type)
    return typed and all(getattr(there, name) == getattr(ours, name) for name in _COMPARED)


def expect(etag: str | None, change: InodeChange | None = None) -> Correction:
    """Another object is at the key than was expected; None: no object."""
    return Correction(True, etag, None, change or InodeChange())


def _for_directory(job: UploadJob, found: ObjectInfo, ours: bool) -> Correction | None:
    """The correction for a directory after a 412, where `found` is at its key now.

    Bytes in `found` stay, and get the new metadata by a copy of the object onto itself. None: the renamed directory's
    object holds bytes, and so does the object at the new key: both have to stay in their places.
    """
    base = job.base
    if not job.copy or base is None or _in_place(job):
        return Correction(True, found.etag, not found.size, InodeChange(base=found.version))
    same = (found.etag, found.size) == (base.etag, base.size)
    return expect(found.etag) if ours or same or not found.size else None


# ------------------------------------------------------------------ the source of a copy is another version, or gone
def after_source_lost(job: UploadJob, found: ObjectInfo | None, view: View) -> Verdict:
    """The verdict of a copy whose source was not in the bucket in that version; `found` is at its key now."""
    base, pending = job.base, view.pending
    assert base is not None
    if not view.is_current(job) or pending is None:
        return Step.NOTHING
    if job.kind is Kind.DIRECTORY:
        return Again(_after_loss(job, found))
    if pending.changed:  # opened for writing since: its own bytes are sent next
        return AT_ONCE
    if found is not None and _in_place(job) and view.own_copy:
        # A copy of an object that was sent in parts has another ETag.
        return Again(expect(found.etag, InodeChange(base=found.version)), rebased=True)
    if pending.key == base.key or not view.all_here:
        return Step.FOLLOW_SOURCE
    return Step.SEND_OWN


def _after_loss(job: UploadJob, found: ObjectInfo | None) -> Correction:
    """The correction for a directory where the object to copy is `found` by now; None: it is gone."""
    in_place = _in_place(job)
    if found is None:
        return Correction(True, None if in_place else job.expected_etag, True, InodeChange(base=None))
    etag = found.etag if in_place else None
    return Correction(in_place, etag, not found.size, InodeChange(base=found.version))


def _in_place(job: UploadJob) -> bool:
    return job.base is not None and nfc(job.base.key) == nfc(job.key)


# ------------------------------------------------------------------ errors
def may_be_stored(error: Exception) -> bool:
    """True if the attempt's object may be in the bucket, or may appear later."""
    return (isinstance(error, R2fsError) and error.unknown) or isinstance(error, MAY_BE_STORED)


def after_error(job: UploadJob, error: Exception, view: View) -> Verdict:
    """The verdict of any other error."""
    if not view.is_current(job):
        return Step.NOTHING
    assert view.pending is not None
    retry = view.pending.retry
    once_more = retry._replace(failures=retry.failures + 1)
    if isinstance(error, BodyWithdrawn):
        return TryLater(retry, Pause.NONE)
    if isinstance(error, PermissionRefused) and _is_refused_alone(retry, view.uploaded):
        return Park(Hold(str(error)))
    if isinstance(error, BUCKET_WIDE):
        refused_at = view.uploaded if retry.refused_at is None else retry.refused_at
        return TryLater(once_more._replace(refused_at=refused_at), Pause.BUCKET)
    if isinstance(error, Unavailable):
        return TryLater(once_more, Pause.BUCKET)
    if isinstance(error, Retryable | UploadMissing | NoSpace | LocalError):
        return TryLater(once_more, Pause.FILE)
    told = isinstance(error, Refused | SyncFailed)
    reason = str(error) if told else f"{type(error).__name__}: {error}"
    return Park(Hold(reason, transient=isinstance(error, QuotaUsedUp)))


def _is_refused_alone(retry: Retry, uploaded: int) -> bool:
    """True if this file was refused again and again, while others were taken."""
    return retry.failures >= OWN_REFUSALS and retry.refused_at is not None and uploaded > retry.refused_at
