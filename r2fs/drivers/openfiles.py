"""The table of open files: which engine handle, descriptor and mode a file handle stands for.

Owns:    the kernel's file handle numbers, and giving back what an open took.
Never:   answers a request.
Threads: every method is thread-safe.
Locks:   none of its own: each step is one operation of a dictionary.
"""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass

from r2fs.drivers.passthrough import Grant, OpenModes
from r2fs.model.errors import BadHandle
from r2fs.model.ports import Caller
from r2fs.model.records import Opened
from r2fs.model.verbs import Verbs


@dataclass(slots=True, eq=False)
class OpenFile:
    handle: int  # the engine's
    ino: int
    local: int | None  # the engine's descriptor of complete content
    writes: bool
    appends: bool
    passthrough: bool | None  # None: opened before a take-over, and not counted in OpenModes


class OpenFiles:
    """`adopted`: the session was another daemon's, so requests may name handles that it gave."""

    def __init__(self, fs: Verbs, modes: OpenModes, adopted: bool = False) -> None:
        # constant
        self._fs = fs
        self._modes = modes
        self._adopted = adopted
        # thread-safe by themselves
        self._numbers = itertools.count(time.time_ns())  # never those of a daemon before this one
        self._files: dict[int, OpenFile] = {}  # by the kernel's file handle

    def add(self, ino: int, opened: Opened, flags: int) -> tuple[int, Grant]:
        """A file handle, and how it may be used. Gives the engine's handle back if it raises."""
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        try:
            grant = self._modes.enter(ino, opened.local, opened.version, writes)
        except BaseException:
            self._fs.release(opened.handle)
            raise
        fh = next(self._numbers)
        appends = bool(flags & os.O_APPEND)
        self._files[fh] = OpenFile(opened.handle, ino, opened.local, writes, appends, grant.passthrough)
        return fh, grant

    def get(self, fh: int, ino: int, caller: Caller, flags: int = os.O_RDWR) -> OpenFile:
        """Raises BadHandle. `flags` are those of the open, where the request tells them."""
        file = self._files.get(fh)
        if file is not None:
            return file
        if not self._adopted:
            raise BadHandle(f"inode {ino}: file handle {fh} is not open")
        return self._recover(fh, ino, caller, flags)

    def handle(self, fh: int) -> int | None:
        """The engine's handle, for requests that can do without."""
        file = self._files.get(fh)
        return file.handle if file is not None else None

    def close(self, fh: int) -> None:
        file = self._files.pop(fh, None)
        if file is None:  # opened before a take-over, and not used since
            return
        if file.passthrough is not None:
            self._modes.leave(file.ino, file.passthrough)
        self._fs.release(file.handle)

    def close_all(self) -> None:
        """The mount has gone: the kernel sends no RELEASE any more."""
        for fh in list(self._files):
            self.close(fh)

    def __len__(self) -> int:
        return len(self._files)

    def _recover(self, fh: int, ino: int, caller: Caller, flags: int) -> OpenFile:
        """The handle that an earlier daemon gave, opened again under its number."""
        flags &= os.O_ACCMODE | os.O_APPEND
        opened = self._fs.open(caller, ino, flags)
        writes, appends = flags & os.O_ACCMODE != os.O_RDONLY, bool(flags & os.O_APPEND)
        file = OpenFile(opened.handle, ino, opened.local, writes, appends, None)
        kept = self._files.setdefault(fh, file)
        if kept is not file:  # another request of the same handle was faster
            self._fs.release(opened.handle)
        return kept
