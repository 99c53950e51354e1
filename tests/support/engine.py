"""An engine on a memory store, for tests: composed as service.py does, without FUSE or a daemon."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from r2fs.disk.cache.cache import CleanCache
from r2fs.disk.journal.journal import Journal
from r2fs.disk.staging import Staging
from r2fs.engine.build import build
from r2fs.engine.content.download_slots import DownloadQueue
from r2fs.engine.content.durability import DiskSync
from r2fs.engine.content.hydrate import Hydration
from r2fs.engine.content.local_file import Contents
from r2fs.engine.content.source import Source
from r2fs.engine.content.streaming import Streams
from r2fs.engine.core import Core
from r2fs.engine.files.open_files import Files
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.table import Tree
from r2fs.engine.jobs import Job, JobQueue
from r2fs.engine.namespace.create_remove import Names
from r2fs.engine.namespace.freshness import Freshness
from r2fs.engine.pending.attempts import Attempts
from r2fs.engine.pending.store import PendingStore
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.pending import Pending, check
from r2fs.model.ports import Caller, Clock, ObjectStore, SessionMemory, SystemClock
from r2fs.model.records import AttributeChange, Entry, Inheritance, Kind, Opened, PendingDelete
from r2fs.model.settings import Bucket, Settings
from r2fs.model.verbs import ROOT


def settings_for(base: Path, **changes: object) -> Settings:
    values: dict[str, object] = {
        "bucket": Bucket("s3", "bucket"),
        "cache_dir": base / "cache",
        "state_dir": base / "state",
        "run_dir": base / "run",
        "upload_delay_s": 0.0,
        "freshness_s": 0.0,
        "host": "studio",
        **changes,
    }
    return Settings(**values)  # type: ignore[arg-type]


def do_at_once(queue: JobQueue) -> None:
    """Jobs are done by whoever submits them."""

    def submit(job: Job, priority: int = 0) -> bool:
        job()
        return True

    queue.submit = submit  # type: ignore[method-assign]


def check_commits(store: PendingStore) -> None:
    """Hold each value that is put in place to its invariants."""
    commit = store.commit

    def checked(node: Node, pending: Pending | None, **change: Any) -> None:
        commit(node, pending, **change)
        if node.pending is not None:
            check(node.pending)

    store.commit = checked  # type: ignore[method-assign]


class Engine:
    """A FileSystem with its threads, and the calls of a program by path."""

    def __init__(
        self,
        base: Path,
        store: ObjectStore,
        clock: Clock | None = None,
        threads: bool = True,
        crash_point: Callable[[str], None] = lambda name: None,
        memory: SessionMemory | None = None,
        inheritance: Inheritance | None = None,
        **changes: object,
    ) -> None:
        clock = clock or SystemClock()
        self.settings = settings_for(base, **changes)
        self.store = store
        self.crash_point = self.commit_point = (
            crash_point  # of the engine and of the journal; tests replace each
        )
        self.journal = Journal.open(self.settings.state_dir, crash_point=lambda name: self.commit_point(name))
        self.cache = CleanCache(
            self.settings.cache_dir,
            limit_bytes=self.settings.cache_size,
            ttl_s=self.settings.cache_ttl_s,
            clock=clock,
        )
        try:
            core = Core(
                self.settings,
                store,
                self.journal,
                self.cache,
                clock,
                lambda name: self.crash_point(name),
                memory,
            )
            self.fs = build(core, inheritance)
        except BaseException:
            self.journal.close()  # a process that ends gives its lock back
            raise
        check_commits(self.pending_store)
        if not threads:  # what a caller waits for is done by the caller
            do_at_once(self.listings)
        self.caller = Caller()
        self._threads = [
            threading.Thread(target=main, name=name, daemon=True) for name, main in self.fs.workers()
        ]
        for thread in self._threads if threads else ():
            thread.start()

    # ---- life
    def drain(self, timeout_s: float = 20.0) -> None:
        view = self.fs.drain(timeout_s)
        left = [t for t in view.transfers if t.state not in ("dirty", "parked")]
        assert not left and not view.deletes, f"not sent: {view}"

    def stop(self) -> None:
        """An orderly end, without draining."""
        self.end()
        self.fs.close()

    def kill(self) -> None:
        """As kill -9 leaves things: nothing is closed or written any more; only locks are given back."""
        self.end()
        for node in self.inodes.all_nodes():
            if node.content is not None:
                node.content.close()
        self.journal.close()
        self.cache.close()

    def end(self) -> None:
        """Stop the threads; the journal and the cache stay open."""
        self.fs.stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(10)
                assert not thread.is_alive(), f"{thread.name} did not end"
        with self.lock:
            self.inodes.check()

    # ---- the engine's parts: each private path stands here once
    @property
    def _core(self) -> Core:
        return self.fs._core

    @property
    def lock(self) -> threading.RLock:
        return self._core.lock

    def holds_lock(self) -> bool:
        """Whether this thread has Core.lock."""
        return self.lock._is_owned()

    @property
    def downloads(self) -> DownloadQueue:
        return self.fs._queues.downloads

    @property
    def parts(self) -> JobQueue:
        return self.fs._queues.parts

    @property
    def background(self) -> JobQueue:
        return self.fs._queues.background

    @property
    def listings(self) -> JobQueue:
        return self.fs._queues.listings

    @property
    def inodes(self) -> Tree:
        return self.fs._tree

    @property
    def pending_store(self) -> PendingStore:
        return self.fs._pending

    @property
    def contents(self) -> Contents:
        return self.fs._contents

    @property
    def streams(self) -> Streams:
        return self.fs._storage.reader.streams

    @property
    def files(self) -> Files:
        return self.fs._files

    @property
    def names(self) -> Names:
        return self.fs._names

    @property
    def freshness(self) -> Freshness:
        return self.fs._freshness

    @property
    def staging(self) -> Staging:
        return self._core.staging

    @property
    def attempts(self) -> Attempts:
        return self.writeback.worker._attempts

    @property
    def disk_sync(self) -> DiskSync:
        return self.fs._storage.disk_sync

    @property
    def hydration(self) -> Hydration:
        return self.fs._storage.hydration

    @property
    def writeback(self) -> WriteBack:
        return self.fs._writeback

    def in_transaction(self) -> bool:
        """Whether the journal has a transaction under way."""
        return self.journal._depth > 0

    # ---- inodes and their bytes
    def node(self, path: str) -> Node:
        return self.inodes.get(self.entry(path).ino)

    def pending_nodes(self) -> list[Node]:
        """Inodes of which the bucket lacks something."""
        with self.lock:
            return list(self.pending_store.inodes.values())

    def deletes(self) -> list[PendingDelete]:
        with self.lock:
            return list(self.pending_store.deletes.values())

    def staged_path(self, node: Node) -> Path | None:
        """The file in staging that holds its pending bytes."""
        staged = node.pending.staged if node.pending is not None else None
        return None if staged is None else self.staging.path(staged.file)

    def staged_files(self) -> list[Path]:
        """Everything in staging/data: spares, and what waits for its removal, too."""
        return list(self.staging.data_dir.iterdir())

    def open_files(self) -> list[Path]:
        """Clean files that are kept open, by their names in staging/open."""
        return list(self.staging.open_dir.iterdir())

    def open_downloads(self) -> list[Source]:
        """What clean open files are downloaded from."""
        return list(self.contents._sources.values())

    def retire_idle(self) -> None:
        """Hand files that are open but unused to the cache."""
        with self.lock:
            self.contents.retire_idle()

    def complete(self, node: Node) -> None:
        """Download the missing bytes of a file that is being written, as the background job does."""
        self.files.filling._complete(node)

    def on_bytes_synced(self, then: Callable[[Node], object]) -> None:
        """Call `then` after each sync of staged bytes, before the row says so."""
        durability = self.disk_sync
        plain = durability._sync_bytes

        def sync_bytes(node: Node, fd: int) -> None:
            plain(node, fd)
            then(node)

        durability._sync_bytes = sync_bytes  # type: ignore[method-assign]

    def reserved(self) -> dict[int, int]:
        """By inode number: bytes of open files that count against the cache's limit beside its entries."""
        return dict(self.streams._reserved)

    def in_memory(self) -> list[Source]:
        """Open files whose bytes are kept in memory for want of disk space."""
        return list(self.streams._memory.values())

    def make_streamed(self, source: Source) -> bool:
        """Let the file keep only what is being read of it; False where it may not."""
        return self.streams._stream(source)

    def on_streamed(self, then: Callable[[], None]) -> None:
        """Call `then` each time after `make_streamed` was answered, before what follows from it."""
        plain = self.streams._stream

        def stream(source: Source) -> bool:
            answer = plain(source)
            then()
            return answer

        self.streams._stream = stream  # type: ignore[method-assign]

    def make_spare(self) -> Path:
        """The one file that is ready for the next create."""
        spares = self.staging.spares
        spares._files = [spares._make()]
        return spares._files[0][0]

    def staging_garbage(self) -> set[str]:
        """Names in staging/data that wait for their removal."""
        return self.fs._staging_gc.names()

    def sweep_staging(self) -> None:
        self.fs._staging_gc.sweep()

    # ---- what is sent, and when
    def take_due(self) -> Callable[[], None] | None:
        """The next upload or batch of deletes that is due, claimed; None: nothing is."""
        return self.writeback.worker.take_due()

    def run_one_due(self) -> None:
        """Exactly one upload or batch of deletes, which must be due."""
        task = self.take_due()
        assert task is not None, "nothing is due"
        task()

    def run_due(self) -> None:
        """All that is due, in this thread."""
        while (task := self.take_due()) is not None:
            task()

    def next_due_s(self) -> float | None:
        """Clock.monotonic() when something may be due; None: nothing is waited for."""
        return self.writeback.queue.next_due()

    def next_task(self, wait: Callable[[float | None], None]) -> Callable[[], None] | None:
        """What an upload thread takes next; `wait` stands for its waiting, in seconds."""
        changed = SimpleNamespace(wait=wait, notify=lambda: None, notify_all=lambda: None)
        with patch.object(self.writeback.queue.waiting, "changed", changed):
            return self.writeback.worker._next()

    def quiet_until_s(self) -> float | None:
        """Clock.monotonic() until when uploads give way to a program; None: they need not."""
        return self.writeback.queue.quiet_at()

    def wait_until_sent(self, timeout_s: float) -> bool:
        """Wait without hurrying anything; False: something is left."""
        return self.fs._status.wait(None, timeout_s)

    def is_all_sent(self) -> bool:
        """Whether a drain would have nothing to wait for."""
        with self.lock:
            return not self.fs._status._left(None)

    def try_kept_metadata(self, key: str) -> None:
        """What a file at `key` needs of its object is asked for before another one replaces it."""
        self.writeback.worker._kept_metadata.before_replacing(key, by=self.inodes.root)

    def list_versions(self, keys: list[str]) -> None:
        """The LIST by which pending deletes are looked for in the bucket."""
        self.writeback.deletes.deleter._list(keys)

    def end_outage(self) -> None:
        """Forget the back-off of an outage: what is due is tried again."""
        self.writeback.queue._not_before = 0.0

    def hasten(self) -> None:
        """Make everything that waits for its delay due now."""
        self.writeback.queue._schedule.hasten(self._core.clock.monotonic())

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """As while somebody drains."""
        with self.lock:
            self.writeback.queue.hurry(True)
        try:
            yield
        finally:
            with self.lock:
                self.writeback.queue.hurry(False)

    def on_wait_for_change(self, step: Callable[[], None]) -> None:
        """Whoever waits for a change of the engine does `step` instead."""

        def wait(timeout: float | None = None) -> bool:
            step()
            return True

        self._core.changed.wait = wait  # type: ignore[method-assign]

    # ---- a program's calls
    def entry(self, path: str) -> Entry:
        entry = self.fs.getattr(self.caller, ROOT)
        for part in filter(None, path.split("/")):
            entry = self.fs.lookup(self.caller, entry.ino, part)
            self.fs.forget(entry.ino, 1)
        return entry

    def parent(self, path: str) -> tuple[int, str]:
        above, _, name = path.strip("/").rpartition("/")
        return self.entry(above).ino, name

    def open(self, path: str, flags: int = os.O_RDONLY) -> Opened:
        if flags & os.O_CREAT:
            parent, name = self.parent(path)
            return self.fs.create(self.caller, parent, name, 0o644, flags)[1]
        return self.fs.open(self.caller, self.entry(path).ino, flags)

    def close(self, opened: Opened) -> None:
        self.fs.flush(self.caller, opened.handle)
        self.fs.release(opened.handle)

    def write(
        self, path: str, data: bytes, flags: int = os.O_WRONLY | os.O_CREAT | os.O_TRUNC, at: int = 0
    ) -> None:
        opened = self.open(path, flags)
        try:
            self.fs.write(self.caller, opened.handle, at, data)
        finally:
            self.close(opened)

    def read(self, path: str) -> bytes:
        opened = self.open(path)
        try:
            pieces = []
            at = 0
            while piece := self.fs.read(self.caller, opened.handle, at, 1 << 20):
                pieces.append(piece)
                at += len(piece)
            return b"".join(pieces)
        finally:
            self.close(opened)

    def mkdir(self, path: str) -> None:
        self.fs.mkdir(self.caller, *self.parent(path), 0o755)

    def unlink(self, path: str) -> None:
        self.fs.unlink(self.caller, *self.parent(path))

    def rmdir(self, path: str) -> None:
        self.fs.rmdir(self.caller, *self.parent(path))

    def rename(self, old: str, new: str, flags: int = 0) -> None:
        self.fs.rename(self.caller, *self.parent(old), *self.parent(new), flags)

    def truncate(self, path: str, size: int) -> None:
        self.fs.setattr(self.caller, self.entry(path).ino, AttributeChange(size=size))

    def listdir(self, path: str = "") -> list[str]:
        return sorted(entry.name for entry in self.fs.readdir(self.caller, self.entry(path).ino))

    def tree(self) -> dict[str, bytes | None]:
        """Every path and its bytes; directories end with `/` and hold None."""
        out: dict[str, bytes | None] = {}

        def walk(path: str) -> None:
            for entry in self.fs.readdir(self.caller, self.entry(path).ino):
                inner = f"{path}/{entry.name}".lstrip("/")
                if entry.kind is Kind.DIRECTORY:
                    out[inner + "/"] = None
                    walk(inner)
                else:
                    out[inner] = self.read(inner)

        walk("")
        return out


MakeEngine = Callable[..., Engine]
"""The fixture `make`: `make(name, **settings)`; each name is a host's own directories."""
