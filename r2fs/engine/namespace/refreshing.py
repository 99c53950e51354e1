"""Refreshing: the end of known listings and attributes at and below a path, for `r2fs refresh`.

Known names stay shown while the bucket is away. With more than ABSENT_MAX absent names of a directory in the
kernel, some stay absent for `freshness`.

Locks: takes Core.lock, for each directory anew; none during a request.
Fails: NotFound, NotADirectory; Unavailable if the bucket does not answer; Stale if the path was removed meanwhile.
"""

from __future__ import annotations

from dataclasses import replace

from r2fs.engine.inodes.inode import Node, listing_of
from r2fs.engine.namespace.freshness import Freshness
from r2fs.engine.namespace.named_paths import parts_of
from r2fs.engine.pending.records import Records
from r2fs.model.errors import NotADirectory, NotFound, ReadFailed, ReadRefused, Unavailable
from r2fs.model.keys import printable
from r2fs.model.ports import Caller
from r2fs.model.views import RefreshView


class Refreshing:
    def __init__(self, records: Records, freshness: Freshness) -> None:
        self._core = records.core
        self._tree = records.tree
        self._freshness = freshness

    def forget(self, path: str) -> RefreshView:
        """Forget names at and below `path` (relative to the mount): their next use sends a request.

        An unknown name ends the listing of its directory.
        """
        directory, name = self._find(path)
        if name is not None:
            with self._core.lock:
                self._forget_name(directory, name)
                node = directory.children().get(name)
            if node is None or not node.is_dir:
                return RefreshView(directories=0, files=int(node is not None))
            directory = node
        directories = files = 0
        left = [directory]
        while left:
            one = left.pop()
            with self._core.lock:
                below = [child for child in one.children().nodes() if child.is_dir]
                count = len(one.children())
                self._forget_listing(one)
            left += below
            directories, files = directories + 1, files + count - len(below)
        return RefreshView(directories, files)

    def ask(self, caller: Caller, path: str, recursive: bool) -> RefreshView:
        """Send the requests now: a LIST for a directory; `recursive`: LISTs of a thousand keys for all below as well.

        A bucket, of several, that gives no answer stops no other.
        """
        self._freshness.outages.assume_none()
        node = self._tree.root
        for part in parts_of(path):
            self._freshness.ensure(caller, node, part)
            self._check_answered(path, node)
            with self._core.lock:
                child = node.children().get(part) if node.is_dir else None
            if child is None:
                raise NotFound(f"{printable(path)}: no such file or directory")
            node = child
        if not node.is_dir:
            return RefreshView(directories=0, files=1)
        if recursive and node is self._tree.root and self._core.settings.bucket.several:
            return self._ask_each(caller, node)
        (self._freshness.load_below if recursive else self._freshness.ensure)(caller, node)
        self._check_answered(path, node)
        return self._known(node, recursive)

    def _ask_each(self, caller: Caller, root: Node) -> RefreshView:
        """List all below each bucket."""
        self._freshness.ensure(caller, root)
        with self._core.lock:
            buckets = [child for child in root.children().nodes() if child.is_dir]
        found, failed = self._known(root, recursive=False), list[tuple[str, str]]()
        for bucket in buckets:
            try:
                self._freshness.load_below(caller, bucket)
                self._check_answered(bucket.name, bucket)
            except (ReadFailed, ReadRefused, Unavailable) as error:
                failed.append((bucket.name, str(error)))
                continue
            more = self._known(bucket, recursive=True)
            found = RefreshView(found.directories + more.directories, found.files + more.files)
        return replace(found, failed=tuple(failed))

    def _known(self, node: Node, recursive: bool) -> RefreshView:
        with self._core.lock:
            known = [one for one in self._tree.walk_nodes(node) if one.is_dir] if recursive else [node]
            files = sum(len(listing_of(one).children) - listing_of(one).directories for one in known)
        return RefreshView(len(known), files)

    # ------------------------------------------------------------------ parts
    def _find(self, path: str) -> tuple[Node, str | None]:
        """Return the directory in which the path's first unknown name, or its last, would be; None: the mount's root."""
        parts = parts_of(path)
        with self._core.lock:
            directory = self._tree.root
            for number, part in enumerate(parts, 1):
                child = directory.children().get(part)
                if child is None or number == len(parts):
                    return directory, part
                if not child.is_dir:
                    raise NotADirectory(f"{printable('/'.join(parts[:number]))} is not a directory")
                directory = child
            return directory, None

    def _forget_name(self, directory: Node, name: str) -> None:
        self._core.assert_held()
        listing_of(directory).forget(self._core.clock.monotonic())
        self._tree.expire_name(directory, name)
        node = directory.children().get(name)
        if node is not None:
            self._core.kernel.forget_attributes(node.ino)

    def _forget_listing(self, directory: Node) -> None:
        """End the listing, and make the kernel look up each name in it."""
        listing, kernel = listing_of(directory), self._core.kernel
        listing.forget(self._core.clock.monotonic())
        kernel.forget_attributes(directory.ino)
        kernel.forget_content(directory.ino)
        for name in (*(listing.absent or ()), *listing.removed):
            kernel.forget_name(directory.ino, name)
        for child in listing.children.nodes():
            if child.kernel_knows:
                kernel.forget_name(directory.ino, child.name)
                kernel.forget_attributes(child.ino)

    def _check_answered(self, path: str, directory: Node) -> None:
        if self._freshness.outages.at(directory):
            raise Unavailable(f"{printable(path or '/')}: the bucket does not answer: shown as known")
