"""Scope: the part of the mount that a command names, as nodes and as keys.

Owns:  which nodes and deletes belong to the named paths. A removed path has keys, and no node.
Locks: Core.lock around every method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.table import Tree
from r2fs.model.keys import SYMLINK_SUFFIX, nfc
from r2fs.model.records import PendingDelete


class Scope:
    """`nodes`: of the named paths that exist; `keys`: of all named paths, without a slash at the end."""

    def __init__(self, tree: Tree, nodes: Sequence[Node], keys: Sequence[str]) -> None:
        self._tree = tree
        self.nodes = nodes
        self._exact = frozenset(nfc(key) for key in keys) | frozenset(
            nfc(key) + SYMLINK_SUFFIX for key in keys
        )
        self._below = tuple(nfc(key) + "/" for key in keys)

    def walk(self) -> Iterator[Node]:
        """Yield all nodes that may have pending state."""
        for node in self.nodes:
            yield from self._tree.walk_nodes(node)

    def has(self, row: PendingDelete) -> bool:
        """True for a delete at or below a named path, or of the old name of a renamed node."""
        key = nfc(row.key)
        if key in self._exact or key.startswith(self._below):
            return True
        above = self._tree.find(row.after_ino) if row.after_ino is not None else None
        while above is not None and above not in self.nodes:
            above = above.parent
        return above is not None
