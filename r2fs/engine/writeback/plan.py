"""Plan: what is to be done next for a pending inode that is QUEUED and due. Pure: no lock, no disk, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from r2fs.engine.pending.waiting import Token
from r2fs.model.pending import UNSYNCED, Pending


@dataclass(frozen=True, slots=True)
class View:
    """What the plan depends on beside the pending value."""

    now_s: float  # Clock.monotonic()
    free_at_s: float  # when the key may be written again
    sync_failed: bool = False  # this disk failed to store its bytes
    missing: str | None = None  # why its staged bytes cannot be opened
    incomplete: bool = False  # bytes of its base are missing, or its row still counts on them
    kept_by_child: bool = False  # a directory without attributes of its own, which an object below keeps
    awaited_child: int | None = None  # inode number of a child that is being sent, and will keep it
    blocker: Token | None = None  # what must be over first
    in_ring: bool = False  # what it waits for waits for it


@dataclass(frozen=True, slots=True)
class Park:
    """Keep the bytes, and do not send them."""

    reason: str


@dataclass(frozen=True, slots=True)
class Hydrate:
    """Download what it lacks of its base."""


@dataclass(frozen=True, slots=True)
class Materialize:
    """Bring the bytes of its base here: the object has to go."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Nothing is pending any more: the bucket has what keeps the directory."""


@dataclass(frozen=True, slots=True)
class Wait:
    token: Token


@dataclass(frozen=True, slots=True)
class Defer:
    until_s: float  # Clock.monotonic()


@dataclass(frozen=True, slots=True)
class Send:
    """Send its bytes, or copy its base inside the bucket."""


Action = Park | Hydrate | Materialize | Drop | Wait | Defer | Send


def plan(pending: Pending, view: View) -> Action:
    """The next action. Bytes in doubt are never sent; nothing is overwritten that another inode still needs."""
    if view.sync_failed:
        return Park(UNSYNCED)
    if pending.doubt is not None:  # its close had no room in the journal to park it
        return Park(pending.doubt)
    if view.missing is not None:
        return Park(view.missing)
    if view.incomplete:
        return Hydrate()
    if view.blocker is not None:
        return Materialize() if view.in_ring else Wait(view.blocker)
    if view.kept_by_child:
        return Drop()
    if view.awaited_child is not None:
        return Wait(("ino", view.awaited_child))
    if view.free_at_s > view.now_s:
        return Defer(view.free_at_s)
    return Send()
