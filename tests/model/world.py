"""The world of the model test: one engine without threads, whose every step is chosen by the test.

Owns:  mount, orderly end, kill; the crash points (named ones, each commit, each request); what runs
       when: uploads and deletes by `pump`, the completion of files in the background by `background`.
       Downloads run at once, in the thread that asks.

A crash in the middle of something is a copy of the directories at that moment, put in place of
what unwinding made of them: what kill -9 leaves, and nothing else.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from r2fs.engine.content import hydrate, windows
from r2fs.engine.content.jobs import Job
from r2fs.engine.files import open_files as files
from r2fs.engine.inodes.inode import Node
from r2fs.engine.namespace import remove_tree
from r2fs.engine.writeback import upload
from r2fs.model.errors import NoSpace
from r2fs.model.pending import State
from r2fs.model.ports import NoKernelCache
from r2fs.model.settings import Bucket
from tests.model.bucket import LOST, REFUSED, ModelBucket, Unlawful
from tests.support.clocks import ManualClock
from tests.support.engine import Engine, do_at_once

WRITING = {"put", "copy", "head", "delete", "delete_many", "create_upload", "put_part", "complete_upload",
           "abort_upload", "copy_part"}  # fmt: skip


class Crash(BaseException):
    """kill -9, at a chosen point."""


class World:
    def __init__(self, base: Path, config: Mapping[str, Any]) -> None:
        self.base = base
        self.config = dict(config)
        self.prefix: str = self.config.pop("prefix", "")
        self.bucket = ModelBucket()
        self.bucket.on_request = self._on_request
        self.bucket.on_done = lambda name, key: self._point(f"{name}:after")
        self.clock = ManualClock()
        self.bucket.now = self.clock.monotonic
        self.plan: dict[int, Any] = {}  # of the operation under way: request number → fault or operations
        self.requests = 0  # of the operation under way
        self.faulty = False  # a request of the operation under way failed
        self.outage = False
        self.full = 0  # commits until one finds the disk full; 0: none does
        self.inner: Callable[[list[Any], bool], None] = lambda operations, local: None
        self.armed: tuple[str, int] | None = None
        self.points: dict[str, int] = {}  # how often each was passed
        self.crashed_at: dict[str, int] = {}
        self.depth = 0
        # What is waited for was done, or has failed, by the time that its reader looks: it need not wait for that.
        self._small_fetches = ExitStack()
        self._small_fetches.enter_context(patch.multiple(hydrate, PIECE=256, RESEND_S=0.0))
        self._small_fetches.enter_context(patch.multiple(windows, FIRST=64, PIECE=256, SECOND=1024))
        self._small_fetches.enter_context(patch.object(upload, "COPIED_FROM", 1))
        self._small_fetches.enter_context(patch.object(remove_tree, "SETTLE_S", 0.0))
        self.engine = self.mount()

    # ------------------------------------------------------------------ life
    def mount(self) -> Engine:
        self._background: list[Callable[[], None]] = []
        engine = Engine(
            self.base / "r2fs",
            self.bucket,
            clock=self.clock,
            threads=False,
            crash_point=self._point,
            bucket=Bucket("s3", "bucket", self.prefix),
            # What did not come at once does not come while the clock stands: each second of it would be a real one.
            **{"read_timeout_s": 0.0, **self.config},
        )
        for queue in (engine.downloads, engine.parts):
            do_at_once(queue)
        # Asked for again, once a second by the clock, for as long as a read may take.
        engine.downloads.relieve = lambda: self.clock.advance(1.0)  # type: ignore[method-assign]
        engine.background.submit = self._later  # type: ignore[method-assign]
        self._watch_commits(engine)
        engine.fs.set_kernel_cache(NoKernelCache())
        self.engine = engine
        return engine

    def _later(self, job: Job, priority: int = 0) -> bool:
        self._background.append(job)
        return True

    def remount(self) -> None:
        self.engine.stop()
        self.mount()

    def kill(self) -> None:
        """At a quiet moment."""
        self.engine.kill()
        self.mount()

    def end(self) -> None:
        """The test is over; everything is thrown away."""
        self.armed, self.outage, self.full, self.depth = None, False, 0, 1
        self._small_fetches.close()
        self.engine.kill()

    def after_crash(self) -> None:
        """What unwinding did since the crash is undone, and the next daemon starts."""
        self.armed = None
        self.engine.kill()
        shutil.rmtree(self.base / "r2fs")
        (self.base / "crashed").rename(self.base / "r2fs")
        self.mount()

    # ------------------------------------------------------------------ points
    def _point(self, name: str) -> None:
        self.points[name] = self.points.get(name, 0) + 1
        if self.armed is None or self.armed[0] != name:
            return
        self.armed = (name, self.armed[1] - 1)
        if self.armed[1] <= 0:
            self.armed = None
            self.crashed_at[name] = self.crashed_at.get(name, 0) + 1
            subprocess.run(["cp", "-a", self.base / "r2fs", self.base / "crashed"], check=True)
            raise Crash(name)

    def _watch_commits(self, engine: Engine) -> None:
        def before() -> None:
            self._point("commit:before")
            if self.full:
                self.full -= 1
                if not self.full:
                    self.faulty = True
                    raise NoSpace("the disk is full, says the test")

        engine.around_commits(before, lambda: self._point("commit:after"))

    # ------------------------------------------------------------------ requests
    def _on_request(self, name: str, key: str) -> str | None:
        if self.engine_holds_lock():
            raise Unlawful(f"{name} {key}: a request under the engine's lock")
        if self.depth:
            return None
        self._point(f"{name}:before")
        number = self.requests
        self.requests += 1
        planned = self.plan.get(number)
        if name in ("delete", "delete_many") and isinstance(planned, list):
            planned = None  # from the look to the DELETE: the gap that SEMANTICS tells of
        if isinstance(planned, list) and planned:
            self.depth += 1
            try:
                self.inner(planned, name in WRITING and not self._is_looking())
            finally:
                self.depth -= 1
            planned = None
        if self.outage:
            self.faulty = True
            return REFUSED
        if planned is not None:
            self.faulty = True
        return planned or None

    def _is_looking(self) -> bool:
        """True within a LIST: a look of the test would wait for its answer, and then show what was known before."""
        nodes = self.engine.inodes.all_nodes()
        return any(node.listing is not None and node.listing.refreshing is not None for node in nodes)

    def engine_holds_lock(self) -> bool:
        engine = getattr(self, "engine", None)
        return engine is not None and engine.holds_lock()

    @contextmanager
    def planned(self, plan: Mapping[str, Any]) -> Iterator[None]:
        """For one operation: what is to happen at which of its requests."""
        if self.depth:  # an operation within a request of another
            yield
            return
        self.plan = {int(number): what for number, what in plan.items()}
        self.requests, self.faulty = 0, False
        try:
            yield
        finally:
            self.plan = {}

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """The test itself looks: no faults, no crash."""
        self.depth += 1
        armed, self.armed = self.armed, None
        outage, self.outage = self.outage, False
        full, self.full = self.full, 0
        try:
            yield
        finally:
            self.depth -= 1
            self.armed, self.outage, self.full = armed, outage, full

    # ------------------------------------------------------------------ the engine's own work
    def pump(self) -> bool:
        """One upload or one batch of deletes, if one is due."""
        task = self.engine.take_due()
        if task is None:
            return False
        task()
        return True

    def background(self) -> bool:
        if not self._background:
            if not self.engine.staging_garbage():
                return False
            self.engine.sweep_staging()
            return True
        self._background.pop(0)()
        return True

    def due_in(self) -> float | None:
        due = self.engine.next_due_s()
        return None if due is None else max(0.0, due - self.clock.monotonic())

    def drain(self, deep: bool) -> bool:
        """Send all that can be sent; `deep`: wait until no late attempt is looked for any more.

        False: an open file holds something up.
        """
        with self.engine.hurried():
            for _ in range(1000):
                while self.background():
                    pass
                if self.pump():
                    continue
                due = self.due_in()
                watching = deep and any(row.watch_until_s is not None for row in self.engine.deletes())
                if self.engine.is_all_sent() and not watching:
                    break
                if due is None and self.engine.files.handles.all():
                    break
                if due is None:
                    raise AssertionError(
                        f"something is left, and nothing is due: {self.engine.fs.queue_view()}"
                    )
                self.clock.advance(due + 0.001)
            else:
                raise AssertionError(f"does not end: {self.engine.fs.queue_view()}")
        with self.engine.lock:
            return not self.engine.files.handles.all() and self.engine.is_all_sent()

    def node(self, path: str) -> Node | None:
        """What the engine has under a path now, without asking the bucket."""
        node = self.engine.inodes.root
        for part in path.split("/"):
            if not node.is_dir or part not in node.children():
                return None
            with self.engine.lock:
                node = node.children()[part]
        return node

    def parked(self) -> list[Node]:
        return [node for node in self.engine.pending_nodes() if node.state is State.PARKED]


__all__ = ["LOST", "Crash", "World", "files"]
