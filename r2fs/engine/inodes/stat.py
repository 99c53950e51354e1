"""Attributes: stat of a node, from its own fields, its content, the metadata in the bucket and the mount's defaults.

Metadata of the bucket, of this host and of the local cache are merged here. Core.lock is held around every function.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.model.etags import EMPTY_MD5
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
        size, mtime_ns, ctime_ns = _size_and_times(node)
        return Attributes(
            ino=node.ino,
            kind=node.kind,
            size=0 if node.is_dir else size,
            mode=self._mode(node, shown.mode),
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

    def _mode(self, node: Node, shown: int | None) -> int:
        """Return the permission bits. Of a shared mount, other users get none while those in the bucket are unknown."""
        settings, mode = self._settings, shown
        if mode is None:
            mode = (0o777 if node.kind in (Kind.DIRECTORY, Kind.SYMLINK) else 0o666) & ~settings.umask
        known = node.metadata_known or node.ino == ROOT or (shown is not None and not node.outdated)
        return mode if known or not settings.allow_other else mode & 0o700

    def recall(self, node: Node, key: str) -> None:
        """Apply the metadata that the local cache has of the node's version. Looked up once for each version.

        Of a directory without LastModified only where `keeps_shown`: another host may have changed the metadata since.
        """
        if node.metadata_known or node.attr_cache_checked or node.pending:
            return
        version = node.base
        if version is None and node.listing is not None:
            # A directory's object is empty by any tool, and in no listing of the parent.
            version = node.listing.marker or Version(key, EMPTY_MD5, 0)
        if version is None:
            return
        node.attr_cache_checked = True
        undated = node.is_dir and node.modified_ns is None
        kept = (
            None if undated and not self._keeps_shown else self._core.cache.recall(version.key, version.etag)
        )
        if kept is None or is_older(kept, node.modified_ns):
            return
        self.apply(node, recalled(kept))
        then_ns = kept.get(MODIFIED)
        if undated and isinstance(then_ns, int):
            node.modified_ns = then_ns  # compared with that of the next listing

    def learn(self, node: Node, info: ObjectInfo) -> None:
        """Apply the metadata of HEAD's or GET's answer."""
        self.apply(node, attributes_from(info))

    def apply(self, node: Node, facts: Facts) -> None:
        """`fill`, and move the ctime with an mtime that stat is to show."""
        stays = node.shown and not node.outdated
        if facts.mtime_ns is not None and not node.mtime_known and not stays:
            node.ctime_ns = max(node.ctime_ns, facts.mtime_ns)
        fill(node, facts)


def keeps_shown(settings: Settings) -> bool:
    """True if stat keeps showing a listing's attributes after HEAD has returned the stored ones. False where HEAD is
    sent before stat."""
    return settings.mtime != "exact" and not settings.allow_other


def _size_and_times(node: Node) -> tuple[int, int, int]:
    """Return size in bytes, mtime and ctime in ns."""
    mtime_ns = node.mtime_ns if node.pinned is None else node.pinned.mtime_ns
    assert mtime_ns is not None
    content, staged = node.content, node.pending is not None and node.pending.staged is not None
    if content is None:
        size = node.pending.size if node.pending is not None and staged else node.size
        return size, mtime_ns, node.ctime_ns
    if staged:  # the kernel keeps the times of a file that is written
        stat = content.stat()
        if stat.st_mtime_ns != node.mtime_ns:
            return content.size, *file_times(node, stat)
    return content.size, mtime_ns, node.ctime_ns


def file_times(node: Node, stat: os.stat_result) -> tuple[int, int]:
    """Return mtime and ctime of a node with this staged file.

    The file's ctime also moves when r2fs renames the file: only a write counts, and a write moves the mtime.
    """
    if stat.st_mtime_ns == node.mtime_ns:
        return node.mtime_ns, node.ctime_ns
    return stat.st_mtime_ns, max(node.ctime_ns, stat.st_mtime_ns)


def _links(node: Node) -> int:
    """Return nlink: of a directory two, and 1 for each directory below; 1 while some are unknown."""
    if node.deleted:
        return 0
    if node.listing is None:
        return 1
    return 2 + node.listing.directories if node.listing.whole else 1


def fill(node: Node, facts: Facts) -> None:
    """Take over the metadata that the bucket has of a node's version, below fields that this host has set.

    Attributes that stat has shown stay shown, since reading a file must not change its stat; uploads use the new ones.
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
    """Return the bucket's metadata `there`, below this host's."""
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
    """Show the fields that a program of this host has set, beside the pinned ones."""
    if node.pinned is None:
        return
    changed = {name: value for name, value in facts.items() if name in ("mode", "uid", "gid", "mtime_ns")}
    if changed:
        node.pinned = replace(node.pinned, **changed)  # type: ignore[arg-type]


def move_time(directory: Node, now_ns: int) -> None:
    """Move a directory's times, after a name was added or removed. Kept in memory alone."""
    directory.mtime_ns = directory.ctime_ns = now_ns
    pin(directory, {"mtime_ns": now_ns})


def shown_of(node: Node) -> Facts:
    """Return mode, owner and mtime that stat shows."""
    return node.pinned or Facts(node.mode, node.uid, node.gid, node.mtime_ns)


def outdate(node: Node) -> None:
    """Drop metadata that another host has changed in the bucket. The old ones stay shown until the new ones are known."""
    node.pinned = shown_of(node)
    node.outdated, node.attr_cache_checked = True, True
    node.metadata_known = node.mtime_known = False
    node.mode = node.uid = node.gid = node.content_type = None
    node.extra = {}


def refresh(node: Node, modified_ns: int) -> bool:
    """Take over the LastModified of the shown version, of a LIST or HEAD. True if another host changed its metadata.

    Known metadata are fetched again before stat; without metadata, stat shows LastModified.
    """
    seen_ns = node.modified_ns
    moved = seen_ns is not None and not same_moment(seen_ns, modified_ns)
    if seen_ns is not None and not moved and modified_ns % SECOND_NS == 0:
        return False  # HEAD has whole seconds, the listing had more
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
    """Take over the LastModified of HEAD's or GET's answer. False if older than the node's last listing."""
    seen_ns = node.modified_ns
    if seen_ns is not None and same_moment(seen_ns, info.modified_ns):
        return True
    if seen_ns is not None and info.modified_ns < seen_ns:
        return False
    node.modified_ns = info.modified_ns
    return True


def merged(there: Facts, ours: Facts, base: Facts, of_directory: bool) -> Facts:
    """Merge three ways: fields that this host changed since `base` are `ours`, all others are `there`."""
    mtime_ns = there.mtime_ns if ours.mtime_ns == base.mtime_ns else ours.mtime_ns
    if of_directory and ours.mtime_ns == base.mtime_ns:
        # A directory's moves on this host with each name, and is not stored for that.
        mtime_ns = max((each for each in (ours.mtime_ns, there.mtime_ns) if each is not None), default=None)
    extra = {
        name: (ours if ours.extra.get(name) != base.extra.get(name) else there).extra.get(name)
        for name in {**there.extra, **ours.extra, **base.extra}
    }
    # A type that no program has set follows the name.
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
    """Return the metadata to be stored beside the node's bytes."""
    mtime_ns = node.mtime_ns if node.mtime_known else None
    kind = SPECIAL_KINDS.get(TYPE_BITS[node.kind])
    return Facts(node.mode, node.uid, node.gid, mtime_ns, node.content_type, node.extra, kind)
