"""Tally: sums over the pending inodes, updated with each change. A status reads the sums under Core.lock.

Owns:  the staged bytes of all, the inodes in work, parked or local-only, and the sums of the others: a status takes as
       long for a hundred thousand pending files as for one.
Never: reads a node's pending state: PendingStore passes the value before and after.
Locks: Core.lock around every method.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache

from r2fs.engine.inodes.inode import Node
from r2fs.model.pending import SENDING, Pending, State


class Tally:
    def __init__(self, local_patterns: tuple[str, ...]) -> None:
        # constant
        self.local_patterns = local_patterns  # of the settings by which `local` is decided
        # guarded by: Core.lock
        self.sending: dict[int, Node] = {}  # by inode number, as the others
        self.parked: dict[int, Node] = {}
        self.local: set[int] = set()  # local-only files: in no sum
        self.files = self.directories = 0
        self.bytes = self.parked_bytes = 0  # staged
        self.staged_bytes = 0  # of local-only files, too

    def change(self, node: Node, before: Pending | None, after: Pending | None) -> None:
        """Replace the value of a node; None: clean."""
        ino = node.ino
        if before is not None:
            size = before.size
            self.staged_bytes -= size
            if ino in self.local:
                self.local.discard(ino)
            else:
                self._count(node, before, -1, -size)
                self.sending.pop(ino, None)
                self.parked.pop(ino, None)
        if after is None:
            return
        size = after.size
        self.staged_bytes += size
        if stays_here(after, self.local_patterns) and not after.lists_ranges:
            self.local.add(ino)
            return
        self._count(node, after, 1, size)
        if after.state in SENDING:
            self.sending[ino] = node
        elif after.state is State.PARKED:
            self.parked[ino] = node

    def _count(self, node: Node, pending: Pending, sign: int, size: int) -> None:
        self.bytes += size
        if pending.state is State.PARKED:
            self.parked_bytes += size
        if node.is_dir:
            self.directories += sign
        else:
            self.files += sign


def stays_here(pending: Pending | None, patterns: tuple[str, ...]) -> bool:
    """True for a local-only file of which the bucket has nothing."""
    if pending is None or pending.expected_etag is not None or not pending.changed or pending.staged is None:
        return False
    return is_local(pending.key, patterns)


def is_local(key: str, patterns: tuple[str, ...]) -> bool:
    """True if `local_patterns` match the name."""
    return _matches(patterns)(key.rpartition("/")[2]) is not None


@lru_cache(maxsize=4)
def _matches(patterns: tuple[str, ...]) -> Callable[[str], re.Match[str] | None]:
    """Compile all patterns as one, once: the name of each changed file is matched."""
    return re.compile("|".join(map(translate, patterns)) or r"(?!)").match
