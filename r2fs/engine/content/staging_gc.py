"""Leaving: staged files whose row is gone go, too, once the disk knows that the row is gone.

Owns:    what is to be removed from staging/data (the journal's table `staging_gc`), and the pace at
         which commits that nobody waits for reach the disk.
Never:   removes a file whose row may come back: a commit survives kill -9, but a power cut takes the
         last ones back, and the row of a synced file must then find its bytes.
Threads: `run` is one's main; every other method is called with Core.lock held, but `sweep`.
Locks:   Core.lock to look and to note; none while the disk is waited for.
Fails:   a disk that cannot be written is said once a round, and tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from threading import Condition

from r2fs.engine.core import Core
from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import R2fsError

log = logging.getLogger(__name__)

PACE_CAP_S = 60.0  # on a disk that fails
PACE_S = 0.5  # between two rounds, two fsyncs each: what leaves meanwhile leaves together


class StagingGc:
    def __init__(self, core: Core) -> None:
        self._core = core
        # guarded by: Core.lock
        self._wanted = Condition(core.lock)
        self._files: dict[str, Node | None] = {}  # by name in staging/data; the node that owed it
        self._asked = False  # a commit is worth a round though nothing leaves

    def adopt(self, names: Iterable[str]) -> None:
        """At start: left by an earlier run."""
        self._files.update((name, None) for name in names)

    def add(self, name: str, node: Node) -> None:
        """The row that named it is gone by a commit; its row in `staging_gc` came with the same one."""
        self._files[name], node.stale_staged_name = node, name
        self._wanted.notify()

    def soon(self) -> None:
        """Something was committed that a program counts on: on the disk with it, though nobody waits."""
        self._asked = True
        self._wanted.notify()

    def names(self) -> set[str]:
        return set(self._files)

    # ------------------------------------------------------------------ the thread
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
        """Until there is something to do, and `pause_s` at least; False: the end."""
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
        """One round. Without the lock; waits for the disk."""
        journal = self._core.journal
        with self._core.lock:
            files, self._asked = dict(self._files), False
        journal.barrier()
        self._core.crash_point("leaving_safe")
        for name in files:
            self._core.staging.remove(name)
        if not files:
            return
        # Else a name could be back after a power cut that nothing in the journal speaks of.
        self._core.staging.sync()
        self._core.crash_point("left")
        with self._core.lock:
            with journal.transaction():
                for name in files:
                    journal.drop_staging_garbage(name)
            for name, node in files.items():
                self._files.pop(name, None)  # two rounds at once: a full disk is in a hurry
                if node is not None and node.stale_staged_name == name:
                    node.stale_staged_name = None
                if node is not None and node.pending is None:
                    node.synced_on_disk = False
