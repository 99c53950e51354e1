"""Syncing: what has to be on the disk before something else may go that a power cut could want back.

Owns:    the proof that a file's bytes are synced; copies whose outcome the disk may not know; files whose bytes
         were brought here from an object, and may not be on the disk. A copy's outcome, a rename and a download
         survive kill -9 at once, but a power cut only after a sync: until then whatever they came from is all
         that the next boot is sure to find.
Never:   sends anything; takes a second fsync's word where one has failed: the kernel tells of it once, and
         forgets what it could not write.
Threads: `copied`, `brought`, `proof` and `is_synced` are called with Core.lock held; everything else takes it
         itself, and waits for the disk without it.
Fails:   LocalError where the disk does: nothing is to be replaced then.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from r2fs.disk.durable import fsync_dir, local_error, outwait_file_time, sync_file_system
from r2fs.engine.contents import Contents
from r2fs.engine.core import Core
from r2fs.engine.ledger import Ledger
from r2fs.engine.node import UNSYNCED, Node, Owed
from r2fs.model.errors import LocalError, R2fsError
from r2fs.model.keys import nfc, printable
from r2fs.model.records import Proof
from r2fs.model.states import UNSEALED

log = logging.getLogger(__name__)


class Syncing:
    def __init__(self, core: Core, ledger: Ledger, contents: Contents) -> None:
        # constant
        self._core = core
        self._ledger = ledger
        self._contents = contents
        # guarded by: Core.lock
        self._copied: dict[str, int] = {}  # NFC key: which copy from it was the last
        self._count = 0
        self._brought: dict[Node, str] = {}  # files whose bytes came from the object at that NFC key
        self.inherited = False  # what an earlier run staged may not be on the disk

    # ------------------------------------------------------------------ one file
    def sync(self, node: Node) -> None:
        """Its bytes, their name and the row that tells of them are on the disk when this returns."""
        with self._core.lock:
            if node.owed is None:
                return
            content = self._contents.of(node) if node.owed.staged else None
            if content is not None:
                if node.sync_failed:
                    raise LocalError(f"{printable(node.name)}: {UNSYNCED}")
                whole, proof = content.complete, self.proof(node)
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
                self._note(node, proof if lasting else None)
                if whole:
                    self._brought.pop(node, None)
            self._core.crash_point("sync_journalled")
        self._core.journal.barrier()

    def _sync_bytes(self, node: Node, fd: int) -> None:
        directory = self._core.journal.data_dir
        try:
            os.fsync(fd)
        except OSError as error:
            with self._core.lock:
                node.sync_failed = True
                self._unused(node)
            raise local_error(error, directory) from error
        try:
            fsync_dir(directory)
        except OSError as error:
            raise local_error(error, directory) from error

    def proof(self, node: Node) -> Proof | int:
        """What changes when somebody writes to it. While bytes are missing, those that come do not count."""
        content = self._contents.of(node)
        return self._contents.proof(node) if content.complete else content.changes

    def is_synced(self, node: Node, owed: Owed) -> bool:
        """Is there proof that nothing was written since an fsync?"""
        if owed.synced_as is None or self.proof(node) != owed.synced_as:
            return False
        if isinstance(owed.synced_as, int):  # whoever writes to it, comes by here
            return not node.writers
        return self._contents.nobody_writes(node)

    def is_in_part(self, node: Node) -> bool:
        """Is a program told that its bytes are safe where the others are not, or not all here?"""
        owed = node.owed
        return owed is not None and (owed.in_part or isinstance(owed.synced_as, int))

    def _note(self, node: Node, proof: Proof | int | None) -> None:
        """`proof`: as it was before the fsync. While somebody may write, it is for the last close to compare."""
        owed = node.owed
        if owed is None or owed.staged is None:
            return
        owed.synced_as = proof
        in_part = isinstance(proof, int)
        synced = node.state not in UNSEALED and self.is_synced(node, owed)
        if synced or not owed.synced:
            self._ledger.update(
                node, synced=synced, in_part=synced and in_part, size=self._contents.of(node).size
            )
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

    def brought(self, node: Node, key: str) -> None:
        """The bytes of `node` are, or will be, those of the object at `key`."""
        self._brought[node] = nfc(key)

    def before_replacing(self, keys: Iterable[str]) -> None:
        """To be called before a request that takes away what is at `keys` now. May wait for the disk."""
        wanted = set(map(nfc, keys))
        with self._core.lock:
            inherited = self.inherited
            brought = [node for node, key in self._brought.items() if key in wanted]
            if not (inherited or brought or not self._copied.keys().isdisjoint(wanted)):
                return
            covered = self._count
        if inherited:
            self._sync_all()
        for node in brought:
            self.sync(node)
        self._core.journal.barrier()
        with self._core.lock:
            self._copied = {key: count for key, count in self._copied.items() if count > covered}
            for node in brought:  # one that is gone meanwhile, too
                self._brought.pop(node, None)

    def _sync_all(self) -> None:
        directory = self._core.journal.data_dir
        try:
            sync_file_system(directory)
        except OSError as error:
            raise local_error(error, directory) from error
        with self._core.lock:
            self.inherited = False

    # ------------------------------------------------------------------ at the end
    def sync_owed(self) -> None:
        """All staged bytes, then their names, then the rows that say so. Nobody else is at work any more."""
        with self._core.lock:
            # Of complete content the file is closed again: there may be more than descriptors.
            synced = [node for node in self._ledger.owing.values() if self._sync_at_end(node)]
            try:
                fsync_dir(self._core.journal.data_dir)
                for node in synced:
                    self._ledger.update(node, synced=True, in_part=_is_partial(node))
                self._core.journal.barrier()
            except (OSError, R2fsError) as error:  # what is owed stays so, as "closed, not synced"
                log.error("the journal could not be synced: %s", error)

    def _sync_at_end(self, node: Node) -> bool:
        """Is it now, and was not before?"""
        owed = node.owed
        if owed is None or owed.staged is None or owed.synced or node.sync_failed:
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
