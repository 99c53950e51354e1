"""Bucket roots: the root of a mount, and in a mount of several buckets the directory of each.

Owns:    the rules for them: they have no object and get none, and a program neither makes, renames nor removes a
         bucket; what moves from one bucket to another is copied by the program; a bucket may be read-only.
Never:   asks the bucket.
Locks:   Core.lock is not needed: a node never leaves its bucket.
Fails:   NotPermitted, ReadOnly, NeedsCopy.
"""

from __future__ import annotations

from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import NeedsCopy, NotPermitted, ReadOnly
from r2fs.model.keys import printable
from r2fs.model.verbs import ROOT


def is_bucket_root(core: Core, node: Node) -> bool:
    """True for the root, and for the directory of a bucket."""
    if node.ino == ROOT:
        return True
    return node.parent is not None and node.parent.ino == ROOT and core.settings.bucket.several


def bucket_of(core: Core, node: Node) -> str:
    """The name of a node's bucket in a mount of several; empty for the root, and in a mount of one bucket."""
    if not core.settings.bucket.several:
        return ""
    above = node
    while above.parent is not None and above.parent.ino != ROOT:
        above = above.parent
    return above.name


def check_entry(core: Core, directory: Node, name: str) -> None:
    """Check a new name. Raises NotPermitted for one beside the buckets, ReadOnly in a directory that is read-only."""
    _check_beside_buckets(core, directory, name)
    check_writable(core, directory)


def check_removable(core: Core, node: Node) -> None:
    """Raises NotPermitted for the directory of a bucket, ReadOnly for what is in a read-only one."""
    if node.parent is not None:
        _check_beside_buckets(core, node.parent, node.name)
    check_writable(core, node)


def _check_beside_buckets(core: Core, directory: Node, name: str) -> None:
    if directory.ino == ROOT and core.settings.bucket.several:
        raise NotPermitted(
            f"{printable(name)}: the root of this mount has the directories of its buckets, and nothing else "
            "(`r2fs bucket create` makes a bucket)"
        )


def check_writable(core: Core, node: Node | None = None) -> None:
    """Raises ReadOnly for a mount that is read-only, or whose bucket of `node` is."""
    settings = core.settings
    if settings.read_only:
        raise ReadOnly("this mount is read-only")
    if node is None or not any(member.read_only for member in settings.bucket.members):
        return
    name = bucket_of(core, node)
    if name and settings.bucket.member(name).read_only:
        raise ReadOnly(f"{name}: this bucket is read-only here (read_only in [buckets.{name}])")


def check_move(core: Core, node: Node, directory: Node, target: Node | None, new_name: str) -> None:
    """Check a rename of `node` into `directory`, where `target` has the name now. NeedsCopy to another bucket."""
    check_removable(core, node)
    if target is not None:
        check_removable(core, target)
    check_entry(core, directory, new_name)
    if bucket_of(core, node) != bucket_of(core, directory):
        raise NeedsCopy(
            f"{printable(node.name)}: a rename to another bucket: a program copies the file instead"
        )
