"""Failures: the last error of an upload or delete, refusals by the whole bucket, and the pause after an outage.

Owns:  the number of failed requests; the last error, with its time, until its inode or delete is done; of each bucket,
       refusals in a row and the time without requests.
Never: decides the next attempt (`writeback/verdict.py`, `writeback/deletes.py`).
Locks: methods named _locked need Core.lock.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from r2fs.engine.inodes.core import Core
from r2fs.engine.pending.store import PendingStore
from r2fs.model.errors import BadCredentials, BucketMissing, ClockSkewed, PermissionRefused, R2fsError
from r2fs.model.records import PendingDelete

# Refusals by the whole bucket: a person mends the cause in one place, and no file is PARKED.
BUCKET_WIDE = (BadCredentials, PermissionRefused, BucketMissing, ClockSkewed)
REFUSALS = 3  # in a row, without a success: then the bucket is taken to refuse everything
OUTAGE_FIRST_S, OUTAGE_CAP_S = 0.5, 15.0  # pause after "no answer": short, since recovery is quick


@dataclass(frozen=True, slots=True)
class LastError:
    text: str
    at_s: float  # Clock.time()
    inodes: frozenset[int]  # the inodes concerned
    deletes: frozenset[int]  # the deletes, by seq


@dataclass(slots=True)
class _OfBucket:
    refused: int = 0  # requests refused by the whole bucket, since start
    in_a_row: int = 0
    refusal: R2fsError | None = None
    not_before_s: float = 0.0  # Clock.monotonic(): end of the pause after an outage
    pause_s: float = 0.0  # of the next one; 0 after a success
    uploads: int = 0  # taken since start


class Failures:
    def __init__(self, core: Core, pending_store: PendingStore) -> None:
        # constant
        self._core = core
        self._pending = pending_store
        # guarded by: Core.lock
        self.count = 0
        self._buckets: dict[str, _OfBucket] = {}
        self._last: LastError | None = None

    def _at(self, key: str) -> _OfBucket:
        """The bucket of a key."""
        return self._of(self._core.settings.bucket.split(key)[0])

    def _of(self, bucket: str) -> _OfBucket:
        bucket = bucket if self._core.settings.bucket.several else ""
        return self._buckets.setdefault(bucket, _OfBucket())

    def of_upload_locked(self, ino: int, key: str, error: Exception) -> None:
        self._note(key, error, frozenset([ino]), frozenset())

    def of_deletes_locked(self, rows: Sequence[PendingDelete], error: Exception) -> None:
        """Note the failure of a request for these rows, all of one bucket."""
        self._note(rows[0].key, error, frozenset(), frozenset(row.seq for row in rows))

    def _note(self, key: str, error: Exception, inodes: frozenset[int], deletes: frozenset[int]) -> None:
        self._core.assert_held()
        self.count += 1
        self._last = LastError(str(error), self._core.clock.time(), inodes, deletes)
        if isinstance(error, BUCKET_WIDE):
            bucket = self._at(key)
            bucket.refused += 1
            bucket.in_a_row += 1
            bucket.refusal = error

    def recovered_locked(self, key: str) -> None:
        """Note a success: the outage is over, and the bucket does not refuse all requests."""
        self._core.assert_held()
        bucket = self._at(key)
        bucket.pause_s = 0.0
        bucket.in_a_row = 0

    def uploaded_locked(self, key: str) -> None:
        self._core.assert_held()
        self._at(key).uploads += 1

    def uploads_at(self, key: str) -> int:
        """The number of uploads that the key's bucket has taken since start."""
        return self._at(key).uploads

    def outage_locked(self, key: str) -> None:
        """Pause: the bucket did not answer, or refuses all requests."""
        self._core.assert_held()
        bucket = self._at(key)
        bucket.pause_s = min(OUTAGE_CAP_S, max(OUTAGE_FIRST_S, bucket.pause_s * 2))
        bucket.not_before_s = self._core.clock.monotonic() + bucket.pause_s * random.uniform(0.5, 1.0)

    def pause_ends_s(self, bucket: str) -> float:
        """Clock.monotonic(): the end of the bucket's pause."""
        return self._of(bucket).not_before_s

    def is_failing(self, bucket: str) -> bool:
        """True from an outage on until the next success."""
        return self._of(bucket).pause_s > 0

    def end_pause_locked(self) -> None:
        self._core.assert_held()
        for bucket in self._buckets.values():
            bucket.not_before_s = min(bucket.not_before_s, self._core.clock.monotonic())

    def last_locked(self) -> LastError | None:
        """The last error; None once its inode or delete is sent, deleted or given up."""
        self._core.assert_held()
        last = self._last
        if last is not None and not (
            any(ino in self._pending.inodes for ino in last.inodes)
            or any(seq in self._pending.deletes.rows for seq in last.deletes)
        ):
            self._last = last = None
        return last

    def refusals_locked(self) -> dict[str, int]:
        """The number of refusals by each bucket as a whole, since start."""
        self._core.assert_held()
        return {name: bucket.refused for name, bucket in self._buckets.items()}

    def refusal_locked(self, buckets: Collection[str] = ()) -> R2fsError | None:
        """The refusal of all requests by one of the buckets (none named: of any); None: none is known."""
        self._core.assert_held()
        chosen = [self._of(name) for name in buckets] if buckets else list(self._buckets.values())
        return next((bucket.refusal for bucket in chosen if bucket.in_a_row >= REFUSALS), None)

    def refuses_again_locked(self, bucket: str, before: Mapping[str, int]) -> bool:
        """True if the bucket refuses all requests, and has done so since `refusals_locked` returned `before`."""
        self._core.assert_held()
        found = self._of(bucket)
        several = self._core.settings.bucket.several
        return found.in_a_row >= REFUSALS and found.refused > before.get(bucket if several else "", 0)
