"""Named paths: the paths of a command, relative to the mount, as a Scope.

Locks: takes Core.lock; none during a request.
Fails: NotFound for a path that does not exist and was not deleted here lately; BadName.
"""

from __future__ import annotations

from collections.abc import Sequence

from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.table import Tree
from r2fs.engine.namespace.create_remove import Names
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.transfers import Scope
from r2fs.model.errors import NotADirectory, NotFound
from r2fs.model.keys import check_name, printable
from r2fs.model.ports import Caller


def parts_of(path: str) -> list[str]:
    """Return the names of a path relative to the mount. Raises BadName."""
    return [check_name(part) for part in path.split("/") if part not in ("", ".")]


def known_node(tree: Tree, path: str) -> Node:
    """Return the node at a path that the mount knows, with Core.lock held. NotFound, NotADirectory."""
    node = tree.root
    for part in parts_of(path):
        if not node.is_dir:
            raise NotADirectory(f"{printable(tree.path(node))} is not a directory")
        child = node.children().get(part)
        if child is None:
            raise NotFound(f"{printable(path)}: no such file or directory is known to the mount")
        node = child
    return node


class Scopes:
    def __init__(self, records: Records, names: Names) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._names = names

    def of(self, paths: Sequence[str], must_be: bool = True) -> Scope | None:
        """Return the scope of the paths; None: the whole mount. Raises NotFound if a path `must_be`."""
        named = [[part for part in path.split("/") if part not in ("", ".")] for path in paths]
        if not named or not all(named):
            return None
        nodes, keys = [], [self._core.settings.bucket.prefix + "/".join(parts) for parts in named]
        for parts, key in zip(named, keys, strict=True):
            try:
                nodes.append(self._node(parts))
            except NotFound:
                with self._core.lock:
                    if must_be and not self._pending.deletes.any_lately(key):
                        raise
        return Scope(self._tree, nodes, keys)

    def _node(self, parts: Sequence[str]) -> Node:
        node = self._tree.root
        for part in parts:
            node = self._names.child(Caller(), node.ino, part)
        return node
