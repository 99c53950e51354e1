"""Core: lock, settings and ports, shared by all parts of the engine.

Locks: `lock` (rank 30) guards every Node, the tree, the pending store and the queue. Inside: no request to the
       bucket, no fsync, no waiting but on `changed` itself. The journal's lock (50) and a SparseFile's (40) may be
       taken inside it, never the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Condition, Event, RLock

from r2fs.disk.cache.cache import CleanCache
from r2fs.disk.journal.journal import Journal
from r2fs.disk.staging import Staging
from r2fs.engine.inodes.inode_numbers import InodeNumbers
from r2fs.model.errors import ObjectMissing
from r2fs.model.history import History
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

HEADS = 64  # answers kept, and keys changed by this host
RECENT_S = (
    0.25  # age of an answer that still serves: some round trips, as between any look and the write after it
)
NO_HEAD: tuple[float, ObjectInfo | None] = (float("-inf"), None)


@dataclass(slots=True, eq=False)
class Core:
    settings: Settings  # replaced by change_settings() alone
    # constant
    store: ObjectStore
    journal: Journal
    cache: CleanCache
    clock: Clock
    crash_point: CrashPoint = no_crash
    memory: SessionMemory | None = None  # None: no other daemon can take this session over
    lock: RLock = field(default_factory=RLock)
    # set once, before the driver serves
    kernel: KernelCache = field(default_factory=NoKernelCache)
    # guarded by: lock
    numbers: InodeNumbers = field(default_factory=InodeNumbers)  # as stat shows
    staging: Staging = field(init=False)  # the journal's
    history: History = field(init=False)
    changed: Condition = field(init=False)  # any change that a thread may wait for
    frugal: bool = False  # nothing is fetched ahead of need; replaced by set_frugal_locked() alone
    stopping: bool = False  # set together with `ended`
    # guarded by: lock; the latest HEADs by key, each with Clock.monotonic() before it was sent; None: changed here then
    _heads: dict[str, tuple[float, ObjectInfo | None]] = field(default_factory=dict)
    _heads_since_s: float = float("-inf")  # guarded by: lock; earlier HEADs are not kept
    # thread-safe: for threads that wait for the end alone, and not for each change
    ended: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.staging = self.journal.staging
        self.history = History(self.clock)
        self.cache.evicted = self.history.evicted
        self.changed = Condition(self.lock)

    def assert_held(self) -> None:
        """Raise AssertionError unless this thread holds `lock`. The first line of each method named `_locked`."""
        # The method by which threading.Condition checks its own lock: 30 ns, and no waiting.
        assert self.lock._is_owned(), "Core.lock is not held"  # type: ignore[attr-defined]

    def head(self, key: str) -> ObjectInfo | None:
        """HEAD, without the lock; None: the bucket has no object at the key. Raises StoreError."""
        sent_at_s = self.clock.monotonic()
        try:
            info = self.store.head(key)
        except ObjectMissing:
            return None
        with self.lock:
            if sent_at_s > max(self._heads_since_s, self._heads.get(key, NO_HEAD)[0]):
                self._keep_head_locked(key, sent_at_s, info)
        return info

    def recent_head(self, key: str, etag: str | None) -> ObjectInfo | None:
        """Return the answer to a HEAD of RECENT_S ago, if it is of the version `etag`; else to a new one."""
        with self.lock:
            sent_at_s, info = self._heads.get(key, NO_HEAD)
        if info is not None and info.etag == etag and self.clock.monotonic() - sent_at_s <= RECENT_S:
            return info
        return self.head(key)

    def changed_here_locked(self, key: str) -> None:
        """Keep no HEAD of before: this host has changed the object, whose ETag may be the same as with other metadata."""
        self.assert_held()
        self._keep_head_locked(key, self.clock.monotonic(), None)

    def _keep_head_locked(self, key: str, at_s: float, info: ObjectInfo | None) -> None:
        self.assert_held()
        if len(self._heads) >= HEADS:
            self._heads.clear()
            self._heads_since_s = self.clock.monotonic()
        self._heads[key] = at_s, info

    def change_settings_locked(self, settings: Settings) -> None:
        """Replace the settings: each is read where it is needed."""
        self.assert_held()
        self.settings = settings

    def download_rate(self) -> int | None:
        """Return the limit of all downloads of this hour, in bytes a second; None: there is none."""
        return self.settings.download_limit.rate(self.clock.time())

    def set_frugal_locked(self, frugal: bool) -> None:
        self.assert_held()
        self.frugal = frugal

    def now_ns(self) -> int:
        return int(self.clock.time() * 1e9)
