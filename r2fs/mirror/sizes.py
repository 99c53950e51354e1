"""Sizes of a mirror's objects: those in step, or all by a listing.

Never:   sends a request but the LISTs of `listed`.
Threads: every method.
Fails:   StoreError of a LIST.
"""

from __future__ import annotations

from collections.abc import Callable

from r2fs.mirror.settle import Parts
from r2fs.model.views import ObjectsView


class MirrorSizes:
    def __init__(self, parts: Parts) -> None:
        # constant
        self._parts = parts

    def known(self) -> ObjectsView:
        """Sum of the objects that are in step with a file."""
        return ObjectsView(*self._parts.record.in_step())

    def listed(
        self, progress: Callable[[ObjectsView], None], cancelled: Callable[[], bool] = lambda: False
    ) -> ObjectsView:
        """Sum of all objects below the prefix. `progress` gets the sum so far, after each LIST."""
        found, token = ObjectsView(0, 0), None
        while not cancelled():
            page = self._parts.store.list_page(self._parts.settings.bucket.prefix, token=token)
            size = sum(info.size for info in page.objects)
            found = ObjectsView(found.objects + len(page.objects), found.bytes + size)
            progress(found)
            token = page.token
            if token is None:
                break
        return found
