"""Classification of a journal row at start: pure functions of the row and of the machine's state, after a stop, a crash
or a power cut. `replay.py` carries the verdict out.

A row is torn if its staged bytes were not synced and the machine has started anew since the write, or if the
file has another size than at its last close. Torn bytes are never queued. A verdict that gives up a staged file is
reached only where no write happened, or where a power cut has already taken the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from r2fs.model.keys import nfc
from r2fs.model.pending import (
    DOUBTFUL,
    OPEN_STATES,
    TORN,
    Checkpoint,
    Durability,
    Hold,
    Pending,
    Staged,
    State,
)
from r2fs.model.records import PendingInode, Proof

_OPEN = frozenset(state.value for state in OPEN_STATES)  # a program was writing
_CLOSED = frozenset(state.value for state in (State.QUEUED, State.UPLOADING, State.RESEALED))


class FileStat(NamedTuple):
    size: int
    mtime_ns: int
    ctime_ns: int
    atime_ns: int = 0

    @property
    def proof(self) -> Proof:
        return Proof(*self[:3])


@dataclass(frozen=True, slots=True)
class Evidence:
    """The state of the machine that a row depends on."""

    boot: str  # of the machine now
    file: FileStat | None  # of the row's staged file; None: the file is missing, or the row names none
    has_writer: bool = False  # the session that is taken over has the inode open for writing


# ---- verdicts
class Step(Enum):
    """Verdicts without values."""

    ADOPT = "writers of a session that is taken over still have the file open: DIRTY, as before"
    NEVER_STORED = "a power cut took the staged file: the object at the key is the last good state; without one the name is removed"
    MISSING = "the staged file should exist, and does not: PARKED"
    DOUBTFUL = "PARKED for bytes that may be torn or damaged: stays so, until a person decides"


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Opened for writing from CLEAN, and not written: clean."""

    keeps_file: bool  # the staged bytes equal the base's, and serve as its cached file


@dataclass(frozen=True, slots=True)
class WithoutStaged:
    """A new name or new metadata is pending; the bytes are the base's, in the bucket."""

    never_stored: bool  # a power cut took the staged file


@dataclass(frozen=True, slots=True)
class Queue:
    """Sent when due."""

    durability: Durability


@dataclass(frozen=True, slots=True)
class Park:
    """PARKED for `reason`, one of DOUBTFUL."""

    reason: str
    durability: Durability


Verdict = Step | Unchanged | WithoutStaged | Queue | Park


def classify(row: PendingInode, seen: Evidence) -> Verdict:
    if row.staged is not None and seen.file is None:
        return _without_file(row, seen)
    if row.state == State.PARKED.value and row.reason in DOUBTFUL:
        return Step.DOUBTFUL
    if seen.has_writer and row.state in _OPEN:
        return Step.ADOPT
    doubt = row.reason if row.reason in DOUBTFUL else None  # reopened since, and not written anew from empty
    if seen.file is None:
        return _sent_or_held(doubt, Durability.VOLATILE)
    return _of_file(row, seen, seen.file, doubt)


def _of_file(row: PendingInode, seen: Evidence, file: FileStat, doubt: str | None) -> Verdict:
    """Return the verdict on a row with its staged file. `doubt`: the earlier reason of parking."""
    power_cut = row.boot != seen.boot
    if _is_unwritten(row, file):
        # After a power cut a copy of the base may have blocks that never reached the disk.
        return Unchanged(keeps_file=row.base is not None and not power_cut)
    synced = row.synced and row.state not in _OPEN
    unsynced_cut = power_cut and not synced
    if unsynced_cut and not is_changed(row, seen):
        return WithoutStaged(never_stored=False)
    resized = _is_resized(row, file)
    torn = TORN if resized or unsynced_cut else None
    return _sent_or_held(doubt or torn, _durability(row) if synced and not resized else Durability.VOLATILE)


def _sent_or_held(doubt: str | None, durability: Durability) -> Verdict:
    return Queue(durability) if doubt is None else Park(doubt, durability)


def _without_file(row: PendingInode, seen: Evidence) -> Verdict:
    if row.synced or row.boot == seen.boot:
        return Step.MISSING
    written = is_changed(row, seen) or row.before == State.CLEAN.value
    if row.base is None or (written and nfc(row.base.key) == nfc(row.key or "")):
        return Step.NEVER_STORED
    return WithoutStaged(never_stored=True)


# ---- values of the row
def pending_of(row: PendingInode, seen: Evidence, since_s: float) -> Pending:
    """Return the pending state of the row, before its verdict; the size is that of the file found.

    `since_s`: Clock.monotonic().
    """
    assert row.key is not None
    staged = checkpoint = None
    if row.staged is not None:
        staged = Staged(
            row.staged,
            size=row.size if seen.file is None else size_of(row, seen.file),
            boot=row.boot,
            durability=_durability(row),
            baseline=row.proof,
            lists_ranges=row.own is not None,
            base_limit=row.base_limit,
        )
    if row.before is not None:
        checkpoint = Checkpoint(State(row.before), changed=row.changed, modified=False)
    return Pending(
        key=row.key,
        seq=row.seq,
        state=State(row.state),
        changed=is_changed(row, seen),
        expected_etag=row.expected_etag,
        since_s=since_s,
        staged=staged,
        checkpoint=checkpoint,
        hold=None if row.reason is None else Hold(row.reason),
        conflict_of=row.conflict_of,
        closed_at_s=row.closed_at_s,
    )


def size_of(row: PendingInode, file: FileStat) -> int:
    """Return the size in bytes of the file that the staged file holds.

    Where the row lists ranges, a write or truncate past their end was never answered, and does not count.
    """
    if row.own is None:
        return file.size
    return min(file.size, max(row.size, max((stop for _, stop in row.own), default=0)))


def is_changed(row: PendingInode, seen: Evidence) -> bool:
    """True if the inode has bytes of its own to send, or may have; False if its base is to be copied."""
    return (row.changed or _may_be_written(row, seen)) and not _is_bare(row)


def _may_be_written(row: PendingInode, seen: Evidence) -> bool:
    """True if open for writing, without times that prove no write."""
    if row.state not in _OPEN or row.staged is None or row.own is not None:
        return False
    return seen.file is None or seen.file.proof != row.proof


def _is_unwritten(row: PendingInode, file: FileStat) -> bool:
    """True with evidence that a file opened for writing from CLEAN was not written."""
    if row.state != State.DIRTY.value or row.before != State.CLEAN.value:
        return False
    return _is_bare(row) if row.own is not None else file.proof == row.proof


def _is_bare(row: PendingInode) -> bool:
    """True if no range was written or cut since an open for writing without local bytes: all are the base's."""
    whole = row.base is not None and row.size == row.base_limit == row.base.size
    return row.own is not None and not row.own and whole


def _is_resized(row: PendingInode, file: FileStat) -> bool:
    """True if the size is not that of the last close: the disk failed or was removed while the machine was up."""
    if row.state not in _CLOSED:
        return False
    return file.size != row.size if row.own is None else file.size < row.size


def _durability(row: PendingInode) -> Durability:
    if not row.synced:
        return Durability.VOLATILE
    return Durability.SYNCED if row.own is None else Durability.SYNCED_OWN
