"""Protected names: roots of buckets, and objects with bytes at the keys of directories.

No program makes, renames or removes a bucket; files are copied from one bucket to another; a bucket may be read-only.
An object with bytes at a key with a final `/`, of another tool, is read as OBJECT_NAME in its directory. No change of
the directory overwrites or deletes the object: new attributes and a rename are copies inside the bucket, and rmdir is
refused.

Locks: Core.lock around OwnObjects; the checks need none, since a node never leaves its bucket.
Fails: NotPermitted, ReadOnly, NeedsCopy.
"""

from __future__ import annotations

import logging
from collections.abc import Set

from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import NeedsCopy, NotPermitted, ReadOnly
from r2fs.model.keys import printable
from r2fs.model.records import Kind, Version
from r2fs.model.verbs import ROOT

log = logging.getLogger(__name__)

OBJECT_NAME = ".r2fs-directory-object"  # found by its name alone, so that `rm -r` does not see the file


# ---- buckets
def is_bucket_root(core: Core, node: Node) -> bool:
    """True for the root, and for the directory of a bucket."""
    if node.ino == ROOT:
        return True
    return node.parent is not None and node.parent.ino == ROOT and core.settings.bucket.several


def bucket_of(core: Core, node: Node) -> str:
    """Return the name of a node's bucket in a mount of several; empty for the root, and in a mount of one bucket."""
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
    """Check a removal. Raises NotPermitted for the directory of a bucket, ReadOnly in a read-only bucket."""
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
    """Raises ReadOnly for a read-only mount or bucket of `node`, NotPermitted for the file that shows a directory's
    own object."""
    if node is not None and node.read_only:
        raise NotPermitted(
            f"{printable(node.name)}: shows the object at its directory's own key, and can only be read"
        )
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


# ---- objects of directories
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
        """Return each directory of the tree with bytes seen at its key."""
        return self._keys.keys()

    def versions(self) -> list[Version]:
        """Return the objects that are still at the keys of these directories."""
        return [version for node in self._keys if (version := node.own_bytes) is not None]
