"""Own copies: the object of the same bytes that a copy of this host has made of a base which the bucket has no more.

Never:   downloads (`content/hydrate.py`); sends a request unless such a copy may be under way.
Threads: every public method is thread-safe.
Locks:   takes Core.lock (30). No request under it.
Fails:   ReadFailed if the bucket does not answer.
"""

from __future__ import annotations

from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.model.errors import ReadFailed, StoreError
from r2fs.model.keys import nfc, printable
from r2fs.model.records import ObjectInfo, Version
from r2fs.model.transitions import expecting


class OwnCopies:
    def __init__(self, records: Records) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts

    def is_copy(self, node: Node, of: Version, info: ObjectInfo) -> bool:
        """True if the object `info` is a copy of `of` that this host made for the inode."""
        return info.size == of.size and self._attempts.is_copy(node.ino, of, info.metadata)

    def find(self, node: Node, missing: Version) -> bool:
        """Look for the bytes of the missing version in a copy by this host; make that object the base.

        False: there is none.
        """
        with self._core.lock:
            base = node.base
            if base is None:
                return False
            if base != missing:  # found by another thread, or its answer has arrived
                return True
            if not self._attempts.may_be_copied(node, base):
                self._lose(node, base)
                return False
        try:
            info = self._core.head(base.key)
        except StoreError as error:
            raise ReadFailed(f"{printable(base.key)}: {error}") from error
        with self._core.lock:
            pending = node.pending
            if node.base != base:
                return node.base is not None
            if info is not None and info.version == base:
                return False
            if info is None or pending is None or not self.is_copy(node, base, info):
                self._lose(node, base)
                return False
            etag = info.etag if nfc(pending.key) == nfc(base.key) else pending.expected_etag
            self._pending.commit(node, expecting(pending, etag), base=info.version)
            return True

    def _lose(self, node: Node, base: Version) -> None:
        """Note a missing base: uploads to its key need not wait for this inode any more."""
        node.base_missing = base
        self._pending.waiting.inode_settled(node.ino)
        self._tree.distrust(node)
