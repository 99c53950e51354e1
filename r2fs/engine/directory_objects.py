"""Directory objects that hold bytes: an object at a key that ends in `/` which another tool has filled.

Owns:    the rules for such an object. What is done to its directory never overwrites it and never deletes it:
         new attributes and a rename are copies inside the bucket that keep its bytes; rmdir is refused.
Never:   is shown in a listing: its bytes are read as `OBJECT_NAME` in the directory.
Locks:   every function is called with Core.lock held.
Fails:   NotPermitted.
"""

from __future__ import annotations

from r2fs.engine.node import Node
from r2fs.engine.sender import Claim
from r2fs.model.errors import NotPermitted
from r2fs.model.keys import nfc, printable
from r2fs.model.records import ObjectInfo

OBJECT_NAME = ".r2fs-directory-object"  # found by its name alone, so that `rm -r` does not meet it


def check_changeable(node: Node) -> None:
    """Raises NotPermitted for the file that shows a directory's own object."""
    if node.read_only:
        raise NotPermitted(
            f"{printable(node.name)}: shows the object at its directory's own key, and can only be read"
        )


def after_refusal(claim: Claim, found: ObjectInfo, ours: bool) -> dict[str, object] | None:
    """Changes of what a directory owes after a 412, where `found` is at its key now.

    Bytes that are there stay, and get the new metadata by a copy of the object onto itself. None: bytes of
    the directory that was renamed, and others at the new key: both have to stay where they are.
    """
    base = claim.base
    if not claim.copy or base is None or _in_place(claim):
        return {"base": found.version, "changed": not found.size, "expect": found.etag}
    same = (found.etag, found.size) == (base.etag, base.size)
    return {"expect": found.etag} if ours or same or not found.size else None


def after_loss(claim: Claim, found: ObjectInfo | None) -> dict[str, object]:
    """Changes of what a directory owes where the object to copy is `found` by now; None: it is gone."""
    if found is None:
        return {"base": None, "changed": True, "expect": None if _in_place(claim) else claim.expect}
    changes: dict[str, object] = {"base": found.version, "changed": not found.size}
    return changes | ({"expect": found.etag} if _in_place(claim) else {})


def _in_place(claim: Claim) -> bool:
    return claim.base is not None and nfc(claim.base.key) == nfc(claim.key)
