"""Directory objects that hold bytes: an object at a key that ends in `/` which another tool has filled.

Owns:    the rules for such an object. What is done to its directory never overwrites it and never deletes it:
         new attributes and a rename are copies inside the bucket that keep its bytes; rmdir is refused.
Never:   is shown in a listing: its bytes are read as `OBJECT_NAME` in the directory.
Locks:   every function is called with Core.lock held.
Fails:   NotPermitted.
"""

from __future__ import annotations

from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import NotPermitted
from r2fs.model.keys import printable

OBJECT_NAME = ".r2fs-directory-object"  # found by its name alone, so that `rm -r` does not meet it


def check_changeable(node: Node) -> None:
    """Raises NotPermitted for the file that shows a directory's own object."""
    if node.read_only:
        raise NotPermitted(
            f"{printable(node.name)}: shows the object at its directory's own key, and can only be read"
        )
