"""Upload state of an inode: an enum, its events, and the only table of what follows what.

Owns:  the table. The journal stores the state's name; `engine` asks `after()`.
Never: decides anything else: a pair that is not in the table is a defect and raises.

    CLEAN         what is here is what the bucket has, or nothing is here
    DIRTY         open for writing, or not yet sealed
    QUEUED        sealed: waits for its turn
    UPLOADING     an attempt is on its way, and nobody writes
    STALE_UPLOAD  an attempt is on its way, and somebody has it open for writing
    RESEALED      an attempt is on its way, and there is something newer to send after it
    PARKED        the bucket refused it, or it may be torn: kept until a person, or the cause's end
    GONE          unlinked: never sent

QUEUED covers two ways of sending: a body from staging, or (for a rename, or a change of
metadata alone) a copy inside the bucket from the inode's base.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    CLEAN = "clean"
    DIRTY = "dirty"
    QUEUED = "queued"
    UPLOADING = "uploading"
    STALE_UPLOAD = "stale_upload"
    RESEALED = "resealed"
    PARKED = "parked"
    GONE = "gone"


class Event(Enum):
    CREATE = "create"  # a new name: mkdir, create, symlink
    OPEN_WRITE = "open_write"  # first writer, or a truncate
    SEAL = "seal"  # last writer closed, changed
    UNCHANGED = "unchanged"  # last writer closed, proof of no change
    RETARGET = "retarget"  # another name or other metadata: what was or is sent is not the end
    CLAIM = "claim"  # an uploader takes it
    PUT_OK = "put_ok"
    PUT_RETRY = "put_retry"
    CONFLICT = "conflict"
    REFUSED = "refused"
    RELEASE = "release"
    UNLINK = "unlink"
    BOOT = "boot"
    ADOPT = "adopt"  # a take-over: its writers are still there


BEFORE = "before"  # UNCHANGED leads back to the state that OPEN_WRITE left

_S, _E = State, Event

NEXT: dict[tuple[State | None, Event], State | str] = {
    (None, _E.CREATE): _S.DIRTY,
    # opening for writing
    (_S.CLEAN, _E.OPEN_WRITE): _S.DIRTY,
    (_S.QUEUED, _E.OPEN_WRITE): _S.DIRTY,
    (_S.PARKED, _E.OPEN_WRITE): _S.DIRTY,
    (_S.UPLOADING, _E.OPEN_WRITE): _S.STALE_UPLOAD,
    (_S.RESEALED, _E.OPEN_WRITE): _S.STALE_UPLOAD,
    # closing
    (_S.DIRTY, _E.SEAL): _S.QUEUED,
    (_S.DIRTY, _E.UNCHANGED): BEFORE,
    (_S.STALE_UPLOAD, _E.SEAL): _S.RESEALED,
    (_S.STALE_UPLOAD, _E.UNCHANGED): BEFORE,
    # another name, other metadata
    (_S.CLEAN, _E.RETARGET): _S.QUEUED,
    (_S.DIRTY, _E.RETARGET): _S.DIRTY,
    (_S.QUEUED, _E.RETARGET): _S.QUEUED,
    (_S.UPLOADING, _E.RETARGET): _S.RESEALED,
    (_S.STALE_UPLOAD, _E.RETARGET): _S.STALE_UPLOAD,
    (_S.RESEALED, _E.RETARGET): _S.RESEALED,
    (_S.PARKED, _E.RETARGET): _S.PARKED,
    # uploading
    (_S.QUEUED, _E.CLAIM): _S.UPLOADING,
    (_S.UPLOADING, _E.PUT_OK): _S.CLEAN,
    (_S.UPLOADING, _E.PUT_RETRY): _S.QUEUED,
    (_S.UPLOADING, _E.CONFLICT): _S.QUEUED,
    (_S.UPLOADING, _E.REFUSED): _S.PARKED,
    (_S.STALE_UPLOAD, _E.PUT_OK): _S.DIRTY,
    (_S.STALE_UPLOAD, _E.PUT_RETRY): _S.DIRTY,
    (_S.STALE_UPLOAD, _E.CONFLICT): _S.DIRTY,
    (_S.STALE_UPLOAD, _E.REFUSED): _S.DIRTY,
    (_S.RESEALED, _E.PUT_OK): _S.QUEUED,
    (_S.RESEALED, _E.PUT_RETRY): _S.QUEUED,
    (_S.RESEALED, _E.CONFLICT): _S.QUEUED,
    (_S.RESEALED, _E.REFUSED): _S.PARKED,
    (_S.PARKED, _E.RELEASE): _S.QUEUED,
    # the end, and the beginning
    **{(state, _E.UNLINK): _S.GONE for state in State if state is not _S.GONE},
    **{(state, _E.BOOT): _S.QUEUED for state in State if state not in (_S.CLEAN, _S.PARKED, _S.GONE)},
    (_S.DIRTY, _E.ADOPT): _S.DIRTY,
    (_S.STALE_UPLOAD, _E.ADOPT): _S.DIRTY,  # the attempt ended with the daemon, unseen
}
# A refusal while somebody writes says nothing of what will be sent: the next attempt asks again,
# so STALE_UPLOAD + REFUSED is DIRTY here, not PARKED: an inode with writers is never PARKED.

SENDING = frozenset({State.UPLOADING, State.STALE_UPLOAD, State.RESEALED})
UNSEALED = frozenset({State.DIRTY, State.STALE_UPLOAD})  # somebody may be writing
PENDING_STATES = frozenset(State) - {State.CLEAN, State.GONE}


class ImpossibleTransition(AssertionError):
    """A pair that is not in the table: a defect of r2fs, never of the world."""


def after(state: State | None, event: Event, before: State | None = None) -> State:
    """The state that follows. `before` is what OPEN_WRITE left, needed for UNCHANGED alone."""
    try:
        following = NEXT[state, event]
    except KeyError:
        raise ImpossibleTransition(f"{state} does not take {event}") from None
    if isinstance(following, State):
        return following
    if before is None:
        raise ImpossibleTransition(f"{state} + {event} needs the state before")
    return before
