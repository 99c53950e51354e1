"""Directory objects that hold bytes: an object at a key that ends in `/` which another tool has filled.

Owns:    the rules for such an object. What is done to its directory never overwrites it and never deletes it:
         new attributes and a rename are copies inside the bucket that keep its bytes; rmdir is refused.
Never:   is shown in a listing: its bytes are read as `OBJECT_NAME` in the directory.
Locks:   every function is called with Core.lock held.
Fails:   NotPermitted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import NotPermitted
from r2fs.model.keys import printable
from r2fs.model.records import Version

log = logging.getLogger(__name__)

OBJECT_NAME = ".r2fs-directory-object"  # found by its name alone, so that `rm -r` does not meet it


def check_changeable(node: Node) -> None:
    """Raises NotPermitted for the file that shows a directory's own object."""
    if node.read_only:
        raise NotPermitted(
            f"{printable(node.name)}: shows the object at its directory's own key, and can only be read"
        )


class OwnObjects:
    """The directories at whose own key bytes were seen."""

    def __init__(self) -> None:
        # guarded by: Core.lock
        self._directories: set[Node] = set()
        self._warned: set[str] = set()  # keys that the log has named

    def note(self, directory: Node, version: Version) -> None:
        """Add a directory; the log names each key once."""
        self._directories.add(directory)
        if version.key not in self._warned:
            self._warned.add(version.key)
            log.warning(
                "%s: an object of %d bytes at the key of a directory: kept as it is; read it as %s in that directory",
                printable(version.key), version.size, OBJECT_NAME,
            )  # fmt: skip

    def versions(self, in_tree: Callable[[Node], bool]) -> list[Version]:
        """Those objects, of directories that still have one and are in the tree; the others are dropped."""
        self._directories = {node for node in self._directories if node.own_bytes and in_tree(node)}
        return [version for node in self._directories if (version := node.own_bytes) is not None]
