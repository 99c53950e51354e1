"""File views: the files that the mount knows, for `r2fs ls` and `info`, the cache map of `r2fs ui` and `r2fs cost`.

Never: shows a name unknown to the mount; sends a request but the HEAD of `one` and the LISTs of `listed`.
Locks: takes Core.lock for a page or a directory at a time; the cache's lock without it.
Fails: NotFound; NotADirectory on the way to a path; StoreError of a LIST.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from r2fs.engine.content.presence import open_or_staged_locked
from r2fs.engine.inodes.children import unpack
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.listing_pages import pages_of
from r2fs.engine.namespace.create_remove import Names
from r2fs.engine.namespace.named_paths import known_node
from r2fs.engine.namespace.xattrs import ExtendedAttributes
from r2fs.engine.pending.records import Records
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.errors import NotADirectory, StoreError
from r2fs.model.keys import conflict_original, printable
from r2fs.model.metadata import content_type, headers_of
from r2fs.model.ports import Caller
from r2fs.model.records import Kind, Version
from r2fs.model.views import EventView, FileView, ObjectsView, ShareView

PAGE = 100  # files in a hold of the lock
INODES = 2000  # likewise, for sums
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
        """Return the view of the file or directory at `path`, relative to the mount. A HEAD for unknown headers, unless the
        bucket does not answer."""
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
        """Return the events of the file or directory at `path`, and of the object at its key, the oldest first."""
        with self._core.lock:
            node = known_node(self._tree, path)
            keys = {self._xattrs.located(node).key} | ({node.base.key} if node.base is not None else set())
        return self._core.history.of(node.ino, keys)

    # ------------------------------------------------------------------ sums
    def shares(self, path: str, heard: Callable[[], bool]) -> Iterator[ShareView]:
        """Yield the sum of all files known below each directory in the one at `path`, by name.

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
        """Return the sum of all files known below `top`; None once `heard` is False."""
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
                own = [self._share_locked(node) for node in nodes if node.kind is Kind.FILE]
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

    def _share_locked(self, node: Node) -> tuple[int, int | None, Version | None]:
        """Return size, bytes here (None: those of the cache count), and the version in the cache."""
        pending, content = node.pending, node.content
        size = node.size if pending is None or pending.staged is None else pending.size
        if content is not None and not content.closed:
            size = content.size
        return size, open_or_staged_locked(self._core, node), node.base

    def _cached(self, version: Version | None) -> int:
        return 0 if version is None else self._core.cache.bytes_of(version)

    def known(self) -> ObjectsView:
        """Return the sum of the objects known from listings and uploads."""
        with self._core.lock:
            nodes = list(self._tree.all_nodes())
        objects = size = 0
        for at in range(0, len(nodes), INODES):
            with self._core.lock:
                some = [node for node in nodes[at : at + INODES] if not node.deleted]
                sizes = [node.base.size for node in some if node.base is not None]
                packed = [line for node in some if node.is_dir for line in node.children().packed.values()]
            sizes += [unpack(line).size for line in packed]
            objects += len(sizes)
            size += sum(sizes)
        return ObjectsView(objects, size)

    def listed(
        self, progress: Callable[[ObjectsView], None], cancelled: Callable[[], bool] = lambda: False
    ) -> ObjectsView:
        """Return the sum of all objects below the mount's prefix, by a LIST for each thousand.

        `progress` gets the sum so far after each. In a mount of several, a bucket without an answer is left out.
        """
        bucket, found, failed = self._core.settings.bucket, ObjectsView(0, 0), list[tuple[str, str]]()
        if not bucket.several:
            return self._below(bucket.prefix, found, progress, cancelled)
        for prefix in self._core.store.list_page("", delimiter="/").prefixes:
            try:
                found = self._below(prefix, found, progress, cancelled)
            except StoreError as error:
                failed.append((prefix.rstrip("/"), str(error)))
        return replace(found, failed=tuple(failed))

    def _below(
        self,
        prefix: str,
        found: ObjectsView,
        progress: Callable[[ObjectsView], None],
        cancelled: Callable[[], bool],
    ) -> ObjectsView:
        """Add all objects below `prefix` to `found`."""
        for page in pages_of(self._core.store, prefix):
            sizes = [info.size for info in page.objects]
            found = ObjectsView(found.objects + len(sizes), found.bytes + sum(sizes))
            progress(found)
            if cancelled():
                break
        return found

    # ------------------------------------------------------------------ one file
    def _copies_locked(self, node: Node) -> list[str]:
        """Return the paths of the conflict copies beside a file."""
        self._core.assert_held()
        return sorted(
            self._tree.path(copy)
            for copy in self._tree.conflicts()
            if copy.parent is node.parent and conflict_original(copy.name) == node.name
        )

    def _view_locked(self, node: Node) -> tuple[FileView, Version | None]:
        """Return the view without cached bytes, and the version with bytes in the cache, if any."""
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
        """Return the path of the file that the node is a conflict copy of."""
        original = conflict_original(node.name)
        if not original or node.parent is None:
            return None
        return f"{self._tree.path(node.parent).strip('/')}/{original}".lstrip("/")

    def _has_object(self, node: Node) -> bool:
        """True unless the node is a directory without an object of its own."""
        if not node.is_dir or node.pending is not None or node.base is not None:
            return True
        return node.listing is not None and node.listing.marker is not None

    def _with_cached(self, view: FileView, version: Version | None) -> FileView:
        return view if version is None else replace(view, cached=self._cached(version))
