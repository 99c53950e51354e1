"""Room: how much is left on this host's disk, and what is given back before a writer meets ENOSPC.

Owns:    when clean content is evicted for want of disk (the cache's own limit is the cache's), and
         when the journal's reserve is made anew.
Never:   drops a byte that the bucket lacks: dirty content is not in the cache.
Threads: every method; `look` is called by the watcher of `files/backpressure.py`.
Locks:   takes Core.lock for a moment; none while it asks the disk or waits for it. `make_now` alone
         may be called with Core.lock held.
Fails:   softly: a disk that does not answer has no room known, and goes on as if it had.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from threading import Lock

from r2fs.engine.content.idle import IdleFiles
from r2fs.engine.content.staging_gc import StagingGc
from r2fs.engine.core import Core
from r2fs.model.errors import R2fsError

log = logging.getLogger(__name__)

RESERVE = 256 << 20  # kept free by evicting: what a fast writer takes between two looks
SHARE = 64  # of a small disk: at most this part
NEAR = 4  # reserves: below that first writers write through us, so that room can be made for each write
UNKNOWN = 1 << 62  # bytes free of a disk that does not tell


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of staging and cache, at one moment. Bytes."""

    free: int
    reserve: int

    @property
    def near(self) -> bool:
        """So little that it may be used up before anybody looks again."""
        return self.free < NEAR * self.reserve

    @property
    def short(self) -> bool:
        return self.free < self.reserve


class DiskSpace:
    def __init__(self, core: Core, idle: IdleFiles, staging_gc: StagingGc) -> None:
        # constant
        self._core = core
        self.idle = idle
        self._staging_gc = staging_gc
        self._directory = core.staging.directory
        self._making = Lock()  # around evicting alone
        self.made = 0  # grows each time that room was made; only ever compared
        self._error: str | None = None  # what the disk answered instead; replaced as a whole

    def disk(self) -> Disk:
        try:
            found = os.statvfs(self._directory)
        except OSError as error:
            self._error = f"{self._directory}: {error.strerror}"
            return Disk(UNKNOWN, 0)
        self._error = None
        # Not f_bfree, for root neither: it counts blocks that the file system keeps for itself.
        return Disk(found.f_bavail * found.f_frsize, min(RESERVE, found.f_blocks * found.f_frsize // SHARE))

    @property
    def error(self) -> str | None:
        """What is wrong with this host's disk, as last seen."""
        return self._error or self._core.journal.error

    def make(self, size: int = 0, since: int | None = None) -> bool:
        """As `make_now`; before, what has left staging goes for good: else evicting it would free nothing.

        `since`: `made` before the write that found no room. True, too, if room was made since then.
        """
        try:
            with self._core.lock:
                left = self._staging_gc.names()
            if left:
                self._staging_gc.sweep()
        except (OSError, R2fsError) as error:
            log.info("what has left staging is still there: %s", error)
        with self._making:  # whoever waited here finds what the one before has evicted
            if since is not None and self.made != since:
                return True
            return self.make_now(size)

    def make_now(self, size: int = 0) -> bool:
        """Evict clean content for `size` bytes, and for the reserve. False: there is none to evict."""
        with self._core.lock:
            self.idle.retire_all()
        freed = self._core.cache.evict(max(size, self.disk().reserve)) > 0
        self.made += freed
        return freed

    def look(self, writing: bool) -> None:
        """Now and then: keep the journal's reserve held and, while anybody writes, the reserve free.

        For readers alone nothing is evicted: what is here could not be fetched again.
        """
        disk = self.disk()
        if disk.short and writing:
            self.make(disk.reserve - disk.free)
        journal_reserve = self._core.journal.reserve
        if (
            not journal_reserve.held
            and disk.free > disk.reserve + journal_reserve.size
            and journal_reserve.hold()
        ):
            log.info(
                "there is room again: %d bytes are kept in reserve for the journal", journal_reserve.size
            )
