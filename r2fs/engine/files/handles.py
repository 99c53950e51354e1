"""Handles: open files by number, and the processes that are about to copy one.

Owns:    the numbers, which no earlier daemon had given; the counts of handles and writers of each inode.
Never:   opens or closes a local file.
Locks:   every method is called with Core.lock held.
Fails:   BadHandle.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import count

from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import BadHandle, R2fsError
from r2fs.model.settings.program_rules import ProgramRule


@dataclass(slots=True, eq=False)
class Handle:
    number: int  # constant
    node: Node  # constant
    flags: int  # constant: open(2)'s
    writes: bool  # constant
    opener: int = 0  # process that opened a file with missing bytes, until it reads; 0: none
    descriptor: bool = True  # the driver may have the file's own: not each write is seen
    error: Exception | None = None  # of background work; raised at the next flush or fsync
    rule: ProgramRule | None = (
        None  # of the program that opened it for reading; set before the handle is known
    )
    restored: bool = False  # opened for reading before a take-over: its next read shows the program

    @property
    def appends(self) -> bool:
        return bool(self.flags & os.O_APPEND)


class Handles:
    """Open handles by number."""

    def __init__(self) -> None:
        self._numbers = count(time.time_ns())  # start above those of any earlier daemon
        self._open: dict[int, Handle] = {}
        self._openers: dict[int, int] = {}  # Handle.opener: handles
        self.written: dict[Node, None] = {}  # inodes that have writers

    def add(self, node: Node, flags: int) -> Handle:
        return self._insert(Handle(next(self._numbers), node, flags, bool(flags & os.O_ACCMODE)))

    def restore(self, number: int, node: Node, flags: int) -> Handle:
        """Add a handle of an earlier daemon under its number."""
        self._numbers = count(max(next(self._numbers), number + 1))
        writes = bool(flags & os.O_ACCMODE)
        return self._insert(Handle(number, node, flags, writes, restored=not writes))

    def _insert(self, handle: Handle) -> Handle:
        self._open[handle.number] = handle
        handle.node.handles += 1
        if handle.writes:
            handle.node.writers += 1
            self.written[handle.node] = None
        return handle

    def note_opener(self, handle: Handle, pid: int) -> None:
        """Note the process that opened a file with missing bytes and has not read yet. 0: of another PID namespace."""
        if pid:
            handle.opener = pid
            self._openers[pid] = self._openers.get(pid, 0) + 1

    def forget_opener(self, handle: Handle) -> None:
        pid, handle.opener = handle.opener, 0
        if pid and not (left := self._openers.pop(pid) - 1) <= 0:
            self._openers[pid] = left

    def is_about_to_copy(self, pid: int) -> bool:
        """True for a process that has opened a file with missing bytes, and read nothing of it: cp does before it
        makes the copy."""
        return pid in self._openers

    def get(self, number: int) -> Handle:
        """Return an open handle. Raises BadHandle."""
        handle = self._open.get(number)
        if handle is None:
            raise BadHandle(f"handle {number} is not open")
        return handle

    def remove(self, number: int) -> Handle | None:
        handle = self._open.pop(number, None)
        if handle is not None:
            if handle.opener:
                self.forget_opener(handle)
            handle.node.handles -= 1
            if handle.writes:
                handle.node.writers -= 1
                if not handle.node.writers:
                    self.written.pop(handle.node, None)
        return handle

    def all(self) -> list[Handle]:
        return list(self._open.values())

    def fail_writers(self, node: Node, error: R2fsError) -> None:
        """Make the next flush or fsync of each writer of the inode raise."""
        for handle in self._open.values():
            if handle.node is node and handle.writes:
                handle.error = error
