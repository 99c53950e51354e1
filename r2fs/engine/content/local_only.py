"""Local-only files: files that are not uploaded because of their names (`local_patterns`), as SQLite's side files.

Owns:  the predicates for them, and the download before a file becomes one.
Never: uploads one, or changes a row.
Locks: `bring_here` takes Core.lock (30), and waits without it; `is_local` needs none; the rest is called with it held.
Fails: `bring_here` as `Hydration.whole`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache

from r2fs.engine.content.hydrate import Hydration
from r2fs.engine.content.local_file import Contents
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.model.ports import Caller


class LocalOnly:
    def __init__(self, records: Records, contents: Contents, hydration: Hydration) -> None:
        # constant
        self._core = records.core
        self._pending = records.pending
        self._contents = contents
        self._hydration = hydration

    def stays_here(self, node: Node) -> bool:
        """True for a local-only file of which the bucket has nothing."""
        pending = node.pending
        if (
            pending is None
            or pending.expected_etag is not None
            or not pending.changed
            or pending.staged is None
        ):
            return False
        return self.is_local(pending.key)

    def is_coming(self, node: Node) -> bool:
        """True while a file renamed to a local-only name still has its bytes only in the bucket."""
        pending, base = node.pending, node.base
        if (
            pending is None
            or pending.changed
            or pending.expected_etag is not None
            or base is None
            or node.carries_body
        ):
            return False
        # A file that had such a name in the bucket stays there: its directory was renamed.
        return self.is_local(pending.key) and (pending.staged is not None or not self.is_local(base.key))

    def is_local(self, key: str) -> bool:
        """True if `local_patterns` match the name."""
        name = key.rpartition("/")[2]
        return _matches(self._core.settings.local_patterns)(name) is not None

    def expected_etag_at(self, key: str) -> str | None:
        """Return the ETag that a new inode at `key` will replace, and void its pending delete. In a transaction."""
        return None if self.is_local(key) else self._pending.deletes.take_over(key)

    def bring_here(self, caller: Caller, node: Node) -> None:
        """Download all bytes of a file that is about to be this host's alone. Without the lock."""
        while True:
            with self._core.lock:
                if self.stays_here(node) or node.deleted:
                    return
                caller.about_to_fetch()
                self._contents.wake(node)
            if self._hydration.whole(node, caller, keep=True):
                return


@lru_cache(maxsize=4)
def _matches(patterns: tuple[str, ...]) -> Callable[[str], re.Match[str] | None]:
    """Compile all patterns as one, once: each pending file is matched whenever the queue is shown."""
    return re.compile("|".join(map(translate, patterns)) or r"(?!)").match
