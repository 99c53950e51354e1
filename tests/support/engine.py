"""An engine on a memory store, for tests: composed as service.py does, without FUSE or a daemon."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r2fs.disk.cache.cache import CleanCache
from r2fs.disk.journal.journal import Journal
from r2fs.engine.build import build
from r2fs.engine.content.jobs import Job, JobQueue
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.store import PendingStore
from r2fs.model.pending import Pending, check
from r2fs.model.ports import Caller, Clock, ObjectStore, SessionMemory, SystemClock
from r2fs.model.records import AttributeChange, Entry, Inheritance, Kind, Opened
from r2fs.model.settings import Bucket, Settings
from r2fs.model.verbs import ROOT
from tests.support.probes import Probes


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


class Engine(Probes):
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
            self.core = Core(
                self.settings,
                store,
                self.journal,
                self.cache,
                clock,
                lambda name: self.crash_point(name),
                memory,
            )
            self.fs = build(self.core, inheritance)
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
            self.check_tree()
        self.check_tally()

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
