"""Requests that read directories.

Owns:    the snapshot in which each reader continues. OPENDIR is answered ENOSYS, so a reader has no handle:
         the offset itself names the snapshot.
Never:   lists a directory by itself.
Threads: handlers run in the dispatcher, or on a lane after readdir had to wait.
Locks:   _lock, over the snapshots; no verb is called under it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from r2fs.drivers.kernel import codec, wire
from r2fs.drivers.kernel.codec import DirectoryPage
from r2fs.drivers.kernel.notify import KernelNotifier
from r2fs.drivers.kernel.session import Handler, Session
from r2fs.drivers.kernel.wire import Op
from r2fs.model.directory_lines import DirectoryLines
from r2fs.model.ports import Caller
from r2fs.model.records import Kind
from r2fs.model.verbs import Verbs

SNAPSHOTS: Final = 64  # directories being read at once; a reader of a dropped snapshot gets a new one
SNAPSHOT_NAMES: Final = 100_000  # names in all snapshots but the newest: some 20 MB
SNAPSHOT_AGE_S: Final = 60.0  # since the last read
POSITION_BITS: Final = 40  # an offset is a snapshot's number and, in the low bits, a position inside
DOTS: Final = ((b".", Kind.DIRECTORY), (b"..", Kind.DIRECTORY))  # positions 0 and 1
# Of a directory of more names than LARGE, the first page has attributes for SAMPLE names: enough for the kernel to see
# whether a program looks at them, and a walk by names alone makes few inodes.
LARGE: Final = 256
SAMPLE: Final = 32
EMPTY_VALID_S: Final = 1.0  # limit for an empty directory, of which no name can be looked up


@dataclass(slots=True, eq=False)
class DirectorySnapshot:
    """Entries of a directory at the time of its first READDIR."""

    number: int
    ino: int
    lines: DirectoryLines
    used_s: float  # time.monotonic()
    fresh_until_s: float  # time.monotonic(): the shortest of the listing and of the entries shown


class DirectoryHandlers:
    def __init__(self, fs: Verbs, session: Session, kernel: KernelNotifier) -> None:
        # constant
        self._fs = fs
        self._session = session
        self._kernel = kernel
        self._numbers = itertools.count(1)
        # guarded by: _lock
        self._lock = threading.Lock()
        self._snapshots: OrderedDict[int, DirectorySnapshot] = OrderedDict()  # by number, the last used last

    def handlers(self) -> dict[Op, Handler]:
        return {
            Op.READDIR: self.readdir,
            Op.READDIRPLUS: self.readdirplus,
            Op.FSYNCDIR: self.fsyncdir,
            Op.RELEASEDIR: self.releasedir,
        }

    def readdir(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        self._read(unique, nodeid, caller, body, plus=False)

    def readdirplus(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        self._read(unique, nodeid, caller, body, plus=True)

    def fsyncdir(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        self._fs.fsync_directory(caller, nodeid)
        self._session.done(unique)

    def releasedir(self, unique: int, nodeid: int, caller: Caller, body: memoryview) -> None:
        self._session.done(unique)

    # ------------------------------------------------------------------ one page
    def _read(self, unique: int, nodeid: int, caller: Caller, body: memoryview, plus: bool) -> None:
        _, offset, size, *_ = wire.READ_IN.unpack_from(body)
        snapshot = self._snapshot(caller, nodeid, offset)
        position = offset & (1 << POSITION_BITS) - 1
        page, shown = DirectoryPage(size, plus), list[int]()
        self._kernel.with_cached_names.add(nodeid)
        try:
            self._fill(page, snapshot, position, caller, shown if plus else None)
        except BaseException:
            self._take_back(shown)
            raise
        if not self._session.send_data(unique, page.content()):
            self._take_back(shown)
        elif not page.content():  # the end: from now on the kernel has the whole listing
            self._kernel.listing_shown(nodeid, snapshot.fresh_until_s - time.monotonic())
            # The snapshot stays for a while: a reader of the kernel's copy returns with offsets into this snapshot.

    def _fill(
        self,
        page: DirectoryPage,
        snapshot: DirectorySnapshot,
        position: int,
        caller: Caller,
        shown: list[int] | None,
    ) -> None:
        """Add names from `position` on until the page is full. `shown` collects inodes returned with references."""
        base, lines, directory = snapshot.number << POSITION_BITS, snapshot.lines, snapshot.ino
        while position < len(DOTS):
            name, kind = DOTS[position]
            if not page.fits(name):
                return
            position += 1
            number = self._fs.st_ino(directory) if position == 1 else wire.UNKNOWN_INO
            page.add(name, number, kind, base | position)
        if shown is None:
            page.add_names(lines.raw(position - len(DOTS)), base | position)
            return
        epoch, now = self._kernel.epoch(), time.monotonic()
        stop = SAMPLE if position == len(DOTS) and len(lines) > LARGE else len(lines)
        start = position - len(DOTS)
        for raw, kind in lines.names(start, stop):
            if not page.fits(raw):
                return
            entry = self._fs.readdir_entry(caller, directory, codec.text(raw))
            if entry is None:
                packed, st_ino = codec.NO_ENTRY, lines[position - len(DOTS)].st_ino
            else:
                st_ino = entry.attributes.st_ino
                shown.append(entry.ino)
                snapshot.fresh_until_s = min(snapshot.fresh_until_s, now + entry.valid_s)
                valid_s = entry.valid_s if self._kernel.epoch() == epoch else 0.0
                packed = wire.ENTRY_OUT.pack(*codec.entry_fields(entry, valid_s))
            position += 1
            page.add(raw, st_ino, kind, base | position, packed)
        if stop < len(lines):
            page.add_names(lines.raw(position - len(DOTS)), base | position)

    def _take_back(self, shown: list[int]) -> None:
        for ino in shown:
            self._fs.forget(ino, 1)

    def _snapshot(self, caller: Caller, ino: int, offset: int) -> DirectorySnapshot:
        """The snapshot of `offset`. Offset 0 begins a new snapshot."""
        now = time.monotonic()
        with self._lock:
            found = self._snapshots.get(offset >> POSITION_BITS)
            if found is not None and found.ino == ino:
                found.used_s = now
                self._snapshots.move_to_end(found.number)
                return found
        lines = self._fs.readdir(caller, ino)
        valid_s = lines.valid_s if lines else min(lines.valid_s, EMPTY_VALID_S)
        snapshot = DirectorySnapshot(next(self._numbers), ino, lines, now, time.monotonic() + valid_s)
        with self._lock:
            self._snapshots[snapshot.number] = snapshot
            self._give_back_locked(now)
        return snapshot

    def _give_back_locked(self, now: float) -> None:
        """Drop the oldest snapshots while they are too many, too large or too old."""
        names = sum(len(one.lines) for one in self._snapshots.values())
        while len(self._snapshots) > 1:
            oldest = next(iter(self._snapshots.values()))
            young = now - oldest.used_s <= SNAPSHOT_AGE_S
            if young and names <= SNAPSHOT_NAMES and len(self._snapshots) <= SNAPSHOTS:
                return
            names -= len(oldest.lines)
            del self._snapshots[oldest.number]
