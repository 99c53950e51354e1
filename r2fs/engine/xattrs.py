"""Extended attributes: what a program can ask of a file about its life in the bucket.

Owns:  the read-only `user.r2fs.*` names.
Never: stores anything yet: setting any name is refused as not supported.
Locks: every method is called with Core.lock held.
"""

from __future__ import annotations

from r2fs.engine.core import Core
from r2fs.engine.node import Node
from r2fs.engine.tree import Tree
from r2fs.model.errors import NoAttribute, NotPermitted, NotSupported

PREFIX = "user.r2fs."


class ExtendedAttributes:
    def __init__(self, core: Core, tree: Tree) -> None:
        self._core = core
        self._tree = tree

    def names(self, node: Node) -> list[str]:
        return [PREFIX + name for name in self._values(node)]

    def get(self, node: Node, name: str) -> bytes:
        value = self._values(node).get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
        if value is None:
            raise NoAttribute(f"{self._tree.path(node)} has no attribute {name}")
        return value.encode()

    def set(self, node: Node, name: str) -> None:
        if name.startswith(PREFIX):
            raise NotPermitted(f"{name} is r2fs's own: it can only be read")
        raise NotSupported(f"{self._tree.path(node)}: extended attributes cannot be set yet")

    def remove(self, node: Node, name: str) -> None:
        self.set(node, name)

    def _values(self, node: Node) -> dict[str, str]:
        values = {"state": node.state.value, "key": node.owed.key if node.owed else self._tree.key(node)}
        if node.base is not None and node.base.etag:
            values["etag"] = node.base.etag
        if not node.is_dir:
            values["cached"] = str(self._cached_bytes(node))
        if node.owed is not None and node.owed.reason:
            values["reason"] = node.owed.reason
        return values

    def _cached_bytes(self, node: Node) -> int:
        """Bytes of the file that are on this disk."""
        if node.content is not None:
            return node.content.size if node.content.complete else node.content.snapshot().present.total()
        if node.owed is not None and node.owed.staged is not None:
            return node.owed.size
        return node.size if node.base is not None and self._core.cache.contains(node.base) else 0
