"""Core: what every part of the engine shares.

Owns:  the one lock of the engine and its condition, the settings, and the ports.
Never: decides anything.
Locks: `lock` (rank 30) guards every Node, the tree, the ledger and the queue. Under it: no
       request to the bucket, no fsync, no waiting but on `changed` itself. The journal's lock
       (50) and a SparseFile's (40) may be taken inside it, never the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Condition, Event, RLock

from r2fs.disk.cache.cache import CleanCache
from r2fs.disk.journal.journal import Journal
from r2fs.disk.staging import Staging
from r2fs.engine.inode_numbers import InodeNumbers
from r2fs.model.errors import ObjectMissing
from r2fs.model.ports import (
    Clock,
    CrashPoint,
    KernelCache,
    NoKernelCache,
    ObjectStore,
    SessionMemory,
    no_crash,
)
from r2fs.model.records import ObjectInfo
from r2fs.model.settings import Settings


@dataclass(slots=True, eq=False)
class Core:
    # constant
    settings: Settings
    store: ObjectStore
    journal: Journal
    cache: CleanCache
    clock: Clock
    crash_point: CrashPoint = no_crash
    memory: SessionMemory | None = None  # None: nobody can take this session over
    lock: RLock = field(default_factory=RLock)
    # set once, before the driver serves
    kernel: KernelCache = field(default_factory=NoKernelCache)
    # guarded by: lock
    numbers: InodeNumbers = field(default_factory=InodeNumbers)  # as programs see them
    staging: Staging = field(init=False)  # the journal's
    changed: Condition = field(init=False)  # something that a waiter may wait for has changed
    stopping: bool = False  # set together with `ended`
    # thread-safe by itself: for who waits for the end alone, and not for each change
    ended: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.staging = self.journal.staging
        self.changed = Condition(self.lock)

    def assert_held(self) -> None:
        """Raise AssertionError unless this thread holds `lock`. The first line of each method named `_locked`."""
        # The method by which threading.Condition checks its own lock: 30 ns, and no waiting.
        assert self.lock._is_owned(), "Core.lock is not held"  # type: ignore[attr-defined]

    def head(self, key: str) -> ObjectInfo | None:
        """HEAD, without the lock; None: the bucket has no object at the key. Raises StoreError."""
        try:
            return self.store.head(key)
        except ObjectMissing:
            return None

    def now_ns(self) -> int:
        return int(self.clock.time() * 1e9)
