"""Warm: whole files downloaded into the cache before a program reads them.

Owns:    one run of downloads: the files under way, the progress, and the end at the cache's limit.
Never:   evicts files downloaded or found by the same run; touches bytes of this host; takes the last SPARED download
         slots from readers.
Threads: `run` in the thread of the request, many runs at once; downloads run on the threads of `jobs`.
Locks:   takes Core.lock (30); none during a download.
Fails:   Interrupted where the caller has gone. Errors of single files are in the result.

A complete file costs no request: a run after an interrupted one continues.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from r2fs.disk.open_file import ContentClosed
from r2fs.engine.content.disk_space import DiskSpace
from r2fs.engine.content.hydrate import PIECE, Reader
from r2fs.engine.content.jobs import AHEAD
from r2fs.engine.content.local_file import Contents
from r2fs.engine.content.presence import bytes_here_locked
from r2fs.engine.content.source import Source
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import R2fsError
from r2fs.model.ports import Caller
from r2fs.model.records import Version
from r2fs.model.views import WarmView

SPARED = 2  # download slots, for readers
REOPENED = 3  # attempts at a file closed by its last reader meanwhile
SHOWN = 100  # files named in a result
FILE_COST = 2 << 20  # bytes with the duration of one file's requests: measured near and far

Report = Callable[[WarmView], None]


@dataclass(slots=True, eq=False)
class _Underway:
    node: Node
    path: str  # for messages
    source: Source
    gets: int
    before: int  # bytes present


@dataclass(slots=True, eq=False)
class _Run:
    """State of one run. Used by its own thread alone."""

    files: int
    bytes: int
    begun_s: float
    report: Report
    here: int = 0  # files
    here_bytes: int = 0
    fetched: int = 0  # files
    fetched_bytes: int = 0
    stopped: str | None = None  # the reason for which the rest was not downloaded
    failed: list[tuple[str, str]] = field(default_factory=list)  # path and reason
    failures: int = 0
    pinned: list[Version] = field(default_factory=list)  # versions protected in the cache by this run
    underway: deque[_Underway] = field(default_factory=deque)

    def fail(self, path: str, reason: str) -> None:
        self.failures += 1
        if len(self.failed) < SHOWN:
            self.failed.append((path, reason))


class Watched(Caller):
    """A caller with reports of progress during waits."""

    def __init__(self, cancelled: Caller, tell: Callable[[], None]) -> None:
        super().__init__(cancelled=cancelled.cancelled)
        self._tell = tell

    def about_to_wait(self) -> None:
        super().about_to_wait()
        self._tell()


class Warm:
    def __init__(self, core: Core, contents: Contents, reader: Reader, space: DiskSpace) -> None:
        self._core = core
        self._contents = contents
        self._reader = reader
        self._space = space

    def run(
        self, nodes: Iterable[tuple[Node, str]], caller: Caller, report: Report = lambda view: None
    ) -> WarmView:
        """Download files, each with its path for messages, in this order; stop where the next has no room.

        `report` is called between two waits. Raises Interrupted.
        """
        todo = [(node, path, self.size_of(node)) for node, path in nodes]
        run = _Run(len(todo), sum(size for _, _, size in todo), self._core.clock.monotonic(), report)
        watched = Watched(caller, lambda: report(self._view(run)))
        slots = max(1, self._core.settings.download_threads - SPARED)
        try:
            for node, path, _ in todo:
                watched.about_to_wait()
                begun = self._begin(run, node, path)
                if run.stopped is not None:
                    break
                if begun is None:
                    continue
                run.underway.append(begun)
                while sum(one.gets for one in run.underway) >= slots:
                    self._finish(run, self._next(run), watched)
            while run.underway:
                self._finish(run, self._next(run), watched)
        finally:
            with self._core.lock:
                for one in run.underway:
                    self._close(one)
            for version in run.pinned:
                self._core.cache.unpin(version)
        return self._view(run)

    def size_of(self, node: Node) -> int:
        """Return the bytes of a file, as stat shows them."""
        with self._core.lock:
            return node.content.size if node.content is not None and not node.content.closed else node.size

    def _next(self, run: _Run) -> _Underway:
        """Take a finished download out, else the oldest."""
        for one in run.underway:
            if one.source.content.complete or one.source.content.closed:
                run.underway.remove(one)
                return one
        return run.underway.popleft()

    # ---- one file
    def _begin(self, run: _Run, node: Node, path: str) -> _Underway | None:
        """Open a file and request its first pieces. None: complete, or not to be downloaded."""
        disk = self._space.disk()
        with self._core.lock:
            base = node.base
            if self._core.stopping:
                run.stopped = "stop"
                return None
            if node.deleted or (base is None and node.pending is None):
                run.fail(path, "removed meanwhile")
                return None
            before = bytes_here_locked(self._core, node)
            if base is None or (node.pending is not None and node.pending.staged is not None):
                run.here, run.here_bytes = run.here + 1, run.here_bytes + before
                return None
            self._core.cache.pin(base)
            run.pinned.append(base)
            if before >= base.size:
                run.here, run.here_bytes = run.here + 1, run.here_bytes + before
                return None
            if base == node.base_missing:
                run.fail(path, "its version is no longer in the bucket")
                return None
            if base.size > self._core.settings.cache_size:
                run.fail(path, f"{base.size} bytes are more than cache_size")
                return None
            missing = base.size - before
            if self._core.frugal:
                run.stopped = "budget"
                return None
            full = disk.free - missing < max(disk.reserve, disk.wanted)
            if full or not self._core.cache.make_room(missing):
                run.stopped = "disk" if full else "cache"
                return None
            return self._open_locked(run, node, path, before)

    def _open_locked(self, run: _Run, node: Node, path: str, before: int) -> _Underway | None:
        self._core.assert_held()
        self._contents.wake(node)
        try:
            source = self._contents.source(node)
        except R2fsError as error:
            run.fail(path, str(error))
            return None
        if source is None:
            self._contents.close_unused(node)
            run.here, run.here_bytes = run.here + 1, run.here_bytes + node.size
            return None
        if source.content.in_memory:
            run.stopped = "disk"
            self._contents.close_unused(node)
            return None
        return _Underway(node, path, source, self._reader.begin(source), before)

    def _finish(self, run: _Run, one: _Underway, caller: Caller) -> None:
        """Download the rest of a file, and close it."""
        try:
            for _ in range(REOPENED):
                if self._complete(one.source, caller):
                    break
                with self._core.lock:
                    again = self._contents.source(one.node)
                if again is None:
                    break
                one.source = again
        except R2fsError as error:
            if caller.cancelled is not None and caller.cancelled.is_set():
                raise
            run.fail(one.path, str(error))
            return
        finally:
            with self._core.lock:
                self._close(one)
        with self._core.lock:
            here = bytes_here_locked(self._core, one.node)
            changed = one.node.pending is not None or one.node.deleted  # by a program, meanwhile
        if here >= one.source.version.size or changed:
            run.fetched += 1
            run.fetched_bytes += max(0, here - one.before)
        else:
            run.fail(one.path, "the cache has no room for all of it")

    def _complete(self, source: Source, caller: Caller) -> bool:
        """Download all of a file; False: closed by its last reader meanwhile."""
        try:
            size = source.version.size
            for begin in range(0, size, PIECE):
                self._reader.piece(source, begin, size, caller, AHEAD)
                caller.about_to_wait()
        except ContentClosed:
            return False
        return True

    def _close(self, one: _Underway) -> None:
        """Close the file, unless a handle needs it. With Core.lock held."""
        content = one.source.content
        if one.node.content is not content or one.node.handles:
            return
        if self._core.stopping:  # another daemon may have taken the directory over
            content.close()
            return
        self._contents.close_unused(one.node)
        self._space.idle.retire(one.node.ino)  # the cache outlasts a killed daemon

    # ---- progress
    def _view(self, run: _Run) -> WarmView:
        moving = sum(
            max(0, one.source.content.here_bytes() - one.before)
            for one in run.underway
            if not one.source.content.closed
        )
        fetched_bytes = run.fetched_bytes + moving
        elapsed_s = self._core.clock.monotonic() - run.begun_s
        left_files = max(0, run.files - run.here - run.fetched - run.failures)
        left_bytes = max(0, run.bytes - run.here_bytes - fetched_bytes)
        done = fetched_bytes + FILE_COST * run.fetched
        rest = left_bytes + FILE_COST * left_files
        return WarmView(
            files=run.files,
            bytes=run.bytes,
            here=run.here,
            here_bytes=run.here_bytes,
            fetched=run.fetched,
            fetched_bytes=fetched_bytes,
            rate=fetched_bytes / elapsed_s if elapsed_s > 0 else 0.0,
            left_s=elapsed_s * rest / done if done else None,
            stopped=run.stopped,
            failures=run.failures,
            failed=tuple(run.failed),
        )
