"""Transitions of Pending: pure functions, one for each event of `states.py` and each change beside them.

Each takes a Pending and returns the next one; None: nothing is pending any more. No I/O, no lock, no clock. A pair of
state and event that is not in the table raises ImpossibleTransition.
"""

from __future__ import annotations

from dataclasses import replace

from r2fs.model.pending import (
    Checkpoint,
    Durability,
    Hold,
    InFlight,
    Pending,
    Retry,
    Staged,
    Writes,
)
from r2fs.model.records import Proof
from r2fs.model.states import Event, State, after

_CLEAR = Retry()


def _next(pending: Pending, event: Event) -> State:
    return after(pending.state, event, pending.checkpoint.state if pending.checkpoint else None)


# ------------------------------------------------------------------ a new name
def created(pending: Pending) -> Pending:
    """A new name; `pending` is CLEAN, and names key and staged file."""
    return replace(pending, state=after(None, Event.CREATE))


# ------------------------------------------------------------------ opening and closing
def opened_for_writing(pending: Pending, staged: Staged) -> Pending:
    """The first writer's open. A crash from here on finds bytes of the staged file, whatever was owed before."""
    flight = pending.in_flight
    return replace(
        pending,
        state=_next(pending, Event.OPEN_WRITE),
        checkpoint=Checkpoint(pending.state, pending.changed, flight is not None and flight.modified),
        changed=True,
        staged=staged,
        in_flight=None if flight is None else replace(flight, modified=True),
    )


def closed_changed(pending: Pending, staged: Staged, closed_at_s: float) -> Pending:
    """The last writer's close."""
    return replace(
        pending,
        state=_next(pending, Event.SEAL),
        checkpoint=None,
        changed=True,
        staged=replace(staged, baseline=None, withdrawn=None),
        closed_at_s=closed_at_s,
    )


def closed_unchanged(pending: Pending, synced: bool) -> Pending | None:
    """The last writer's close, with evidence that nothing was written. `synced`: an fsync covers the bytes."""
    state, checkpoint, staged = _next(pending, Event.UNCHANGED), pending.checkpoint, pending.staged
    if state is State.CLEAN:
        return None
    assert checkpoint is not None
    if staged is not None:
        durability = staged.withdrawn or staged.durability
        if synced and durability is Durability.VOLATILE:
            durability = Durability.SYNCED_OWN if isinstance(staged.fsync_mark, int) else Durability.SYNCED
        staged = replace(staged, baseline=None, withdrawn=None, durability=durability)
    flight = pending.in_flight
    return replace(
        pending,
        state=state,
        checkpoint=None,
        changed=checkpoint.changed,
        staged=staged,
        in_flight=None if flight is None else replace(flight, modified=checkpoint.modified),
    )


def made(pending: Pending, closed_at_s: float) -> Pending:
    """A directory, link or special file that was just created: nobody writes to it."""
    return replace(pending, state=_next(pending, Event.SEAL), closed_at_s=closed_at_s)


# ------------------------------------------------------------------ other names, other metadata
def retargeted(pending: Pending) -> Pending:
    """Another name or other metadata: what was sent, or is on its way, is not the end."""
    checkpoint = pending.checkpoint
    if checkpoint is not None:
        checkpoint = replace(checkpoint, state=after(checkpoint.state, Event.RETARGET))
    return replace(pending, state=_next(pending, Event.RETARGET), checkpoint=checkpoint)


def renamed(pending: Pending, key: str, expected_etag: str | None, seq: int) -> Pending:
    """Another key, where `expected_etag` is; last in the order of the journal."""
    return replace(retargeted(pending), key=key, expected_etag=expected_etag, seq=seq)


def named_by_program(pending: Pending) -> Pending:
    """A conflict copy that a program renames: a copy of the copy is called after the new name."""
    return replace(pending, conflict_of=None)


def unlinked(pending: Pending) -> Pending | None:
    """No name: nothing is sent."""
    assert _next(pending, Event.UNLINK) is State.GONE
    return None


# ------------------------------------------------------------------ one attempt
def claimed(pending: Pending, in_flight: InFlight, size: int | None) -> Pending:
    """An upload thread takes it; `size`: bytes of the staged file now, where there is one."""
    staged = pending.staged
    if staged is not None and size is not None:
        staged = replace(staged, size=size)
    return replace(pending, state=_next(pending, Event.CLAIM), in_flight=in_flight, staged=staged)


def stored(
    pending: Pending, etag: str | None, rebased: bool, carries_body: bool, keep_hold: bool
) -> Pending | None:
    """The bucket has what was sent. `etag`: of the new version, where the key is still the attempt's.

    `rebased`: the bytes were sent, so that edits against the base before are void. `carries_body`: it is sent whole
    with its metadata. `keep_hold`: this disk failed to sync it, and says so until it is opened anew.
    """
    moved = etag is None
    state = _next(pending, Event.PUT_OK)
    if state is State.CLEAN:
        return None
    flight, checkpoint, changed, staged = (
        pending.in_flight,
        pending.checkpoint,
        pending.changed,
        pending.staged,
    )
    if (
        pending.state is State.RESEALED
    ):  # the same bytes under another name, or other metadata: a copy will do
        changed = (flight is not None and flight.modified) or carries_body
    if pending.state is State.STALE_UPLOAD:
        interrupted = checkpoint.state if checkpoint is not None else None
        back = State.CLEAN if interrupted is State.UPLOADING and not moved else State.QUEUED
        checkpoint = Checkpoint(back, changed=True, modified=False)
    if staged is not None and rebased:
        staged = replace(staged, edits=None)
    return replace(
        pending,
        state=state,
        changed=changed,
        expected_etag=pending.expected_etag if moved else etag,
        staged=staged,
        checkpoint=checkpoint,
        in_flight=None,
        hold=pending.hold if keep_hold else None,
        retry=_CLEAR,
    )


def failed(pending: Pending, reason: str, retry: Retry) -> Pending:
    """Not stored, and tried again. A doubt about the bytes outlasts the reason."""
    return replace(
        _interrupted(pending),
        state=_next(pending, Event.PUT_RETRY),
        in_flight=None,
        hold=Hold(pending.doubt or reason),
        retry=retry,
    )


def conflict_seen(pending: Pending) -> Pending:
    """Another host's object is at the key, and a program is writing: seen again after the last close."""
    return replace(_interrupted(pending), state=_next(pending, Event.CONFLICT), in_flight=None)


def conflict_renamed(pending: Pending, key: str, meant_for: str) -> Pending:
    """Another host's object keeps the key `meant_for`."""
    return replace(
        pending,
        state=_next(pending, Event.CONFLICT),
        key=key,
        expected_etag=None,
        conflict_of=meant_for,
        checkpoint=None,
        in_flight=None,
    )


def refused(pending: Pending, hold: Hold) -> Pending:
    """Kept and not sent. Where a program is writing, the next attempt asks again."""
    return replace(
        _interrupted(pending),
        state=_next(pending, Event.REFUSED),
        in_flight=None,
        hold=hold,
        retry=Retry(pending.retry.failures + 1 if hold.transient else 0),
    )


def parked(pending: Pending, hold: Hold) -> Pending:
    """QUEUED, and held without an attempt."""
    return refused(replace(pending, state=_next(pending, Event.CLAIM)), hold)


def released(pending: Pending, keep_reason: bool = False) -> Pending:
    """PARKED, and sent once more. `keep_reason`: its cause may have passed, and is told until it has."""
    hold = Hold(pending.hold.reason) if pending.hold is not None and keep_reason else None
    return replace(pending, state=_next(pending, Event.RELEASE), hold=hold)


def _interrupted(pending: Pending) -> Pending:
    """An attempt beside a writer has ended without being stored: an unchanged close leads to QUEUED."""
    if pending.state is State.STALE_UPLOAD and pending.checkpoint is not None:
        return replace(pending, checkpoint=replace(pending.checkpoint, state=State.QUEUED))
    return pending


# ------------------------------------------------------------------ at start
def replayed(pending: Pending, staged: Staged | None) -> Pending:
    """Nobody writes any more, and no attempt is on its way."""
    return replace(
        pending,
        state=_next(pending, Event.BOOT),
        checkpoint=None,
        staged=staged and replace(staged, baseline=None),
    )


def kept_beside(pending: Pending, key: str, meant_for: str) -> Pending:
    """Two rows name one key: the later one is kept beside it, as a conflict is."""
    return replace(pending, key=key, expected_etag=None, conflict_of=meant_for)


def without_staged(pending: Pending) -> Pending:
    """The staged bytes are not what was written, and nothing was: those of its base are meant."""
    event = Event.RELEASE if pending.state is State.PARKED else Event.BOOT
    state = _next(pending, event)
    return replace(pending, state=state, checkpoint=None, staged=None, changed=False, hold=None)


def adopted(pending: Pending) -> Pending:
    """A take-over: its writers are still there. An attempt ended with the daemon before, unseen."""
    checkpoint = pending.checkpoint
    if checkpoint is not None and checkpoint.state not in (State.CLEAN, State.PARKED):
        checkpoint = replace(checkpoint, state=State.QUEUED)
    return replace(pending, state=_next(pending, Event.ADOPT), checkpoint=checkpoint, changed=True)


# ------------------------------------------------------------------ beside the events
def expecting(pending: Pending, etag: str | None) -> Pending:
    """Another object is known to be at the key."""
    return replace(pending, expected_etag=etag)


def corrected(pending: Pending, expected_etag: str | None, changed: bool) -> Pending:
    """An attempt's answer taught which object is at the key, and whether the base can be copied."""
    return replace(pending, expected_etag=expected_etag, changed=changed)


def held(pending: Pending, reason: str | None) -> Pending:
    """A reason that stays with the bytes; None: nothing is left of what was doubtful."""
    return replace(pending, hold=None if reason is None else Hold(reason))


def interrupted_changed(pending: Pending) -> Pending:
    """What a first writer interrupted has bytes of its own: the object that it was to be copied from goes."""
    assert pending.checkpoint is not None
    return replace(pending, checkpoint=replace(pending.checkpoint, changed=True))


def materializing(pending: Pending, staged: Staged) -> Pending:
    """Its base's bytes are brought into a staged file; until `materialized` its base still counts."""
    return replace(pending, staged=staged)


def materialized(pending: Pending, boot: str) -> Pending:
    """All its bytes are on this disk: its base's object may go."""
    assert pending.staged is not None
    staged = replace(pending.staged, durability=Durability.SYNCED, lists_ranges=False, edits=None, boot=boot)
    return replace(pending, changed=True, staged=staged)


def sends_own(pending: Pending, staged: Staged) -> Pending:
    """The object to be copied is gone, and all bytes are here."""
    return replace(pending, changed=True, staged=staged)


def with_staged(pending: Pending, staged: Staged) -> Pending:
    """Size, durability or evidence of the staged file changed."""
    return replace(pending, staged=staged)


# ------------------------------------------------------------------ of the staged file
def withdrawn(staged: Staged) -> Staged:
    """A writer is about to come: no row on the disk may count on the bytes as they are."""
    return replace(staged, durability=Durability.VOLATILE, withdrawn=staged.durability)


def restored(staged: Staged) -> Staged:
    """The writer that was about to come did not."""
    return replace(staged, durability=staged.withdrawn or staged.durability, withdrawn=None)


def written(staged: Staged) -> Staged:
    """A program wrote, while only that can be counted."""
    return replace(staged, baseline=Writes.SOME) if staged.baseline is Writes.NONE else staged


def cut(staged: Staged, size: int, base_limit: int) -> Staged:
    """A truncate; of nothing no range has to be listed."""
    lists = staged.lists_ranges and size > 0
    return replace(staged, baseline=None, size=size, base_limit=base_limit, lists_ranges=lists)


def completed(staged: Staged, baseline: Proof | None) -> Staged:
    """All bytes are here while it is open: from here on fstat proves whether anything is written."""
    kept = staged.baseline if isinstance(staged.baseline, Proof) else baseline
    return replace(staged, baseline=kept, lists_ranges=False)
