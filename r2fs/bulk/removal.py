"""Removal of many objects from a bucket without a mount: LISTs ahead of batched deletes.

Owns:    the meaning of a name: the object of exactly this key, and all keys below `KEY/`; never a sibling's.
Never:   deletes a key that no LIST or HEAD has shown.
Threads: `run` uses a pool of its own.
Fails:   StoreError for a cause of all requests; the failure of one object is in the report.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

from r2fs.model.errors import (
    BadCredentials,
    BucketMissing,
    ClockSkewed,
    ObjectMissing,
    Refused,
    Retryable,
    StoreError,
)
from r2fs.model.ports import ObjectStore, pages
from r2fs.model.records import ObjectInfo
from r2fs.model.reports import BulkReport

AHEAD = 100  # batches listed ahead of the deletes: so many names are kept in memory
RETRIES = 3  # of the keys of a batch that the bucket could not delete at the moment
RETRY_S = 0.5  # before the first; then twice the time
OF_EVERYTHING = (BadCredentials, BucketMissing, ClockSkewed)

Batch = dict[str, int]  # size by key
Outcome = tuple[Batch, Mapping[str, StoreError]]  # and the errors by key


@dataclass(frozen=True, slots=True)
class Target:
    """The object `key`, and all keys that begin with `prefix`, which is empty or ends with `/`; None: none."""

    key: str | None
    prefix: str | None

    @classmethod
    def of(cls, key: str, recursive: bool) -> Target:
        """`KEY`: the object, and with `recursive` all below; `KEY/`: all below alone.

        >>> Target.of("projects/proj45", recursive=True)
        Target(key='projects/proj45', prefix='projects/proj45/')
        """
        if not recursive:
            return cls(key, None)
        if not key or key.endswith("/"):
            return cls(None, key)
        return cls(key, key + "/")

    def pages(self, store: ObjectStore) -> Iterator[tuple[Sequence[ObjectInfo], bool]]:
        """The objects in pages, each with True if it is the last."""
        if self.key is not None:
            try:
                yield [store.head(self.key)], self.prefix is None
            except ObjectMissing:
                pass
        if self.prefix is not None:
            for page in pages(store, self.prefix):
                yield page.objects, page.token is None


class Removal:
    def __init__(self, store: ObjectStore, at_once: int = 4) -> None:
        # constant
        self._store = store
        self._at_once = at_once

    def run(
        self,
        target: Target,
        report: BulkReport,
        progress: Callable[[BulkReport], None],
        *,
        dry_run: bool = False,
    ) -> None:
        """Delete, and call `progress` after each request. `report` is true also after an error or an interrupt."""
        batches = self._batches(target, report)
        if dry_run:
            for batch in batches:
                _count(batch, {}, report)
                progress(report)
            return
        running: set[Future[Outcome]] = set()
        with ThreadPoolExecutor(self._at_once, "remove") as pool:
            try:
                for ended in self._requests(pool, batches, running, report):
                    _count(*ended.result(), report)
                    progress(report)
            except BaseException:
                for future in running:
                    future.cancel()
                for future in wait(running).done:  # what was sent is counted
                    if not future.cancelled() and future.exception() is None:
                        _count(*future.result(), report)
                raise

    def _requests(
        self,
        pool: ThreadPoolExecutor,
        batches: Iterator[Batch],
        running: set[Future[Outcome]],
        report: BulkReport,
    ) -> Iterator[Future[Outcome]]:
        """Send the deletes, listing ahead meanwhile; yield each request that has ended. `running`: the others."""
        waiting = deque[Batch]()
        while waiting or running or not report.listed:
            if not report.listed and len(waiting) < AHEAD:
                waiting.extend(islice(batches, 1))
            while waiting and len(running) < self._at_once:
                running.add(pool.submit(self._delete, waiting.popleft()))
            at_rest = report.listed or len(waiting) >= AHEAD
            for future in wait(running, None if at_rest else 0, FIRST_COMPLETED).done:
                running.discard(future)
                yield future

    def _batches(self, target: Target, report: BulkReport) -> Iterator[Batch]:
        size = self._store.limits.delete_batch
        for objects, _ in target.pages(self._store):
            report.found += len(objects)
            for at in range(0, len(objects), size):
                yield {info.key: info.size for info in objects[at : at + size]}
        report.listed = True

    def _delete(self, batch: Batch) -> Outcome:
        failed = dict(self._request(list(batch)))
        pause_s = RETRY_S
        for _ in range(RETRIES):
            again = [key for key, error in failed.items() if isinstance(error, Retryable)]
            if not again:
                break
            time.sleep(pause_s)
            pause_s *= 2
            failed = {key: error for key, error in failed.items() if key not in again}
            failed |= self._request(again)
        return batch, failed

    def _request(self, keys: list[str]) -> Mapping[str, StoreError]:
        """Delete; return the errors by key. A server that takes no batches gets each key by itself."""
        if len(keys) > 1:
            try:
                return self._store.delete_many(keys)
            except OF_EVERYTHING:
                raise
            except Refused:
                pass
        failed: dict[str, StoreError] = {}
        for key in keys:
            try:
                self._store.delete(key)
            except OF_EVERYTHING:
                raise
            except Refused as error:
                failed[key] = error
        return failed


def _count(batch: Batch, failed: Mapping[str, StoreError], report: BulkReport) -> None:
    for key, size in batch.items():
        if key in failed:
            report.fail(key, failed[key])
        else:
            report.did(size)
