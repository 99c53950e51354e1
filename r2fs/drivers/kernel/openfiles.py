"""Open files: the engine handle, descriptor and mode of each of the kernel's file handles.

Owns:    the kernel's file handle numbers, and the release of an open's resources.
Never:   answers a request.
Threads: every method is thread-safe.
Locks:   none: each step is one operation of a dictionary.

`memory` records each handle before the kernel knows its number, and its end before any resource is released: a
successor, which gets them as `inherited`, never trusts a released backing id. A handle whose answer was not sent
is recorded too: its request is resent, and `supersede` ends the handle.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Collection
from dataclasses import dataclass

from r2fs.drivers.kernel import wire
from r2fs.drivers.kernel.passthrough import Grant, OpenModes
from r2fs.model.errors import BadHandle
from r2fs.model.ports import Caller, SessionMemory
from r2fs.model.records import KnownHandle, Opened
from r2fs.model.verbs import Verbs


@dataclass(slots=True, eq=False)
class OpenFile:
    handle: int  # the engine's
    ino: int
    local: int | None  # the engine's descriptor of complete content
    writes: bool
    appends: bool
    passthrough: bool | None  # None: unknown at a take-over, and not counted in OpenModes


class OpenFiles:
    """`inherited` are the handles of an earlier daemon of this session."""

    def __init__(
        self,
        fs: Verbs,
        modes: OpenModes,
        memory: SessionMemory | None = None,
        inherited: Collection[KnownHandle] | None = None,
    ) -> None:
        # constant
        self._fs = fs
        self._modes = modes
        self._memory = memory
        self._adopted = inherited is not None
        # thread-safe by themselves
        self._files: dict[int, OpenFile] = {}  # by the kernel's file handle
        self._unanswered: dict[int, int] = {}  # the request's unique: an inherited handle
        for known in inherited or ():
            modes.recover(known.ino, known.backing_id, known.file)
            writes, appends = bool(known.flags & os.O_ACCMODE), bool(known.flags & os.O_APPEND)
            passthrough = bool(known.backing_id)
            self._files[known.fh] = OpenFile(known.handle, known.ino, None, writes, appends, passthrough)
            self._unanswered[known.unique] = known.fh
        # never those of an earlier daemon
        self._numbers = itertools.count(max([time.time_ns(), *(fh + 1 for fh in self._files)]))

    def add(self, ino: int, opened: Opened, flags: int, unique: int) -> tuple[int, Grant]:
        """Make a file handle for an open and choose its mode. Releases the engine's handle if it raises."""
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        try:
            grant = self._modes.enter(ino, opened.local, opened.version, writes, opened.file)
        except BaseException:
            self._fs.release(opened.handle)
            raise
        fh = next(self._numbers)
        appends = bool(flags & os.O_APPEND)
        self._files[fh] = OpenFile(opened.handle, ino, opened.local, writes, appends, grant.passthrough)
        if self._memory is not None:
            unique &= ~wire.UNIQUE_RESEND
            known = KnownHandle(fh, opened.handle, ino, flags, unique, grant.backing_id, grant.file)
            self._memory.handle(known)
        return fh, grant

    def supersede(self, unique: int) -> None:
        """End the handle that an earlier OPEN with this `unique` made: the kernel never got its number."""
        fh = self._unanswered.pop(unique & ~wire.UNIQUE_RESEND, None)
        if fh is not None:
            self.close(fh)

    def get(self, fh: int, ino: int, caller: Caller, flags: int = os.O_RDONLY) -> OpenFile:
        """The open file of a handle. Raises BadHandle. `flags` are those of the open, where the request has them."""
        file = self._files.get(fh)
        if file is not None:
            return file
        if not self._adopted:
            raise BadHandle(f"inode {ino}: file handle {fh} is not open")
        return self._recover(fh, ino, caller, flags)

    def handle(self, fh: int) -> int | None:
        """The engine's handle; None for an unknown one, for requests that work without."""
        file = self._files.get(fh)
        return file.handle if file is not None else None

    def close(self, fh: int) -> None:
        file = self._files.pop(fh, None)
        if file is None:  # opened before a take-over, and closed then, or unknown
            return
        if self._memory is not None:
            self._memory.forget_handle(fh)
        if file.passthrough is not None:
            self._modes.leave(file.ino, file.passthrough)
        self._fs.release(file.handle)

    def close_all(self) -> None:
        """Release every handle after the unmount: the kernel sends no RELEASE any more."""
        for fh in list(self._files):
            self.close(fh)

    def __len__(self) -> int:
        return len(self._files)

    def _recover(self, fh: int, ino: int, caller: Caller, flags: int) -> OpenFile:
        """Open an unknown handle again under its number, as after a take-over by hand."""
        flags &= os.O_ACCMODE | os.O_APPEND
        opened = self._fs.open(caller, ino, flags)
        writes, appends = flags & os.O_ACCMODE != os.O_RDONLY, bool(flags & os.O_APPEND)
        file = OpenFile(opened.handle, ino, opened.local, writes, appends, None)
        kept = self._files.setdefault(fh, file)
        if kept is not file:  # another request of the same handle was faster
            self._fs.release(opened.handle)
        return kept
