"""Receipts: comparison of the mount's files with the bucket, by a HEAD for a file and LISTs for a directory.

Never: waits for uploads (`writeback/progress.py` does); changes anything.
Locks: takes Core.lock; none during a request.
Fails: NotFound, NotADirectory; InvalidArgument for a file of `local_patterns`; StoreError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.listing_pages import pages_of
from r2fs.engine.namespace.named_paths import Scopes, parts_of
from r2fs.engine.namespace.xattrs import ExtendedAttributes
from r2fs.engine.pending.records import Records
from r2fs.model.errors import InvalidArgument, NotADirectory, StoreError
from r2fs.model.keys import nfc, printable
from r2fs.model.records import Version
from r2fs.model.views import LocatedView, ReceiptView


class Receipts:
    def __init__(self, records: Records, scopes: Scopes, xattrs: ExtendedAttributes) -> None:
        self._core = records.core
        self._tree = records.tree
        self._scopes = scopes
        self._xattrs = xattrs

    def locate(self, path: str) -> LocatedView:
        """Return the object of `path` (relative to the mount), as known without a request.

        For an unknown name: the key of a future file.
        """
        parts = parts_of(path)
        with self._core.lock:
            node = self._tree.root
            for number, part in enumerate(parts):
                if not node.is_dir:
                    raise NotADirectory(f"{printable('/'.join(parts[:number]))} is not a directory")
                child = node.children().get(part)
                if child is None:
                    return LocatedView(
                        self._tree.check_key(self._tree.key(node) + "/".join(parts[number:])), known=False
                    )
                node = child
            return self._xattrs.located(node)

    def check(self, paths: Sequence[str]) -> ReceiptView:
        """Compare each file at and below `paths` with the bucket, but for paths removed by this host.

        In a mount of several, a bucket without an answer stops no other.
        """
        scope, several = self._scopes.of(paths), self._core.settings.bucket.several
        with self._core.lock:
            tops = [self._tree.root] if scope is None else list(scope.nodes)
            if several and self._tree.root in tops:
                tops = [child for child in self._tree.root.children().nodes() if child.is_dir]
        changing: list[str] = []
        differing: list[tuple[str, str]] = []
        failed: list[tuple[str, str]] = []
        checked = 0
        for top in tops:
            with self._core.lock:
                if self._xattrs.is_local(top):
                    raise InvalidArgument(
                        f"{printable(self._tree.path(top))} stays on this host (local_patterns): it has no object"
                    )
                expected = dict(self._files(top, changing))
                prefix = self._tree.key(top) if top.is_dir else None
            try:
                there = self._below(prefix) if prefix is not None else None
            except StoreError as error:
                if not several:
                    raise
                failed.append((self._tree.path(top), str(error)))
                continue
            for path, base in expected.items():
                checked += 1
                if there is None:
                    found = self._core.head(base.key)
                    etag = found.etag if found is not None else None
                else:
                    etag = there.get(nfc(base.key))
                if etag != base.etag:
                    differing.append((path, _difference(base.key, etag)))
        return ReceiptView(checked, tuple(differing), tuple(changing), tuple(failed))

    def _files(self, top: Node, changing: list[str]) -> Iterator[tuple[str, Version]]:
        """Yield path and version of each file, and add paths of files with pending changes to `changing`."""
        for node in self._tree.walk(top):
            if node.is_dir or self._xattrs.is_local(node):
                continue
            if node.pending is not None or node.base is None:
                changing.append(self._tree.path(node))
            else:
                yield self._tree.path(node), node.base

    def _below(self, prefix: str) -> dict[str, str]:
        pages = pages_of(self._core.store, prefix)
        return {nfc(info.key): info.etag for page in pages for info in page.objects}


def _difference(key: str, etag: str | None) -> str:
    name = printable(key)
    return f"the bucket has no object {name}" if etag is None else f"{name} is another version (ETag {etag})"
