"""Health: whether the bucket answers.

Owns:  the begin and the reason of an outage; the begin of each request in flight that moves no bytes; the calls of
       `tell` when an outage begins or ends.
Never: decides what is sent (`retry.py` and the engine's schedules do).
Locks: self._lock, a leaf, held for a few assignments. `tell` is called without it.

An answer about one object counts, also a refusal. SILENCE does not: no answer at all, and the refusals that every
request would get (for the key, the rights, the bucket, the clock).

Requests to a server that takes them and answers none fail after a minute each. A view shows the outage earlier: when a
request of `requested` has waited for SILENT_S, and no other has been answered since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock, get_ident

from r2fs.model.errors import (
    BadCredentials,
    BucketMissing,
    ClockSkewed,
    PermissionRefused,
    StoreError,
    Throttled,
    Unavailable,
)
from r2fs.model.ports import Clock

SILENCE = (Unavailable, Throttled, BadCredentials, PermissionRefused, BucketMissing, ClockSkewed)
IN_A_ROW = 3  # failed requests without a success between: one or two are everyday business
SILENT_S = 10.0  # a HEAD takes R2 a fraction of a second, a page of a listing no more than two


@dataclass(frozen=True, slots=True)
class HealthView:
    answers: bool
    for_s: float  # seconds since the first failed request; 0 where it answers
    reason: str | None


class Health:
    def __init__(self, clock: Clock) -> None:
        # constant
        self._clock = clock
        # set once, by the daemon
        self.tell: Callable[[HealthView], None] = lambda view: None
        # guarded by: _lock
        self._lock = Lock()
        self._failed = 0
        self._since_s = 0.0
        self._reason: str | None = None
        # each thread writes its own entry
        self._waiting: dict[int, float] = {}  # time.monotonic() of requests in flight, by thread
        self._answered_s = 0.0  # time.monotonic() of the last answer

    def requested(self) -> None:
        """Note that this thread sends a request that moves no bytes; `answered` or `failed` ends it."""
        self._waiting[get_ident()] = self._clock.monotonic()

    def failed(self, error: StoreError) -> None:
        if not isinstance(error, SILENCE):
            self.answered()
            return
        self._waiting.pop(get_ident(), None)
        with self._lock:
            self._failed += 1
            if self._failed == 1:
                self._since_s = self._clock.monotonic()
            self._reason = str(error)
            lost = self._failed == IN_A_ROW
        if lost:
            self.tell(self.view())

    def lost(self, error: StoreError) -> None:
        """Count a failed check at the mount as an outage at once. Its caller reports it: `tell` is not called."""
        if not isinstance(error, SILENCE):
            return
        with self._lock:
            if not self._failed:
                self._since_s = self._clock.monotonic()
            self._failed = max(self._failed, IN_A_ROW)
            self._reason = str(error)

    def answered(self) -> None:
        self._waiting.pop(get_ident(), None)
        self._answered_s = self._clock.monotonic()
        if not self._failed:  # nearly always: no lock for it
            return
        with self._lock:
            failed, self._failed, self._reason = self._failed, 0, None
            back = HealthView(True, self._clock.monotonic() - self._since_s, None)
        if failed >= IN_A_ROW:
            self.tell(back)

    def view(self) -> HealthView:
        with self._lock:
            if self._failed >= IN_A_ROW:
                return HealthView(False, self._clock.monotonic() - self._since_s, self._reason)
        silent_s = self._silent_s()
        if silent_s < SILENT_S:
            return HealthView(True, 0.0, None)
        return HealthView(False, silent_s, "a request was sent, and nothing has been answered since")

    def _silent_s(self) -> float:
        """Return the wait of the oldest request of `requested` that was sent after the last answer; 0.0: there is none."""
        unanswered = [sent for sent in list(self._waiting.values()) if sent >= self._answered_s]
        return self._clock.monotonic() - min(unanswered) if unanswered else 0.0
