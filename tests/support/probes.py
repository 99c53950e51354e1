"""Probes: what a test may see and change of the inside of an engine.

Owns:  each path to a private attribute of the engine, once. Tests use these names, so that a part of the engine can
       be moved without a test that notices.
Never: used by anything but tests; decides anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from r2fs.disk.journal.journal import Journal
from r2fs.engine import build
from r2fs.engine.content.durability import DiskSync
from r2fs.engine.content.hydrate import Reader
from r2fs.engine.content.jobs import DownloadQueue, JobQueue, SlottedQueue
from r2fs.engine.content.local_file import Contents
from r2fs.engine.content.own_copies import OwnCopies
from r2fs.engine.content.prefetch import Prefetch
from r2fs.engine.content.source import Hedges, Source
from r2fs.engine.content.storage import Storage
from r2fs.engine.content.streaming import Streams
from r2fs.engine.files.open_files import Files
from r2fs.engine.fs import Queues
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.table import Tree
from r2fs.engine.namespace.create_remove import Names
from r2fs.engine.namespace.freshness import Freshness
from r2fs.engine.pending.attempts import Attempts
from r2fs.engine.pending.store import PendingStore
from r2fs.engine.pending.tally import Tally
from r2fs.engine.writeback.preparation import Preparation
from r2fs.engine.writeback.write_back import WriteBack
from r2fs.model.records import Entry, PendingDelete
from tests.support.invariants import check


def taken(queue: SlottedQueue) -> int:
    """Number of slots in use."""
    return queue._taken


class Probes:
    core: Core
    fs: build.Engine
    journal: Journal

    def entry(self, path: str) -> Entry:
        raise NotImplementedError

    # ---- the engine's parts: each private path stands here once
    @property
    def lock(self) -> threading.RLock:
        return self.core.lock

    def holds_lock(self) -> bool:
        """Whether this thread has Core.lock."""
        return self.lock._is_owned()

    @property
    def _queues(self) -> Queues:
        return self.fs._queues

    @property
    def _storage(self) -> Storage:
        return self.fs._storage

    @property
    def downloads(self) -> DownloadQueue:
        return self._queues.downloads

    @property
    def queued_downloads(self) -> int:
        return self.downloads._queued.qsize()

    @property
    def parts(self) -> SlottedQueue:
        return self._queues.parts

    @property
    def background(self) -> JobQueue:
        return self._queues.background

    @property
    def listings(self) -> JobQueue:
        return self._queues.listings

    @property
    def inodes(self) -> Tree:
        return self.fs._tree

    @property
    def pending_store(self) -> PendingStore:
        return self.fs._files._pending

    @property
    def contents(self) -> Contents:
        return self._storage.contents

    @property
    def disk_sync(self) -> DiskSync:
        return self._storage.disk_sync

    @property
    def attempts(self) -> Attempts:
        return self._preparation._attempts

    @property
    def streams(self) -> Streams:
        return self._storage.streams

    @property
    def hedges(self) -> Hedges:
        """Times of GETs, by which one is late."""
        return self._storage.downloader.hedges

    @property
    def reader(self) -> Reader:
        return self._storage.reader

    @property
    def own_copies(self) -> OwnCopies:
        return self._storage.own_copies

    @property
    def prefetch(self) -> Prefetch:
        return self._storage.prefetch

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
    def writeback(self) -> WriteBack:
        return self.fs._writeback

    @property
    def _preparation(self) -> Preparation:
        return self.writeback.worker._preparation

    def around_commits(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        """Call `before` and `after` around each commit of the journal; what they raise fails the transaction."""
        database = self.journal._database
        plain = database._commit

        def commit() -> None:
            before()
            plain()
            after()

        database._commit = commit  # type: ignore[method-assign]

    # ---- inodes and their bytes
    def check_tree(self) -> None:
        """Raise AssertionError where names, parents, numbers and counts of the tree disagree."""
        tree = self.inodes
        with self.lock:
            check(tree.root, tree._nodes, tree._conflicts, tree.hidden, tree._own_objects.directories())

    def node(self, path: str) -> Node:
        return self.inodes.get(self.entry(path).ino)

    def pending_nodes(self) -> list[Node]:
        """Inodes of which the bucket lacks something."""
        with self.lock:
            return list(self.pending_store.inodes.values())

    def deletes(self) -> list[PendingDelete]:
        with self.lock:
            return list(self.pending_store.deletes.rows.values())

    def check_tally(self) -> None:
        """Compare the sums over all that is pending with a count of it."""
        with self.lock:
            kept, nodes = self.pending_store.tally(), self.pending_store.inodes.values()
            counted = Tally(kept.local_patterns)
            for node in nodes:
                counted.change(node, None, node.pending)
            watches = sum(row.watch_until_s is not None for row in self.pending_store.deletes.rows.values())
            assert vars(kept) == vars(counted)
            assert self.pending_store.deletes.watches == watches

    def staged_path(self, node: Node) -> Path | None:
        """The file in staging that holds its pending bytes."""
        staged = node.pending.staged if node.pending is not None else None
        return None if staged is None else self.core.staging.data_dir / staged.file

    def staged_files(self) -> list[Path]:
        """Everything in staging/data: spares, and what waits for its removal, too."""
        return list(self.core.staging.data_dir.iterdir())

    def open_files(self) -> list[Path]:
        """Clean files that are kept open, by their names in staging/open."""
        return list(self.core.staging.open_dir.iterdir())

    def open_downloads(self) -> list[Source]:
        """What clean open files are downloaded from."""
        return list(self.contents._sources.values())

    def wanted_ranges(self) -> list[tuple[int, int]]:
        """Ranges of open files that readers wait for."""
        return [wanted for source in self.open_downloads() for wanted in list(source.wanted)]

    def retire_idle(self) -> None:
        """Hand files that are open but unused to the cache."""
        with self.lock:
            self.contents.retire_idle()

    def complete(self, node: Node) -> None:
        """Download the missing bytes of a file that is being written, as the background job does."""
        self.files.hydration._complete(node)

    def on_bytes_synced(self, then: Callable[[Node], object]) -> None:
        """Call `then` after each sync of staged bytes, before the row says so."""
        disk_sync = self.disk_sync
        plain = disk_sync._sync_bytes

        def sync_bytes(node: Node, fd: int) -> None:
            plain(node, fd)
            then(node)

        disk_sync._sync_bytes = sync_bytes  # type: ignore[method-assign]

    def reserved(self) -> dict[int, int]:
        """By inode number: bytes of open files that count against the cache's limit beside its entries."""
        return dict(self.streams._reserved)

    def fetched_ahead(self) -> tuple[int, int]:
        """Downloads of files that no program has opened yet: under way, and waiting."""
        with self.lock:
            return self.prefetch._running, len(self.prefetch._waiting)

    def unfinished_downloads(self) -> int:
        """Jobs of the download queue: waiting for a thread, and running."""
        queue = self.downloads
        with queue._lock, queue._free:
            return sum(map(len, queue._jobs)) + len(queue._running)

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

    def sweep(self) -> None:
        """Do what the engine does every minute."""
        self.fs._sweep_once()

    def make_spare(self) -> Path:
        """The one file that is ready for the next create."""
        spares = self.core.staging.spares
        spares._files = [spares._make()]
        return spares._files[0][0]

    def staging_garbage(self) -> set[str]:
        """Names in staging/data that wait for their removal."""
        return self._storage.staging_gc.names()

    def sweep_staging(self) -> None:
        self._storage.staging_gc.sweep()

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

    def send_at_once(self) -> None:
        """Send all that is due, and resolve the answers as if they had come while another thread held the lock."""
        tasks = []
        while (task := self.take_due()) is not None:
            tasks.append(task)
        with self.lock:
            threads = [threading.Thread(target=task) for task in tasks]
            for thread in threads:
                thread.start()
            end_s = time.monotonic() + 30.0
            while len(self.writeback.resolver._stored) < len(tasks) and time.monotonic() < end_s:
                time.sleep(0.005)
        for thread in threads:
            thread.join()

    def next_due_s(self) -> float | None:
        """Clock.monotonic() when something may be due; None: nothing is waited for."""
        return self.writeback.queue.next_due()

    def next_task(self, wait: Callable[[float | None], None]) -> Callable[[], None] | None:
        """What an upload thread takes next; `wait` stands for its waiting, in seconds."""
        changed = SimpleNamespace(wait=wait, notify=lambda n=1: None, notify_all=lambda: None)
        with patch.object(self.writeback.queue.waiting, "changed", changed):
            return self.writeback.worker._next()

    def quiet_until_s(self) -> float | None:
        """Clock.monotonic() until when uploads give way to a program; None: they need not."""
        with self.lock:
            return self.writeback.queue.quiet_at_locked()

    def wait_until_sent(self, timeout_s: float) -> bool:
        """Wait without hurrying anything; False: something is left."""
        return self.fs._status.wait(None, timeout_s)

    def is_all_sent(self) -> bool:
        """Whether a drain would have nothing to wait for."""
        with self.lock:
            return not self.fs._status._is_left_locked(None)

    def try_kept_metadata(self, key: str) -> None:
        """What a file at `key` needs of its object is asked for before another one replaces it."""
        self._preparation._unread_metadata.before_replacing(key, by=self.inodes.root)

    def carry_out_deletes(self, rows: list[PendingDelete]) -> None:
        """Look at the objects of the rows, and delete those that are meant."""
        self.writeback.deletes._deleter.delete(rows, {})

    def list_versions(self, keys: list[str]) -> None:
        """The LIST by which pending deletes are looked for in the bucket."""
        self.writeback.deletes._deleter._list(keys)

    def end_outage(self) -> None:
        """Forget the back-off of an outage: what is due is tried again."""
        with self.core.lock:
            self.writeback.queue.failures.end_pause_locked()

    def hasten(self) -> None:
        """Make everything that waits for its delay due now."""
        self.writeback.queue.schedule.hasten(self.core.clock.monotonic())

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """As while somebody drains."""
        with self.lock:
            self.writeback.queue.drain_locked(True)
        try:
            yield
        finally:
            with self.lock:
                self.writeback.queue.drain_locked(False)

    def on_wait_for_change(self, step: Callable[[], None]) -> None:
        """Whoever waits for a change of the engine does `step` instead."""

        def wait(timeout: float | None = None) -> bool:
            step()
            return True

        self.core.changed.wait = wait  # type: ignore[method-assign]
