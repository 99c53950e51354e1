"""Syncing: what has to be on the disk before something else may go that a power cut could want back.

Owns:    the proof that a file's bytes are synced; copies whose outcome the disk may not know; files whose bytes
         were brought here from an object, and may not be on the disk. A copy's outcome, a rename and a download
         survive kill -9 at once, but a power cut only after a sync: until then whatever they came from is all
         that the next boot is sure to find.
Never:   sends anything.
Threads: `copied` and `brought` are called with Core.lock held; everything else takes it itself, and waits for
         the disk without it.
Fails:   LocalError where the disk does: nothing is to be replaced then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from r2fs.disk.durable import fsync_dir, local_error, outwait_file_time
from r2fs.engine.contents import Contents
from r2fs.engine.core import Core
from r2fs.engine.ledger import Ledger
from r2fs.engine.node import Node, Owed
from r2fs.model.keys import nfc
from r2fs.model.records import Proof
from r2fs.model.states import UNSEALED


class Syncing:
    def __init__(self, core: Core, ledger: Ledger, contents: Contents) -> None:
        # constant
        self._core = core
        self._ledger = ledger
        self._contents = contents
        # guarded by: Core.lock
        self._copied: dict[str, int] = {}  # NFC key: which copy from it was the last
        self._count = 0
        self._inherited = True  # an earlier run's outcomes may not be on the disk either
        self._brought: dict[Node, str] = {}  # files whose bytes came from the object at that NFC key

    # ------------------------------------------------------------------ one file
    def sync(self, node: Node) -> None:
        """Its bytes, their name and the row that tells of them are on the disk when this returns."""
        whole = False
        with self._core.lock:
            if node.owed is None:
                return
            content = self._contents.of(node) if node.owed.staged else None
            if content is not None:
                whole, proof = content.complete, self._contents.proof(node)
                fd = content.reader()  # of our own: it may be sent and closed meanwhile
        if content is not None:
            try:
                lasting = outwait_file_time(proof.ctime_ns)  # else the clock has stepped back
                self._sync_bytes(node, fd)
            finally:
                os.close(fd)
            self._core.crash_point("bytes_synced")
            self._note(node, proof if lasting else None)
            self._core.crash_point("sync_journalled")
        self._core.journal.barrier()
        if whole:
            with self._core.lock:
                self._brought.pop(node, None)

    def _sync_bytes(self, node: Node, fd: int) -> None:
        directory = self._core.journal.data_dir
        try:
            os.fsync(fd)
        except OSError as error:
            node.sync_failed = True  # the kernel tells of it once, and forgets what it could not write
            raise local_error(error, directory) from error
        try:
            fsync_dir(directory)
        except OSError as error:
            raise local_error(error, directory) from error

    def is_synced(self, node: Node, owed: Owed) -> bool:
        """Is there proof that nothing was written since an fsync?"""
        if owed.synced_as is None or self._contents.proof(node) != owed.synced_as:
            return False
        return self._contents.nobody_writes(node)

    def _note(self, node: Node, proof: Proof | None) -> None:
        """`proof`: fstat before the fsync. While somebody may write, it is for the last close to compare."""
        with self._core.lock:
            owed = node.owed
            if owed is None or owed.staged is None:
                return
            owed.synced_as = proof
            synced = owed.synced or (node.state not in UNSEALED and self.is_synced(node, owed))
            self._ledger.update(node, synced=synced, size=self._contents.of(node).size)
            node.vouched = node.vouched or synced
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

    def secure_brought(self, node: Node) -> None:
        """All of it is here. Before its row says so, which else would be that of a file that may be torn."""
        with self._core.lock:
            if node not in self._brought:
                return
        self.sync(node)

    def before_replacing(self, keys: Iterable[str]) -> None:
        """To be called before a request that takes away what is at `keys` now. May wait for the disk."""
        wanted = set(map(nfc, keys))
        with self._core.lock:
            brought = [node for node, key in self._brought.items() if key in wanted]
            if not (self._inherited or brought or not self._copied.keys().isdisjoint(wanted)):
                return
            covered = self._count
        for node in brought:
            self.sync(node)
        self._core.journal.barrier()
        with self._core.lock:
            self._inherited = False
            self._copied = {key: count for key, count in self._copied.items() if count > covered}
            for node in brought:  # one that is gone meanwhile, too
                self._brought.pop(node, None)
