"""Directory objects with bytes: an object at a key that ends in `/`, which another tool has written.

Owns:    the rules for such an object. No operation on its directory overwrites or deletes the object: new attributes
         and a rename are copies inside the bucket that keep the bytes; rmdir is refused.
Never:   shows the object in a listing: its bytes are read as `OBJECT_NAME` in the directory.
Locks:   Core.lock around every function.
Fails:   NotPermitted.
"""

from __future__ import annotations

import logging
from collections.abc import Set

from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import NotPermitted
from r2fs.model.keys import printable
from r2fs.model.records import Kind, Version

log = logging.getLogger(__name__)

OBJECT_NAME = ".r2fs-directory-object"  # found by its name alone, so that `rm -r` does not see the file


def check_changeable(node: Node) -> None:
    """Raises NotPermitted for the file that shows a directory's own object."""
    if node.read_only:
        raise NotPermitted(
            f"{printable(node.name)}: shows the object at its directory's own key, and can only be read"
        )


def own_file(ino: int, directory: Node, version: Version) -> Node:
    """Return the read-only file that shows the bytes at the directory's own key."""
    now = directory.mtime_ns
    node = Node(ino, Kind.FILE, OBJECT_NAME, directory, now, now, now, mode=0o400, read_only=True)
    node.base, node.size, node.metadata_known = version, version.size, True
    return node


class OwnObjects:
    """The directories of the tree with bytes at their own key."""

    def __init__(self) -> None:
        # guarded by: Core.lock
        self._keys: dict[Node, str] = {}  # the key that the log has named

    def note(self, directory: Node, version: Version) -> None:
        """Add a directory; the log names its object once, and again under another key."""
        if directory.deleted or self._keys.get(directory) == version.key:
            return
        self._keys[directory] = version.key
        log.warning(
            "%s: an object of %d bytes at the key of a directory: kept as it is; read it as %s in that directory",
            printable(version.key), version.size, OBJECT_NAME,
        )  # fmt: skip

    def drop(self, directory: Node) -> None:
        """Forget a directory that leaves the tree."""
        self._keys.pop(directory, None)

    def directories(self) -> Set[Node]:
        """Each directory at whose key bytes were seen since it is in the tree."""
        return self._keys.keys()

    def versions(self) -> list[Version]:
        """The objects of those directories that still have one."""
        return [version for node in self._keys if (version := node.own_bytes) is not None]
