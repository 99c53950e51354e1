"""History: what this mount did with its files lately, and the programs that changed them.

Owns:    the last EVENTS events of all files, about 3 MB; in memory, since this daemon's start: the journal has
         no part in them.
Never:   decides anything.
Threads: `note`, `note_key` and `of` are thread-safe. `authors` is guarded by Core.lock.
Locks:   none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from r2fs.model import causes
from r2fs.model.ports import Clock
from r2fs.model.views import EventView

EVENTS = 10_000

_Entry = tuple[int | str, float, str, str, str]  # inode number or key, time, event, detail, program


class History:
    def __init__(self, clock: Clock) -> None:
        # constant
        self._clock = clock
        self.since_at_s = clock.time()
        # thread-safe by itself
        self._entries: deque[_Entry] = deque(maxlen=EVENTS)
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
    def note(self, subject: int | str, event: str, detail: str = "", program: str | None = None) -> None:
        """Record an event of an inode, by its number, or of an object, by its key."""
        self._entries.append((subject, self._clock.time(), event, detail, program or ""))

    def of(self, ino: int, keys: Collection[str]) -> tuple[EventView, ...]:
        """The events of the inode and of the objects at these keys, the oldest first."""
        wanted = {ino, *keys}
        return tuple(EventView(*entry[1:]) for entry in tuple(self._entries) if entry[0] in wanted)
