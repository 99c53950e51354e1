"""Sparse files: reserve, zero and locate ranges of an open file.

Owns:    fallocate(2), SEEK_DATA and SEEK_HOLE.
Never:   downloads: missing ranges count as data.
Threads: every method is thread-safe.
Locks:   takes Core.lock; releases it before disk I/O.
Fails:   NotSupported for modes that not all content supports; NoSuchByte past the end.
"""

from __future__ import annotations

import os

from r2fs.engine.content.local_file import Contents
from r2fs.engine.files.handles import Handles
from r2fs.engine.pending.records import Records
from r2fs.model.errors import BadHandle, InvalidArgument, NoSuchByte, NotSupported
from r2fs.model.ports import Caller

FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16  # fallocate(2)
_FALLOC_MODES = (
    0,
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE,
    FALLOC_ZERO_RANGE,
    FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE,
)


class Sparse:
    def __init__(self, records: Records, contents: Contents, handles: Handles) -> None:
        self._core = records.core
        self._pending = records.pending
        self._contents = contents
        self._handles = handles

    def fallocate(self, caller: Caller, handle: int, mode: int, offset: int, length: int) -> None:
        caller.about_to_wait()
        with self._core.lock:
            file = self._handles.get(handle)
            content = self._contents.of(file.node)
            self._pending.note_open_write(file.node)
        if not file.writes:
            raise BadHandle("not opened for writing")
        if offset < 0 or length <= 0:
            raise InvalidArgument("fallocate: offset or length")
        if mode not in _FALLOC_MODES:
            raise NotSupported(f"fallocate mode {mode} is not supported")
        if not mode & FALLOC_KEEP_SIZE and offset + length > content.size:
            content.truncate(offset + length)
        if mode & (FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE):
            content.zero(offset, offset + length)
        elif mode == 0 and content.complete:
            content.reserve(offset, length)
        # KEEP_SIZE alone reserves room past the end: a promise that costs nothing to leave out
        with self._core.lock:
            self._pending.note_write(file.node, content.size)

    def lseek(self, number: int, offset: int, whence: int, paged: bool) -> int:
        """SEEK_DATA and SEEK_HOLE. `paged`: a writer's mapping may hold pages unknown to the disk, and counts as data."""
        with self._core.lock:
            node = self._handles.get(number).node
            content = self._contents.of(node)
        if content.complete and not (paged and node.writers):
            return os.lseek(content.fd, offset, whence)
        if not 0 <= offset < content.size:
            raise NoSuchByte(f"byte {offset} is past the end")
        return offset if whence == os.SEEK_DATA else content.size
