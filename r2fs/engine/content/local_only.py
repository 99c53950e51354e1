"""Local-only files: files that are not uploaded because of their names (`local_patterns`), as SQLite's side files.

Owns:  the predicates for them, and for files that may become one by a rename.
Never: uploads one, or changes a row.
Locks: `is_local` needs none; the rest is called with Core.lock held.
"""

from __future__ import annotations

from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending import tally
from r2fs.engine.pending.records import Records


class LocalOnly:
    def __init__(self, records: Records) -> None:
        # constant
        self._core = records.core
        self._pending = records.pending

    def stays_here(self, node: Node) -> bool:
        """True for a local-only file of which the bucket has nothing."""
        patterns = self._core.settings.local_patterns
        return node.pending is not None and tally.stays_here(node.pending, patterns)

    def may_become_local(self, node: Node) -> bool:
        """True for a file of which the bucket has nothing, and to which nothing is on its way: all bytes are here."""
        pending = node.pending
        return (
            pending is not None
            and pending.expected_etag is None
            and pending.changed
            and pending.staged is not None
            and pending.in_flight is None
            and node.base is None
        )

    def is_local(self, key: str) -> bool:
        """True if `local_patterns` match the name."""
        return tally.is_local(key, self._core.settings.local_patterns)

    def expected_etag_at(self, key: str) -> str | None:
        """Return the ETag that a new inode at `key` will replace, and void its pending delete. In a transaction."""
        return None if self.is_local(key) else self._pending.deletes.take_over(key)
