"""Prefetch: downloads of small files, and of the beginnings of larger ones, that a program is about to open.

Owns:    downloads chosen by `content/siblings.py`, waiting and under way.
Never:   keeps a file open that a handle needs no more; takes the last SPARED download slots; repeats a download.
Threads: every public method is thread-safe; downloads run on the threads of `jobs`, after those with a reader.
Locks:   takes Core.lock (30); none during a download.
Fails:   never: a failed download ends the run of its directory; a reader requests the file again, and gets the error.

A reader that opens a file under way waits for the same Source; one that opens a waiting file downloads it itself.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

from r2fs.engine.content import idle
from r2fs.engine.content.disk_space import DiskSpace
from r2fs.engine.content.hydrate import PIECE, Reader
from r2fs.engine.content.jobs import AHEAD, DownloadQueue
from r2fs.engine.content.local_file import Contents
from r2fs.engine.content.siblings import HEAD, MOST, TAIL, Chosen, Reads, Siblings
from r2fs.engine.content.source import Source
from r2fs.engine.content.windows import NEAR_S
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.model import causes
from r2fs.model.errors import R2fsError
from r2fs.model.keys import printable
from r2fs.model.records import Kind

log = logging.getLogger(__name__)

BYTES = 64 << 20  # of one directory, not opened yet
SPARED = 2  # download slots, for readers
NEAR = 3  # parallel downloads from a server without latency
OWN_S = 0.002  # of processor time for the download of a small file
IN_A_ROW = 16  # files of a job between two looks at the free disk


class _Waiting(NamedTuple):
    """A file in line, and the cause of its choice."""

    chosen: Chosen
    node: Node
    cause: causes.Cause


class _Opened(NamedTuple):
    """A file that is being downloaded."""

    waiting: _Waiting
    source: Source


class Prefetch:
    def __init__(
        self, core: Core, contents: Contents, reader: Reader, space: DiskSpace, jobs: DownloadQueue
    ) -> None:
        # constant
        self._core = core
        self._contents = contents
        self._reader = reader
        self._space = space
        self._jobs = jobs
        # guarded by: Core.lock
        self._siblings = Siblings()
        self._waiting: deque[_Waiting] = deque()
        self._running = 0  # jobs submitted, and not ended
        self._starting = 0  # of these, jobs that have not begun
        self._expected = "", 0  # key of the file chosen last, and the number of its directory's names

    @property
    def surplus(self) -> int:
        """Number of files fetched ahead and not opened. With Core.lock held."""
        return self._siblings.surplus

    def opened(self, node: Node, cold: bool) -> bool:
        """Note an open for reading, and put the files expected next in line. With Core.lock held; then `start`.

        `cold`: bytes of the file are missing. True: the open downloads none of them; each read requests its own.
        """
        parent = node.parent
        if parent is None or not (cold or parent.ino in self._siblings):
            return False
        base = node.base
        if (
            self._core.frugal
            or parent.listing is None
            or node.pending is not None
            or not (base and base.size)
        ):
            return False
        children = parent.listing.children
        if self._siblings.opened(parent.ino, node.name, cold, children):
            self._choose(parent.ino, children)
        return (  # with close-to-open, the GET of the whole file also proves the version at the open
            cold
            and base.size > HEAD
            and self._core.settings.consistency != "close-to-open"
            and self._siblings.shows_reads(parent.ino)
        )

    def _choose(self, ino: int, children: Mapping[str, Node]) -> None:
        limit = min(BYTES, self._core.settings.cache_size // idle.SHARE)
        cause = causes.now()._replace(purpose=causes.AHEAD)
        for chosen in self._siblings.choose(
            ino, lambda name, reads: self._size(children.get(name), reads), limit
        ):
            node = children[chosen.name]
            self._waiting.append(_Waiting(chosen, node, cause))
            if node.base is not None:
                self._expected = node.base.key, len(children)
        self._forget_unwanted()

    def read(self, node: Node, start: int, stop: int) -> None:
        """Note a read of a file that had missing bytes when it was opened. With Core.lock held; then `start`."""
        parent, base = node.parent, node.base
        if parent is None or parent.listing is None or base is None or self._core.frugal:
            return
        if self._siblings.read(parent.ino, node.name, base.size, start, stop):
            self._choose(parent.ino, parent.listing.children)

    def _size(self, node: Node | None, reads: Reads) -> int:
        """Return the bytes of a file that may be downloaded ahead, from its begin on; 0: none."""
        if node is None or node.base is None or not self._may_come(node):
            return 0
        size = node.base.size
        if size <= min(self._core.settings.small_file, PIECE) and (size <= HEAD or reads.head is None):
            return size
        return min(reads.head or 0, size)

    def _may_come(self, node: Node) -> bool:
        """True for a clean and closed file that the bucket has."""
        return not (
            node.kind is not Kind.FILE
            or node.deleted
            or node.pending is not None
            or node.content is not None
            or node.base == node.base_missing
        )

    def _forget_unwanted(self) -> None:
        """Bound the line: leave out what runs that have ended had in it, then its end. With Core.lock held."""
        if len(self._waiting) <= MOST:
            return
        wanted = [waiting for waiting in self._waiting if self._siblings.wants(waiting.chosen)]
        for waiting in wanted[MOST:]:
            self._siblings.skipped(waiting.chosen)
        self._waiting = deque(wanted[:MOST])

    def start(self) -> None:
        """Submit jobs for waiting files while slots are left. Without Core.lock: a job may run where it is submitted."""
        # looked at without the lock: an append meanwhile is followed by a `start` of its own
        while self._waiting and self._has_slot():
            with self._core.lock:
                if not self._has_slot():
                    return
                begins = not self._running and not 0 < self._reader.soonest_s <= NEAR_S
                self._running += 1
                self._starting += 1
            if not self._jobs.submit(self._run, AHEAD):
                with self._core.lock:
                    self._running -= 1
                    self._starting -= 1
                return
            if begins:
                self._jobs.submit(self._connect, AHEAD)

    def _connect(self) -> None:
        """Job: begin to open connections for the GETs that a run will send at once, while its first ones are under way."""
        with self._core.lock:
            key, names = self._expected
        self._core.store.connect_ahead(key, min(names, self._jobs.limit - SPARED))

    def _has_slot(self) -> bool:
        """True if a further job has a file and a slot. From a near server more would wait for this processor."""
        if len(self._waiting) <= self._starting:
            return False
        busy = ceil(self._reader.soonest_s / OWN_S) + 1
        return self._running < min(max(NEAR, busy), self._jobs.limit - SPARED)

    def _run(self) -> None:
        """Job: download files in line, one after another, without a wake-up of a thread for each."""
        short, opened = self._space.disk().short, None
        with self._core.lock:
            self._starting -= 1
        try:
            for _ in range(IN_A_ROW):
                with self._core.lock:  # once for each file: readers wait for it
                    if opened is not None:
                        self._close(opened)
                    opened = self._open_next(short)
                if opened is None:
                    break
                self._download(opened)
                if self._jobs.has_urgent:
                    break
        finally:
            with self._core.lock:
                self._running -= 1
                if opened is not None:
                    self._close(opened)
        self.start()

    def _open_next(self, short: bool) -> _Opened | None:
        """Open the next file in line with missing bytes; None: the line is empty. With Core.lock held."""
        if self._core.frugal or self._core.stopping:
            self._waiting.clear()
        while self._waiting:
            waiting = self._waiting.popleft()
            source = self._source(waiting, short) if self._siblings.wants(waiting.chosen) else None
            if source is not None:
                return _Opened(waiting, source)
        return None

    def _source(self, waiting: _Waiting, short: bool) -> Source | None:
        """Return the Source of the missing bytes; None: no download is needed, or there is no room. With Core.lock held."""
        chosen, node = waiting.chosen, waiting.node
        base = node.base
        if (
            short
            or base is None
            or not self._may_come(node)
            or self._core.cache.contains(base, whole=chosen.size >= base.size)
        ):
            self._siblings.skipped(chosen)
            return None
        try:
            source = self._contents.source(node)
        except R2fsError as error:
            log.debug("%s: not fetched ahead: %s", printable(node.name), error)
            self._siblings.failed(chosen)
            return None
        if source is None or source.content.in_memory:
            self._siblings.skipped(chosen)
            self._contents.close_unused(node)
            return None
        return source

    def _download(self, opened: _Opened) -> None:
        (chosen, _, cause), source = opened
        size = source.content.size
        with causes.caused_by(cause):
            self._reader.bring(source, 0, min(chosen.size, size))
            if chosen.tail and chosen.size < size:
                self._reader.bring(source, max(chosen.size, size - TAIL), size)

    def _close(self, opened: _Opened) -> None:
        """Close the file as after a reader's last close, unless a handle needs it. With Core.lock held."""
        (chosen, node, _), source = opened
        content = source.content
        if node.content is not content or node.handles:
            return
        if self._core.stopping:  # another daemon may have taken the directory over
            content.close()
            return
        if not content.covers(0, chosen.size):
            self._siblings.failed(chosen)
        self._contents.close_unused(node)
