"""New nodes: of a listed file, of a directory's own object, and of an object that is of another kind than listed.

Never:   enters a node into the table: `inodes/table.py` does.
Locks:   Core.lock around every function.
"""

from __future__ import annotations

from r2fs.engine.inodes.children import Packed
from r2fs.engine.inodes.directory_objects import OBJECT_NAME
from r2fs.engine.inodes.inode import Node
from r2fs.model.records import Kind, Version


def listed_file(ino: int, directory: Node, name: str, key: str, packed: Packed) -> Node:
    """Return the node of a file of which a listing alone is known."""
    then_ns = packed.modified_ns
    node = Node(ino, Kind.FILE, name, directory, then_ns, then_ns, then_ns, size=packed.size)
    node.base, node.modified_ns = Version(key, packed.etag, packed.size), then_ns
    return node


def take_attributes(node: Node, other: Node) -> None:
    """Give a new node version and attributes of `other`, of which the object is of another kind."""
    node.ctime_ns, node.atime_ns, node.touched = other.ctime_ns, other.atime_ns, other.touched
    node.mode, node.uid, node.gid = other.mode, other.uid, other.gid
    node.content_type, node.extra, node.base = other.content_type, other.extra, other.base
    node.metadata_known, node.mtime_known = other.metadata_known, other.mtime_known
    node.attr_cache_checked = other.attr_cache_checked
    node.modified_ns = other.modified_ns


def own_file(ino: int, directory: Node, version: Version) -> Node:
    """Return the read-only file that shows the bytes at the directory's own key."""
    now = directory.mtime_ns
    node = Node(ino, Kind.FILE, OBJECT_NAME, directory, now, now, now, mode=0o400, read_only=True)
    node.base, node.size, node.metadata_known = version, version.size, True
    return node
