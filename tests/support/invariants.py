"""Invariants of the engine's tree: names, parents, numbers and counts agree. Core.lock is held around `check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from r2fs.engine.inodes.inode import Node
from r2fs.model.keys import is_conflict_name


def check(
    root: Node, numbers: Mapping[int, Node], conflicts: set[Node], hidden_keys: int, with_bytes: Set[Node]
) -> None:
    """Raise AssertionError for a broken invariant. `numbers`: every node by inode number; `conflicts`: conflict copies
    in the tree; `with_bytes`: directories with bytes at their own key."""
    named, hidden = set[Node](), 0
    for node in _walk(root):
        assert node not in named, f"{node.name}: has two names"
        named.add(node)
        assert numbers.get(node.ino) is node, f"{node.name}: its number is another node's"
        assert not node.deleted, f"{node.name}: removed, and still named"
        assert node.is_dir == (node.listing is not None), f"{node.name}: {node.kind} and its listing"
        if node.listing is None:
            continue
        hidden += len(node.listing.hidden)
        if node.listing.object is not None:
            named.add(node.listing.object)
        children = node.listing.children
        for child in children.nodes():
            assert child.parent is node, f"{node.name}: {child.name!r} is astray"
            assert children.get(child.name) is child, f"{node.name}: {child.name!r} is another's name"
            assert child.name not in children.packed, f"{node.name}: {child.name!r} is there twice"
        directories = sum(child.is_dir for child in children.nodes())
        counted = node.listing.directories
        assert counted == directories, f"{node.name}: {directories} directories, {counted} counted"
    assert hidden_keys == hidden, f"{hidden} hidden keys, {hidden_keys} counted"
    copies = {node for node in named if is_conflict_name(node.name)}
    assert conflicts == copies, f"conflict copies: {conflicts ^ copies}"
    assert with_bytes <= named, f"noted for their bytes, and not in the tree: {with_bytes - named}"
    nameless = [node for node in numbers.values() if node not in named]
    assert all(node.deleted for node in nameless), f"neither named nor removed: {nameless}"
    kept = [node for node in nameless if not (node.lookups or node.handles or node.pending)]
    assert not kept, f"needed by nobody, and not given back: {kept}"


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children().nodes() if node.listing is not None else ():
        yield from _walk(child)
