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

from r2fs.disk.durable import outwait_file_time
from r2fs.engine.content.local_file import Contents
from r2fs.engine.core import Core
from r2fs.engine.inodes.inode import UNSYNCED, Node, Pending
from r2fs.engine.pending.store import PendingStore
from r2fs.model.errors import LocalError, R2fsError
from r2fs.model.keys import nfc, printable
from r2fs.model.records import Proof
from r2fs.model.states import UNSEALED

log = logging.getLogger(__name__)


class Durability:
    def __init__(self, core: Core, pending_store: PendingStore, contents: Contents) -> None:
        # constant
        self._core = core
        self._pending = pending_store
        self._contents = contents
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
        """Has the rest come while its own bytes were synced, and does its row count on it by now?"""
        with self._core.lock:
            pending = node.pending
            return (
                pending is not None
                and pending.staged is not None
                and not pending.in_ranges
                and not pending.synced
            )

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
                    self._pending.update(node, reason=UNSYNCED)
            self._unused(node)

    def is_as_synced(self, node: Node, pending: Pending) -> bool:
        """Is there proof that nothing was written since an fsync, so far?"""
        if isinstance(pending.synced_as, int):  # bytes were missing: whoever writes to it, comes by here
            content = self._contents.of(node)
            return (
                pending.in_ranges
                and content.own_ranges() is not None
                and content.changes == pending.synced_as
            )
        return pending.synced_as is not None and pending.synced_as == self._contents.proof(node)

    def could_take_both(self, node: Node, target: Node) -> bool:
        """`node` is to replace `target`, of which a program was told that it is safe: would a power cut leave neither?"""
        with self._core.lock:
            if target.pending is None or not target.pending.once_synced:
                return False
            pending = node.pending
            if pending is None or pending.staged is None or not pending.changed or pending.synced:
                return False
            return not self.is_as_synced(node, pending)

    def is_synced(self, node: Node, pending: Pending) -> bool:
        """Is there proof that nothing was written since an fsync, and that nobody can?"""
        if not self.is_as_synced(node, pending):
            return False
        return not node.writers if isinstance(pending.synced_as, int) else self._contents.nobody_writes(node)

    def is_in_part(self, node: Node) -> bool:
        """Is a program told that its bytes are safe where the others are not, or not all here?"""
        pending = node.pending
        return pending is not None and (pending.in_part or isinstance(pending.synced_as, int))

    def _note(self, node: Node, proof: Proof | int | None, whole: bool) -> None:
        """`proof`: as it was before the fsync. While somebody may write, it is for the last close to compare."""
        pending = node.pending
        if pending is None or pending.staged is None:
            return
        pending.synced_as = proof
        synced = (
            pending.synced and not pending.in_part
        )  # else its row had been taken back before it was written to
        synced = synced or (node.state not in UNSEALED and self.is_synced(node, pending))
        changes: dict[str, object] = {"in_part": False, "in_ranges": False} if whole else {}
        if synced and not whole:
            changes["in_part"] = True
        if synced or whole or not pending.synced:
            self._pending.update(node, synced=synced, size=self._contents.of(node).size, **changes)
        node.vouched = node.vouched or synced
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
            (node, pending.synced)
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
                    self._pending.update(node, synced=True, in_part=_is_partial(node))
                self._core.journal.barrier()
            except (OSError, R2fsError) as error:  # what is owed stays so, as "closed, not synced"
                log.error("the journal could not be synced: %s", error)

    def _sync_at_end(self, node: Node) -> bool:
        """Is it now, and was not before?"""
        pending = node.pending
        if pending is None or pending.staged is None or pending.synced or node.sync_failed:
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
