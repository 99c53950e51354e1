"""Pending: the state of one inode's upload, as an enum, its events, the table of both, and frozen values.

    CLEAN         the bucket has the local content, or no content is local
    DIRTY         open for writing, or not yet closed
    QUEUED        closed: waits for its turn
    UPLOADING     an attempt is in flight, and no writer has the file open
    STALE_UPLOAD  an attempt is in flight, and a writer has the file open
    RESEALED      an attempt is in flight, and a newer content or name waits for the next
    PARKED        refused by the bucket, or perhaps torn: kept until a person acts or the cause ends
    GONE          unlinked, or discarded: never sent

QUEUED covers two ways of sending: a body from staging, or (for a rename, or a change of metadata alone) a copy
inside the bucket from the inode's base. The journal stores the state's name. A pair of state and event that is
not in the table is a defect, and raises ImpossibleTransition.

Invariants (`check` raises for each): a checkpoint only while the inode is open for writing; an attempt in flight
in the three sending states alone; no baseline of a closed file.

The functions of `transitions.py` change these values; the engine's PendingStore alone stores them.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from r2fs.model.ranges import Range
from r2fs.model.records import Proof


class State(Enum):
    __hash__ = object.__hash__  # as in Kind

    CLEAN = "clean"
    DIRTY = "dirty"
    QUEUED = "queued"
    UPLOADING = "uploading"
    STALE_UPLOAD = "stale_upload"
    RESEALED = "resealed"
    PARKED = "parked"
    GONE = "gone"


class Event(Enum):
    __hash__ = object.__hash__

    CREATE = "create"  # a new name: mkdir, create, symlink
    OPEN_WRITE = "open_write"  # first writer, or a truncate
    CLOSE_CHANGED = "close changed"  # last writer closed, changed
    CLOSE_UNCHANGED = "close unchanged"  # last writer closed, with evidence of no change
    RETARGET = "retarget"  # another name or other metadata: needs another request
    CLAIM = "claim"  # an upload thread begins an attempt
    PUT_OK = "put_ok"
    PUT_RETRY = "put_retry"
    CONFLICT = "conflict"
    REFUSED = "refused"
    RELEASE = "release"
    UNLINK = "unlink"
    REPLAY = "replay"
    ADOPT = "adopt"  # a take-over: its writers go on
    DISCARD = "discard"  # given up by a person, after an export of its bytes


BEFORE = "before"  # CLOSE_UNCHANGED leads back to the state that OPEN_WRITE left

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
    (_S.DIRTY, _E.CLOSE_CHANGED): _S.QUEUED,
    (_S.DIRTY, _E.CLOSE_UNCHANGED): BEFORE,
    (_S.STALE_UPLOAD, _E.CLOSE_CHANGED): _S.RESEALED,
    (_S.STALE_UPLOAD, _E.CLOSE_UNCHANGED): BEFORE,
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
    # unlink, and start
    **{(state, _E.UNLINK): _S.GONE for state in State if state is not _S.GONE},
    **{(state, _E.REPLAY): _S.QUEUED for state in State if state not in (_S.CLEAN, _S.PARKED, _S.GONE)},
    (_S.QUEUED, _E.DISCARD): _S.GONE,
    (_S.PARKED, _E.DISCARD): _S.GONE,
    (_S.DIRTY, _E.ADOPT): _S.DIRTY,
    (_S.STALE_UPLOAD, _E.ADOPT): _S.DIRTY,  # the attempt ended with the daemon, its outcome unknown
}
# STALE_UPLOAD + REFUSED is DIRTY, not PARKED: the refusal was of an earlier content, and the next
# attempt may succeed. An inode with writers is never PARKED.

SENDING = frozenset({State.UPLOADING, State.STALE_UPLOAD, State.RESEALED})
OPEN_STATES = frozenset({State.DIRTY, State.STALE_UPLOAD})  # a program may be writing
PENDING_STATES = frozenset(State) - {State.CLEAN, State.GONE}


class ImpossibleTransition(AssertionError):
    """Pair of state and event outside the table: a defect of r2fs."""


# ------------------------------------------------------------------ values
# Holds of bytes that may differ from those written: sent only if a person names the file itself.
TORN = "may be torn: the machine or its disk stopped before its bytes were synced"
UNSYNCED = "may be damaged: this disk failed to store its bytes"
DOUBTFUL = frozenset({TORN, UNSYNCED})


class Durability(Enum):
    """Durability of the staged bytes, by the row on the disk."""

    VOLATILE = "volatile"  # may be lost in a power cut
    SYNCED = "synced"
    SYNCED_OWN = "synced own"  # the locally written ranges; the others are still to be downloaded


class Writes(Enum):
    """Evidence for "unchanged" while missing bytes are downloaded into the file: fstat is no evidence then."""

    NONE = "none"
    SOME = "some"


class Staged(NamedTuple):
    """File in staging with the bytes of one inode."""

    file: str  # its name in staging/data
    size: int = 0  # bytes; of a file open for writing: as of its last row
    boot: str = ""  # boot id of the machine at the last change of its bytes
    durability: Durability = Durability.VOLATILE
    withdrawn: Durability | None = None  # before a writer opened the file: restored if it is not changed
    # At an fsync: fstat, or SparseFile.changes while bytes are missing. While equal, the bytes are as synced.
    fsync_mark: Proof | int | None = None
    baseline: Proof | Writes | None = None  # equal at the last close: unchanged; None: no evidence
    lists_ranges: bool = False  # the row lists the locally written ranges, each before the write's answer
    base_limit: int = 0  # bytes of the base that still count: lowered by a truncate
    edits: tuple[Range, ...] | None = None  # ranges that differ from the base; None: any

    @property
    def synced(self) -> bool:
        return self.durability is not Durability.VOLATILE

    @property
    def fsync_seen(self) -> bool:
        """True if fsync has succeeded for bytes not in the bucket."""
        return self.synced or self.withdrawn is not None or self.fsync_mark is not None


class Checkpoint(NamedTuple):
    """State before the first writer's open, restored by a close without a change."""

    state: State
    changed: bool
    modified: bool  # InFlight.modified


class InFlight(NamedTuple):
    attempt: str  # its id, in the journal and in the object's metadata
    key: str  # of the object being written
    modified: bool = False  # opened for writing since the attempt began


class Hold(NamedTuple):
    """Reason of PARKED, or of the last attempt's failure."""

    reason: str
    transient: bool = False  # PARKED for a cause expected to end by itself: tried again when due


class Retry(NamedTuple):
    failures: int = 0  # attempts in a row that failed
    refused_at: int | None = None  # number of successful uploads at the first of these failures, a 403


class Pending(NamedTuple):
    key: str  # of the inode's object
    seq: int  # order of the journal
    state: State
    changed: bool  # send the staged bytes; else copy the base inside the bucket
    expected_etag: str | None  # last known ETag at `key`; None: no object
    since_s: float  # Clock.monotonic() at the first change not in the bucket
    staged: Staged | None = None
    checkpoint: Checkpoint | None = None
    in_flight: InFlight | None = None
    hold: Hold | None = None
    retry: Retry = Retry()
    conflict_of: str | None = None  # the key that the program gave
    closed_at_s: float | None = None  # Clock.time() of the last close with a change

    @property
    def reason(self) -> str | None:
        return self.hold.reason if self.hold is not None else None

    @property
    def doubt(self) -> str | None:
        """Reason of a hold of bytes that may be torn or damaged."""
        return self.reason if self.reason in DOUBTFUL else None

    @property
    def open(self) -> bool:
        """True while a program may be writing."""
        return self.state in OPEN_STATES

    @property
    def lists_ranges(self) -> bool:
        return self.staged is not None and self.staged.lists_ranges

    @property
    def size(self) -> int:
        """Bytes of the staged file; 0 without a staged file."""
        return self.staged.size if self.staged is not None else 0


def check(pending: Pending) -> None:
    """Raise AssertionError if an invariant does not hold."""
    assert pending.state not in (State.CLEAN, State.GONE), f"{pending.key}: {pending.state} owns no row"
    assert pending.checkpoint is None or pending.open, f"{pending.key}: a checkpoint of a closed file"
    assert pending.in_flight is None or pending.state in SENDING, (
        f"{pending.key}: an attempt in {pending.state}"
    )
    assert pending.state is not State.PARKED or pending.hold is not None, (
        f"{pending.key}: parked without a reason"
    )
    if pending.staged is not None and not pending.open:
        assert pending.staged.baseline is None, f"{pending.key}: a baseline of a closed file"
