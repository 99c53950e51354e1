"""What the kernel remembers of a mount, without a kernel: names, attributes and listings, as long as it may.

It asks the engine only for what it does not know or may no longer believe, and forgets what it is told to.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from r2fs.model.errors import Exists, NotFound, Stale
from r2fs.model.ports import NoKernelCache
from r2fs.model.records import Attributes, Entry, Opened
from r2fs.model.verbs import ROOT
from tests.support.clocks import ManualClock
from tests.support.engine import Engine, do_at_once
from tests.support.memory_store import MemoryStore
from tests.support.session import Session

FRESH_S = 10.0


@dataclass
class Remembered:
    entry: Entry | None  # None: there is no such name
    until: float  # ManualClock.monotonic()


class Kernel(NoKernelCache):
    """Calls of a program by path. Survives the session's daemons."""

    def __init__(self, session: Session, clock: ManualClock) -> None:
        self._session = session
        self._clock = clock
        self._names: dict[tuple[int, str], Remembered] = {}
        self._references: Counter[int] = Counter()  # by inode number, as the engine counts them
        self._unused: list[int] = []  # inodes to be given back: as by a thread of its own
        self._listings: dict[int, tuple[list[str], float]] = {}
        self.connect()

    def connect(self) -> None:
        """To the session's daemon: again after a take-over, which tells the kernel to drop listings."""
        self._engine.fs.set_kernel_cache(self)
        self._listings.clear()

    @property
    def _engine(self) -> Engine:
        return self._session.engine

    # ---- what it is told
    def forget_name(self, parent: int, name: str, gone: bool = False) -> None:
        self._listings.pop(parent, None)
        known = self._names.get((parent, name))
        if known is None:
            return
        known.until = 0.0
        if gone:
            self._remember(parent, name, None)

    def _remember(self, parent: int, name: str, known: Remembered | None) -> None:
        """The inode that had the name before is given back, if it is another."""
        before = self._names.pop((parent, name), None)
        if known is not None:
            self._names[parent, name] = known
        entry = known.entry if known is not None else None
        if (
            before is not None
            and before.entry is not None
            and (entry is None or entry.ino != before.entry.ino)
        ):
            self._unused.append(before.entry.ino)

    def give_back(self) -> None:
        """FORGET."""
        unused, self._unused = self._unused, []
        held = {one.entry.ino for one in self._names.values() if one.entry is not None}
        for ino in unused:
            if ino not in held:
                self._engine.fs.forget(ino, self._references.pop(ino, 0))

    def forget_attributes(self, ino: int) -> None:
        for one in self._names.values():
            if one.entry is not None and one.entry.ino == ino:
                one.until = 0.0

    # ---- what programs ask
    def _entry(self, path: str, again: bool = False) -> Entry:
        engine, now = self._engine, self._clock.monotonic()
        entry = engine.fs.getattr(engine.caller, ROOT)
        for part in filter(None, path.split("/")):
            key = (entry.ino, part)
            known = self._names.get(key)
            if known is None or known.until <= now or again:
                try:
                    found = engine.fs.lookup(engine.caller, entry.ino, part)
                    self._references[found.ino] += 1
                    known = Remembered(found, now + found.valid_s)
                except NotFound as missing:
                    known = Remembered(None, now + missing.valid_s)
                self._remember(*key, known)
            if known.entry is None:
                raise NotFound(path)
            entry = known.entry
        return entry

    def stat(self, path: str) -> Attributes:
        return self._entry(path).attributes

    def open(self, path: str, flags: int = os.O_RDONLY) -> Opened:
        """ESTALE makes the kernel look every part of the path up once more."""
        try:
            return self._engine.fs.open(self._engine.caller, self._entry(path).ino, flags)
        except Stale:
            return self._engine.fs.open(self._engine.caller, self._entry(path, again=True).ino, flags)

    def read(self, path: str) -> bytes:
        opened = self.open(path)
        try:
            return self._engine.fs.read(self._engine.caller, opened.handle, 0, 1 << 20)
        finally:
            self._engine.close(opened)

    def create(self, path: str, data: bytes, exclusive: bool = True) -> None:
        parent, _, name = path.rpartition("/")
        above = self._entry(parent).ino
        try:
            self._entry(path)
        except NotFound:
            engine, now = self._engine, self._clock.monotonic()
            entry, opened = engine.fs.create(engine.caller, above, name, 0o644, os.O_WRONLY | os.O_EXCL)
            self._references[entry.ino] += 1
            self._remember(above, name, Remembered(entry, now + entry.valid_s))
            self._listings.pop(above, None)
        else:
            if exclusive:
                raise Exists(path)
            opened = self.open(path, os.O_WRONLY | os.O_TRUNC)
        self._engine.fs.write(self._engine.caller, opened.handle, 0, data)
        remembered = self._names[above, name]
        assert remembered.entry is not None
        # it has written: it asks for the size, and believes the name for as long as it was told
        remembered.entry = self._engine.fs.getattr(self._engine.caller, remembered.entry.ino)
        self._engine.close(opened)

    def rename(self, old: str, new: str) -> None:
        (above, _, name), (new_above, _, new_name) = old.rpartition("/"), new.rpartition("/")
        parent, new_parent = self._entry(above).ino, self._entry(new_above).ino
        self._entry(old)
        self._engine.fs.rename(self._engine.caller, parent, name, new_parent, new_name)
        self._remember(new_parent, new_name, self._names.pop((parent, name)))  # valid for as long as before
        self._listings.pop(parent, None)
        self._listings.pop(new_parent, None)

    def unlink(self, path: str) -> None:
        above, _, name = path.rpartition("/")
        parent = self._entry(above).ino
        self._entry(path)
        self._engine.fs.unlink(self._engine.caller, parent, name)
        self._remember(parent, name, None)
        self._listings.pop(parent, None)

    def listdir(self, path: str = "") -> list[str]:
        """READDIRPLUS: every line is a name with attributes; the listing is kept as long as the shortest."""
        ino, now, engine = self._entry(path).ino, self._clock.monotonic(), self._engine
        names, until = self._listings.get(ino, ([], 0.0))
        if until > now:
            return names
        names, valid_s = [], 3600.0
        for line in engine.fs.readdir(engine.caller, ino):
            names.append(line.name)
            entry = engine.fs.readdir_entry(engine.caller, ino, line.name)
            if entry is not None:
                self._references[entry.ino] += 1
                self._remember(ino, line.name, Remembered(entry, now + entry.valid_s))
                valid_s = min(valid_s, entry.valid_s)
        self._listings[ino] = sorted(names), now + (valid_s if names else 1.0)
        return self._listings[ino][0]


@dataclass
class Mount:
    session: Session
    kernel: Kernel
    clock: ManualClock
    store: MemoryStore

    @property
    def engine(self) -> Engine:
        return self.session.engine

    def send(self) -> None:
        """Everything that is due."""
        for _ in range(100):
            task = self.engine.take_due()
            if task is None:
                return
            task()
        raise AssertionError(f"sends without end: {self.engine.fs.queue_view()}")

    def take_over(self) -> None:
        self.session.kill()
        without_threads(self.engine)
        self.kernel.connect()


def without_threads(engine: Engine) -> None:
    for queue in (engine.downloads, engine.parts, engine.background, engine.listings):
        do_at_once(queue)
