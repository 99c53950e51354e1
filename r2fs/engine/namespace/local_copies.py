"""Local copies: content brought to this host, or dropped from this host, on demand: warm, evict.

Bytes that the bucket lacks, open files and pinned ones are not dropped. Locks: takes Core.lock; none during a request.
Fails: NotFound; ReadFailed where a directory cannot be listed; Interrupted where the caller has gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from r2fs.engine.content.presence import bytes_here_locked
from r2fs.engine.content.storage import Storage
from r2fs.engine.content.warm import Report, Watched
from r2fs.engine.inodes.inode import Node
from r2fs.engine.namespace.freshness import Freshness
from r2fs.engine.namespace.named_paths import Scopes
from r2fs.engine.pending.records import Records
from r2fs.model.errors import ReadFailed
from r2fs.model.keys import printable
from r2fs.model.ports import Caller
from r2fs.model.records import Kind, Version
from r2fs.model.views import NOTHING_WARMED, EvictView, WarmView

SHOWN = 100  # files named in a result


class LocalCopies:
    def __init__(self, records: Records, storage: Storage, freshness: Freshness, scopes: Scopes) -> None:
        self._core = records.core
        self._tree = records.tree
        self._idle = storage.space.idle
        self._warm = storage.warm
        self._freshness = freshness
        self._scopes = scopes

    def warm(self, paths: Sequence[str], caller: Caller, report: Report) -> WarmView:
        """Download the files at and below the paths (relative to the mount)."""
        return self.download(self.tops(paths), caller, report)

    def tops(self, paths: Sequence[str]) -> list[Node]:
        """Return the nodes of the paths. Raises NotFound."""
        scope = self._scopes.of(paths)
        return [self._tree.root] if scope is None else list(scope.nodes)

    def download(self, tops: Sequence[Node], caller: Caller, report: Report) -> WarmView:
        """Download the files at and below the nodes, after listings of their directories.

        In a mount of several, a bucket that cannot be listed delays no other, and counts as a missing file.
        """
        if self._core.frugal:  # its LISTs cost as well
            return replace(NOTHING_WARMED, stopped="budget")
        listing = Watched(caller, lambda: report(NOTHING_WARMED))
        unlisted: list[tuple[str, str]] = []
        view = self._warm.run(self.files(tops, listing, unlisted), caller, report)
        return replace(
            view,
            files=view.files + len(unlisted),
            failures=view.failures + len(unlisted),
            failed=(*unlisted, *view.failed),
        )

    def download_files(self, files: Sequence[tuple[Node, str]], caller: Caller, report: Report) -> WarmView:
        """Download files, each with its path for messages."""
        return self._warm.run(files, caller, report)

    def files(
        self, tops: Sequence[Node], caller: Caller, unlisted: list[tuple[str, str]] | None = None
    ) -> list[tuple[Node, str]]:
        """Return the files at and below the nodes, each once and with its path, as the bucket has them now.

        `unlisted` takes the directories in buckets, of several, that cannot be listed, with the reason.
        """
        for top in tops:
            if not top.is_dir:
                continue
            if unlisted is None or not self._core.settings.bucket.several:
                self._freshness.load_below(caller, top)
                continue
            for one in self._by_bucket(top, caller):
                try:
                    self._freshness.load_below(caller, one)
                except ReadFailed as error:
                    unlisted.append((printable(self._tree.path(one)), str(error)))
        with self._core.lock:
            found = {node.ino: node for top in tops for node in self._tree.walk(top)}
            files = [(node, printable(self._tree.path(node))) for node in found.values() if is_file(node)]
        return sorted(files, key=lambda file: file[1])

    def _by_bucket(self, top: Node, caller: Caller) -> list[Node]:
        """Return the directories of the buckets in place of the root of several."""
        if top is not self._tree.root:
            return [top]
        self._freshness.ensure(caller, top)
        with self._core.lock:
            return [child for child in top.children().nodes() if child.is_dir]

    def size_of(self, node: Node) -> int:
        """Return the bytes of a file, as stat shows them."""
        return self._warm.size_of(node)

    def is_whole(self, node: Node) -> bool:
        """True if all bytes of the file are on this host."""
        with self._core.lock:
            return bytes_here_locked(self._core, node) >= self.size_of(node)

    def known(self, tops: Sequence[Node]) -> tuple[int, int, int]:
        """Return the number of known files at and below the nodes, their bytes, and their bytes on this host."""
        files = total = here = 0
        for top in tops:
            with self._core.lock:
                nodes = [node for node in self._tree.walk(top) if is_file(node)]
            for node in nodes:
                files, total = files + 1, total + self.size_of(node)
                with self._core.lock:
                    here += bytes_here_locked(self._core, node)
        return files, total, here

    def is_away(self, key: str) -> bool:
        """True while the key's bucket does not answer: its listings are the last known."""
        return self._freshness.outages.at_key(key)

    def evict(self, paths: Sequence[str]) -> EvictView:
        """Drop the cached content at and below the paths, but for pending, open or pinned files. No request for
        known names."""
        tops = self.tops(paths)
        kept: list[tuple[str, str]] = []
        spared: list[Version] = []
        with self._core.lock:
            for node in [node for top in tops for node in self._tree.walk(top) if is_file(node)]:
                if node.ino in self._idle:
                    self._idle.retire(node.ino)
                reason = self._reason_locked(node)
                if reason is None:
                    continue
                if bytes_here_locked(self._core, node):
                    kept.append((printable(self._tree.path(node)), reason))
                if node.base is not None:
                    spared.append(node.base)
            is_below = _below([self._tree.key(top) for top in tops])
            stay = {(version.key, version.etag) for version in spared}

        def is_meant(key: str, etag: str) -> bool:
            return is_below(key) and (key, etag) not in stay and not self._core.cache.is_pinned(key)

        # By keys: directories never listed by this mount have no nodes, and may have entries. A file opened
        # since is protected by its pin.
        files, freed = self._core.cache.drop_where(is_meant)
        return EvictView(files, freed, len(kept), tuple(kept[:SHOWN]))

    def _reason_locked(self, node: Node) -> str | None:
        """Return why the content stays; None: evictable."""
        self._core.assert_held()
        if node.pending is not None:
            return "not in the bucket yet"
        if node.handles:
            return "open"
        if node.content is not None:
            return "being downloaded"
        if node.base is not None and self._core.cache.is_pinned(node.base.key):
            return "pinned"
        return None


def is_file(node: Node) -> bool:
    """True for a regular file with a name."""
    return node.kind is Kind.FILE and not node.deleted


def _below(keys: Iterable[str]) -> Callable[[str], bool]:
    """Return the test of keys at or below `keys`: a directory's ends with `/`; empty: the whole bucket."""
    exact = frozenset(keys)
    prefixes = tuple(key for key in exact if not key or key.endswith("/"))
    return lambda key: key in exact or key.startswith(prefixes)
