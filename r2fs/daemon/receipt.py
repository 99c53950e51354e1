"""Receipts over the control socket: send pending changes, compare with the bucket, and repeat while a file changes.

Never: imports the engine or a store: `r2fs wait` and r2fs.client use it.
Fails: DaemonUnreachable, and any error that the daemon answered with. What the bucket lacks is an Outcome.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from r2fs.daemon import client
from r2fs.daemon.client import Daemon

OPEN_POLL_S = 0.2  # between looks at a file that a program has open for writing


class Outcome(Enum):
    CONFIRMED = "the bucket holds exactly these bytes"
    OUT_OF_TIME = "changes are still pending"
    REPLACED = "the bucket holds another version, or none"
    PARKED = "the bucket refuses a change, or a file may be damaged"
    REFUSED = "the bucket refuses all requests"
    UNKNOWN = "a bucket, of several, gave no answer; the others hold exactly these bytes"


@dataclass(frozen=True, slots=True)
class Receipt:
    outcome: Outcome
    checked: int = 0  # files compared
    answer: Mapping[str, Any] | None = None  # of the flush that did not succeed
    reasons: tuple[str, ...] = ()  # a sentence for each file that differs, or is still open


def confirm(
    daemon: Daemon, paths: list[str], deadline_s: float | None, show: Callable[[Mapping[str, Any]], None]
) -> Receipt:
    """Wait until the bucket holds the files at and below `paths`, relative to the mount; `show` gets the queue.

    `deadline_s` is of time.monotonic(); None: no limit.
    """
    while True:
        rest_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        answer: Mapping[str, Any] = {}
        for answer in client.ask(daemon, "flush", paths=paths, timeout_s=rest_s, retry=False):
            show(answer["queue"])
        if (outcome := _outcome(answer)) is not Outcome.CONFIRMED:
            return Receipt(outcome, answer=answer)
        found = client.ask_once(daemon, "verify", paths=paths)
        if found["differing"]:
            reasons = tuple(f"{path}: {why}" for path, why in found["differing"])
            return Receipt(Outcome.REPLACED, found["checked"], reasons=(*reasons, *unanswered(found)))
        if found.get("failed"):  # an older daemon has none
            return Receipt(Outcome.UNKNOWN, found["checked"], reasons=unanswered(found))
        if not found["changing"]:
            return Receipt(Outcome.CONFIRMED, found["checked"])
        if deadline_s is not None and time.monotonic() >= deadline_s:
            left = tuple(f"{path}: open for writing, or changed again" for path in found["changing"])
            return Receipt(Outcome.OUT_OF_TIME, found["checked"], reasons=left)
        time.sleep(OPEN_POLL_S)


def unanswered(found: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for each bucket without an answer."""
    return tuple(f"{path}: not compared: {why}" for path, why in found.get("failed", ()))


def _outcome(answer: Mapping[str, Any]) -> Outcome:
    if answer["parked_count"]:
        return Outcome.PARKED
    if answer["sent"]:
        return Outcome.CONFIRMED
    return Outcome.REFUSED if answer["refusal"] else Outcome.OUT_OF_TIME
