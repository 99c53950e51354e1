"""Contents: the open local file of each inode; clean ones are taken from the cache, and given back after the last close.

Owns:    open content by inode; pins of the cache's entries; the Source of each file with missing bytes.
Never:   copies content; deletes a byte that the bucket lacks; moves a file to or from staging (`staged_files.py`).
Locks:   every method is called with Core.lock held; callbacks of a Source take it.
Fails:   StateDamaged if a staged file is missing; Stale; NoSpace and LocalError.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from r2fs.disk.cache.cache import Taken
from r2fs.disk.cache.eviction import AGAIN_S
from r2fs.disk.cache.table import Admission
from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.content import idle
from r2fs.engine.content.disk_space import DiskSpace
from r2fs.engine.content.own_copies import OwnCopies
from r2fs.engine.content.source import Source
from r2fs.engine.content.streaming import Streams
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.stat import fill, is_news
from r2fs.engine.pending.records import Records
from r2fs.model.errors import NoSpace, Stale
from r2fs.model.keys import printable
from r2fs.model.metadata import attributes_from, remembered_of
from r2fs.model.pending import PENDING_STATES, Pending, Staged, State
from r2fs.model.ranges import Range
from r2fs.model.records import ObjectInfo, Proof, Version
from r2fs.model.transitions import with_staged

log = logging.getLogger(__name__)

T = TypeVar("T")


class Contents:
    def __init__(self, records: Records, streams: Streams, space: DiskSpace) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._own_copies = OwnCopies(records)
        self._space = space
        self._idle = space.idle
        # guarded by: Core.lock; by inode number
        self._sources: dict[int, Source] = {}
        self._stored_at_s: dict[int, float] = {}  # Clock.time() since when clean content is on this disk
        self._used_s: dict[int, float] = {}  # Clock.time() of the last use of idle content noted in the cache
        self._pinned: dict[int, Version] = {}  # at most one pin of the cache each
        self._pinned_by: dict[Version, set[int]] = {}  # the reverse: inode numbers
        self._streams = streams

    # ---- open content
    def of(self, node: Node, is_use: bool = True) -> SparseFile:
        """Return the inode's open content; opens the file in staging or in the cache, or creates an empty one.

        `is_use`: an open counts in the cache's order of eviction.
        """
        if node.content is None:
            has_staged = node.pending is not None and node.pending.staged is not None
            node.content = self._staged(node) if has_staged else self._clean(node, is_use)
        return node.content

    def source(self, node: Node) -> Source | None:
        """Return the Source of the missing ranges; None for complete content."""
        content = node.content or self.of(node)
        if content.complete:
            return None
        source = self._sources.get(node.ino)
        if source is None or source.content is not content:
            assert node.base is not None, "partial content always has a base"
            source = Source(
                node.base,
                content,
                lambda info: self._learn(node, info),
                lambda version: self._lose(node, version),
                node.ino,
            )
            self._sources[node.ino] = source
            if node.pending is None or node.pending.staged is None:
                self._streams.begin(source)
        return source

    def rebased(self, node: Node) -> None:
        """Download from `node.base` from now on: a copy in the bucket, of the same bytes."""
        source = self._sources.get(node.ino)
        if source is not None and node.base is not None:
            source.version = node.base

    def rekeyed(self, node: Node, old: Version) -> None:
        """Make the cache's entry of the version that was copied the one of `node.base`."""
        assert node.base is not None
        pinned = node.ino in self._pinned
        self._unpin(node)
        if self._is_anothers(node, old):  # the entry's file is another inode's
            self._core.cache.drop(old)
        else:
            self._core.cache.rekey(old, node.base)
        if pinned:
            self.pin(node)

    def _staged(self, node: Node) -> SparseFile:
        assert node.pending is not None and node.pending.staged is not None
        path = self._core.staging.path(node.pending.staged.file)
        try:
            return SparseFile.adopt(path, path.stat().st_size, None)
        except FileNotFoundError:
            raise self._core.staging.lost(path, node.pending.key) from None

    def _clean(self, node: Node, is_use: bool) -> SparseFile:
        version = node.base
        if version is None:  # unlinked, and open since before a takeover
            raise Stale(f"{node.name} is gone")
        path = self._core.staging.link_path(node.ino)
        is_anothers = version in self._pinned_by and self._is_anothers(node, version)
        taken = None if is_anothers else self._taken(version, path, is_use)
        self.pin(node)
        self._stored_at_s[node.ino] = self._core.clock.time() if taken is None else taken.stored_at_s
        if taken is not None:
            return SparseFile.adopt(path, version.size, taken.present)
        try:
            return self.with_room(lambda: SparseFile.create(path, version.size, complete=version.size == 0))
        except NoSpace:
            if not version.size:
                raise
            return SparseFile.hollow(path, version.size)

    def _is_anothers(self, node: Node, version: Version) -> bool:
        """True if another inode has the version's file open: one that lost its name to this one.

        Two inodes that shared the cache's file would each fill it, release parts of it, and write to it, unknown to
        the other. An idle file is retired.
        """
        others = self._pinned_by.get(version, set()) - {node.ino}
        for ino in self._idle.among(others):
            self._idle.retire(ino)
            others.discard(ino)
        return bool(others)

    def _taken(self, version: Version, path: Path, is_use: bool) -> Taken | None:
        """Link the cache's file of this version as `path`. None: a miss, or a disk without room for a name."""
        try:
            return self.with_room(lambda: self._core.cache.take(version, path, is_use))
        except NoSpace:
            return None

    def with_room(self, make: Callable[[], T]) -> T:
        """Call `make`; again, after an eviction, if the disk has no room. Raises NoSpace."""
        try:
            return make()
        except NoSpace:
            self._space.make_now(0)  # or another thread did just now
            return make()

    def keep_whole(self, node: Node) -> None:
        """Keep all bytes on the disk, whatever the cache's limit: the file is about to be this host's."""
        content = self.of(node)
        self._streams.keep(self._sources.get(node.ino), content, self._core.staging.link_path(node.ino))

    def adopt_open(self, node: Node, path: Path) -> None:
        """Adopt, at a takeover, complete content that a program still has open, by its link in open/."""
        node.content = SparseFile.adopt(path, path.stat().st_size, None)
        self._stored_at_s[node.ino] = self._core.clock.time()
        self.pin(node)

    def _lose(self, node: Node, missing: Version) -> None:
        """Go on with a copy that this host has made of the missing version, if any."""
        if self._own_copies.find(node, missing):
            with self._core.lock:
                self.rebased(node)

    def _learn(self, node: Node, info: ObjectInfo) -> None:
        """Keep the metadata in a GET's answer for stat: listings have none."""
        with self._core.lock:
            if (
                node.metadata_known
                or node.base is None
                or info.etag != node.base.etag
                or info.metadata is None
            ):
                return
            if not is_news(node, info):
                return
            fill(node, metadata := attributes_from(info))
            if node.pinned is None and node.lookups:  # else the kernel has none, and each message delays it
                self._core.kernel.forget_attributes(node.ino)
        self._core.cache.remember_later(node.base.key, node.base.etag, remembered_of(info, metadata))

    def distrust(self, node: Node) -> None:
        """Record a failed read of the disk: clean content is downloaded again after the last close."""
        if node.content is not None and node.base is not None and not (node.pending and node.pending.staged):
            node.content.distrust()
            self._core.cache.drop(node.base)

    def distrust_version(self, version: Version) -> None:
        """Distrust the content of every inode that has the version open."""
        for ino in self._pinned_by.get(version, ()):
            if (node := self._tree.find(ino)) is not None:
                self.distrust(node)

    # ---- evidence
    def proof(self, node: Node) -> Proof:
        """Return size, mtime and ctime of the content's file now."""
        stat = self.of(node).stat()
        return Proof(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def edits(self, node: Node) -> tuple[Range, ...] | None:
        """Return the ranges in which the staged bytes may differ from `node.base`; None: all."""
        staged = node.pending.staged if node.pending is not None else None
        if staged is None or node.content is None or (known := node.content.edits()) is None:
            return staged.edits if staged is not None else None
        return tuple(known)

    # ---- to and from the cache
    def leave_cache(self, node: Node) -> None:
        """Forget the content as clean: it has been moved to staging."""
        self._idle.take(node.ino)
        if node.base is not None:
            self._core.cache.drop(node.base)  # the entry is the same file, and vouches for its mtime
        self._unpin(node)
        self._streams.end(node.ino)

    def enter_cache(self, node: Node) -> None:
        """Put open content into the cache that the bucket has as `node.base` from now on."""
        assert node.content is not None
        self._stored_at_s[node.ino] = self._core.clock.time()
        if node.handles:
            self.pin(node)
            self._admit([(node, node.content)])
        else:
            self._retire(node)

    def close_unused(self, node: Node) -> None:
        """Close content that no handle needs: staged, idle for a while, or into the cache."""
        if node.handles or node.content is None:
            return
        is_staged = node.pending is not None and node.pending.staged is not None
        if not is_staged and not node.deleted and node.ino in self._idle:
            return
        self._pending.unwatch_base(node)
        if node.deleted and node.state not in PENDING_STATES:
            self.discard(node)
        elif node.pending and node.pending.staged:
            self._close_staged(node, node.content, node.pending, node.pending.staged)
        elif not self._keep_idle(node):
            self._retire(node)

    def _close_staged(self, node: Node, content: SparseFile, pending: Pending, staged: Staged) -> None:
        unsealed = node.state is State.DIRTY  # the journal had no room: its row lacks the file's size
        if content.complete and not node.sending and not unsealed and not staged.lists_ranges:
            if (edits := self.edits(node)) != staged.edits:
                self._pending.note(node, with_staged(pending, staged._replace(edits=edits)))
            content.close()
            node.content = None

    def _keep_idle(self, node: Node) -> bool:
        """True if the content stays open, or has been retired as the oldest idle file."""
        content, base = node.content, node.base
        if (
            node.deleted
            or content is None
            or base is None
            or not content.complete
            or content.read_failed
            or content.in_memory
            or base.size > idle.LARGEST
        ):
            return False
        return self._idle.add(node, self._retire_idle) or node.content is None

    def _retire_idle(self, files: Sequence[idle.IdleFile]) -> None:
        for file in files:
            if file.node.deleted:
                self.discard(file.node)
        self._retire(*[file.node for file in files if not file.node.deleted and not self._is_damaged(file)])

    def _is_damaged(self, file: idle.IdleFile) -> bool:
        """True if another program wrote to the idle file, which is discarded then, with its entry of the cache."""
        if not file.has_changed():
            return False
        node = file.node
        log.warning("%s: the cached file was changed; it is fetched again", printable(node.name))
        if node.base is not None:
            self._core.cache.drop(node.base)
        self.discard(node)
        return True

    def wake(self, node: Node, is_use: bool = True) -> None:
        """End the idleness of an inode; called before each open. A changed or expired file is downloaded again."""
        file = self._idle.take(node.ino)
        if file is None or self._is_damaged(file):
            return
        now_s = self._core.clock.time()
        if self._has_expired(node.ino, now_s):  # idle files are not in use, so not exempt
            self._retire(node)
            assert node.base is not None
            self._core.cache.drop(node.base)
        else:
            another = is_use and self._is_another_use(node.ino, now_s)
            self._core.cache.count_hit(node.base if another else None)

    def _is_another_use(self, ino: int, now_s: float) -> bool:
        """True once in AGAIN_S: the cache's order needs no row for each open."""
        another = now_s - self._used_s.get(ino, self._stored_at_s[ino]) >= AGAIN_S
        if another:
            self._used_s[ino] = now_s
        return another

    def _has_expired(self, ino: int, now_s: float) -> bool:
        ttl_s = self._core.settings.cache_ttl_s
        if not ttl_s or 0 <= now_s - self._stored_at_s[ino] <= ttl_s:
            return False
        version = self._pinned.get(ino)  # of what a person has pinned, listings compare the version
        return version is None or not self._core.cache.is_pinned(version.key)

    def retire_expired(self) -> None:
        """Give idle content past `cache_ttl` to the cache."""
        now_s = self._core.clock.time()
        self._idle.retire_expired(lambda ino: self._has_expired(ino, now_s))

    def retire_idle(self) -> None:
        """Give all idle content to the cache."""
        self._idle.retire_all()

    def discard(self, node: Node) -> None:
        """Delete the content."""
        self._streams.end(node.ino)
        self._sources.pop(node.ino, None)
        self._stored_at_s.pop(node.ino, None)
        self._used_s.pop(node.ino, None)
        self._idle.take(node.ino)
        if node.content is not None:
            self._core.staging.unlink(node.content.path)
            node.content.close()
            node.content = None
        self._unpin(node)

    # ---- pins
    def pin(self, node: Node) -> None:
        """Protect the inode's version in the cache from eviction."""
        if node.base is not None and self._pinned.get(node.ino) != node.base:
            if node.ino in self._pinned:
                self._unpin(node)
            self._pinned[node.ino] = node.base
            self._pinned_by.setdefault(node.base, set()).add(node.ino)
            self._core.cache.pin(node.base)

    def _unpin(self, node: Node) -> None:
        version = self._pinned.pop(node.ino, None)
        if version is not None:
            inos = self._pinned_by[version]
            inos.discard(node.ino)
            if not inos:
                del self._pinned_by[version]
            self._core.cache.unpin(version)

    def _retire(self, *nodes: Node) -> None:
        """Close clean content without handles, and give it to the cache."""
        closed, cache = [(node, self._closed(node)) for node in nodes], self._core.cache
        self._admit(
            [(n, c) for n, c in closed if not (c.complete and n.base and cache.contains(n.base, True))]
        )
        for node, content in closed:
            self._stored_at_s.pop(node.ino, None)
            self._used_s.pop(node.ino, None)
            self._core.staging.unlink(content.path)

    def _closed(self, node: Node) -> SparseFile:
        """Close an inode's content; return it."""
        content = self.of(node)
        self._unpin(node)
        self._streams.end(node.ino)
        self._sources.pop(node.ino, None)
        if not content.complete and not content.closed and node.base is not None:
            detail = f"{content.here_bytes()} of {node.base.size} bytes"
            self._core.history.note(node.ino, node.base.key, "downloaded in part", detail)
        # First, as it waits for a fill under way: between a fill's write and its utime the file has a time that the
        # entry would vouch for, and that the next `take` would not find.
        content.close()
        node.content = None
        return content

    def _admit(self, files: Sequence[tuple[Node, SparseFile]]) -> None:
        """Enter files into the cache, in one transaction."""
        entries = []
        for node, content in files:
            version = node.base
            assert version is not None
            present = None if content.complete else content.snapshot()[0]
            if content.read_failed and not content.in_memory:
                self._core.cache.drop(version)
            elif not content.in_memory and (present is None or present):
                stored_at_s = self._stored_at_s.get(node.ino)
                entries.append(Admission(version, content.path, version.size, present, stored_at_s))
        if entries:
            self._core.cache.admit_all(entries)
