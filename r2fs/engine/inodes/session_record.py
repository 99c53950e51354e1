"""Succession: what a daemon that goes on with this session must know of a node.

Owns:  which fields these are.
Never: keeps anything: Core.memory does, where the driver can be taken over at all.
Locks: called with Core.lock held.

A node of which the kernel knows is put there before the kernel is told its number, and again when its
name or its version changes. What it owes the bucket is in the journal, which is stronger.
"""

from __future__ import annotations

from r2fs.engine.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.model.mime import content_type
from r2fs.model.records import KnownNode


def remember(core: Core, node: Node) -> None:
    # A read-only view of an object belongs to no listing: a successor makes it anew.
    if core.memory is not None and node.kernel_knows and not node.read_only:
        core.memory.node(known(node))


def known(node: Node) -> KnownNode:
    """With attributes as they are shown: where others are stored, the successor is to learn them again."""
    base, parent, pinned = node.base, node.parent, node.pinned
    shown = pinned or node
    return KnownNode(
        node.ino,
        0 if node.deleted or parent is None else parent.ino,
        node.spelled or node.name,
        node.kind.value,
        None if base is None else (base.key, base.etag, base.size),
        node.mtime_ns if shown.mtime_ns is None else shown.mtime_ns,
        node.ctime_ns,
        shown.mode,
        shown.uid,
        shown.gid,
        pinned is None
        and node.metadata_known
        and not node.extra
        and node.content_type in (None, content_type(node.name)),
        node.mtime_known and pinned is None,
        node.st_ino,
        node.modified_ns,
    )
