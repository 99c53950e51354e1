"""Staging GC: removes staged files without a row, once the commit that dropped the row is on the disk.

Owns:    the files to be removed from staging/data (the journal's table `staging_gc`), and the pace at which commits
         without a waiting program reach the disk.
Never:   removes a file whose row may return: a commit survives kill -9, but a power cut undoes the last ones, and the
         row of a synced file must then find its bytes.
Threads: `run` is the main function of a thread; every other method but `sweep` is called with Core.lock held.
Locks:   takes Core.lock; none during disk I/O.
Fails:   never: errors of the disk are logged once a round, and retried.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from threading import Condition

from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import R2fsError

log = logging.getLogger(__name__)

PACE_CAP_S = 60.0  # between two rounds on a disk that fails
PACE_S = 0.5  # between two rounds, of two fsyncs each


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
            with journal.transaction():
                for name in files:
                    journal.drop_staging_garbage(name)
            for name, node in files.items():
                self._files.pop(name, None)  # two rounds at once: DiskSpace.make sweeps, too
                if node is not None and node.stale_staged_name == name:
                    node.stale_staged_name = None
                if node is not None and node.pending is None:
                    node.synced_on_disk = False
