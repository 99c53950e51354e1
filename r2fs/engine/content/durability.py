"""Durability: fsync of files, and syncs that must precede the replacement or deletion of an object.

Owns:    the evidence that a file's bytes are synced; copies in the bucket that the journal on the disk may lack. A copy,
         a rename, a download and an edit survive kill -9 at once, but a power cut only after a sync: until then only
         their base object is sure to be found at the next boot.
Never:   sends a request; trusts a second fsync after a failed one: the kernel reports an error once, and drops the
         pages that it could not write.
Threads: `copied`, `is_as_synced`, `proven` and `is_in_part` are called with Core.lock held; every other method takes it,
         and waits for the disk without it.
Fails:   LocalError if the disk fails: the object must not be replaced then.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import suppress

from r2fs.disk.filecalls import outwait_file_time
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
        self._copied: dict[str, int] = {}  # NFC key: number of the last copy from it
        self._count = 0

    # ---- one file
    def sync(self, node: Node) -> None:
        """Return when the file's bytes, their name and their row are on the disk."""
        with self._core.lock:
            if node.pending is None:
                return
            content = self._contents.of(node) if node.pending.staged else None
            if content is not None:
                if node.sync_failed:
                    raise LocalError(f"{printable(node.name)}: {UNSYNCED}")
                whole = content.complete
                proof = self._contents.proof(node) if whole else content.changes
                fd = content.reader()  # a second one: the content may be uploaded and closed meanwhile
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
        """True if the rest was downloaded while this host's bytes were synced, and the row relies on all of them."""
        with self._core.lock:
            staged = node.pending.staged if node.pending is not None else None
            return staged is not None and not staged.lists_ranges and not staged.synced

    def sync_rest(self, node: Node) -> None:
        """Sync a file that has become complete, if an fsync was answered while bytes were missing."""
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
                with suppress(R2fsError):  # if the disk takes the row, the error outlasts this daemon
                    self._pending.commit(node, held(node.pending, UNSYNCED))
            self._contents.close_unused(node)

    def is_as_synced(self, node: Node, staged: Staged) -> bool:
        """True with evidence that nothing was written since an fsync, so far."""
        mark = staged.fsync_mark
        if isinstance(mark, int):  # bytes were missing: every write passed this daemon
            content = self._contents.of(node)
            return staged.lists_ranges and content.own_ranges() is not None and content.changes == mark
        return mark is not None and mark == self._contents.proof(node)

    def could_take_both(self, node: Node, target: Node) -> bool:
        """True if `node` is about to replace `target`, whose fsync was answered, and a power cut could leave neither."""
        with self._core.lock:
            there = target.pending.staged if target.pending is not None else None
            if there is None or not there.fsync_seen:
                return False
            pending = node.pending
            if pending is None or pending.staged is None or not pending.changed or pending.staged.synced:
                return False
            return not self.is_as_synced(node, pending.staged)

    def proven(self, node: Node, staged: Staged) -> Durability:
        """Return the durability for which there is evidence: no write since an fsync, and no writer."""
        if not self.is_as_synced(node, staged):
            return Durability.VOLATILE
        if isinstance(staged.fsync_mark, int):
            return Durability.VOLATILE if node.writers else Durability.SYNCED_OWN
        return Durability.SYNCED if self._staged_files.nobody_writes(node) else Durability.VOLATILE

    def is_in_part(self, node: Node) -> bool:
        """True if only the locally written ranges were fsynced; the rest is missing or unsynced."""
        staged = node.pending.staged if node.pending is not None else None
        return staged is not None and (
            Durability.SYNCED_OWN in (staged.durability, staged.withdrawn)
            or isinstance(staged.fsync_mark, int)
        )

    def _note(self, node: Node, mark: Proof | int | None, whole: bool) -> None:
        """Record an fsync. `mark`: the evidence from before it; with writers the last close compares it."""
        pending = node.pending
        if pending is None or (staged := pending.staged) is None:
            return
        staged = staged._replace(fsync_mark=mark)
        self._pending.note(node, with_staged(pending, staged))
        # Else `WriteSessions.changing` withdrew it before a write.
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
            staged = staged._replace(durability=durability, lists_ranges=lists_ranges, size=size)
            self._pending.commit(node, with_staged(pending, staged))
        node.synced_on_disk = node.synced_on_disk or synced
        self._contents.close_unused(node)

    # ---- before an object is replaced or deleted
    def copied(self, key: str) -> None:
        """Record a commit by which the object at `key` was copied to another name."""
        self._count += 1
        self._copied[nfc(key)] = self._count

    def has_copied(self, key: str) -> bool:
        """True if an object was copied from `key` to another name, by a commit that may not be on the disk yet."""
        return nfc(key) in self._copied

    def before_replacing(self, keys: Iterable[str], by: Node | None = None) -> None:
        """Sync the files that began as an object at `keys` and have another name now.

        Called before a request that replaces or deletes these objects, on behalf of `by`.
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
        """Return the staged files that began as the object at `key`, and whether each row calls them synced."""
        users = [(node, node.pending) for node in self._pending.based_on(key)]
        return [
            (node, pending.staged.synced)
            for node, pending in users
            if pending is not None and pending.staged is not None
        ]

    # ---- at the end of the mount
    def close_pending(self) -> None:
        """Close the staged files, at the end: their bytes and rows stay for the next start."""
        with self._core.lock:
            for node in self._pending.inodes.values():
                if node.content is not None:
                    node.content.close()

    def sync_pending(self) -> None:
        """Sync all staged bytes, then their names, then their rows. Every other thread has ended."""
        with self._core.lock:
            # `_sync_at_end` closes complete files: there may be more of them than descriptors.
            synced = [node for node in self._pending.inodes.values() if self._sync_at_end(node)]
            try:
                self._core.staging.sync()
                for node in synced:
                    if node.pending is not None and (staged := node.pending.staged) is not None:
                        durability = Durability.SYNCED_OWN if _is_partial(node) else Durability.SYNCED
                        self._pending.commit(
                            node, with_staged(node.pending, staged._replace(durability=durability))
                        )
                self._core.journal.barrier()
            except (OSError, R2fsError) as error:  # the rows stay as "closed, not synced"
                log.error("the journal could not be synced: %s", error)

    def _sync_at_end(self, node: Node) -> bool:
        """Sync a file. True if its row does not say so yet."""
        pending = node.pending
        if pending is None or pending.staged is None or pending.staged.synced or node.sync_failed:
            return False
        try:
            self._contents.of(node).fsync()
        except R2fsError as error:  # the row stays as "closed, not synced"
            log.error("%s: could not be synced: %s", printable(node.name), error)
            return False
        self._contents.close_unused(node)
        return True


def _is_partial(node: Node) -> bool:
    return node.content is not None and not node.content.complete
