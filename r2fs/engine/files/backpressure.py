"""Back-pressure: writers are slowed, then wait, then get ENOSPC, while the bucket does not keep up.

Owns:    the count of dirty bytes, open files included, and its effect on an OPEN for writing, a FLUSH and a
         WRITE through the daemon. The same for a full disk.
Never:   drops bytes; fails a FLUSH: written bytes are safe.
Threads: every method is thread-safe; `watch` is the main function of a thread.
Locks:   takes Core.lock; waits on Core.changed alone.
Fails:   NoSpace, once a writer has waited for `dirty_wait`.

    below 80 % of dirty_limit  nothing
    from 80 % on               first writers are opened without passthrough, and their writes slowed
    at the limit               OPEN and WRITE wait for uploads, then ENOSPC; FLUSH waits, and succeeds
Writes of files that were opened with passthrough before are not seen: only the disk bounds them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from threading import Event

from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.content.disk_space import Disk, DiskSpace
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.model.errors import Interrupted, NoSpace, R2fsError
from r2fs.model.ports import Caller
from r2fs.model.views import RoomView

log = logging.getLogger(__name__)

SLOW_FROM = 0.8  # of dirty_limit
LAST_PART_S = 60.0  # duration of the room between there and the limit, for one writer
BREATH_S = 0.05  # before a write is repeated that the disk should have had room for
PAUSE_CAP_S = 1.0  # of one write: 128 KiB to 1 MiB
LOOK_S, LOOK_NEAR_S = 1.0, 0.1  # intervals of the check of the disk; while it is nearly full


class BackPressure:
    def __init__(self, records: Records, written: Collection[Node], space: DiskSpace) -> None:
        """`written`: the inodes that have writers; a live view, read with Core.lock held or only for emptiness."""
        # constant
        self._core = records.core
        self._pending = records.pending
        self._written_nodes = written
        self._disk_space = space
        self._stopped = Event()
        # of the thread of `watch`
        self._level = "free"
        # replaced as a whole
        self._slows = False  # when a writer was last admitted

    # ---- dirty bytes
    def dirty(self) -> int:
        """Return the bytes that the bucket lacks: by the rows, and by the files' own sizes where they have writers."""
        with self._core.lock:
            dirty = self._pending.staged_bytes
            for node in self._written_nodes:
                pending, content = node.pending, node.content
                if pending and pending.staged and content is not None and not content.closed:
                    dirty += content.size - pending.staged.size
            return dirty

    def _sealed(self) -> int:
        """Return the dirty bytes of closed files, which can be uploaded now."""
        with self._core.lock:
            return self._pending.staged_bytes - sum(
                node.pending.size
                for node in self._written_nodes
                if node.pending and node.content is not None and not node.content.closed
            )

    def is_at_limit(self) -> bool:
        return self.dirty() >= self._core.settings.dirty_limit

    # ---- limits
    def admit(self, caller: Caller) -> None:
        """Admit an open for writing or a truncate by name, after a wait if needed. Raises NoSpace, WouldWait."""
        disk = self._disk_space.disk()
        if disk.short:
            caller.about_to_wait()
            self._disk_space.make()
        dirty = self.dirty()
        if dirty >= self._core.settings.dirty_limit:
            caller.about_to_wait()
            if not self._until(lambda: self.dirty() < self._core.settings.dirty_limit, caller):
                raise self._no_space()
        self._slows = disk.near or dirty >= self._core.settings.dirty_limit * SLOW_FROM

    def passes(self) -> bool:
        """True if a writer that `admit` has just admitted may be given the file's descriptor, for passthrough.

        If the kernel passes an earlier handle of the file through, it does so for this one, too.
        """
        return not self._slows

    def pace(self, caller: Caller, growth: int) -> None:
        """Slow or delay a write that makes a file longer by `growth` bytes. Raises NoSpace."""
        dirty = self.dirty()
        if growth <= 0 or dirty + growth < self._core.settings.dirty_limit * SLOW_FROM or not self._sealed():
            return  # without a closed file no upload can make room: the disk is the bound
        caller.about_to_wait()
        left = self._core.settings.dirty_limit - dirty
        if growth > left:
            if not self._until(
                lambda: self.dirty() + growth <= self._core.settings.dirty_limit or not self._sealed(), caller
            ):
                raise self._no_space()
            return
        pause = min(PAUSE_CAP_S, growth * LAST_PART_S / left)
        self._until(lambda: self.dirty() < self._core.settings.dirty_limit * SLOW_FROM, caller, pause)

    def flush(self, caller: Caller, node: Node) -> None:
        """Wait, at a writer's close, for the bytes of other files: its own cannot be uploaded before it."""

        def others() -> int:
            own = node.content.size if node.content is not None and not node.content.closed else 0
            return self.dirty() - own

        with self._core.lock:
            if node.pending is None or others() < self._core.settings.dirty_limit:
                return
        caller.about_to_wait()
        try:
            self._until(lambda: others() < self._core.settings.dirty_limit, caller)
        except Interrupted:
            return  # close(2) of a process that is being killed

    def write(self, caller: Caller, content: SparseFile, offset: int | None, data: bytes | memoryview) -> int:
        """Write at `offset` (None: at the end). Returns the number of bytes: fewer if the disk is full after some."""
        since_s, done, rest = self._core.clock.monotonic(), 0, memoryview(data)
        while done < len(rest):
            made = self._disk_space.made
            try:
                if offset is None:
                    done += content.append(rest[done:])
                else:
                    done += content.write(offset + done, rest[done:])
            except NoSpace:
                # A repeated append would be there twice; elsewhere a repeated write is the same bytes.
                if done and offset is None and not caller.may_wait:
                    break
                if not self._make_room(caller, len(rest) - done, since_s, made):
                    if done:  # the next write fails
                        break
                    raise
        return done

    def _make_room(self, caller: Caller, size: int, since_s: float, made: int) -> bool:
        """Make room for a write that found the disk full. `made`: DiskSpace.made before it. True: repeat the write."""
        caller.about_to_wait()
        if self._disk_space.make(size, made):
            return True
        left = since_s + self._core.settings.dirty_wait_s - self._core.clock.monotonic()
        if left <= 0:
            return False
        others_made_room = self._disk_space.disk().free >= size
        if not others_made_room and not self._sealed():
            return False
        with self._core.lock:
            # Uploaded bytes are clean, and can be evicted.
            self._core.changed.wait(min(left, BREATH_S if others_made_room else 1.0))
        return True

    def _until(self, enough: Callable[[], bool], caller: Caller, limit_s: float | None = None) -> bool:
        limit_s = self._core.settings.dirty_wait_s if limit_s is None else limit_s
        deadline = self._core.clock.monotonic() + limit_s
        with self._core.lock:
            while not enough():
                left = deadline - self._core.clock.monotonic()
                if left <= 0 or self._core.stopping:
                    return False
                self._core.changed.wait(min(left, 1.0))
                caller.about_to_wait()
        return True

    def _no_space(self) -> NoSpace:
        return NoSpace(
            f"{self.dirty()} bytes are not in the bucket yet: dirty_limit is {self._core.settings.dirty_limit}"
        )

    # ---- watch and view
    def watch(self) -> None:
        """Main function of a thread: check the disk, and log when writers begin to be slowed, wait, or go on."""
        pause_s = 0.0
        while not self._stopped.wait(pause_s):  # not Core.changed, which every change notifies
            try:
                disk = self._disk_space.look(bool(self._written_nodes))
                self._say(self.dirty(), disk)
                near = disk.near and bool(self._written_nodes)
                pause_s = LOOK_NEAR_S if near else LOOK_S
            except (R2fsError, OSError) as error:
                log.warning("the disk could not be looked after: %s", error)
                pause_s = LOOK_S

    def stop(self) -> None:
        """Make `watch` return."""
        self._stopped.set()

    def view(self) -> RoomView:
        dirty, disk = self.dirty(), self._disk_space.disk()
        return RoomView(
            dirty=dirty,
            dirty_limit=self._core.settings.dirty_limit,
            writers=self._level_of(dirty, disk),
            disk_free=disk.free,
            disk_reserve=disk.reserve,
            disk_error=self._disk_space.error,
            journal_reserve=self._core.journal.reserve.held,
        )

    def _level_of(self, dirty: int, disk: Disk) -> str:
        if dirty >= self._core.settings.dirty_limit:
            return "waiting"
        if disk.short:
            return "disk full"
        return "slowed" if dirty >= self._core.settings.dirty_limit * SLOW_FROM else "free"

    def _say(self, dirty: int, disk: Disk) -> None:
        before, self._level = self._level, self._level_of(dirty, disk)
        if self._level == before:
            return
        if self._level == "disk full":
            log.warning("the disk of %s is full: %d bytes are free", self._core.staging.directory, disk.free)
        elif self._level == "free":
            log.info("writers go on: %d bytes wait for their upload", dirty)
        else:
            level = log.warning if self._level == "waiting" else log.info
            level("%d bytes wait for their upload (dirty_limit is %d): writers are %s",
                  dirty, self._core.settings.dirty_limit,
                  "made to wait" if self._level == "waiting" else "slowed")  # fmt: skip
