"""Pending: what the bucket still lacks of one inode, as frozen values.

Invariants (`check` raises for each): a checkpoint only while the inode is open for writing; an attempt on its way in
the three sending states alone; no baseline of a file that nobody has open.

Changed by the functions of `transitions.py`, and put in place by the engine's PendingStore alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from r2fs.model.ranges import Range
from r2fs.model.records import Proof
from r2fs.model.states import SENDING, UNSEALED, State

# Holds of bytes that may not be those that were written: sent only where a person names the file itself.
TORN = "may be torn: the machine or its disk stopped before its bytes were synced"
UNSYNCED = "may be damaged: this disk failed to store its bytes"
DOUBTFUL = frozenset({TORN, UNSYNCED})


class Durability(Enum):
    """What the row on the disk may say of the staged bytes."""

    VOLATILE = "volatile"  # a power cut may take them
    SYNCED = "synced"
    SYNCED_OWN = "synced own"  # the ranges written here; the others are still to be downloaded


class Writes(Enum):
    """Evidence for "unchanged" while missing bytes are downloaded into the file, and fstat proves nothing."""

    NONE = "none"
    SOME = "some"


@dataclass(frozen=True, slots=True)
class Staged:
    """The file in staging that holds the bytes."""

    file: str  # its name in staging/data
    size: int = 0  # bytes; of a file that is open for writing as of its last row
    boot: str = ""  # the machine's boot in which its bytes were last changed
    durability: Durability = Durability.VOLATILE
    withdrawn: Durability | None = None  # what it was before a writer came: holds again if nothing is written
    # At an fsync: fstat, or SparseFile.changes while bytes are missing. While equal, the bytes are as synced.
    fsync_mark: Proof | int | None = None
    baseline: Proof | Writes | None = None  # equal at the last close: nothing was written; None: no evidence
    lists_ranges: bool = (
        False  # its row lists the ranges written here: each write is in the row before its answer
    )
    base_limit: int = 0  # bytes of the base that still count: a truncate lowers it
    edits: tuple[Range, ...] | None = None  # where the bytes differ from the base; None: anywhere

    @property
    def synced(self) -> bool:
        return self.durability is not Durability.VOLATILE

    @property
    def fsync_seen(self) -> bool:
        """True if an fsync of bytes that are nowhere but here was answered."""
        return self.synced or self.withdrawn is not None or self.fsync_mark is not None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a first writer's open interrupted: a close without a change leads back to it."""

    state: State
    changed: bool
    modified: bool  # InFlight.modified


@dataclass(frozen=True, slots=True)
class InFlight:
    """An attempt on its way to the bucket."""

    attempt: str  # its id, in the journal and in the object's metadata
    key: str  # of the object that it writes
    modified: bool = False  # opened for writing since it began


@dataclass(frozen=True, slots=True)
class Hold:
    """Why it is PARKED, or why its last attempt failed."""

    reason: str
    transient: bool = False  # PARKED for a cause that ends by itself: tried again when due


@dataclass(frozen=True, slots=True)
class Retry:
    failures: int = 0  # attempts in a row that failed
    refused_at: int | None = None  # uploads that had succeeded when the first of those failures was a 403


@dataclass(frozen=True, slots=True)
class Pending:
    key: str  # of the object that the inode is to be
    seq: int  # order of the journal
    state: State
    changed: bool  # its own bytes are sent; else the base is copied inside the bucket
    expected_etag: str | None  # what this host last knew at `key`; None: no object
    since_s: float  # Clock.monotonic() when the bucket began to lack something
    staged: Staged | None = None
    checkpoint: Checkpoint | None = None
    in_flight: InFlight | None = None
    hold: Hold | None = None
    retry: Retry = Retry()
    conflict_of: str | None = None  # the key that it was meant for
    closed_at_s: float | None = None  # Clock.time() of the last close that changed it

    @property
    def reason(self) -> str | None:
        return self.hold.reason if self.hold is not None else None

    @property
    def doubt(self) -> str | None:
        """The reason to hold bytes that may be torn or damaged."""
        return self.reason if self.reason in DOUBTFUL else None

    @property
    def open(self) -> bool:
        """True while a program may be writing."""
        return self.state in UNSEALED

    @property
    def lists_ranges(self) -> bool:
        return self.staged is not None and self.staged.lists_ranges

    @property
    def size(self) -> int:
        """Bytes of its file in staging; 0 without one."""
        return self.staged.size if self.staged is not None else 0


def check(pending: Pending) -> None:
    """Raises AssertionError for a value that no sequence of transitions may lead to."""
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
