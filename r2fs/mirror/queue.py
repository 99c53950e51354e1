"""Work queue of a mirror: one item for each name with work, when it is due, and the parked ones.

Two threads never work on one name; a name that is touched meanwhile is due again.
Threads: every method.
Locks:   self._lock (leaf), with a condition on it.
"""

from __future__ import annotations

import heapq
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum

from r2fs.model.ports import Clock
from r2fs.model.records import ObjectInfo
from r2fs.model.views import QueueView, TransferView

SHOWN = 100  # transfers in a view: on their way first, then those that are due next
POLL_S = 0.05  # between two looks of `wait`


class Verb(Enum):
    UPLOAD = "upload"
    DELETE = "delete"
    DOWNLOAD = "download"


@dataclass(frozen=True, slots=True)
class Hint:
    """The object of a name as a listing showed it; None: it showed none."""

    info: ObjectInfo | None


@dataclass(slots=True)
class Item:
    name: str
    verb: Verb
    size: int
    since_s: float
    due_s: float
    hint: Hint | None = None  # None: the bucket was not looked at
    tries: int = 0
    reason: str | None = None
    state: str = "waiting"  # "waiting", "active", "parked"
    again: bool = False
    hurried: bool = False  # without the usual delay
    is_open: bool = False  # a program has it open for writing


@dataclass(frozen=True, slots=True)
class Counts:
    """Work done since the start. Sizes are bytes."""

    sent: int = 0
    sent_bytes: int = 0
    fetched: int = 0
    fetched_bytes: int = 0
    deleted: int = 0  # objects
    removed: int = 0  # files
    conflicts: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


class WorkQueue:
    def __init__(self, clock: Clock) -> None:
        # constant
        self._clock = clock
        self._never = threading.Event()
        # guarded by: _lock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._items: dict[str, Item] = {}
        self._heap: list[tuple[float, int, str]] = []  # due time, a number that keeps the order, name
        self._number = 0
        self._active = 0
        self._counts = Counts()
        self._last_error: tuple[str | None, float | None] = (None, None)  # and its time
        self._stopped = False
        self._limit = sys.maxsize  # of active items

    def resize(self, limit: int) -> None:
        """Let at most `limit` items be worked on at once. Those under way end first."""
        with self._lock:
            self._limit = limit
            self._changed.notify_all()

    # ------------------------------------------------------------------ adding
    def touch(self, name: str, verb: Verb, size: int, in_s: float = 0.0, hint: Hint | None = None) -> None:
        """Schedule `name` for `in_s` seconds from now, or sooner if it is due sooner. A parked name is tried again."""
        now_s = self._clock.monotonic()
        with self._lock:
            item = self._items.get(name)
            if item is None:
                item = self._items[name] = Item(name, verb, size, now_s, float("inf"), hint)
            elif item.state == "active":
                item.again = True
                return
            else:
                item.verb, item.size, item.hint = verb, size, hint
                item.is_open = False  # perhaps by now: the next look shows it
                if item.state == "waiting" and item.due_s <= now_s + in_s:
                    return
            item.state = "waiting"
            self._set_due_locked(item, now_s + in_s)

    def retry(self, names: Iterable[str] | None = None, parked: bool = False) -> None:
        """Schedule waiting items of these names (None: all) for now; with `parked` also parked ones."""
        with self._lock:
            wanted = None if names is None else set(names)
            for item in list(self._items.values()):
                chosen = wanted is None or item.name in wanted
                if chosen and (item.state == "waiting" or (parked and item.state == "parked")):
                    item.state, item.hurried, item.is_open = "waiting", True, False
                    self._set_due_locked(item, self._clock.monotonic())
                elif chosen:
                    item.hurried = True

    def drop_downloads(self) -> None:
        """Forget downloads that have not begun: the next pass finds them again."""
        with self._lock:
            for item in list(self._items.values()):
                if item.verb is Verb.DOWNLOAD and item.state != "active":
                    del self._items[item.name]

    def _set_due_locked(self, item: Item, due_s: float) -> None:
        item.due_s = due_s
        self._number += 1
        heapq.heappush(self._heap, (due_s, self._number, item.name))
        self._changed.notify()

    # ------------------------------------------------------------------ working
    def take(self) -> Item | None:
        """Wait for a due item, and return a copy of it. None: the queue was stopped."""
        with self._lock:
            while not self._stopped:
                if self._active >= self._limit:
                    self._changed.wait()
                    continue
                item = self._due_locked()
                if item is not None:
                    item.state, item.again = "active", False
                    self._active += 1
                    return replace(item)
                self._changed.wait(
                    max(0.0, self._heap[0][0] - self._clock.monotonic()) if self._heap else None
                )
            return None

    def _due_locked(self) -> Item | None:
        while self._heap and self._heap[0][0] <= self._clock.monotonic():
            due_s, _, name = heapq.heappop(self._heap)
            item = self._items.get(name)
            if item is not None and item.state == "waiting" and item.due_s == due_s:
                return item
        return None

    def done(self, name: str, counts: Counts) -> None:
        """End an item's work. Touched meanwhile, it is due again."""
        with self._lock:
            item = self._end_locked(name)
            self._counts += counts
            if item.again:
                item.hint, item.tries, item.reason = None, 0, None
                item.since_s, item.hurried = self._clock.monotonic(), False
                self._set_due_locked(item, self._clock.monotonic())
            else:
                del self._items[name]

    def later(
        self, name: str, in_s: float, reason: str | None = None, failed: bool = False, is_open: bool = False
    ) -> None:
        """Schedule an item once more, for `in_s` seconds from now."""
        with self._lock:
            item = self._end_locked(name)
            item.is_open = is_open
            item.tries += failed
            item.reason = reason
            if failed:
                self._failed_locked(reason)
            self._set_due_locked(item, self._clock.monotonic() + in_s)

    def park(self, name: str, reason: str) -> None:
        """Keep an item until the next touch, pass or `retry`."""
        with self._lock:
            item = self._end_locked(name)
            item.reason, item.hint = reason, None
            if item.again:
                self._set_due_locked(item, self._clock.monotonic())
            else:
                item.state = "parked"
            item.tries += 1
            self._failed_locked(reason)

    def _end_locked(self, name: str) -> Item:
        self._active -= 1
        self._changed.notify()  # of those that wait for a place
        item = self._items[name]
        item.is_open = False
        item.state = "waiting"
        return item

    def _failed_locked(self, reason: str | None) -> None:
        self._counts += Counts(failed=1)
        self._last_error = reason, self._clock.time()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            self._changed.notify_all()

    # ------------------------------------------------------------------ looking
    def wait(self, done: Callable[[Iterable[Item]], bool], seconds: float) -> bool:
        """Wait until `done` is true of all items, `seconds` at most. `done` is called with the lock held."""
        end_s = self._clock.monotonic() + seconds
        while True:
            with self._lock:
                if done(self._items.values()):
                    return True
                rest_s = end_s - self._clock.monotonic()
                if rest_s <= 0 or self._stopped:
                    return False
            self._clock.wait(self._never, min(rest_s, POLL_S))

    def __len__(self) -> int:
        with self._lock:
            return len(self._items)

    def items(self) -> list[Item]:
        with self._lock:
            return [replace(item) for item in self._items.values()]

    @property
    def counts(self) -> Counts:
        with self._lock:
            return self._counts

    def downloads(self) -> tuple[int, tuple[TransferView, ...]]:
        """Number of objects still to come down, and views of those on their way, at most SHOWN."""
        now_s = self._clock.monotonic()
        with self._lock:
            found = [item for item in self._items.values() if item.verb is Verb.DOWNLOAD]
            active = [item for item in found if item.state == "active"]
            return len(found), tuple(_view(item, now_s) for item in active[:SHOWN])

    def view(self, conflicts: tuple[str, ...], hidden: int) -> QueueView:
        """View of the changes that the bucket lacks."""
        now_s = self._clock.monotonic()
        with self._lock:
            pending = [item for item in self._items.values() if item.verb is not Verb.DOWNLOAD]
            uploads = [item for item in pending if item.verb is Verb.UPLOAD]
            last_error, last_error_at_s = self._last_error if self._items else (None, None)
            first = heapq.nsmallest(SHOWN, pending, key=lambda item: (item.state != "active", item.due_s))
            transfers = tuple(_view(item, now_s) for item in first)
            return QueueView(
                files=len(uploads),
                directories=0,
                bytes=sum(item.size for item in uploads),
                deletes=len(pending) - len(uploads),
                watched=0,
                active=self._active,
                parked=sum(item.state == "parked" for item in pending),
                conflicts=conflicts,
                hidden=hidden,
                oldest_s=max((now_s - item.since_s for item in pending), default=0.0),
                transfers=transfers,
                uploaded=self._counts.sent,
                uploaded_bytes=self._counts.sent_bytes,
                failed=self._counts.failed,
                last_error=last_error,
                last_error_at_s=last_error_at_s,
            )


def _view(item: Item, now_s: float) -> TransferView:
    active = "downloading" if item.verb is Verb.DOWNLOAD else "uploading"
    state = {"waiting": "queued", "active": active}.get(item.state, item.state)
    return TransferView(
        item.name, item.verb.value, state, item.size, 0, 0.0, now_s - item.since_s, item.reason
    )
