"""Plan: the next action for a QUEUED inode that is due. Pure: no lock, no disk, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from r2fs.engine.pending.store import Token
from r2fs.model.pending import UNSYNCED, Pending


@dataclass(frozen=True, slots=True)
class View:
    """The facts for the plan beside the pending value."""

    now_s: float  # Clock.monotonic()
    free_at_s: float  # when the key may be written again
    sync_failed: bool = False  # this disk failed to store its bytes
    missing: str | None = None  # why its staged bytes cannot be opened
    incomplete: bool = False  # bytes of its base are missing, or its row still lists ranges
    kept_by_child: bool = False  # a directory without attributes of its own, which an object below keeps
    awaited_child: int | None = None  # inode number of a child on its way to the bucket: an object below
    crowded: Token | None = None  # of large files as many are on their way as may be: one of their keys
    blocker: Token | None = None  # the request or inode to wait for
    in_ring: bool = False  # the blocker waits for this inode


@dataclass(frozen=True, slots=True)
class Park:
    """Keep the bytes and send none."""

    reason: str


class Step(Enum):
    """Actions without values."""

    HYDRATE = "download the missing bytes of its base"
    MATERIALIZE = "download all bytes of its base: the object is to be replaced"
    DROP = "end the pending state: an object below keeps the directory"
    SEND = "send its bytes, or copy its base inside the bucket"


@dataclass(frozen=True, slots=True)
class Wait:
    token: Token


@dataclass(frozen=True, slots=True)
class Defer:
    until_s: float  # Clock.monotonic()


Action = Step | Park | Wait | Defer


def plan(pending: Pending, view: View) -> Action:
    """Return the next action. Bytes in doubt are never sent; no object needed by another inode is overwritten."""
    if view.sync_failed:
        return Park(UNSYNCED)
    if pending.doubt is not None:  # the journal had no room for PARKED at its close
        return Park(pending.doubt)
    if view.missing is not None:
        return Park(view.missing)
    if view.incomplete:
        return Step.HYDRATE
    if view.blocker is not None:
        return Step.MATERIALIZE if view.in_ring else Wait(view.blocker)
    if view.kept_by_child:
        return Step.DROP
    if view.awaited_child is not None:
        return Wait(("ino", view.awaited_child))
    if view.free_at_s > view.now_s:
        return Defer(view.free_at_s)
    if view.crowded is not None:
        return Wait(view.crowded)
    return Step.SEND
