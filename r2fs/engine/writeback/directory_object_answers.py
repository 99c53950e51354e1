"""Answers to uploads for a directory whose own object holds bytes, or may hold them by now.

Invariant: bytes at a key that ends in `/` are never overwritten: new metadata are a copy of the object onto itself.
Locks:     every function is called with Core.lock held.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from r2fs.engine.pending.attempts import UploadJob
from r2fs.engine.pending.store import InodeChange
from r2fs.model.keys import nfc
from r2fs.model.pending import Pending
from r2fs.model.records import ObjectInfo
from r2fs.model.transitions import corrected


@dataclass(frozen=True, slots=True)
class Correction:
    """What an answer taught of the object at the key, and of the base: the next attempt starts from it."""

    expects: bool = False  # `expected_etag` counts
    expected_etag: str | None = None
    changed: bool | None = None  # None: as it is
    change: InodeChange = field(default_factory=InodeChange)

    def apply(self, pending: Pending, moved: bool) -> Pending:
        """`moved`: renamed since the attempt began, so that the object at its key says nothing of the new one."""
        expected = self.expected_etag if self.expects and not moved else pending.expected_etag
        return corrected(pending, expected, pending.changed if self.changed is None else self.changed)


def expect(etag: str | None, change: InodeChange | None = None) -> Correction:
    """Another object is at the key than was expected; None: no object."""
    return Correction(True, etag, None, change or InodeChange())


def after_refusal(job: UploadJob, found: ObjectInfo, ours: bool) -> Correction | None:
    """The correction for a directory after a 412, where `found` is at its key now.

    Bytes that are there stay, and get the new metadata by a copy of the object onto itself. None: bytes of
    the directory that was renamed, and others at the new key: both have to stay where they are.
    """
    base = job.base
    if not job.copy or base is None or _in_place(job):
        return Correction(True, found.etag, not found.size, InodeChange(base=found.version))
    same = (found.etag, found.size) == (base.etag, base.size)
    return expect(found.etag) if ours or same or not found.size else None


def after_loss(job: UploadJob, found: ObjectInfo | None) -> Correction:
    """The correction for a directory where the object to copy is `found` by now; None: it is gone."""
    in_place = _in_place(job)
    if found is None:
        return Correction(True, None if in_place else job.expected_etag, True, InodeChange(base=None))
    etag = found.etag if in_place else None
    return Correction(in_place, etag, not found.size, InodeChange(base=found.version))


def _in_place(job: UploadJob) -> bool:
    return job.base is not None and nfc(job.base.key) == nfc(job.key)
