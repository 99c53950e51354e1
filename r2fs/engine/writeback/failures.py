"""Failures: the last error of an upload or delete, refusals by the whole bucket, and the pause after an outage.

Owns:  the number of failed requests; the last error, with its time, until its inode or delete is done; refusals in a
       row; the time without requests.
Never: decides the next attempt (`writeback/verdict.py`, `writeback/deletes.py`).
Locks: methods named _locked need Core.lock.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from r2fs.engine.core import Core
from r2fs.engine.pending.store import PendingStore
from r2fs.model.errors import BadCredentials, BucketMissing, ClockSkewed, PermissionRefused, R2fsError

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


class Failures:
    def __init__(self, core: Core, pending_store: PendingStore) -> None:
        # constant
        self._core = core
        self._pending = pending_store
        # guarded by: Core.lock
        self.count = 0
        self.refused = 0  # requests refused by the whole bucket, since start
        self.not_before_s = 0.0  # Clock.monotonic(): end of the pause after an outage
        self._pause_s = 0.0
        self._in_a_row = 0
        self._refusal: R2fsError | None = None
        self._last: LastError | None = None

    def of_upload_locked(self, ino: int, error: Exception) -> None:
        self._note(error, frozenset([ino]), frozenset())

    def of_deletes_locked(self, seqs: Iterable[int], error: Exception) -> None:
        self._note(error, frozenset(), frozenset(seqs))

    def _note(self, error: Exception, inodes: frozenset[int], deletes: frozenset[int]) -> None:
        self._core.assert_held()
        self.count += 1
        self._last = LastError(str(error), self._core.clock.time(), inodes, deletes)
        if isinstance(error, BUCKET_WIDE):
            self.refused += 1
            self._in_a_row += 1
            self._refusal = error

    def recovered_locked(self) -> None:
        """Note a success: the outage is over, and the bucket does not refuse all requests."""
        self._core.assert_held()
        self._pause_s = 0.0
        self._in_a_row = 0

    def outage_locked(self) -> None:
        """Pause: the bucket did not answer, or refuses all requests."""
        self._core.assert_held()
        self._pause_s = min(OUTAGE_CAP_S, max(OUTAGE_FIRST_S, self._pause_s * 2))
        self.not_before_s = self._core.clock.monotonic() + self._pause_s * random.uniform(0.5, 1.0)

    def end_pause_locked(self) -> None:
        self._core.assert_held()
        self.not_before_s = min(self.not_before_s, self._core.clock.monotonic())

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

    def refusal_locked(self) -> R2fsError | None:
        """The bucket's refusal of all requests; None: not known to refuse all."""
        self._core.assert_held()
        return self._refusal if self._in_a_row >= REFUSALS else None
