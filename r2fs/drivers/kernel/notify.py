"""KernelNotifier: invalidates names, attributes, pages and listings in the kernel.

Owns:    the notifications of a session, and the time at which a listing cached by the kernel expires.
Never:   notifies in the thread of a handler, or under a lock that a handler needs: the kernel answers a
         notification only when it has the directory's or the page's lock, whose holder may wait for a
         handler. Such a deadlock outlives kill -9.
Threads: every method from any thread. Two of its own: one for names and listings, one for file
         content, since dropping pages waits for READs in flight.
Locks:   _lock, over pending notifications; never held while writing.
Fails:   never: ENOENT, the usual answer, means that the kernel had nothing cached.

The kernel gives directory entries and attributes a time to live, but keeps a cached listing (NO_OPENDIR)
until a notification: `listing_shown` sends one when the listing is no longer fresh.
"""

from __future__ import annotations

import errno
import heapq
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from r2fs.drivers.kernel import wire
from r2fs.drivers.kernel.codec import FOREVER_S
from r2fs.drivers.kernel.session import GONE
from r2fs.drivers.kernel.wire import Notify
from r2fs.model.directory_lines import encoded

log = logging.getLogger(__name__)

SETTLE_S: Final = 0.001  # an answer computed before a change is written within this time
USUAL: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EBUSY})
STOP_S: Final = 2.0

Message = tuple[Notify, bytes]


class KernelNotifier:
    """A KernelCache."""

    def __init__(self, passes_through: Callable[[], bool] = lambda: False) -> None:
        # constant
        self._passes_through = passes_through
        # guarded by: _lock
        self._lock = threading.Lock()
        self._names = _Sender("fuse-notify-names", self._lock)
        self._pages = _Sender("fuse-notify-pages", self._lock)
        self._changes = 0
        # each thread's own
        self._own = _Own()
        # read by handlers without the lock
        self.with_cached_names: set[int] = set()  # directories with a name in the kernel, present or absent

    def start(self, fd: int) -> None:
        self._names.start(fd)
        self._pages.start(fd)

    def stop(self) -> bool:
        """False: a notification still waits in the kernel, so the descriptor must stay open."""
        return self._names.stop() & self._pages.stop()

    # ------------------------------------------------------------------ KernelCache
    @property
    def shares_pages(self) -> bool:
        return self._passes_through()

    def forget_name(self, parent: int, name: str, gone: bool = False) -> None:
        if parent not in self.with_cached_names:
            return
        raw = encoded(name)
        # An expired name is looked up at its next use. Dropping the name of an existing directory would
        # take getcwd(2) away from every program that has just entered it. A name at which nobody looks again
        # keeps its inode, and the engine's node, for ever: so what is gone is dropped.
        entry = wire.INVAL_ENTRY_OUT.pack(parent, len(raw), 0 if gone else wire.EXPIRE_ONLY) + raw + b"\0"
        with self._lock:
            self._changed_locked()
            self._names.put_locked((Notify.INVAL_ENTRY, entry))
            # a name that is not cached does not drop its directory's listing
            self._names.put_locked((Notify.INVAL_INODE, wire.INVAL_INODE_OUT.pack(parent, 0, 0)))

    def forget_attributes(self, ino: int) -> None:
        with self._lock:
            self._changed_locked()
            self._names.put_locked((Notify.INVAL_INODE, wire.INVAL_INODE_OUT.pack(ino, -1, 0)))

    def forget_content(self, ino: int) -> None:
        with self._lock:
            self._changed_locked()
            self._pages.put_locked((Notify.INVAL_INODE, wire.INVAL_INODE_OUT.pack(ino, 0, 0)))

    def settle(self, limit_s: float) -> None:
        deadline_s = time.monotonic() + limit_s
        for sender in (self._names, self._pages):
            sender.settle(deadline_s)

    # ------------------------------------------------------------------ for the handlers
    def listing_shown(self, ino: int, valid_s: float) -> None:
        """Record that the kernel caches the listing of `ino`; drop it after `valid_s` seconds."""
        if valid_s < FOREVER_S:
            message = (Notify.INVAL_INODE, wire.INVAL_INODE_OUT.pack(ino, 0, 0))
            with self._lock:
                self._names.put_later_locked(time.monotonic() + valid_s, message)

    def epoch(self) -> int:
        """A number that changes when another thread has notified a change.

        An answer computed from data of an earlier epoch must not be cached: its notification may have
        reached the kernel first, without effect. Changes of this thread are part of its answer.
        """
        return self._changes - self._own.changes

    def _changed_locked(self) -> None:
        self._changes += 1
        self._own.changes += 1

    def forgotten(self, ino: int) -> None:
        """The kernel has given the inode back."""
        self.with_cached_names.discard(ino)

    def resend(self, directories: Iterable[int] = ()) -> None:
        """Ask the kernel to repeat the requests that another daemon read and did not answer.

        `directories` are those with cached names: the expiry of their listings was lost with that daemon.
        """
        self.with_cached_names.update(directories)
        with self._lock:
            self._names.put_locked((Notify.RESEND, b""))
            for ino in directories:
                self._names.put_locked((Notify.INVAL_INODE, wire.INVAL_INODE_OUT.pack(ino, 0, 0)))


class _Own(threading.local):
    changes = 0  # made by this thread


class _Sender:
    """Thread that writes notifications; equal pending ones are written once."""

    def __init__(self, name: str, lock: threading.Lock) -> None:
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._fd = -1
        # guarded by: the lock
        self._something = threading.Condition(lock)
        self._pending: dict[Message, None] = {}  # in order
        self._later: list[tuple[float, Message]] = []  # a heap
        self._due: dict[Message, float] = {}  # when each message of _later is really due
        self._writing = False  # messages taken out of _pending are not in the kernel yet
        self._stopping = False

    def start(self, fd: int) -> None:
        self._fd = fd
        self._thread.start()

    def stop(self) -> bool:
        with self._something:
            self._stopping = True
            self._something.notify_all()
        if self._thread.ident is None:
            return True
        self._thread.join(STOP_S)
        return not self._thread.is_alive()

    def put_locked(self, message: Message) -> None:
        self._pending[message] = None
        self._something.notify_all()  # the sender's thread, beside those that wait in settle()

    def put_later_locked(self, due: float, message: Message) -> None:
        if due < self._due.get(message, float("inf")):
            heapq.heappush(self._later, (due, message))
            self._something.notify_all()
        self._due[message] = due

    def settle(self, deadline_s: float) -> None:
        """Wait until all messages but those of a later time are written; until time.monotonic() is `deadline_s`."""
        with self._something:
            while (self._pending or self._writing) and not self._stopping:
                rest_s = deadline_s - time.monotonic()
                if rest_s <= 0:
                    return
                self._something.wait(rest_s)

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            time.sleep(SETTLE_S)
            for message in batch:
                if not self._write(message):
                    return
            with self._something:
                self._writing = False
                self._something.notify_all()

    def _next_batch(self) -> list[Message] | None:
        with self._something:
            while not self._stopping:
                wait_s = self._take_due_locked()
                if self._pending:
                    batch = list(self._pending)
                    self._pending.clear()
                    self._writing = True
                    return batch
                self._something.wait(wait_s)
        return None

    def _take_due_locked(self) -> float | None:
        """Move due entries to _pending; return the seconds until the next."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            message = heapq.heappop(self._later)[1]
            due = self._due.get(message)
            if due is None:
                continue
            if due > now:  # shown again meanwhile
                heapq.heappush(self._later, (due, message))
            else:
                del self._due[message]
                self._pending[message] = None
        return self._later[0][0] - now if self._later else None

    def _write(self, message: Message) -> bool:
        code, payload = message
        try:
            os.write(self._fd, wire.OUT_HEADER.pack(wire.OUT_SIZE + len(payload), code, 0) + payload)
        except OSError as e:
            if e.errno in GONE:
                return False
            if e.errno not in USUAL:  # an older kernel does not know every code
                log.debug("notification %s: %s", code.name, os.strerror(e.errno or 0))
        return True
