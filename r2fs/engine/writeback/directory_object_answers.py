"""Answers to uploads for a directory whose own object holds bytes, or may hold them by now.

Invariant: bytes at a key that ends in `/` are never overwritten: new metadata are a copy of the object onto itself.
Locks:     every function is called with Core.lock held.
"""

from __future__ import annotations

from r2fs.engine.pending.upload_job import UploadJob
from r2fs.model.keys import nfc
from r2fs.model.records import ObjectInfo


def after_refusal(claim: UploadJob, found: ObjectInfo, ours: bool) -> dict[str, object] | None:
    """Changes of what a directory owes after a 412, where `found` is at its key now.

    Bytes that are there stay, and get the new metadata by a copy of the object onto itself. None: bytes of
    the directory that was renamed, and others at the new key: both have to stay where they are.
    """
    base = claim.base
    if not claim.copy or base is None or _in_place(claim):
        return {"base": found.version, "changed": not found.size, "expected_etag": found.etag}
    same = (found.etag, found.size) == (base.etag, base.size)
    return {"expected_etag": found.etag} if ours or same or not found.size else None


def after_loss(claim: UploadJob, found: ObjectInfo | None) -> dict[str, object]:
    """Changes of what a directory owes where the object to copy is `found` by now; None: it is gone."""
    if found is None:
        return {
            "base": None,
            "changed": True,
            "expected_etag": None if _in_place(claim) else claim.expected_etag,
        }
    changes: dict[str, object] = {"base": found.version, "changed": not found.size}
    return changes | ({"expected_etag": found.etag} if _in_place(claim) else {})


def _in_place(claim: UploadJob) -> bool:
    return claim.base is not None and nfc(claim.base.key) == nfc(claim.key)
