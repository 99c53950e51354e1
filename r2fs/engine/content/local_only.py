"""Local files: what only this host needs, by its name (`local_patterns`): SQLite's side files and the like.

Owns:  which those are, and what has to be here before a file becomes one.
Never: sends one, or changes a row.
Locks: `bring_here` takes Core.lock (30), and waits without it; `is_local` needs none; the rest is called with it held.
Fails: ReadFailed, LocalError and their like, where the bytes cannot be brought here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache

from r2fs.engine.content.local_file import Contents
from r2fs.engine.content.reader import Reader
from r2fs.engine.inodes.inode import Node
from r2fs.engine.pending.records import Records
from r2fs.model.ports import Caller


class LocalOnly:
    def __init__(self, records: Records, contents: Contents, reader: Reader) -> None:
        # constant
        self._core = records.core
        self._pending = records.pending
        self._contents = contents
        self._reader = reader

    def stays_here(self, node: Node) -> bool:
        """Is it one of them, of which the bucket has nothing?"""
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
        """Is it to be one of them, and the bucket still its only safe place?"""
        pending, base = node.pending, node.base
        if (
            pending is None
            or pending.changed
            or pending.expected_etag is not None
            or base is None
            or node.carries_body
        ):
            return False
        # One that had such a name in the bucket goes on being there: its directory was renamed.
        return self.is_local(pending.key) and (pending.staged is not None or not self.is_local(base.key))

    def is_local(self, key: str) -> bool:
        """Do the settings say that files of this name are not for the bucket?"""
        name = key.rpartition("/")[2]
        return _matches(self._core.settings.local_patterns)(name) is not None

    def expected_etag_at(self, key: str) -> str | None:
        """The ETag that a new node at `key` will replace; its pending delete is void. In a transaction."""
        return None if self.is_local(key) else self._pending.deletes.take_over(key)

    def bring_here(self, caller: Caller, node: Node) -> None:
        """All bytes of a file: it is about to be this host's alone. Without the lock."""
        while True:
            with self._core.lock:
                if self.stays_here(node) or node.deleted:
                    return
                caller.about_to_fetch()
                self._contents.wake(node)
                source = self._contents.source(node)
                if source is not None:
                    self._contents.keep_whole(node)
            if source is None:
                return
            try:
                self._reader.whole(source, caller)
                return
            except ValueError:
                if not source.content.closed:
                    raise  # else somebody's last close meanwhile: once more


@lru_cache(maxsize=4)
def _matches(patterns: tuple[str, ...]) -> Callable[[str], re.Match[str] | None]:
    """All patterns as one: asked of every owed file whenever the queue is shown."""
    return re.compile("|".join(map(translate, patterns)) or r"(?!)").match
