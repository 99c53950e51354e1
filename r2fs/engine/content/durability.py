"""Syncing: what has to be on the disk before something else may go that a power cut could want back.

Owns:    the proof that a file's bytes are synced; copies whose outcome the disk may not know. A copy's outcome,
         a rename, a download and an edit survive kill -9 at once, but a power cut only after a sync: until then
         the object that they began as is all that the next boot is sure to find.
Never:   sends anything; takes a second fsync's word where one has failed: the kernel tells of it once, and
         forgets what it could not write.
Threads: `copied`, `is_as_synced`, `is_synced` and `is_in_part` are called with Core.lock held; everything else takes it
         itself, and waits for the disk without it.
Fails:   LocalError where the disk does: nothing is to be replaced then.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from r2fs.disk.durable import outwait_file_time
from r2fs.engine.content.local_file import Contents
from r2fs.engine.content.staged_files import StagedFiles
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.model.errors import LocalError, R2fsError
from r2fs.model.keys import nfc, printable
from r2fs.model.pending import UNSYNCED, Durability, Staged
from r2fs.model.records import Proof
from r2fs.model.transitions import held, with_staged

log = logging.getLogger(__name__)


class DiskSync:
    def __init__(self, records: Records, contents: Contents, staged_files: StagedFiles) -> None:
        # constant
        self._core = records.core
        self._pending = records.pending
        self._contents = contents
        self._staged_files = staged_files
        # guarded by: Core.lock
        self._copied: dict[str, int] = {}  # NFC key: which copy from it was the last
        self._count = 0

    # ------------------------------------------------------------------ one file
    def sync(self, node: Node) -> None:
        """Its bytes, their name and the row that tells of them are on the disk when this returns."""
        with self._core.lock:
            if node.pending is None:
                return
            content = self._contents.of(node) if node.pending.staged else None
            if content is not None:
                if node.sync_failed:
                    raise LocalError(f"{printable(node.name)}: {UNSYNCED}")
                whole = content.complete
                proof = self._contents.proof(node) if whole else content.changes
                fd = content.reader()  # of our own: it may be sent and closed meanwhile
        if content is not None:
            try:
                # Else the clock has stepped back, and later writes may not show.
                lasting = isinstance(proof, int) or outwait_file_time(proof.ctime_ns)
                self._sync_bytes(node, fd)
            finally:
                os.close(fd)
            self._core.crash_point("bytes_synced")
            with self._core.lock:
                self._note(node, proof if lasting else None, whole)
            self._core.crash_point("sync_journalled")
        self._core.journal.barrier()
        if content is not None and not whole and self._has_become_whole(node):
            self.sync(node)

    def _has_become_whole(self, node: Node) -> bool:
        """True if the rest was downloaded while the own bytes were synced, and its row counts on it by now."""
        with self._core.lock:
            staged = node.pending.staged if node.pending is not None else None
            return staged is not None and not staged.lists_ranges and not staged.synced

    def sync_rest(self, node: Node) -> None:
        """All of it is here. Where a program was told that its own bytes are safe, the others are synced now."""
        with self._core.lock:
            in_part = self.is_in_part(node)
        if in_part:
            self.sync(node)

    def _sync_bytes(self, node: Node, fd: int) -> None:
        try:
            self._core.staging.sync_file(fd)
        except R2fsError:
            self._failed(node)
            raise
        self._core.staging.sync()

    def _failed(self, node: Node) -> None:
        with self._core.lock:
            node.sync_failed = True
            if node.pending is not None:
                with suppress(R2fsError):  # a disk that takes no row either; else it outlasts this daemon
                    self._pending.commit(node, held(node.pending, UNSYNCED))
            self._unused(node)

    def is_as_synced(self, node: Node, staged: Staged) -> bool:
        """True with evidence that nothing was written since an fsync, so far."""
        mark = staged.fsync_mark
        if isinstance(mark, int):  # bytes were missing: every write passes this daemon
            content = self._contents.of(node)
            return staged.lists_ranges and content.own_ranges() is not None and content.changes == mark
        return mark is not None and mark == self._contents.proof(node)

    def could_take_both(self, node: Node, target: Node) -> bool:
        """True where `node` is to replace `target`, whose fsync was answered, and a power cut could leave neither."""
        with self._core.lock:
            there = target.pending.staged if target.pending is not None else None
            if there is None or not there.fsync_seen:
                return False
            pending = node.pending
            if pending is None or pending.staged is None or not pending.changed or pending.staged.synced:
                return False
            return not self.is_as_synced(node, pending.staged)

    def proven(self, node: Node, staged: Staged) -> Durability:
        """What is proven: nothing was written since an fsync, and nobody can write."""
        if not self.is_as_synced(node, staged):
            return Durability.VOLATILE
        if isinstance(staged.fsync_mark, int):
            return Durability.VOLATILE if node.writers else Durability.SYNCED_OWN
        return Durability.SYNCED if self._staged_files.nobody_writes(node) else Durability.VOLATILE

    def is_in_part(self, node: Node) -> bool:
        """True if an fsync was answered of bytes beside which others are missing, or not synced."""
        staged = node.pending.staged if node.pending is not None else None
        return staged is not None and (
            Durability.SYNCED_OWN in (staged.durability, staged.withdrawn)
            or isinstance(staged.fsync_mark, int)
        )

    def _note(self, node: Node, mark: Proof | int | None, whole: bool) -> None:
        """`mark`: as it was before the fsync. While somebody may write, it is for the last close to compare."""
        pending = node.pending
        if pending is None or (staged := pending.staged) is None:
            return
        staged = replace(staged, fsync_mark=mark)
        self._pending.note(node, with_staged(pending, staged))
        # Else its row was withdrawn before it was written to.
        synced = staged.durability is Durability.SYNCED
        synced = synced or (not pending.open and self.proven(node, staged) is not Durability.VOLATILE)
        if synced or whole or not staged.synced:
            durability = staged.durability
            if synced:
                durability = Durability.SYNCED if whole else Durability.SYNCED_OWN
            elif durability is Durability.SYNCED_OWN:
                durability = Durability.VOLATILE
            lists_ranges = staged.lists_ranges and not whole
            size = self._contents.of(node).size
            staged = replace(staged, durability=durability, lists_ranges=lists_ranges, size=size)
            self._pending.commit(node, with_staged(pending, staged))
        node.synced_on_disk = node.synced_on_disk or synced
        self._unused(node)

    def _unused(self, node: Node) -> None:
        if not node.handles:
            self._contents.closed(node)

    # ------------------------------------------------------------------ before something goes
    def copied(self, key: str) -> None:
        """An object was copied from there to another name, by a commit."""
        self._count += 1
        self._copied[nfc(key)] = self._count

    def before_replacing(self, keys: Iterable[str], by: Node | None = None) -> None:
        """To be called before a request that takes away what is at `keys` now, on behalf of `by`.

        What began as one of these objects and has another name now is on the disk when this returns.
        """
        wanted = set(map(nfc, keys))
        with self._core.lock:
            taken = [node for key in wanted for node in self._staged_from(key) if node[0] is not by]
            if not taken and self._copied.keys().isdisjoint(wanted):
                return
            covered = self._count
        for node, synced in taken:
            if not synced:
                self._sync_taken(node)
        self._core.journal.barrier()
        with self._core.lock:
            self._copied = {key: count for key, count in self._copied.items() if count > covered}

    def _sync_taken(self, node: Node) -> None:
        try:
            self.sync(node)
        except R2fsError as error:
            name = printable(node.pending.key if node.pending else node.name)
            raise LocalError(
                f"{name} began as the object that is to go, and this disk does not keep it ({error}): "
                "what is there stays until that file is sent or removed"
            ) from error

    def _staged_from(self, key: str) -> list[tuple[Node, bool]]:
        """Files that began as the object there, and whether a row says that they are synced."""
        users = [(node, node.pending) for node in self._pending.based_on(key)]
        return [
            (node, pending.staged.synced)
            for node, pending in users
            if pending is not None and pending.staged is not None
        ]

    # ------------------------------------------------------------------ at the end
    def sync_pending(self) -> None:
        """All staged bytes, then their names, then the rows that say so. Nobody else is at work any more."""
        with self._core.lock:
            # Of complete content the file is closed again: there may be more than descriptors.
            synced = [node for node in self._pending.inodes.values() if self._sync_at_end(node)]
            try:
                self._core.staging.sync()
                for node in synced:
                    if node.pending is not None and (staged := node.pending.staged) is not None:
                        durability = Durability.SYNCED_OWN if _is_partial(node) else Durability.SYNCED
                        self._pending.commit(
                            node, with_staged(node.pending, replace(staged, durability=durability))
                        )
                self._core.journal.barrier()
            except (OSError, R2fsError) as error:  # what is owed stays so, as "closed, not synced"
                log.error("the journal could not be synced: %s", error)

    def _sync_at_end(self, node: Node) -> bool:
        """Is it now, and was not before?"""
        pending = node.pending
        if pending is None or pending.staged is None or pending.staged.synced or node.sync_failed:
            return False
        try:
            self._contents.of(node).fsync()
        except R2fsError as error:  # it stays owed, as "closed, not synced"
            log.error("%s: could not be synced: %s", printable(node.name), error)
            return False
        self._unused(node)
        return True


def _is_partial(node: Node) -> bool:
    return node.content is not None and not node.content.complete
