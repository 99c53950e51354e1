"""Hydration of an inode: downloads bytes of its base object that are missing on this host.

Owns:    the base that a copy of this host, whose answer is still under way, has replaced.
Never:   requests ranges (`content/hydrate.py`).
Threads: every public method is thread-safe.
Locks:   takes Core.lock (30). No request and no wait under it.
Fails:   as Reader does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from r2fs.disk.open_file import ContentClosed
from r2fs.engine.content.hydrate import Reader
from r2fs.engine.content.jobs import URGENT
from r2fs.engine.content.local_file import Contents
from r2fs.engine.content.source import Source
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.model.errors import ReadFailed, Stale, StoreError
from r2fs.model.keys import nfc, printable
from r2fs.model.ports import Caller
from r2fs.model.ranges import Range
from r2fs.model.records import ObjectInfo, Version
from r2fs.model.settings.program_rules import ProgramRule
from r2fs.model.transitions import expecting


class Hydration:
    def __init__(self, records: Records, contents: Contents, reader: Reader) -> None:
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._attempts = records.attempts
        self._contents = contents
        self._reader = reader

    def whole(self, node: Node, caller: Caller, keep: bool = False, priority: int = URGENT) -> bool:
        """Download all missing bytes. False: the local file was closed meanwhile; where it is still needed, repeat.

        `keep`: the file is about to be this host's; all of it stays on the disk, whatever the cache's limit.
        """
        with self._core.lock:
            source = self._contents.source(node)
            if keep and source is not None:
                self._contents.keep_whole(node)
        if source is None:
            return True
        try:
            self._from_base(node, lambda: self._reader.whole(source, caller, priority))
        except ContentClosed:
            return False
        return True

    def ensure(
        self, node: Node, source: Source, wanted: Range, caller: Caller, rule: ProgramRule | None = None
    ) -> None:
        """Return when the range is in the file of an open handle. `rule`: of the program that opened it."""
        if rule is None:
            self._from_base(node, lambda: self._reader.ensure(source, *wanted, caller))
        else:
            self._from_base(node, lambda: self._reader.restrained(source, *wanted, caller, rule))

    def read_whole(self, node: Node, caller: Caller) -> bytes:
        """Return all bytes of an inode that need not be open: a symbolic link's target."""
        while True:
            with self._core.lock:
                self._contents.wake(node)
                content = self._contents.of(node)
            with suppress(ContentClosed):  # by another reader's last close meanwhile: repeat
                if self.whole(node, caller):
                    return content.read(0, content.size)

    def is_copy(self, node: Node, of: Version, info: ObjectInfo) -> bool:
        """True if the object `info` is a copy of `of` that this host made for the inode."""
        return info.size == of.size and self._attempts.is_copy(node.ino, of, info.metadata)

    def _from_base(self, node: Node, download: Callable[[], None]) -> None:
        """Download from the base; once more if a copy of this host, whose answer is still under way, replaced it."""
        base = node.base
        try:
            download()
        except Stale:
            if not self.found_own_copy(node, base):
                raise
            download()

    def found_own_copy(self, node: Node, missing: Version | None) -> bool:
        """Look for the same bytes as in the missing base, copied by this host; make that object the base.

        Raises ReadFailed if the bucket does not answer.
        """
        with self._core.lock:
            base = node.base
            if base is None:
                return False
            if base != missing:  # found by another thread, or its answer has arrived
                self._contents.rebased(node)
                return True
        try:
            info = self._core.head(base.key)
        except StoreError as error:
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
