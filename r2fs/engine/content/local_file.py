"""Contents: the local file behind a node, and its way between cache, open and staging.

Owns:    which directory a node's bytes lie in, and every move between them, by rename and link:
             cache entry ── take ──▶ open/  ── first writer ──▶ staging/data ── uploaded ──▶ open/ ─▶ cache
Never:   copies content; deletes a byte that the bucket lacks; takes a name out of staging/data that
         a row had (`content/staging_gc.py` does, and `drop_left` where the disk knows that the row is over).
Locks:   every method is called with Core.lock held; what a Source calls back takes it.
Fails:   StateDamaged where a staged file has gone; Stale; NoSpace and LocalError.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from r2fs.disk.cache.cache import Taken
from r2fs.disk.durable import local_error
from r2fs.disk.filecalls import open_unless_writable
from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.content import idle
from r2fs.engine.content.disk_space import DiskSpace
from r2fs.engine.content.reader import Reader
from r2fs.engine.content.source import Source
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.stat import fill, is_news
from r2fs.engine.pending.records import Records
from r2fs.model.errors import NoSpace, R2fsError, Stale, StateDamaged
from r2fs.model.keys import printable
from r2fs.model.metadata import attributes_from, remembered_of
from r2fs.model.pending import PENDING_STATES, State
from r2fs.model.ranges import Range
from r2fs.model.records import ObjectInfo, Proof, Version
from r2fs.model.transitions import with_staged

log = logging.getLogger(__name__)

T = TypeVar("T")


class Contents:
    def __init__(self, records: Records, reader: Reader, space: DiskSpace) -> None:
        self._core = records.core
        self._pending = records.pending
        self._attempts = records.attempts
        self._space = space
        self._idle = space.idle
        self._sources: dict[int, Source] = {}  # by inode number
        self._stored_at_s: dict[int, float] = {}  # Clock.time() since when clean content is on this disk
        self._pinned: dict[int, Version] = {}  # by inode number: at most one pin of the cache's each
        self._pinned_by: dict[Version, set[int]] = {}  # the reverse: inode numbers
        self._streams = reader.streams

    # ------------------------------------------------------------------ getting at bytes
    def of(self, node: Node) -> SparseFile:
        """The node's open content: what it has, what staging has, what the cache has, or nothing yet."""
        if node.content is None:
            node.content = self._staged(node) if node.pending and node.pending.staged else self._clean(node)
        return node.content

    def source(self, node: Node) -> Source | None:
        """Where missing ranges come from; None for content that is complete."""
        content = self.of(node)
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
        """A copy inside the bucket made `node.base` another version of the same bytes."""
        source = self._sources.get(node.ino)
        if source is not None and node.base is not None:
            source.version = node.base

    def rekeyed(self, node: Node, old: Version) -> None:
        """The cache's entry of the version that was copied is that of `node.base` now."""
        assert node.base is not None
        pinned = node.ino in self._pinned
        self._unpin(node)
        if self._is_anothers(node, old):  # the entry's file is another node's
            self._core.cache.drop(old)
        else:
            self._core.cache.rekey(old, node.base)
        if pinned:
            self._pin(node)

    def _staged(self, node: Node) -> SparseFile:
        assert node.pending is not None and node.pending.staged is not None
        path = self._core.staging.path(node.pending.staged.file)
        try:
            return SparseFile.adopt(path, path.stat().st_size, None)
        except FileNotFoundError:
            raise StateDamaged(f"{node.pending.key}: its bytes should be in {path}, and are not") from None

    def _clean(self, node: Node) -> SparseFile:
        version = node.base
        if version is None:  # unlinked, and open since before a take-over
            raise Stale(f"{node.name} is gone")
        path = self._core.staging.link_path(node.ino)
        taken = None if self._is_anothers(node, version) else self._taken(version, path)
        self._pin(node)
        self._stored_at_s[node.ino] = self._core.clock.time() if taken is None else taken.stored_at_s
        if taken is not None:
            return SparseFile.adopt(path, version.size, taken.present)
        try:
            return self._with_room(lambda: SparseFile.create(path, version.size, complete=version.size == 0))
        except NoSpace:
            if not version.size:
                raise
            return SparseFile.hollow(path, version.size)

    def _is_anothers(self, node: Node, version: Version) -> bool:
        """True if another node has its file open: one that lost its name, where the same version has the name again.

        Two that shared the cache's file would each fill it, give parts of it back, and write to it, unknown to
        the other. One that rests makes way.
        """
        others = self._pinned_by.get(version, set()) - {node.ino}
        for ino in self._idle.among(others):
            self._idle.retire(ino)
            others.discard(ino)
        return bool(others)

    def _taken(self, version: Version, path: Path) -> Taken | None:
        """The cache's file of this version, by the further name `path`. None: a miss, or a disk without room for a name."""
        try:
            return self._with_room(lambda: self._core.cache.take(version, path))
        except NoSpace:
            return None

    def _with_room(self, make: Callable[[], T]) -> T:
        try:
            return make()
        except NoSpace:
            self._space.make_now(0)  # or somebody else did just now
            return make()

    def keep_whole(self, node: Node) -> None:
        """All of it is to come here, and to stay, whatever the cache's limit says: it is about to be this host's."""
        content = self.of(node)
        self._streams.keep(self._sources.get(node.ino), content, self._core.staging.link_path(node.ino))

    def adopt_open(self, node: Node, path: Path) -> None:
        """At a take-over: complete content that a program has open still, by its link in open/."""
        node.content = SparseFile.adopt(path, path.stat().st_size, None)
        self._stored_at_s[node.ino] = self._core.clock.time()
        self._pin(node)

    def _lose(self, node: Node, version: Version) -> None:
        """That version is not there any more: unless by a copy of our own (`Resolver.found_own_copy` looks),
        nobody needs to wait with a write of that key any more for this node's sake."""
        with self._core.lock:
            if not self._attempts.may_be_copied(node, version):
                self.lost(node, version)

    def lost(self, node: Node, version: Version) -> None:
        """With Core.lock held."""
        node.base_missing = version
        self._pending.waiting.inode_settled(node.ino)

    def _learn(self, node: Node, info: ObjectInfo) -> None:
        """A GET told the version's metadata: kept for stat, which listings cannot tell."""
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
            fill(node, attributes_from(info))
            if node.pinned is None:
                self._core.kernel.forget_attributes(node.ino)
        self._core.cache.remember(node.base.key, node.base.etag, remembered_of(info))

    def distrust(self, node: Node) -> None:
        """The disk failed to read it. What is clean is fetched again, once nobody has it open."""
        if node.content is not None and node.base is not None and not (node.pending and node.pending.staged):
            node.content.doubtful = True
            self._core.cache.drop(node.base)

    # ------------------------------------------------------------------ into staging
    def stage(self, node: Node) -> str:
        """The node's content moves to staging, to be written; its file name there.

        The caller writes the journal row next, and calls `unstage` if that fails.
        """
        content = self.of(node)
        self._idle.take(node.ino)
        self.keep_whole(node)
        content.make_writable()
        name = self._core.staging.adopt(content, node.ino)
        self._core.crash_point("staged")
        if node.base is not None:
            self._core.cache.drop(node.base)  # the entry is the same file, and vouches for its mtime
        os.utime(
            content.fd, ns=(node.atime_ns, node.mtime_ns)
        )  # the file's times are the node's from here on
        self._unpin(node)
        self._streams.end(node.ino)
        return name

    def drop_left(self, node: Node, name: str) -> None:
        """The name of an earlier stay in staging, which the disk knows to be over.

        Before the file is opened for writing: later, the name's end would change the file's ctime,
        and with it what proves "unchanged".
        """
        self._core.staging.remove(name)
        if node.stale_staged_name == name:
            node.stale_staged_name = None

    def unstage(self, node: Node) -> None:
        """The journal refused: the file is clean content as before."""
        assert node.content is not None
        node.content.rename_to(self._core.staging.link_path(node.ino))
        self._pin(node)

    def new_staged(self, node: Node) -> str:
        """An empty file in staging, for a new name."""
        node.content = self._with_room(self._core.staging.create)
        return node.content.path.name

    def sealed_fd(self, node: Node) -> int | None:
        """A descriptor of the complete staged file, the caller's to close; None while somebody could write to it."""
        content = self.of(node)
        assert content.complete, "what is missing has to be written"
        content.make_readonly()
        try:
            return open_unless_writable(content.path)
        except OSError as error:
            raise local_error(error, content.path) from error

    def nobody_writes(self, node: Node) -> bool:
        """Is there neither a writing descriptor nor a writable mapping, now?"""
        fd = self.sealed_fd(node)
        if fd is None:
            return False
        os.close(fd)
        return True

    def proof(self, node: Node) -> Proof:
        """What fstat says of the content now."""
        stat = os.fstat(self.of(node).fd)
        return Proof(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def edits(self, node: Node) -> tuple[Range, ...] | None:
        """Where the staged bytes differ from those of `node.base`; None: anywhere."""
        if node.pending is None or node.content is None:
            return None
        known = node.content.edits()
        staged = node.pending.staged
        return (staged.edits if staged is not None else None) if known is None else tuple(known)

    # ------------------------------------------------------------------ out of staging
    def keep_name(self, node: Node) -> None:
        """Its row is about to go, and with it the name in staging: another for content that is open.

        In that transaction: where the disk gives none, the row stays until it does. Not where the file's ctime still
        has to prove something.
        """
        content = node.content
        if content is None or not self._core.staging.holds(content.path):
            return
        staged, path = content.path, self._core.staging.link_path(node.ino)
        content.link_to(path)

        def undo() -> None:
            content.path = staged
            self._core.staging.unlink(path)

        self._pending.on_rollback(undo)

    def settled(self, node: Node, staged: str) -> None:
        """The row is gone: the bucket has these bytes as `node.base`. Into the cache with them."""
        self._stored_at_s[node.ino] = self._core.clock.time()
        if node.content is None:
            self._admit(node, self._core.staging.path(staged), None)
            return
        self._leave_staging(node.content, node)
        if node.handles:
            self._pin(node)
            self._admit(node, node.content.path, node.content)
        else:
            self._retire(node)

    def _leave_staging(self, content: SparseFile, node: Node) -> None:
        """Its row is gone, and the name in staging is its no more: another, if the disk has one."""
        if not self._core.staging.holds(content.path):
            return
        path = self._core.staging.link_path(node.ino)
        try:
            content.link_to(path)
        except R2fsError as error:  # its descriptors are enough, and its bytes are in the bucket
            log.info("%s: open, and without a name from here on: %s", printable(node.name), error)
            content.path = path

    def closed(self, node: Node) -> None:
        """The last handle is gone."""
        if node.content is None or (node.ino in self._idle and not node.deleted):
            return
        self._pending.unwatch_base(node)
        if node.deleted and node.state not in PENDING_STATES:
            self.discard(node)
        elif node.pending and node.pending.staged:
            unsealed = node.state is State.DIRTY  # the journal could not take it yet: its size is the file's
            staged = node.pending.staged
            if node.content.complete and not node.sending and not unsealed and not staged.lists_ranges:
                self._pending.note(node, with_staged(node.pending, replace(staged, edits=self.edits(node))))
                node.content.close()
                node.content = None
        elif not self._keep_idle(node):
            self._retire(node)

    def _keep_idle(self, node: Node) -> bool:
        """True if the content stays open, or has been retired as the oldest idle file."""
        content, base = node.content, node.base
        if (
            node.deleted
            or content is None
            or base is None
            or not content.complete
            or content.doubtful
            or content.in_memory
            or base.size > idle.LARGEST
        ):
            return False
        return self._idle.add(node, self._retire_idle) or node.content is None

    def _retire_idle(self, file: idle.IdleFile) -> None:
        if not self._is_damaged(file):
            self._retire(file.node)

    def _is_damaged(self, file: idle.IdleFile) -> bool:
        """An idle file that somebody else wrote to goes, with its entry of the cache."""
        if not file.has_changed():
            return False
        node = file.node
        log.warning("%s: the cached file was changed; it is fetched again", printable(node.name))
        if node.base is not None:
            self._core.cache.drop(node.base)
        self.discard(node)
        return True

    def wake(self, node: Node) -> None:
        """It is opened again. Whoever opens a node calls this first."""
        file = self._idle.take(node.ino)
        if file is None or self._is_damaged(file):
            return
        if self._has_expired(node.ino):  # not in use, so not exempt: it is fetched again
            self._retire(node)
            assert node.base is not None
            self._core.cache.drop(node.base)
        else:
            self._core.cache.count_hit()

    def _has_expired(self, ino: int) -> bool:
        ttl_s = self._core.settings.cache_ttl_s
        return bool(ttl_s) and not 0 <= self._core.clock.time() - self._stored_at_s[ino] <= ttl_s

    def retire_expired(self) -> None:
        """Idle content is past its time to live as soon as any other is."""
        self._idle.retire_expired(self._has_expired)

    def retire_idle(self) -> None:
        """Clean content that only waits to be opened again goes into the cache."""
        self._idle.retire_all()

    def withdraw(self, node: Node, staged: str | None) -> None:
        """Unlinked, its row gone: nothing is owed. Who has it open keeps the bytes until then."""
        content = node.content
        if content is not None and node.handles:
            self._leave_staging(content, node)
            return
        if content is not None and staged is not None:
            content.close()
            node.content = None
        self.discard(node)
        if node.base is not None and not node.is_dir:
            self._core.cache.drop(node.base)

    def discard(self, node: Node) -> None:
        """Nobody will read it again."""
        self._streams.end(node.ino)
        self._sources.pop(node.ino, None)
        self._stored_at_s.pop(node.ino, None)
        self._idle.take(node.ino)
        if node.content is not None:
            self._core.staging.unlink(node.content.path)
            node.content.close()
            node.content = None
        self._unpin(node)

    # ------------------------------------------------------------------ inside
    def _pin(self, node: Node) -> None:
        """The node's version in the cache is in use."""
        if node.base is not None and self._pinned.get(node.ino) != node.base:
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

    def _retire(self, node: Node) -> None:
        """Clean content that nobody has open: into the cache, and close."""
        content = node.content
        assert content is not None
        self._unpin(node)
        self._streams.end(node.ino)
        self._sources.pop(node.ino, None)
        # First, for it waits for whoever is just filling it: between a fill's write and its utime the file
        # has a time that the entry would vouch for, and that the next to take it would not find.
        content.close()
        node.content = None
        if not (content.complete and node.base and self._core.cache.contains(node.base, whole=True)):
            self._admit(node, content.path, content)
        self._stored_at_s.pop(node.ino, None)
        self._core.staging.unlink(content.path)

    def _admit(self, node: Node, path: Path, content: SparseFile | None) -> None:
        version = node.base
        assert version is not None
        if content is not None and content.in_memory:
            return
        if content is not None and content.doubtful:
            self._core.cache.drop(version)
            return
        present = None if content is None or content.complete else content.snapshot()[0]
        if content is not None and present is not None and not present:
            return
        stored_at_s = self._stored_at_s.get(node.ino)
        self._core.cache.admit(version, path, size=version.size, present=present, stored_at_s=stored_at_s)
