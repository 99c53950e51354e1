"""Handover: restores inodes and open files of the previous daemon, under their own numbers.

Inodes are restored first, then the journal's rows (`replay.py`), which overrule the record, then the open files. The number
of references that the kernel holds on a restored inode is unknown: such an inode is never dropped.

Never:   guesses: an inode that the session record lacks is unknown, and the kernel looks its name up after ESTALE.
Locks:   runs before any thread; takes Core.lock, as the stores require.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from r2fs.engine.content.local_file import Contents
from r2fs.engine.files.open_files import Files
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node, listing_of
from r2fs.engine.inodes.inode_numbers import InodeNumbers
from r2fs.engine.inodes.table import Tree
from r2fs.engine.pending.store import PendingStore
from r2fs.model.errors import R2fsError, Stale
from r2fs.model.keys import nfc, printable
from r2fs.model.records import Inheritance, Kind, KnownHandle, KnownNode, Version

log = logging.getLogger(__name__)

REFERENCES: Final = 1 << 62  # more than the kernel can give back


def restore_nodes(tree: Tree, numbers: InodeNumbers, inheritance: Inheritance) -> None:
    """Restore every inode that the kernel may name, under its name. Called before any other inode is made."""
    if inheritance.nodes:
        listing_of(tree.root).any_absent = True  # by an answer of the previous daemon
    made = {ino: _node(tree, known) for ino, known in inheritance.nodes.items() if ino != tree.root.ino}
    for ino, node in made.items():
        parent_ino = inheritance.nodes[ino].parent
        parent = tree.root if parent_ino == tree.root.ino else made.get(parent_ino)
        if parent is not None and parent.is_dir:
            spelled = inheritance.nodes[ino].name
            tree.restore_name(node, parent, node.name)
            node.spelled = spelled if spelled != node.name else None
    within = {node.ino for node in tree.walk(tree.root)}
    for ino, node in made.items():
        if ino not in within:
            tree.restore_nameless(node)
        tree.restore(node)
        if node.st_ino:
            node.st_ino = numbers.claim(node.st_ino)


def move_inherited(tree: Tree, node: Node, parent: Node, name: str) -> None:
    """Give a restored inode the name that the journal has for it."""
    tree.restore_name(node, parent, name)
    tree.touch(node)


def forget_leftovers(tree: Tree, pending_store: PendingStore) -> None:
    """Detach names with a pending delete and files without an object. Called after the rows are restored."""
    for node in tree.all_nodes():
        if node.lookups < REFERENCES or node.pending or node.deleted or node.is_dir or node.parent is None:
            continue
        base = node.base
        if base is None or pending_store.deletes.hides(base.key, base.etag, tree.tick):
            tree.detach(node)


def restore_handles(
    core: Core, tree: Tree, contents: Contents, files: Files, inheritance: Inheritance
) -> None:
    """Restore the open files. A file with a writer is not uploaded until its last writer closes.

    An error of one file is logged; the others are restored.
    """
    with core.lock:
        links = core.staging.links()
        for handle in inheritance.handles.values():
            node = tree.find(handle.ino)
            if node is None or node.kind is not Kind.FILE:
                continue
            path = links.get(handle.file)
            if node.content is None and path is not None:
                contents.adopt_open(node, path)
            try:
                _reopen(files, contents, node, handle)
            except R2fsError as error:
                log.error("%s: was open, and cannot be gone on with: %s", printable(node.name), error)


def _reopen(files: Files, contents: Contents, node: Node, known: KnownHandle) -> None:
    """Restore a handle under its number. Raises R2fsError, and leaves no handle of a writer then.

    Without O_APPEND: a repeated write must land at its first offset, which the kernel sends.
    """
    handle = files.handles.restore(known.handle, node, known.flags & os.O_ACCMODE)
    if not handle.writes:
        return
    try:
        files.sessions.make_dirty(node)
        source = contents.source(node)
    except Stale:  # unlinked, and only the kernel has its bytes: the handle stays, to be closed
        return
    except R2fsError:
        files.handles.remove(handle.number)
        raise
    if source is not None:
        files.hydration.later(node)


def _node(tree: Tree, known: KnownNode) -> Node:
    name = nfc(known.name)
    node = Node(known.ino, Kind(known.kind), name, None, known.mtime_ns, known.ctime_ns, known.mtime_ns)
    node.mode, node.uid, node.gid = known.mode, known.uid, known.gid
    node.metadata_known, node.mtime_known, node.modified_ns = (
        known.known,
        known.mtime_known,
        known.modified_ns,
    )
    node.lookups, node.kernel_knows, node.st_ino = REFERENCES, True, known.st_ino
    node.inherited = not (known.known or node.is_dir)
    if known.base is not None:
        node.base = Version(*known.base)
        node.size = node.base.size
    if node.is_dir:
        node.listing = tree.new_listing(node)
        node.listing.marker, node.listing.any_absent = node.base, True
    return node
