"""Attributes: what stat shows of a node, and what a change of them asks for.

Owns:  how size and times come together from the node, its content and the mount's defaults.
Locks: every method is called with Core.lock held.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from r2fs.engine.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.model.metadata import (
    MODIFIED,
    SECOND_NS,
    Facts,
    attributes_from,
    device_number,
    is_older,
    recalled,
    same_moment,
)
from r2fs.model.records import SPECIAL_KINDS, TYPE_BITS, Attributes, Kind, ObjectInfo, Version
from r2fs.model.settings import Settings
from r2fs.model.verbs import ROOT

EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"  # the ETag of an object without bytes
_BLOCK = 512
_DEVICES = (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE)


class AttributeView:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._settings = core.settings
        self._keeps_shown = keeps_shown(core.settings)

    def of(self, node: Node) -> Attributes:
        settings = self._settings
        shown = node if node.pinned is None else node.pinned
        node.shown = self._keeps_shown
        size, mtime_ns, ctime_ns = node.size, shown.mtime_ns, node.ctime_ns
        assert mtime_ns is not None
        content = node.content
        if content is not None:
            size = content.size
            if node.pending and node.pending.staged:  # the kernel keeps the times of a file that is written
                stat = os.fstat(content.fd)
                if stat.st_mtime_ns != node.mtime_ns:
                    mtime_ns, ctime_ns = file_times(node, stat)
        elif node.pending and node.pending.staged:
            size = node.pending.size
        mode = shown.mode
        if mode is None:
            mode = (0o777 if node.kind in (Kind.DIRECTORY, Kind.SYMLINK) else 0o666) & ~settings.umask
        if (
            settings.allow_other
            and not node.metadata_known
            and node.ino != ROOT
            and (shown.mode is None or node.outdated)
        ):
            mode &= 0o700  # the bucket could not be asked: it may be closed to others
        return Attributes(
            ino=node.ino,
            kind=node.kind,
            size=0 if node.is_dir else size,
            mode=mode,
            uid=settings.uid if shown.uid is None else shown.uid,
            gid=settings.gid if shown.gid is None else shown.gid,
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
        if node.metadata_known or node.attr_cache_checked or version is None or node.pending:
            return
        node.attr_cache_checked = True
        if node.is_dir and node.modified_ns is None and not self._keeps_shown:
            return  # nothing tells whether another host has changed them since
        kept = self._core.cache.recall(version.key, version.etag)
        if kept is not None and not is_older(kept, node.modified_ns):
            self.apply(node, recalled(kept))
            then_ns = kept.get(MODIFIED)
            if node.is_dir and node.modified_ns is None and isinstance(then_ns, int):
                node.modified_ns = then_ns  # what a listing tells is compared with that

    def learn(self, node: Node, info: ObjectInfo) -> None:
        self.apply(node, attributes_from(info))

    def apply(self, node: Node, facts: Facts) -> None:
        stays = node.shown and not node.outdated
        if facts.mtime_ns is not None and not node.mtime_known and not stays:
            node.ctime_ns = max(node.ctime_ns, facts.mtime_ns)
        fill(node, facts)


def keeps_shown(settings: Settings) -> bool:
    """True if stat keeps showing a listing's attributes after the stored ones are learned. False where the stored
    ones are asked for before anything is shown."""
    return settings.mtime != "exact" and not settings.allow_other


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
    """Take over the metadata that the bucket has of a node's version, below those that a program here has set.

    Attributes that stat has shown stay shown: looking at a file does not change it. Writes use the learned ones.
    """
    if node.outdated:
        node.outdated, node.pinned = False, None
    elif node.shown and not node.metadata_known and node.pinned is None:
        node.pinned = shown_of(node)
    if node.pending is not None:
        node.base_metadata = facts
    ours = facts_of(node)
    both = together(facts, ours)
    node.metadata_known = True
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


def pin(node: Node, facts: Mapping[str, object]) -> None:
    """A program set these here: they are shown, beside what else is."""
    changed = {name: value for name, value in facts.items() if name in ("mode", "uid", "gid", "mtime_ns")}
    if node.pinned is not None and changed:
        node.pinned = replace(node.pinned, **changed)  # type: ignore[arg-type]


def move_time(directory: Node, now_ns: int) -> None:
    """A name came or went. The directory's times are kept in memory alone."""
    directory.mtime_ns = directory.ctime_ns = now_ns
    pin(directory, {"mtime_ns": now_ns})


def shown_of(node: Node) -> Facts:
    """Mode, owner and mtime as stat shows them."""
    return node.pinned or Facts(node.mode, node.uid, node.gid, node.mtime_ns)


def outdate(node: Node) -> None:
    """Another host gave the version other metadata. Those known before are shown until the new ones are."""
    node.pinned = shown_of(node)
    node.outdated, node.attr_cache_checked = True, True
    node.metadata_known = node.mtime_known = False
    node.mode = node.uid = node.gid = node.content_type = None
    node.extra = {}


def refresh(node: Node, modified_ns: int) -> bool:
    """A listing or HEAD shows the version that is known, of this LastModified. Did another host change its metadata?

    What was known of them is asked for before it is shown again; else LastModified is all that stat shows of them.
    """
    seen_ns = node.modified_ns
    moved = seen_ns is not None and not same_moment(seen_ns, modified_ns)
    if seen_ns is not None and not moved and modified_ns % SECOND_NS == 0:
        return False  # HEAD tells less than the listing did
    node.modified_ns = modified_ns
    if not moved:
        return False
    if node.metadata_known or node.outdated:
        outdate(node)
    if not node.metadata_known and not node.mtime_known and not node.is_dir:
        node.mtime_ns = modified_ns
        node.pinned = node.pinned if node.outdated else None
    node.ctime_ns = max(node.ctime_ns, modified_ns)
    return True


def is_news(node: Node, info: ObjectInfo) -> bool:
    """True if an answer of HEAD or GET is as new as the last listing of the node's version. Notes its LastModified."""
    seen_ns = node.modified_ns
    if seen_ns is not None and same_moment(seen_ns, info.modified_ns):
        return True
    if seen_ns is not None and info.modified_ns < seen_ns:
        return False
    node.modified_ns = info.modified_ns
    return True


def merged(there: Facts, ours: Facts, base: Facts, of_directory: bool) -> Facts:
    """Merge three ways: fields that this host changed since `base` are ours, all others are `there`."""
    mtime_ns = there.mtime_ns if ours.mtime_ns == base.mtime_ns else ours.mtime_ns
    if (
        of_directory and ours.mtime_ns == base.mtime_ns
    ):  # moves here with each name, and is not stored for that
        mtime_ns = max((one for one in (ours.mtime_ns, there.mtime_ns) if one is not None), default=None)
    extra = {
        name: (ours if ours.extra.get(name) != base.extra.get(name) else there).extra.get(name)
        for name in {**there.extra, **ours.extra, **base.extra}
    }
    # A type that nobody has set goes by the name.
    by_name = base.content_type is None or ours.content_type != base.content_type
    return Facts(
        mode=there.mode if ours.mode == base.mode else ours.mode,
        uid=there.uid if ours.uid == base.uid else ours.uid,
        gid=there.gid if ours.gid == base.gid else ours.gid,
        mtime_ns=mtime_ns,
        content_type=ours.content_type if by_name else there.content_type,
        extra={name: value for name, value in extra.items() if value is not None},
        kind=ours.kind or there.kind,
    )


def facts_of(node: Node) -> Facts:
    """What of a node is stored beside its bytes."""
    mtime_ns = node.mtime_ns if node.mtime_known else None
    kind = SPECIAL_KINDS.get(TYPE_BITS[node.kind])
    return Facts(node.mode, node.uid, node.gid, mtime_ns, node.content_type, node.extra, kind)
