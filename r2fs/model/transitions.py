"""Transitions of Pending: pure functions, one for each event of `pending.py` and each change without an event.

Each takes a Pending and returns the next one; None: the inode is CLEAN or GONE. No I/O, no lock, no clock. Raises
ImpossibleTransition for a pair of state and event outside the table.
"""

from __future__ import annotations

from r2fs.model.pending import (
    NEXT,
    Checkpoint,
    Durability,
    Event,
    Hold,
    ImpossibleTransition,
    InFlight,
    Pending,
    Retry,
    Staged,
    State,
    Writes,
)
from r2fs.model.records import Proof

_CLEAR = Retry()


def after(state: State | None, event: Event, before: State | None = None) -> State:
    """Next state by the table. `before`: the state before OPEN_WRITE, needed for CLOSE_UNCHANGED alone."""
    try:
        following = NEXT[state, event]
    except KeyError:
        raise ImpossibleTransition(f"{state} does not take {event}") from None
    if isinstance(following, State):
        return following
    if before is None:
        raise ImpossibleTransition(f"{state} + {event} needs the state before")
    return before


def _next(pending: Pending, event: Event) -> State:
    return after(pending.state, event, pending.checkpoint.state if pending.checkpoint else None)


# ------------------------------------------------------------------ a new name
def created(pending: Pending) -> Pending:
    """Create a name. `pending` is CLEAN, and has the key and the staged file."""
    return pending._replace(state=after(None, Event.CREATE))


# ------------------------------------------------------------------ opening and closing
def opened_for_writing(pending: Pending, staged: Staged) -> Pending:
    """Open for the first writer. From now on a crash recovers the bytes of the staged file."""
    flight = pending.in_flight
    return pending._replace(
        state=_next(pending, Event.OPEN_WRITE),
        checkpoint=Checkpoint(pending.state, pending.changed, flight is not None and flight.modified),
        changed=True,
        staged=staged,
        in_flight=None if flight is None else flight._replace(modified=True),
    )


def closed_changed(pending: Pending, staged: Staged, closed_at_s: float) -> Pending:
    """Close by the last writer, with a change."""
    return pending._replace(
        state=_next(pending, Event.CLOSE_CHANGED),
        checkpoint=None,
        changed=True,
        staged=staged._replace(baseline=None, withdrawn=None),
        closed_at_s=closed_at_s,
    )


def closed_unchanged(pending: Pending, synced: bool) -> Pending | None:
    """Close by the last writer, with evidence of no change. `synced`: an fsync covers the bytes."""
    state, checkpoint, staged = _next(pending, Event.CLOSE_UNCHANGED), pending.checkpoint, pending.staged
    if state is State.CLEAN:
        return None
    assert checkpoint is not None
    if staged is not None:
        durability = staged.withdrawn or staged.durability
        if synced and durability is Durability.VOLATILE:
            durability = Durability.SYNCED_OWN if isinstance(staged.fsync_mark, int) else Durability.SYNCED
        staged = staged._replace(baseline=None, withdrawn=None, durability=durability)
    flight = pending.in_flight
    return pending._replace(
        state=state,
        checkpoint=None,
        changed=checkpoint.changed,
        staged=staged,
        in_flight=None if flight is None else flight._replace(modified=checkpoint.modified),
    )


def made(pending: Pending, closed_at_s: float) -> Pending:
    """Queue a directory, link or special file just created: it has no writers."""
    return pending._replace(state=_next(pending, Event.CLOSE_CHANGED), closed_at_s=closed_at_s)


# ------------------------------------------------------------------ other names, other metadata
def retargeted(pending: Pending) -> Pending:
    """Change the name or the metadata: another request is needed, whatever was sent or is in flight."""
    checkpoint = pending.checkpoint
    if checkpoint is not None:
        checkpoint = checkpoint._replace(state=after(checkpoint.state, Event.RETARGET))
    return pending._replace(state=_next(pending, Event.RETARGET), checkpoint=checkpoint)


def renamed(pending: Pending, key: str, expected_etag: str | None, seq: int) -> Pending:
    """Change the key to one that holds `expected_etag`; last in the order of the journal."""
    return retargeted(pending)._replace(key=key, expected_etag=expected_etag, seq=seq)


def named_by_program(pending: Pending) -> Pending:
    """Rename of a conflict copy by a program: a further conflict name is made from the new name."""
    return pending._replace(conflict_of=None)


def unlinked(pending: Pending) -> Pending | None:
    """Remove the name: not sent any more."""
    assert _next(pending, Event.UNLINK) is State.GONE
    return None


def discarded(pending: Pending) -> Pending | None:
    """Give up local changes for the bucket's version. The caller has compared the staged bytes with an export."""
    assert _next(pending, Event.DISCARD) is State.GONE and pending.in_flight is None
    return None


# ------------------------------------------------------------------ one attempt
def claimed(pending: Pending, in_flight: InFlight, size: int | None) -> Pending:
    """Begin an attempt. `size`: bytes of the staged file now; None without a staged file."""
    staged = pending.staged
    if staged is not None and size is not None:
        staged = staged._replace(size=size)
    return pending._replace(state=_next(pending, Event.CLAIM), in_flight=in_flight, staged=staged)


def stored(
    pending: Pending, etag: str | None, rebased: bool, carries_body: bool, keep_hold: bool
) -> Pending | None:
    """End an attempt with success. `etag`: of the new version; None if the key has changed since.

    `rebased`: the bytes were sent, so that edits against the former base are void. `carries_body`: the kind is sent
    whole with its metadata. `keep_hold`: keeps the reason of a failed sync until the file is opened anew.
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
    if pending.state is State.RESEALED:  # same bytes, another name or other metadata: a copy is enough
        changed = (flight is not None and flight.modified) or carries_body
    if pending.state is State.STALE_UPLOAD:
        interrupted = checkpoint.state if checkpoint is not None else None
        back = State.CLEAN if interrupted is State.UPLOADING and not moved else State.QUEUED
        checkpoint = Checkpoint(back, changed=True, modified=False)
    if staged is not None and rebased:
        staged = staged._replace(edits=None)
    return pending._replace(
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
    """End an attempt without success, for another try. A doubt about the bytes stays as the reason."""
    return _interrupted(pending)._replace(
        state=_next(pending, Event.PUT_RETRY),
        in_flight=None,
        hold=Hold(pending.doubt or reason),
        retry=retry,
    )


def conflict_seen(pending: Pending) -> Pending:
    """End an attempt with a conflict while a program writes: the next attempt after the last close meets it again."""
    return _interrupted(pending)._replace(state=_next(pending, Event.CONFLICT), in_flight=None)


def conflict_renamed(pending: Pending, key: str, meant_for: str) -> Pending:
    """Move to the conflict name `key`: another host's object keeps the key `meant_for`."""
    return pending._replace(
        state=_next(pending, Event.CONFLICT),
        key=key,
        expected_etag=None,
        conflict_of=meant_for,
        checkpoint=None,
        in_flight=None,
    )


def refused(pending: Pending, hold: Hold) -> Pending:
    """End an attempt with a refusal: PARKED, or DIRTY while a program writes."""
    return _interrupted(pending)._replace(
        state=_next(pending, Event.REFUSED),
        in_flight=None,
        hold=hold,
        retry=Retry(pending.retry.failures + 1 if hold.transient else 0),
    )


def parked(pending: Pending, hold: Hold) -> Pending:
    """Park a QUEUED inode without an attempt."""
    return refused(pending._replace(state=_next(pending, Event.CLAIM)), hold)


def released(pending: Pending, keep_reason: bool = False) -> Pending:
    """Queue a PARKED inode again. `keep_reason`: shows the reason until an attempt succeeds."""
    hold = Hold(pending.hold.reason) if pending.hold is not None and keep_reason else None
    return pending._replace(state=_next(pending, Event.RELEASE), hold=hold)


def _interrupted(pending: Pending) -> Pending:
    """Correct the checkpoint after a failed attempt beside a writer: an unchanged close leads to QUEUED."""
    if pending.state is State.STALE_UPLOAD and pending.checkpoint is not None:
        return pending._replace(checkpoint=pending.checkpoint._replace(state=State.QUEUED))
    return pending


# ------------------------------------------------------------------ at start
def replayed(pending: Pending, staged: Staged | None) -> Pending:
    """Replay at start: without writers, without an attempt in flight."""
    return pending._replace(
        state=_next(pending, Event.REPLAY),
        checkpoint=None,
        staged=staged and staged._replace(baseline=None),
    )


def kept_beside(pending: Pending, key: str, meant_for: str) -> Pending:
    """Move the later of two rows of one key to the conflict name `key`."""
    return pending._replace(key=key, expected_etag=None, conflict_of=meant_for)


def without_staged(pending: Pending) -> Pending:
    """Drop staged bytes that never reached the disk: the base counts."""
    event = Event.RELEASE if pending.state is State.PARKED else Event.REPLAY
    state = _next(pending, event)
    return pending._replace(state=state, checkpoint=None, staged=None, changed=False, hold=None)


def adopted(pending: Pending) -> Pending:
    """Take over an inode with its writers. An attempt of the former daemon has an unknown outcome."""
    checkpoint = pending.checkpoint
    if checkpoint is not None and checkpoint.state not in (State.CLEAN, State.PARKED):
        checkpoint = checkpoint._replace(state=State.QUEUED)
    return pending._replace(state=_next(pending, Event.ADOPT), checkpoint=checkpoint, changed=True)


# ------------------------------------------------------------------ changes without an event
def expecting(pending: Pending, etag: str | None) -> Pending:
    """Expect another object at the key."""
    return pending._replace(expected_etag=etag)


def corrected(pending: Pending, expected_etag: str | None, changed: bool) -> Pending:
    """Correct the expected object, and `changed`: whether the base can be copied, by an attempt's answer."""
    return pending._replace(expected_etag=expected_etag, changed=changed)


def held(pending: Pending, reason: str | None) -> Pending:
    """Set the reason of a hold; None: the doubtful bytes were replaced."""
    return pending._replace(hold=None if reason is None else Hold(reason))


def interrupted_changed(pending: Pending) -> Pending:
    """Set `changed` in the checkpoint: the object to be copied from is about to be deleted."""
    assert pending.checkpoint is not None
    return pending._replace(checkpoint=pending.checkpoint._replace(changed=True))


def materializing(pending: Pending, staged: Staged) -> Pending:
    """Begin to copy the base's bytes into a staged file; the base counts until `materialized`."""
    return pending._replace(staged=staged)


def materialized(pending: Pending, boot: str) -> Pending:
    """Count on the staged bytes, all synced on this disk: the base's object may be deleted."""
    assert pending.staged is not None
    staged = pending.staged._replace(durability=Durability.SYNCED, lists_ranges=False, edits=None, boot=boot)
    return pending._replace(changed=True, staged=staged)


def sends_own(pending: Pending, staged: Staged) -> Pending:
    """Send the local bytes: the object to be copied does not exist any more."""
    return pending._replace(changed=True, staged=staged)


def with_staged(pending: Pending, staged: Staged) -> Pending:
    """Replace size, durability or evidence of the staged file."""
    return pending._replace(staged=staged)


# ------------------------------------------------------------------ the staged file
def withdrawn(staged: Staged) -> Staged:
    """Withdraw the durability before a writer's open: no row on the disk may count on the present bytes."""
    return staged._replace(durability=Durability.VOLATILE, withdrawn=staged.durability)


def restored(staged: Staged) -> Staged:
    """Undo `withdrawn`: the open failed."""
    return staged._replace(durability=staged.withdrawn or staged.durability, withdrawn=None)


def written(staged: Staged) -> Staged:
    """Note a write, while writes are the only evidence."""
    return staged._replace(baseline=Writes.SOME) if staged.baseline is Writes.NONE else staged


def cut(staged: Staged, size: int, base_limit: int) -> Staged:
    """Truncate. An empty file lists no ranges."""
    lists = staged.lists_ranges and size > 0
    return staged._replace(baseline=None, size=size, base_limit=base_limit, lists_ranges=lists)


def completed(staged: Staged, baseline: Proof | None) -> Staged:
    """Note that all bytes are local while the file is open: fstat is the evidence from now on."""
    kept = staged.baseline if isinstance(staged.baseline, Proof) else baseline
    return staged._replace(baseline=kept, lists_ranges=False)
