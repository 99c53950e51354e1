"""Hydration: bytes of an inode's base that are missing on this host are downloaded into its local file.

Threads: every method; each waits for downloads without the lock.
Locks:   takes Core.lock.
Fails:   as `Reader`: Stale where the version is gone, ReadFailed, NoSpace, LocalError, Interrupted, WouldWait.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from r2fs.engine.content.local_file import Contents
from r2fs.engine.content.reader import Reader
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.model.errors import ObjectMissing, ReadFailed, Stale, StoreError
from r2fs.model.keys import nfc, printable
from r2fs.model.ports import Caller
from r2fs.model.records import ObjectInfo, Version
from r2fs.model.transitions import expecting


class Hydration:
    def __init__(self, records: Records, contents: Contents, reader: Reader) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts
        self._contents = contents
        self._reader = reader

    def whole(self, node: Node, caller: Caller) -> bool:
        """Download all that is missing. False: the content was closed meanwhile, and nobody needs it any more, or
        it is opened anew."""
        with self._core.lock:
            source = self._contents.source(node)
        if source is None:
            return True
        try:
            self.fetch_base(node, partial(self._reader.whole, source, caller))
        except ValueError:
            if not source.content.closed:
                raise
            return False
        return True

    def is_copy(self, node: Node, of: Version, info: ObjectInfo) -> bool:
        return info.size == of.size and self._attempts.is_copy(node.ino, of, info.metadata)

    def fetch_base(self, node: Node, fetch: Callable[[], None]) -> None:
        """`fetch` what it lacks of its base; again, where that is gone because of a copy of our own whose answer
        has not come yet."""
        base = node.base
        try:
            fetch()
        except Stale:
            if not self.found_own_copy(node, base):
                raise
            fetch()

    def found_own_copy(self, node: Node, gone: Version | None) -> bool:
        """`gone` was its base. Is what is there now the same bytes, by such a copy? Then that is its base.

        Raises ReadFailed where the bucket does not say.
        """
        with self._core.lock:
            base = node.base
            if base is None:
                return False
            if base != gone:  # somebody else has found it, or its answer has come
                self._contents.rebased(node)
                return True
        try:
            info = self._core.store.head(base.key)
        except ObjectMissing:
            info = None
        except StoreError as error:  # nobody knows yet
            raise ReadFailed(f"{printable(base.key)}: {error}") from error
        with self._core.lock:
            pending = node.pending
            if node.base != base:
                self._contents.rebased(node)
                return node.base is not None
            if info is not None and info.version == base:
                return False
            if info is None or pending is None or not self.is_copy(node, base, info):
                self._contents.lost(node, base)
                self._tree.distrust(node)
                return False
            etag = info.etag if nfc(pending.key) == nfc(base.key) else pending.expected_etag
            self._pending.commit(node, expecting(pending, etag), base=info.version)
            self._contents.rebased(node)
            return True
