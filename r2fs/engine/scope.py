"""Scope: the part of the mount that a command names, as nodes and as keys.

Owns:  which nodes and deletes belong to the named paths. A path that was removed has keys, and no node.
Never: waits for anything, but for the listing that a path may need.
Locks: Scope's methods are called with Core.lock held; `Scopes.of` takes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from r2fs.engine.core import Core
from r2fs.engine.ledger import Ledger
from r2fs.engine.names import Names
from r2fs.engine.node import Node
from r2fs.engine.tree import Tree
from r2fs.model.errors import NotFound
from r2fs.model.keys import SYMLINK_SUFFIX, nfc
from r2fs.model.ports import Caller
from r2fs.model.records import OwedDelete


class Scope:
    """`nodes`: what is there of the named paths; `keys`: of all of them, without a slash at the end."""

    def __init__(self, tree: Tree, nodes: Sequence[Node], keys: Sequence[str]) -> None:
        self._tree = tree
        self.nodes = nodes
        self._exact = frozenset(nfc(key) for key in keys) | frozenset(
            nfc(key) + SYMLINK_SUFFIX for key in keys
        )
        self._below = tuple(nfc(key) + "/" for key in keys)

    def walk(self) -> Iterator[Node]:
        for node in self.nodes:
            yield from self._tree.walk(node)

    def has(self, row: OwedDelete) -> bool:
        """True for a delete at or below a named path, and for that of a renamed node's old name."""
        key = nfc(row.key)
        if key in self._exact or key.startswith(self._below):
            return True
        above = self._tree.find(row.after_ino) if row.after_ino is not None else None
        while above is not None and above not in self.nodes:
            above = above.parent
        return above is not None


class Scopes:
    def __init__(self, core: Core, tree: Tree, ledger: Ledger, names: Names) -> None:
        self._core = core
        self._tree = tree
        self._ledger = ledger
        self._names = names

    def of(self, paths: Sequence[str], must_be: bool = True) -> Scope | None:
        """None: the whole mount. Raises NotFound for a path that `must_be`, and is neither there nor was deleted
        here lately."""
        named = [[part for part in path.split("/") if part not in ("", ".")] for path in paths]
        if not named or not all(named):
            return None
        nodes, keys = [], [self._core.settings.bucket.prefix + "/".join(parts) for parts in named]
        for parts, key in zip(named, keys, strict=True):
            try:
                nodes.append(self._node(parts))
            except NotFound:
                with self._core.lock:
                    if must_be and not self._ledger.has_deleted(key):
                        raise
        return Scope(self._tree, nodes, keys)

    def _node(self, parts: Sequence[str]) -> Node:
        node = self._tree.root
        for part in parts:
            node = self._names.child(Caller(), node.ino, part)
        return node
