"""Special files: FIFOs, sockets and devices, each an empty object with its type in the `mode` metadata, as s3fs
has them.

Owns:  making them. The kernel opens, reads and writes them by itself: no byte of theirs reaches a driver.
Never: opens one; `Tree.as_stored` finds those that other hosts made, by their metadata.
Locks: takes Core.lock (30).
Fails: FileError's subclasses; NoSpace and LocalError where the journal cannot be written.
"""

from __future__ import annotations

import stat

from r2fs.engine.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.table import Tree
from r2fs.engine.namespace.create_remove import Names
from r2fs.model.errors import NotPermitted
from r2fs.model.keys import check_file_name, printable
from r2fs.model.metadata import DEVICE
from r2fs.model.ports import Caller
from r2fs.model.records import SPECIAL_KINDS


class SpecialFiles:
    def __init__(self, core: Core, tree: Tree, names: Names) -> None:
        self._core = core
        self._tree = tree
        self._names = names

    def make(self, caller: Caller, parent: int, name: str, mode: int, device: int) -> Node:
        """A name of the type in `mode` (st_mode); `device` is st_rdev, of a device only. Raises Exists."""
        kind = SPECIAL_KINDS.get(stat.S_IFMT(mode))
        if kind is None:
            raise NotPermitted(f"{printable(name)}: no file of type {stat.S_IFMT(mode):#o} can be made")
        directory, name = self._names.free_name(caller, parent, name)
        check_file_name(name)
        with self._core.lock:
            key = self._tree.child_key(directory, name)
            node = self._names.new_node(caller, directory, name, kind, stat.S_IMODE(mode))
            # Stored with its mode in any case: that is where the type is.
            node.mode = stat.S_IMODE(mode)
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                node.extra = {DEVICE: f"{device:x}"}
            self._names.add_pending(node, key)
            return node
