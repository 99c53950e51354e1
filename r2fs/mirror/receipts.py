"""Objects of a mirror: that of a path, the comparison of files with the bucket, and the sum of all sizes.

Fails:   InvalidArgument for a name that is not mirrored; StoreError from the bucket.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from r2fs.disk.mirror_record import InStep
from r2fs.mirror.names import NotMirrored
from r2fs.mirror.queue import WorkQueue
from r2fs.mirror.settle import Parts
from r2fs.model.errors import InvalidArgument, ObjectMissing
from r2fs.model.keys import is_name, nfc, printable
from r2fs.model.ports import pages
from r2fs.model.views import LocatedView, ObjectsView, ReceiptView


class MirrorReceipts:
    def __init__(self, parts: Parts, queue: WorkQueue) -> None:
        # constant
        self._parts = parts
        self._queue = queue

    def locate(self, path: str) -> LocatedView:
        """The object of `path`, relative to the directory; without a request."""
        parts = self._parts
        path = "/".join(part for part in path.split("/") if part not in ("", "."))
        if not path:
            return LocatedView(parts.settings.bucket.prefix, is_dir=True)
        name = self._name(path)
        key = parts.names.key(name)
        if os.path.isdir(parts.tree.root / path):
            return LocatedView(f"{key}/", is_dir=True)
        local, step = parts.tree.stat(parts.names.path(name)), parts.record.get(name)
        item = next((item for item in self._queue.items() if item.name == name), None)
        state = "clean" if step.etag is not None and local == step.local else "queued"
        reason = None
        if item is not None and item.state == "parked":
            state, reason = "parked", item.reason
        known = local is not None or step.etag is not None
        return LocatedView(key, known, state, False, step.etag, reason)

    def _name(self, path: str) -> str:
        try:
            return self._parts.names.of_path(path)
        except NotMirrored as error:
            raise InvalidArgument(str(error)) from None

    def check(self, paths: Sequence[str]) -> ReceiptView:
        """Compare each file at and below `paths` with the bucket, by the ETag that its upload or download had."""
        changing: list[str] = []
        differing: list[tuple[str, str]] = []
        checked = 0
        for path in paths or [""]:
            expected = self._expected(path, changing)
            there = self._there(path, expected)
            for name, etag in expected.items():
                checked += 1
                found = there.get(nfc(self._parts.names.key(name)))
                if found != etag:
                    differing.append((name, _difference(self._parts.names.key(name), found)))
        return ReceiptView(checked, tuple(differing), tuple(changing))

    def _expected(self, path: str, changing: list[str]) -> dict[str, str]:
        """ETag of each file in step at and below `path`; other files are added to `changing`."""
        expected = {}
        for found in self._parts.tree.walk(path.strip("/")):
            try:
                name = self._parts.names.of_path(found.path)
            except NotMirrored:
                continue
            step = self._parts.record.get(name)
            if found.local is not None and step == InStep(found.local, step.etag) and step.etag is not None:
                expected[name] = step.etag
            elif found.local is not None:
                changing.append(name)
        return expected

    def _there(self, path: str, expected: dict[str, str]) -> dict[str, str]:
        """ETags in the bucket, by key in NFC."""
        store, names = self._parts.store, self._parts.names
        if set(expected) == {nfc(path.strip("/"))}:
            key = names.key(next(iter(expected)))
            try:
                return {nfc(key): store.head(key).etag}
            except ObjectMissing:
                return {}
        below = [part for part in path.split("/") if is_name(part)]
        prefix = self._parts.settings.bucket.prefix + "".join(f"{part}/" for part in below)
        found = pages(store, nfc(prefix)) if expected else ()
        return {nfc(info.key): info.etag for page in found for info in page.objects}

    # ------------------------------------------------------------------ sizes
    def known(self) -> ObjectsView:
        """Sum of the objects that are in step with a file."""
        return ObjectsView(*self._parts.record.in_step())

    def listed(
        self, progress: Callable[[ObjectsView], None], cancelled: Callable[[], bool] = lambda: False
    ) -> ObjectsView:
        """Sum of all objects below the prefix. `progress` gets the sum so far, after each LIST."""
        found = ObjectsView(0, 0)
        for page in pages(self._parts.store, self._parts.settings.bucket.prefix):
            size = sum(info.size for info in page.objects)
            found = ObjectsView(found.objects + len(page.objects), found.bytes + size)
            progress(found)
            if cancelled():
                break
        return found


def _difference(key: str, etag: str | None) -> str:
    name = printable(key)
    return f"the bucket has no object {name}" if etag is None else f"{name} is another version (ETag {etag})"
