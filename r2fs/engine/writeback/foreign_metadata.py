"""Foreign metadata: what another host made of an object's metadata, as changes of the inode that is uploaded there.

Invariant: what a program set here since the metadata were last seen stays; every other field is the other host's.
           Without metadata seen before, what is set here stays, and what is not set is the other host's.
Locks:     every function is called with Core.lock held.
"""

from __future__ import annotations

from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.stat import facts_of, merged, together
from r2fs.engine.pending.attempts import UploadJob
from r2fs.engine.pending.store import InodeChange
from r2fs.model.metadata import Facts

FIELDS = ("mode", "uid", "gid", "mtime_ns", "extra")


def changed_while_sending(node: Node, claim: UploadJob, stored: Facts) -> InodeChange:
    """Metadata that the sender found changed and `stored`, but for what was changed here since: the next attempt takes
    all that differs from what is stored for a change of this host's."""
    both = merged(stored, facts_of(node), claim.facts, node.is_dir)
    return _changes(node, both, with_time=claim.facts.mtime_ns is not None)


def found_at_key(node: Node, claim: UploadJob, there: Facts) -> InodeChange:
    """Changes of a pending inode after a 412, where another host's object of the same bytes has the metadata `there`.

    Empty where the sender merges them by itself: the inode's own metadata are not known, or a directory's were seen.
    """
    seen = node.base_metadata
    if not node.metadata_known or (node.is_dir and seen is not None) or claim.copy:
        return InodeChange()
    now = facts_of(node)
    both = together(there, now) if seen is None else merged(there, now, seen, node.is_dir)
    change = _changes(node, both, with_time=node.is_dir)  # staged bytes have their own mtime
    change["base_metadata"] = there
    if both.content_type != now.content_type:
        change["content_type"] = both.content_type
    return change


def _changes(node: Node, both: Facts, with_time: bool) -> InodeChange:
    now, change = facts_of(node), InodeChange()
    if both.mode != now.mode:
        change["mode"] = both.mode
    if both.uid != now.uid:
        change["uid"] = both.uid
    if both.gid != now.gid:
        change["gid"] = both.gid
    if with_time and both.mtime_ns is not None and both.mtime_ns != now.mtime_ns:
        change["mtime_ns"] = both.mtime_ns
    if both.extra != now.extra:
        change["extra"] = both.extra
    return change


def says_the_same(there: Facts, ours: Facts) -> bool:
    typed = ours.content_type in (None, there.content_type)
    return typed and all(getattr(there, name) == getattr(ours, name) for name in FIELDS)
