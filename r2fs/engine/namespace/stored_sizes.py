"""Stored sizes: number and bytes of the bucket's objects below the mount, known or listed.

Never:   sends a request but the LISTs of `listed`.
Locks:   takes Core.lock, for PAGE inodes at a time; none during a request.
Fails:   StoreError of a LIST, but of one bucket of several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from r2fs.engine.inodes.children import unpack
from r2fs.engine.inodes.listing_pages import Pages
from r2fs.engine.pending.records import Records
from r2fs.model.errors import StoreError
from r2fs.model.views import ObjectsView

PAGE = 2000  # inodes in a hold of the lock


class StoredSizes:
    def __init__(self, records: Records) -> None:
        self._core = records.core
        self._tree = records.tree

    def known(self) -> ObjectsView:
        """Sum of the objects known from listings and uploads."""
        with self._core.lock:
            nodes = list(self._tree.all_nodes())
        objects = size = 0
        for at in range(0, len(nodes), PAGE):
            with self._core.lock:
                some = [node for node in nodes[at : at + PAGE] if not node.deleted]
                sizes = [node.base.size for node in some if node.base is not None]
                packed = [line for node in some if node.is_dir for line in node.children().packed.values()]
            sizes += [unpack(line).size for line in packed]
            objects += len(sizes)
            size += sum(sizes)
        return ObjectsView(objects, size)

    def listed(
        self, progress: Callable[[ObjectsView], None], cancelled: Callable[[], bool] = lambda: False
    ) -> ObjectsView:
        """Sum of all objects below the mount's prefix, by LISTs: a request for each thousand. `progress` gets the sum
        so far, after each. A bucket, of several, that cannot be listed is left out."""
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
        token, pages = None, Pages(prefix or self._core.store.url)
        while not cancelled():
            page = self._core.store.list_page(prefix, token=token)
            token = pages.turn(page)
            sizes = [info.size for info in page.objects]
            found = ObjectsView(found.objects + len(sizes), found.bytes + sum(sizes))
            progress(found)
            if token is None:
                break
        return found
