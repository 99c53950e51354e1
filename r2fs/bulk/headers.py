"""Headers of many objects without a mount: each is copied onto itself, with its bytes and other metadata.

Never:   changes another version of an object than it has looked at, markers of directories, or symbolic links.
Threads: `run` uses a pool of its own.
Fails:   StoreError for a cause of all requests; the failure of one object is in the report.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from r2fs.bulk.removal import OF_EVERYTHING, Target
from r2fs.model.errors import PreconditionFailed, StoreError
from r2fs.model.header_change import HeaderChange
from r2fs.model.keys import is_link, printable
from r2fs.model.metadata import DEFAULT_TYPE, SNIFF_BYTES
from r2fs.model.ports import ObjectStore
from r2fs.model.records import Condition, ObjectInfo, ObjectMeta
from r2fs.model.reports import BulkReport


class HeaderWork:
    def __init__(self, store: ObjectStore, change: HeaderChange, dry_run: bool, at_once: int = 16) -> None:
        # constant
        self._store = store
        self._change = change
        self._dry_run = dry_run
        self._at_once = at_once

    def run(self, target: Target, report: BulkReport, progress: Callable[[BulkReport], None]) -> None:
        """Change the objects, and call `progress` after each. `report` is true also after an error or an interrupt."""
        with ThreadPoolExecutor(self._at_once, "set") as pool:
            for page, is_last in target.pages(self._store):
                objects = [info for info in page if info.key == target.key or _is_file(info)]
                report.found += len(objects)
                report.listed = is_last
                for one in pool.map(self._one, objects):
                    report.add(one)
                    progress(report)

    def _one(self, listed: ObjectInfo) -> BulkReport:
        report = BulkReport()
        try:
            if self._changed(listed):
                report.did(listed.size)
            else:
                report.unchanged += 1
        except OF_EVERYTHING:
            raise
        except PreconditionFailed:
            report.fail(listed.key, f"{printable(listed.key)} was changed by somebody else meanwhile")
        except StoreError as error:
            report.fail(listed.key, error)
        return report

    def _changed(self, listed: ObjectInfo) -> bool:
        """Change one object. False: it is as wanted."""
        name = listed.key.rpartition("/")[2]
        info = listed if listed.metadata is not None else self._store.head(listed.key)
        head = b""
        if self._change.needs_bytes(name, info.content_type) and info.size:
            with self._store.get(info.key, length=SNIFF_BYTES, if_match=info.etag) as download:
                head = b"".join(download.chunks())
        kind = self._change.type_for(name, info.content_type, head)
        stored = info.headers or {}
        headers = self._change.headers_for(stored)
        if kind is None and headers == stored:
            return False
        if not self._dry_run:
            meta = ObjectMeta(kind or info.content_type or DEFAULT_TYPE, dict(info.metadata or {}), headers)
            self._store.copy(info.version, listed.key, meta=meta, condition=Condition.matches(info.etag))
        return True


def _is_file(info: ObjectInfo) -> bool:
    return not (info.key.endswith("/") and not info.size) and not is_link(info.key, info.size)
