"""Foreign metadata: what another host made of an object's metadata, as changes of the inode that is uploaded there.

Invariant: what a program set here since the metadata were last seen stays; every other field is the other host's.
           Without metadata seen before, what is set here stays, and what is not set is the other host's.
Locks:     every function is called with Core.lock held.
"""

from __future__ import annotations

from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.stat import facts_of, merged, together
from r2fs.engine.pending.upload_job import UploadJob
from r2fs.model.metadata import Facts

FIELDS = ("mode", "uid", "gid", "mtime_ns", "extra")


def changed_while_sending(node: Node, claim: UploadJob, stored: Facts) -> dict[str, object]:
    """Metadata that the sender found changed and `stored`, but for what was changed here since: the next attempt takes
    all that differs from what is stored for a change of this host's."""
    now, sent = facts_of(node), claim.facts
    both = merged(stored, now, sent, node.is_dir)
    return {
        name: getattr(both, name)
        for name in FIELDS
        if getattr(both, name) != getattr(now, name) and (name != "mtime_ns" or sent.mtime_ns is not None)
    }


def found_at_key(node: Node, claim: UploadJob, there: Facts) -> dict[str, object]:
    """Changes of a pending inode after a 412, where another host's object of the same bytes has the metadata `there`.

    Empty where the sender merges them by itself: the inode's own metadata are not known, or a directory's were seen.
    """
    pending = node.pending
    if pending is None or not node.known or (node.is_dir and pending.stored is not None) or claim.copy:
        return {}
    now = facts_of(node)
    both = together(there, now) if pending.stored is None else merged(there, now, pending.stored, node.is_dir)
    # Staged bytes have their own mtime.
    names = (*(name for name in FIELDS if name != "mtime_ns" or node.is_dir), "content_type")
    return {"stored": there, **{name: getattr(both, name) for name in names}}


def says_the_same(there: Facts, ours: Facts) -> bool:
    typed = ours.content_type in (None, there.content_type)
    return typed and all(getattr(there, name) == getattr(ours, name) for name in FIELDS)
