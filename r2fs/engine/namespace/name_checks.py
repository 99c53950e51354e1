"""Name checks: what must hold before a name is removed or changed.

Owns:    the errors that rmdir(2) and rename(2) give for it.
Never:   changes anything.
Locks:   every function is called with Core.lock held.
Fails:   FileError's subclasses.
"""

from __future__ import annotations

from r2fs.engine.inodes.directory_objects import OBJECT_NAME, check_changeable
from r2fs.engine.inodes.inode import Node, is_below
from r2fs.engine.inodes.table import Tree
from r2fs.model.errors import Busy, DirectoryNotEmpty, InvalidArgument, IsADirectory, NotADirectory, NotFound
from r2fs.model.keys import printable


def check_rename(tree: Tree, node: Node, directory: Node, target: Node | None, new_name: str) -> None:
    """`node` gets the name `new_name` in `directory`, where `target` has it now."""
    if node.deleted or directory.deleted or node.parent is None:
        raise NotFound(f"{printable(node.name)}: no such file or directory")
    check_changeable(node)
    if directory.children().get(new_name) is not target:
        raise Busy(f"{printable(new_name)}: changed while it was renamed over; try again")
    if is_below(directory, node):
        raise InvalidArgument(f"{printable(node.name)} cannot be moved into itself")
    if target is not None:
        if target.is_dir and not node.is_dir:
            raise IsADirectory(f"{printable(new_name)} is a directory")
        if node.is_dir and not target.is_dir:
            raise NotADirectory(f"{printable(new_name)} is not a directory")
        if target.is_dir:
            check_empty(target, new_name)
    tree.child_key(directory, new_name + ("/" if node.is_dir else ""))


def check_empty(directory: Node, name: str) -> None:
    """Raises DirectoryNotEmpty. A key that no listing shows keeps its directory, too."""
    if directory.own_bytes is not None:
        raise DirectoryNotEmpty(
            f"{printable(name)}: the object at its own key holds bytes, which are {OBJECT_NAME} in it: "
            "remove that object with an S3 tool first"
        )
    if directory.children() or (directory.listing and directory.listing.hidden):
        raise DirectoryNotEmpty(f"{printable(name)} is not empty")
