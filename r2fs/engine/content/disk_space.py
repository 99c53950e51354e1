"""Disk space: what is removed from this host's disk, and when: staged files without a row, and clean content.

Owns:    the files to be removed from staging/data (the journal's table `staging_gc`), and the pace at which commits
         without a waiting program reach the disk; when clean content is evicted because the disk is full, before a
         writer gets ENOSPC (the cache enforces its own limit), and when the journal's reserve is allocated again.
Never:   drops a byte that the bucket lacks: dirty content is not in the cache, and the file of a row that may return is
         not removed: a commit survives kill -9, but a power cut undoes the last ones, and the row of a synced file must
         then find its bytes.
Threads: `StagingGc.run` is the main function of a thread, and its other methods but `sweep` are called with Core.lock
         held; every method of DiskSpace, of which `look` is called by the watcher of `files/backpressure.py`.
Locks:   takes Core.lock for a moment; none during disk I/O. `make_now` may be called with it held.
Fails:   never: errors of a removal are logged once a round, and retried; a disk that does not answer counts as having
         room.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from threading import Condition, Lock
from typing import NamedTuple

from r2fs.engine.content.idle import IdleFiles
from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import R2fsError

log = logging.getLogger(__name__)

PACE_CAP_S = 60.0  # between two rounds on a disk that fails
PACE_S = 0.5  # between two rounds, of two fsyncs each
RESERVE = 256 << 20  # bytes kept free by eviction: a fast writer's between two looks
SHARE = 64  # of a small disk: at most this part
NEAR = (
    4  # reserves: with less free, first writers write through the daemon, which can make room for each write
)
NONE_LEFT_S = 60.0  # pause after an eviction that freed nothing
UNKNOWN = 1 << 62  # bytes free of a disk that does not answer


class StagingGc:
    def __init__(self, core: Core) -> None:
        self._core = core
        # guarded by: Core.lock
        self._wanted = Condition(core.lock)
        self._files: dict[str, Node | None] = {}  # by name in staging/data; the inode whose row it was
        self._asked = False  # `soon` was called: a round without files, too

    def adopt(self, names: Iterable[str]) -> None:
        """Add files of an earlier run, at start."""
        self._files.update((name, None) for name in names)

    def add(self, name: str, node: Node) -> None:
        """Queue a staged file for removal; the commit that dropped its inode row made its row in `staging_gc`."""
        self._files[name], node.stale_staged_name = node, name
        self._wanted.notify()

    def soon(self) -> None:
        """Sync the journal soon: a program relies on a commit, though none waits for it."""
        self._asked = True
        self._wanted.notify()

    def names(self) -> set[str]:
        return set(self._files)

    # ---- thread
    def run(self) -> None:
        pause_s = PACE_S
        while self._wait(pause_s):
            try:
                self.sweep()
                pause_s = PACE_S
            except (OSError, R2fsError) as error:
                log.error("the journal could not be brought to the disk, will be tried again: %s", error)
                pause_s = min(pause_s * 2, PACE_CAP_S)
                with self._core.lock:
                    self.soon()

    def stop(self) -> None:
        with self._core.lock:
            self._wanted.notify_all()

    def _wait(self, pause_s: float) -> bool:
        """Wait for work, and for `pause_s` at least. False: the mount stops."""
        with self._core.lock:
            due = self._core.clock.monotonic() + pause_s
            while not self._core.stopping:
                left = due - self._core.clock.monotonic()
                if left > 0:
                    self._wanted.wait(left)
                elif self._files or self._asked:
                    return True
                else:
                    self._wanted.wait()
            return False

    def sweep(self) -> None:
        """Remove the files whose rows are gone, after a barrier of the journal. Without Core.lock; waits for the disk."""
        journal = self._core.journal
        with self._core.lock:
            files, self._asked = dict(self._files), False
        journal.barrier()
        self._core.crash_point("leaving_safe")
        for name in files:
            self._core.staging.remove(name)
        if not files:
            return
        # Else a power cut could bring back a name that the journal has forgotten.
        self._core.staging.sync()
        self._core.crash_point("left")
        with self._core.lock:
            journal.drop_staging_garbage(files)
            for name, node in files.items():
                self._files.pop(name, None)  # two rounds at once: DiskSpace.make sweeps, too
                if node is not None and node.stale_staged_name == name:
                    node.stale_staged_name = None
                if node is not None and node.pending is None:
                    node.synced_on_disk = False


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

    def look(self, writing: bool) -> Disk:
        """Periodically: hold the journal's reserve; keep `min_free` free, and while a program writes the reserve.
        Return the disk as it is after that.

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
        return self.disk() if disk.short or disk.free < disk.wanted else disk
