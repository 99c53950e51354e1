"""Attributes: what stat shows of a node, and what a change of them asks for.

Owns:  how size and times come together from the node, its content and the mount's defaults.
Locks: every method is called with Core.lock held.
"""

from __future__ import annotations

import os

from r2fs.engine.core import Core
from r2fs.engine.node import Node
from r2fs.model.metadata import Facts, attributes_from, device_number, recalled
from r2fs.model.records import SPECIAL_KINDS, TYPE_BITS, Attributes, Kind, ObjectInfo, Version
from r2fs.model.verbs import ROOT

EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"  # the ETag of an object without bytes
_BLOCK = 512
_DEVICES = (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE)


class AttributeView:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._settings = core.settings

    def of(self, node: Node) -> Attributes:
        settings = self._settings
        size, mtime_ns, ctime_ns = node.size, node.mtime_ns, node.ctime_ns
        content = node.content
        if content is not None:
            size = content.size
            if node.owed and node.owed.staged:  # the kernel keeps the times of a file that is written
                mtime_ns, ctime_ns = file_times(node, os.fstat(content.fd))
        elif node.owed and node.owed.staged:
            size = node.owed.size
        mode = node.mode
        if mode is None:
            mode = (0o777 if node.kind in (Kind.DIRECTORY, Kind.SYMLINK) else 0o666) & ~settings.umask
            if settings.allow_other and not node.known and node.ino != ROOT:
                mode &= 0o700  # the bucket could not be asked: it may be closed to others
        return Attributes(
            ino=node.ino,
            kind=node.kind,
            size=0 if node.is_dir else size,
            mode=mode,
            uid=settings.uid if node.uid is None else node.uid,
            gid=settings.gid if node.gid is None else node.gid,
            mtime_ns=mtime_ns,
            ctime_ns=ctime_ns,
            atime_ns=node.atime_ns,
            nlink=_links(node),
            blocks=-(-size // _BLOCK),
            st_ino=node.st_ino,
            rdev=device_number(node.extra) if node.kind in _DEVICES else 0,
        )

    def recall(self, node: Node, key: str) -> None:
        """Facts that this host learned of the version before, for a node that only a listing told of."""
        version = node.base
        if node.listing is not None and version is None:
            # A directory's object is empty, whoever made it, and is not in the listing that shows its name.
            version = node.listing.marker or Version(key, EMPTY_MD5, 0)
        if node.known or node.asked or version is None or node.owed:
            return
        node.asked = True
        kept = self._core.cache.recall(version.key, version.etag)
        if kept is not None:
            self.apply(node, recalled(kept))

    def learn(self, node: Node, info: ObjectInfo) -> None:
        self.apply(node, attributes_from(info))

    def apply(self, node: Node, facts: Facts) -> None:
        if facts.mtime_ns is not None and not node.mtime_known:
            node.ctime_ns = max(node.ctime_ns, facts.mtime_ns)
        fill(node, facts)


def file_times(node: Node, stat: os.stat_result) -> tuple[int, int]:
    """mtime and ctime of a node whose staged file this is.

    The file's ctime also moves when r2fs moves it between its directories: only a write counts,
    and a write shows in its mtime.
    """
    if stat.st_mtime_ns == node.mtime_ns:
        return node.mtime_ns, node.ctime_ns
    return stat.st_mtime_ns, max(node.ctime_ns, stat.st_mtime_ns)


def _links(node: Node) -> int:
    """Of a directory: two, and one for each directory in it; 1 says that nobody has counted them."""
    if node.deleted:
        return 0
    if node.listing is None:
        return 1
    return 2 + node.listing.directories if node.listing.whole else 1


def fill(node: Node, facts: Facts) -> None:
    """What the bucket tells of a node's version. What a program here has set since is stronger."""
    ours = facts_of(node)
    both = together(facts, ours)
    node.known = True
    node.mode, node.uid, node.gid = both.mode, both.uid, both.gid
    node.content_type, node.extra = both.content_type, both.extra
    node.stored_kind = facts.kind
    if ours.mtime_ns is None and facts.mtime_ns is not None:
        node.mtime_ns, node.mtime_known = facts.mtime_ns, True


def together(there: Facts, ours: Facts) -> Facts:
    """What the bucket has, under what this host knows better."""
    return Facts(
        mode=there.mode if ours.mode is None else ours.mode,
        uid=there.uid if ours.uid is None else ours.uid,
        gid=there.gid if ours.gid is None else ours.gid,
        mtime_ns=there.mtime_ns if ours.mtime_ns is None else ours.mtime_ns,
        content_type=ours.content_type or there.content_type,
        extra={**there.extra, **ours.extra},
        kind=ours.kind or there.kind,
    )


def facts_of(node: Node) -> Facts:
    """What of a node is stored beside its bytes."""
    mtime_ns = node.mtime_ns if node.mtime_known else None
    kind = SPECIAL_KINDS.get(TYPE_BITS[node.kind])
    return Facts(node.mode, node.uid, node.gid, mtime_ns, node.content_type, node.extra, kind)
