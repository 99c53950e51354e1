"""File views: for each file, its bytes on this host, its state and its object.

Owns:  the values of `r2fs ls` and `r2fs info`.
Never: sends a request but the HEAD of `one`; shows a name unknown to the mount.
Locks: takes Core.lock, for PAGE files at a time; then the cache's lock.
Fails: NotFound; NotADirectory on the way to a path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from r2fs.engine.content.presence import open_or_staged_locked
from r2fs.engine.inodes.inode import Node
from r2fs.engine.namespace.create_remove import Names
from r2fs.engine.namespace.named_paths import known_node
from r2fs.engine.namespace.xattrs import ExtendedAttributes
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.keys import conflict_original
from r2fs.model.metadata import headers_of
from r2fs.model.mime import content_type
from r2fs.model.ports import Caller
from r2fs.model.records import Version
from r2fs.model.views import EventView, FileView

PAGE = 100  # files in a hold of the lock
SECOND_NS = 10**9


class FileViews:
    def __init__(
        self, records: Records, names: Names, xattrs: ExtendedAttributes, writeback: WriteBack
    ) -> None:
        self._core = records.core
        self._tree = records.tree
        self._names = names
        self._xattrs = xattrs
        self._transfers = writeback.transfers

    def one(self, path: str, caller: Caller) -> FileView:
        """View of the file or directory at `path`, relative to the mount. A HEAD for headers that are not known, unless
        the bucket does not answer."""
        with self._core.lock:
            node = known_node(self._tree, path)
        if not node.is_dir:
            self._names.learn(caller, node)
        with self._core.lock:
            copies = [] if node.is_dir else self._copies_locked(node)
            view, version = self._view_locked(node)
        return replace(self._with_cached(view, version), copies=tuple(copies))

    def pages(self, path: str) -> Iterator[tuple[FileView, ...]]:
        """Yield the known names of a directory, or the file itself, in the order of names."""
        with self._core.lock:
            top = known_node(self._tree, path)
            nodes = list(top.children().values()) if top.is_dir else [top]
        nodes.sort(key=lambda node: node.name)
        for at in range(0, len(nodes), PAGE):
            with self._core.lock:
                found = [
                    self._view_locked(node)
                    for node in nodes[at : at + PAGE]
                    if not node.deleted and node.parent is not None
                ]
            yield tuple(self._with_cached(view, version) for view, version in found)

    def history(self, path: str) -> tuple[EventView, ...]:
        """Events of the file or directory at `path`, and of the object at its key, the oldest first."""
        with self._core.lock:
            node = known_node(self._tree, path)
            keys = {self._xattrs.located(node).key} | ({node.base.key} if node.base is not None else set())
        return self._core.history.of(node.ino, keys)

    def _copies_locked(self, node: Node) -> list[str]:
        """Paths of the conflict copies beside a file."""
        self._core.assert_held()
        return sorted(
            self._tree.path(copy)
            for copy in self._tree.conflicts()
            if copy.parent is node.parent and conflict_original(copy.name) == node.name
        )

    def _view_locked(self, node: Node) -> tuple[FileView, Version | None]:
        """View without cached bytes, and the version whose bytes in the cache count; None: none do."""
        self._core.assert_held()
        located, shown = self._xattrs.located(node), self._names.entry_locked(node).attributes
        pending, bucket = node.pending, self._core.settings.bucket
        transfer = None
        if pending is not None:
            transfer = self._transfers.upload_locked(node, self._core.clock.monotonic())
        here = None if node.is_dir else open_or_staged_locked(self._core, node)
        view = FileView(
            path=self._tree.path(node),
            kind=node.kind.value,
            key=bucket.split(located.key)[1],
            url=bucket.object_url(located.key) if self._has_object(node) else None,
            state=located.state,
            size=shown.size,
            cached=here or 0,
            etag=located.etag,
            content_type=None if node.is_dir else node.content_type or content_type(node.name),
            modified_at_s=shown.mtime_ns / SECOND_NS,
            stored_at_s=None if node.modified_ns is None else node.modified_ns / SECOND_NS,
            open=node.handles,
            reason=located.reason,
            failures=0,
            pending_s=None,
            sent=0,
            conflict_of=self._original(node),
            copies=(),
            pinned=self._core.cache.is_pinned(located.key),
            headers=headers_of(node.extra),
            headers_known=node.is_dir or node.metadata_known or node.base is None,
        )
        if transfer is not None:
            view = replace(view, failures=transfer.failures, pending_s=transfer.age_s, sent=transfer.sent)
        return view, node.base if here is None and not node.is_dir else None

    def _original(self, node: Node) -> str | None:
        """Path of the file of which the node is a conflict copy."""
        original = conflict_original(node.name)
        if not original or node.parent is None:
            return None
        return f"{self._tree.path(node.parent).strip('/')}/{original}".lstrip("/")

    def _has_object(self, node: Node) -> bool:
        """True unless it is a directory that is there for the sake of the objects below it alone."""
        if not node.is_dir or node.pending is not None or node.base is not None:
            return True
        return node.listing is not None and node.listing.marker is not None

    def _with_cached(self, view: FileView, version: Version | None) -> FileView:
        return view if version is None else replace(view, cached=self._core.cache.bytes_of(version))
