"""Disk space: free bytes of this host's disk, and the eviction of clean content before a writer gets ENOSPC.

Owns:    when clean content is evicted because the disk is full (the cache enforces its own limit), and when the
         journal's reserve is allocated again.
Never:   drops a byte that the bucket lacks: dirty content is not in the cache.
Threads: every method; `look` is called by the watcher of `files/backpressure.py`.
Locks:   takes Core.lock for a moment; none during disk I/O. `make_now` may be called with it held.
Fails:   never: a disk that does not answer counts as having room.
"""

from __future__ import annotations

import logging
import os
from threading import Lock
from typing import NamedTuple

from r2fs.engine.content.idle import IdleFiles
from r2fs.engine.content.staging_gc import StagingGc
from r2fs.engine.inodes.core import Core
from r2fs.model.errors import R2fsError

log = logging.getLogger(__name__)

RESERVE = 256 << 20  # bytes kept free by eviction: a fast writer's between two looks
SHARE = 64  # of a small disk: at most this part
NEAR = (
    4  # reserves: with less free, first writers write through the daemon, which can make room for each write
)
NONE_LEFT_S = 60.0  # pause after an eviction that freed nothing
UNKNOWN = 1 << 62  # bytes free of a disk that does not answer


class Disk(NamedTuple):
    """The file system of staging and cache, at one moment. Bytes."""

    free: int
    reserve: int  # for writers
    wanted: int = 0  # `min_free`: to be kept free of clean content

    @property
    def near(self) -> bool:
        """True if the free bytes may be used up before the next look."""
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
        self._making = Lock()  # around an eviction alone
        self.made = 0  # counts evictions; only ever compared
        self._none_left_until_s = 0.0  # Clock.monotonic(): eviction for `min_free` is not tried before
        self._error: str | None = None  # the last error of statvfs; replaced as a whole

    def disk(self) -> Disk:
        try:
            found = os.statvfs(self._directory)
        except OSError as error:
            self._error = f"{self._directory}: {error.strerror}"
            return Disk(UNKNOWN, 0)
        self._error = None
        # Not f_bfree, for root neither: it counts blocks that the file system keeps for itself.
        reserve = min(RESERVE, found.f_blocks * found.f_frsize // SHARE)
        return Disk(found.f_bavail * found.f_frsize, reserve, self._core.settings.min_free)

    @property
    def error(self) -> str | None:
        """Return the last error of this host's disk."""
        return self._error or self._core.journal.error

    def make(self, size: int = 0, since: int | None = None) -> bool:
        """Remove staged files without a row, whose links would keep the disk occupied; then as `make_now`.

        `since`: `made` before the write that found no room. True, too, if room was made since then.
        """
        try:
            with self._core.lock:
                left = self._staging_gc.names()
            if left:
                self._staging_gc.sweep()
        except (OSError, R2fsError) as error:
            log.info("staged files that were sent are still there: %s", error)
        with self._making:  # a thread that waited here finds the room that the one before has made
            if since is not None and self.made != since:
                return True
            return self.make_now(size)

    def make_now(self, size: int = 0) -> bool:
        """Evict clean content for `size` bytes, and for the reserve. False: none is left."""
        with self._core.lock:
            self.idle.retire_all()
        freed = self._core.cache.evict(max(size, self.disk().reserve)) > 0
        self.made += freed
        return freed

    def look(self, writing: bool) -> None:
        """Periodically: hold the journal's reserve; keep `min_free` free, and while a program writes the reserve.

        Without `min_free`, readers alone evict nothing: during an outage evicted bytes could not be downloaded again.
        """
        disk = self.disk()
        if disk.free < disk.wanted and self._core.clock.monotonic() >= self._none_left_until_s:
            if not self.make_now(disk.wanted - disk.free):
                self._none_left_until_s = self._core.clock.monotonic() + NONE_LEFT_S
                log.warning(
                    "%s: %d bytes are free, and min_free is %d: no clean content is left to evict",
                    self._directory, disk.free, disk.wanted,
                )  # fmt: skip
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
