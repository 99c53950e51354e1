"""Stored attributes: what an upload has stored of an inode is kept in the journal's table `attributes`.

Invariant: written in the transaction that ends the upload, so that a later mount shows what this one did.
"""

from __future__ import annotations

from functools import partial

from r2fs.engine.core import Core
from r2fs.engine.inode_numbers import derived
from r2fs.engine.inodes.attribute_cache import has_new_times
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.table import Tree
from r2fs.engine.pending.store import PendingStore
from r2fs.model.metadata import Facts, remembered
from r2fs.model.records import KeptAttributes, Version


def keep(
    core: Core, tree: Tree, pending_store: PendingStore, node: Node, version: Version, facts: Facts
) -> None:
    """An upload has ended: what it stored is kept, in the transaction that says so. With Core.lock held."""
    rows = core.journal.attributes
    if not node.st_ino:
        node.st_ino = core.numbers.claim(derived(version.key) if node.is_dir else node.ino)
    shown_ns = node.mtime_ns if node.is_dir else None
    rows.put(
        KeptAttributes(
            version.key, version.etag, version.size, node.st_ino, remembered(facts), node.ctime_ns, shown_ns,
            node.target, None, core.clock.time(),
        )
    )  # fmt: skip
    parent = node.parent
    if parent is not None and has_new_times(parent):
        rows.put_shown(tree.key(parent), parent.st_ino, parent.mtime_ns, parent.ctime_ns)
    for one in (node, parent):
        if one is not None and one.is_dir:
            pending_store.on_commit(partial(setattr, one, "kept_ns", (one.mtime_ns, one.ctime_ns)))
