"""Handles: table of the open files, by number.

Owns:  handle numbers, and what each handle was opened for.
Never: opens or closes content: `files/open_files.py` does, when the count says so.
Locks: every method is called with Core.lock held.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import count

from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import BadHandle


@dataclass(slots=True, eq=False)
class Handle:
    number: int  # constant
    node: Node  # constant
    flags: int  # constant: open(2)'s
    writes: bool  # constant
    error: Exception | None = None  # of background work; raised at the next flush or fsync

    @property
    def appends(self) -> bool:
        return bool(self.flags & os.O_APPEND)


class Handles:
    def __init__(self) -> None:
        self._numbers = count(time.time_ns())  # start above those of any earlier daemon
        self._open: dict[int, Handle] = {}
        self.written: dict[Node, None] = {}  # nodes that have writers

    def add(self, node: Node, flags: int) -> Handle:
        return self._insert(Handle(next(self._numbers), node, flags, bool(flags & os.O_ACCMODE)))

    def restore(self, number: int, node: Node, flags: int) -> Handle:
        """Add a handle of an earlier daemon under its number."""
        self._numbers = count(max(next(self._numbers), number + 1))
        return self._insert(Handle(number, node, flags, bool(flags & os.O_ACCMODE)))

    def _insert(self, handle: Handle) -> Handle:
        self._open[handle.number] = handle
        handle.node.handles += 1
        handle.node.writers += handle.writes
        if handle.writes:
            self.written[handle.node] = None
        return handle

    def get(self, number: int) -> Handle:
        """Return an open handle. Raises BadHandle."""
        handle = self._open.get(number)
        if handle is None:
            raise BadHandle(f"handle {number} is not open")
        return handle

    def remove(self, number: int) -> Handle | None:
        handle = self._open.pop(number, None)
        if handle is not None:
            handle.node.handles -= 1
            handle.node.writers -= handle.writes
            if not handle.node.writers:
                self.written.pop(handle.node, None)
        return handle

    def all(self) -> list[Handle]:
        return list(self._open.values())
