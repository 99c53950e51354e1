"""Migration: copies of objects to other keys inside the bucket, each confirmed before the old key is deleted.

Owns:    the order: copy, HEAD of the copy, its line in the results on the disk, then the delete of the old key.
         Killed between any two, the same command goes on.
Never:   replaces an object: each copy has the condition that its key holds none. Deletes an old key whose object
         is not the one that was copied.
Threads: `run` uses a pool of its own.
Fails:   DirectoryUnusable where results cannot be written; the failure of one object is in the report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event

from r2fs.bulk.plan import Move, Plan, Row
from r2fs.bulk.results import Confirmed, Results
from r2fs.model.errors import ObjectMissing, PreconditionFailed, R2fsError, StoreError
from r2fs.model.etags import is_md5
from r2fs.model.keys import printable
from r2fs.model.ports import ObjectStore
from r2fs.model.records import Condition, ObjectInfo


class NotMoved(R2fsError):
    """An object is left as it is; the message says the reason."""


@dataclass(slots=True)
class Report:
    """Outcome so far. Sizes are bytes."""

    total: int = 0  # copies of the plan
    confirmed: int = 0  # copies of this run
    earlier: int = 0  # copies that an earlier run confirmed
    deleted: int = 0  # old keys
    bytes: int = 0  # of the copies of this run
    failed: list[tuple[int, str, str]] = field(default_factory=list)  # line, old key, reason

    @property
    def done(self) -> int:
        return self.confirmed + self.earlier + len(self.failed)

    def fail(self, row: Row, error: Exception) -> None:
        self.failed.append((row.line, row.old, str(error)))

    def add(self, one: Report) -> None:
        """Add the counts and failures of one source."""
        self.confirmed += one.confirmed
        self.earlier += one.earlier
        self.deleted += one.deleted
        self.bytes += one.bytes
        self.failed += one.failed


class Migration:
    def __init__(self, store: ObjectStore, results: Results, keep_old: bool, at_once: int = 16) -> None:
        # constant
        self._store = store
        self._results = results
        self._keep_old = keep_old
        self._at_once = at_once
        self._stopped = Event()

    def run(self, plan: Plan, progress: Callable[[Report], None]) -> Report:
        """Carry out `plan`; `progress` is called after each source. An interrupt ends it between two steps."""
        report = Report(total=plan.copies)
        with ThreadPoolExecutor(self._at_once, "migrate") as pool:
            running: set[Future[Report]] = set()
            try:
                for move in plan.moves:
                    running.add(pool.submit(self._move, move))
                    if len(running) >= 2 * self._at_once:
                        running = self._collect(running, report, progress)
                while running:
                    running = self._collect(running, report, progress)
            except BaseException:
                self._stopped.set()
                for future in running:
                    future.cancel()
                raise
        return report

    def _collect(
        self, running: set[Future[Report]], report: Report, progress: Callable[[Report], None]
    ) -> set[Future[Report]]:
        ended, left = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            report.add(future.result())
        progress(report)
        return left

    # ------------------------------------------------------------------ one source
    def _move(self, move: Move) -> Report:
        known = self._results.confirmed
        pending = [target for target in move.targets if (move.source, target) not in known]
        report = Report(earlier=len(move.targets) - len(pending))
        try:
            source = self._source(move, needed=bool(pending))
        except (StoreError, NotMoved) as error:
            for row in [row for row in move.rows if row.new in pending] or [move.rows[0]]:
                report.fail(row, error)
            return report
        if source is None:
            return report
        for target in pending:
            rows = [row for row in move.rows if row.new == target]
            try:
                found = self._copied(source, target)
            except (StoreError, NotMoved) as error:
                report.fail(rows[0], error)
                continue
            self._results.add(rows, Confirmed(found.size, found.etag, source.etag))
            report.confirmed += 1
            report.bytes += found.size
        if not report.failed and not self._keep_old:
            try:
                report.deleted += self._delete(move)
            except (StoreError, NotMoved) as error:
                report.fail(move.rows[0], error)
        return report

    def _source(self, move: Move, needed: bool) -> ObjectInfo | None:
        """The object to copy; None where it is gone and nothing of it is left to be copied."""
        self._check_stopped()
        try:
            return self._store.head(move.source)
        except ObjectMissing:
            if needed:
                raise NotMoved(f"{printable(move.source)}: there is no such object") from None
            return None

    def _copied(self, source: ObjectInfo, target: str) -> ObjectInfo:
        """Copy, and look whether the bucket has it: its size, and the ETag that the copy answered."""
        self._check_stopped()
        etag: str | None = None
        try:
            etag = self._store.copy(source.version, target, condition=Condition.absent())
        except PreconditionFailed as error:
            if error.source:
                raise NotMoved(f"{printable(source.key)} was changed while it was copied") from None
        found = self._store.head(target)
        if etag is None and not self._is_same(source, found):
            raise NotMoved(f"{printable(target)} holds another object: it is not replaced")
        if found.size != source.size or etag not in (None, found.etag) or _differ(source.etag, found.etag):
            raise NotMoved(f"{printable(target)} does not hold what was copied to it (ETag {found.etag})")
        return found

    def _is_same(self, source: ObjectInfo, found: ObjectInfo) -> bool:
        """True if the target, which was there already, has the bytes of the source: a copy of a killed run."""
        if source.size != found.size:
            return False
        if is_md5(source.etag) and is_md5(found.etag):
            return source.etag == found.etag
        return self._digest(source) == self._digest(found)  # of several parts: ETags do not tell

    def _digest(self, found: ObjectInfo) -> bytes:
        digest = hashlib.sha256()
        with self._store.get(found.key, if_match=found.etag) as download:
            for chunk in download.chunks():
                digest.update(chunk)
                self._check_stopped()
        return digest.digest()

    def _delete(self, move: Move) -> bool:
        """Delete the old key if it still holds what all targets were copied from. False: it is gone."""
        self._check_stopped()
        copied = {self._results.confirmed[move.source, target].old_etag for target in move.targets}
        try:
            now = self._store.head(move.source)
        except ObjectMissing:
            return False
        if copied != {now.etag}:
            raise NotMoved(f"{printable(move.source)} was changed since it was copied: it is kept")
        self._store.delete(move.source)
        return True

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise NotMoved("interrupted")


def _differ(one: str, other: str) -> bool:
    """True if both ETags are MD5s of the bytes, and different ones."""
    return is_md5(one) and is_md5(other) and one != other


def check(store: ObjectStore, plan: Plan, progress: Callable[[int], None]) -> list[tuple[int, str, str]]:
    """Find by HEADs the rows of `plan` that would fail: line, old key, reason. Changes nothing."""
    faults: list[tuple[int, str, str]] = []

    def look(row: Row) -> tuple[int, str, str] | None:
        try:
            store.head(row.old)
        except StoreError as error:
            return row.line, row.old, str(error)
        try:
            store.head(row.new)
        except ObjectMissing:
            return None
        except StoreError as error:
            return row.line, row.old, str(error)
        return row.line, row.old, f"{printable(row.new)} holds an object: it is not replaced"

    rows = [row for move in plan.moves for row in move.rows]
    with ThreadPoolExecutor(16, "check") as pool:
        for number, fault in enumerate(pool.map(look, rows), 1):
            if fault is not None:
                faults.append(fault)
            progress(number)
    return faults
