"""History: the last events of this mount's files since the daemon's start, and the programs that changed them.

In memory: EVENTS events of all files, and apart from them EVENTS evictions, about 3 MB each at most.

Threads: `note`, `evicted` and `of` are thread-safe. Methods named _locked need Core.lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from r2fs.model import causes
from r2fs.model.pending import OPEN_STATES, SENDING, Pending, State
from r2fs.model.ports import Clock
from r2fs.model.records import Version
from r2fs.model.views import EventView

EVENTS = 10_000

Bases = tuple[Version | None, Version | None]  # the object of an inode, before a commit and after it

# Inode number (0: of none that is known), key, time, event, detail, program.
Entry = tuple[int, str, float, str, str, str]


class History:
    def __init__(self, clock: Clock) -> None:
        # constant
        self._clock = clock
        self.since_at_s = clock.time()
        # thread-safe by themselves
        self._entries: deque[Entry] = deque(maxlen=EVENTS)
        self.add = self._entries.append
        self._evictions: deque[Entry] = deque(maxlen=EVENTS)
        # guarded by: Core.lock
        self._authors: dict[int, str] = {}  # by inode number, while changes of it are pending

    # ---- programs
    def changed_locked(self, ino: int) -> None:
        """Note that the program for which this thread works changes the inode."""
        program = causes.program()
        if program is not None:
            self._authors[ino] = program

    def author_locked(self, ino: int) -> str:
        """The program that changed the inode last; R2FS: none since this daemon's start."""
        return self._authors.get(ino, causes.R2FS)

    def settled_locked(self, ino: int) -> None:
        """Forget the inode's program: the bucket has its changes."""
        self._authors.pop(ino, None)

    # ---- events
    def note(self, ino: int, key: str, event: str, detail: str = "", program: str = "") -> None:
        """Record an event of an inode, 0 for none that is known, whose object is at `key`."""
        self.add((ino, key, self._clock.time(), event, detail, program))

    def evicted(self, key: str, reason: str) -> None:
        """Record that the cache has dropped the bytes of the object at `key`."""
        self._evictions.append((0, key, self._clock.time(), "evicted", reason, ""))

    def entry_locked(self, ino: int, old: Pending | None, new: Pending | None, bases: Bases) -> Entry | None:
        """The event of a change of the inode's pending state, for `add`; None: nothing that a person would name."""
        found, pending = None, new or old
        if pending is None:
            return None
        if new is None:
            found = None if old is None else _settled(old, bases)
        elif old is None:
            found = _begun(new, bases[1])
        elif old.key != new.key:
            found = _moved(old, new)
        elif old.state is not new.state:
            found = _changed(old, new, bases)
        return found and (ino, pending.key, self._clock.time(), *found, self._authors.get(ino, ""))

    def of(self, ino: int, keys: Collection[str]) -> tuple[EventView, ...]:
        """The events of the inode and of the objects at these keys, the oldest first."""
        found = [
            entry
            for entries in (self._entries, self._evictions)
            for entry in tuple(entries)
            if entry[0] == ino or entry[1] in keys
        ]
        found.sort(key=lambda entry: entry[2])
        return tuple(EventView(*entry[2:]) for entry in found)


# An event and its detail; None: nothing that a person would name.
def _moved(old: Pending, new: Pending) -> tuple[str, str]:
    if new.conflict_of is not None and old.conflict_of is None:
        return "kept as a conflict copy", f"another host wrote {new.conflict_of} first"
    return "renamed", f"from {old.key}"


def _settled(old: Pending, bases: Bases) -> tuple[str, str]:
    if old.state in SENDING:
        if bases[0] != bases[1] and bases[1] is not None:
            return _uploaded(bases[1])
        if not old.changed:
            return "attributes uploaded", ""
    return ("closed", "unchanged") if old.open else ("changes dropped", "removed, or given up")


def _begun(new: Pending, base: Version | None) -> tuple[str, str]:
    if base is None:
        return "created", ""
    if new.open:
        return "opened for writing", ""
    return ("renamed", f"from {base.key}") if base.key != new.key else ("attributes changed", "")


def _changed(old: Pending, new: Pending, bases: Bases) -> tuple[str, str] | None:
    if new.state is State.PARKED:
        return "parked", new.reason or ""
    if old.state in SENDING and new.state not in SENDING:
        if new.retry.failures > old.retry.failures:
            return "upload failed", new.reason or ""
        return _uploaded(bases[1]) if bases[0] != bases[1] and bases[1] is not None else None
    if old.state in OPEN_STATES:
        return "closed", "queued for upload" if new.changed else "unchanged"
    if new.state in OPEN_STATES:
        return "opened for writing", ""
    if new.state is State.UPLOADING:
        return "upload begun", ""
    return ("tried again", "") if old.state is State.PARKED else None


def _uploaded(base: Version) -> tuple[str, str]:
    return "uploaded", f"ETag {base.etag}, {base.size} bytes"
