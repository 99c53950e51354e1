"""Failures: the last error of an upload or delete, and refusals that concern the whole bucket.

Owns:  how many requests have failed; the last error, with its time, for as long as what it was about is owed;
       how often in a row everything was refused.
Never: decides what is tried again (`writeback/resolve.py`, `writeback/delete_batches.py`).
Locks: every method is called with Core.lock held.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from r2fs.engine.core import Core
from r2fs.engine.pending.store import PendingStore
from r2fs.model.errors import BadCredentials, BucketMissing, ClockSkewed, PermissionRefused

# The whole bucket refuses: every file would be PARKED for what a person mends in one place.
BUCKET_WIDE = (BadCredentials, PermissionRefused, BucketMissing, ClockSkewed)
REFUSALS = 3  # in a row, without a success: then the bucket refuses everything, as far as anybody can tell


@dataclass(frozen=True, slots=True)
class LastError:
    text: str
    at_s: float  # Clock.time()
    inodes: frozenset[int]  # what it was about
    deletes: frozenset[int]  # the same, by seq


class Failures:
    def __init__(self, core: Core, pending_store: PendingStore) -> None:
        self._core = core
        self._pending = pending_store
        self.count = 0
        self.refused = 0  # requests, ever, for a reason that concerns the whole bucket
        self._in_a_row = 0
        self._reason = ""
        self._last: LastError | None = None

    def of_upload(self, ino: int, error: Exception) -> None:
        self._note(error, frozenset([ino]), frozenset())

    def of_deletes(self, seqs: Iterable[int], error: Exception) -> None:
        self._note(error, frozenset(), frozenset(seqs))

    def _note(self, error: Exception, inodes: frozenset[int], deletes: frozenset[int]) -> None:
        self.count += 1
        self._last = LastError(str(error), self._core.clock.time(), inodes, deletes)
        if isinstance(error, BUCKET_WIDE):
            self.refused += 1
            self._in_a_row += 1
            self._reason = str(error)

    def answered(self) -> None:
        """A request was carried out: not everything is refused."""
        self._in_a_row = 0

    def last(self) -> LastError | None:
        """None once what it was about is sent, deleted or given up."""
        last = self._last
        if last is not None and not (
            any(ino in self._pending.inodes for ino in last.inodes)
            or any(seq in self._pending.deletes.rows for seq in last.deletes)
        ):
            self._last = last = None
        return last

    def refusal(self) -> str | None:
        """Why everything is refused; None while that is not known."""
        return self._reason if self._in_a_row >= REFUSALS else None
