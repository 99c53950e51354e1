"""Shares of directories: of all files known below each, their bytes, and how many of these are on this host.

Owns:    the sums behind the cache map of `r2fs ui`.
Never:   sends a request; makes a node for a file of which a listing tells all.
Locks:   takes Core.lock, for one directory at a time; the cache's lock without it.
Fails:   NotFound; NotADirectory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from r2fs.engine.content.presence import open_or_staged_locked
from r2fs.engine.inodes.children import unpack
from r2fs.engine.inodes.inode import Node
from r2fs.engine.namespace.named_paths import known_node
from r2fs.engine.pending.records import Records
from r2fs.model.errors import NotADirectory
from r2fs.model.keys import printable
from r2fs.model.records import Kind, Version
from r2fs.model.views import ShareView


class Shares:
    def __init__(self, records: Records) -> None:
        self._core = records.core
        self._tree = records.tree

    def below(self, path: str, heard: Callable[[], bool]) -> Iterator[ShareView]:
        """Yield the share of each directory in the one at `path`, relative to the mount, by name.

        `heard` is called for each directory of the walk; the walk ends when it returns False.
        """
        with self._core.lock:
            top = known_node(self._tree, path)
            if not top.is_dir:
                raise NotADirectory(f"{printable(path)} is not a directory")
            found = [node for node in top.children().nodes() if node.is_dir]
        for node in sorted(found, key=lambda node: node.name):
            view = self._share(node, heard)
            if view is None:
                return
            yield view

    def _share(self, top: Node, heard: Callable[[], bool]) -> ShareView | None:
        """Sum of all files known below `top`; None once nobody hears."""
        files = size = here = pending = 0
        listed, waiting = True, [top]
        with self._core.lock:
            path = self._tree.path(top)
        while waiting:
            if not heard():
                return None
            with self._core.lock:
                directory = waiting.pop()
                listed = listed and directory.listing is not None and directory.listing.whole
                nodes = [node for node in directory.children().nodes() if not node.deleted]
                waiting += [node for node in nodes if node.is_dir]
                own = [self._file_locked(node) for node in nodes if node.kind is Kind.FILE]
                pending += sum(node.pending is not None for node in nodes)
                key, packed = self._tree.key(directory), dict(directory.children().packed)
            for size_of, here_of, version in own:
                files, size = files + 1, size + size_of
                here += self._cached(version) if here_of is None else here_of
            for name, line in packed.items():  # files that no program has looked up
                known = unpack(line)
                files, size = files + 1, size + known.size
                here += self._cached(Version(key + name, known.etag, known.size))
        return ShareView(path, files, size, here, pending, listed)

    def _file_locked(self, node: Node) -> tuple[int, int | None, Version | None]:
        """Return size, bytes here (None: those of the cache count), and the version in the cache."""
        pending, content = node.pending, node.content
        size = node.size if pending is None or pending.staged is None else pending.size
        if content is not None and not content.closed:
            size = content.size
        return size, open_or_staged_locked(self._core, node), node.base

    def _cached(self, version: Version | None) -> int:
        return 0 if version is None else self._core.cache.bytes_of(version)
