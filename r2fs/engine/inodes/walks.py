"""Walks: the nodes at and below a node.

Locks: Core.lock around every walk. The tree may change between two steps: each directory's children are copied.
"""

from __future__ import annotations

from collections.abc import Iterator

from r2fs.engine.inodes.inode import Node


def walk(node: Node) -> Iterator[Node]:
    """Yield `node` and all known nodes below; packed files get nodes."""
    yield node
    if node.is_dir:
        for child in list(node.children().values()):
            yield from walk(child)


def walk_nodes(node: Node) -> Iterator[Node]:
    """Yield `node` and those below that have a node: all directories, and all with pending state or handles."""
    yield node
    if node.is_dir:
        for child in list(node.children().nodes()):
            yield from walk_nodes(child)


def unpack_below(node: Node) -> None:
    """Make the nodes of all files below: the keys of packed ones are those of their directory."""
    for _ in walk(node):
        pass


def is_pending_below(node: Node) -> bool:
    """True if a node at or below `node` has pending state."""
    return any(one.pending for one in walk_nodes(node))
