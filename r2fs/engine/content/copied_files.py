"""Copied files: the versions from which programs have copied staged files, so that the bucket can copy as well.

Owns:    a hint for each inode, in memory alone; and the proof by digests that its bytes are those of the version.
Never:   trusts a hint without the proof: a program may have written to the file since.
Locks:   Core.lock around the methods of CopiedFiles; `has_bytes_of` reads the file without it.
"""

from __future__ import annotations

import os
from typing import Final

from r2fs.disk.body import has_digests
from r2fs.engine.content.part_digests import known_digests
from r2fs.engine.inodes.core import Core
from r2fs.model.records import Version

MOST: Final = 1000  # hints; a lost one costs an upload


class CopiedFiles:
    def __init__(self, core: Core) -> None:
        self._core = core
        # guarded by: Core.lock
        self._copies: dict[int, tuple[Version, int]] = {}  # source and bytes copied, by inode number

    def note_locked(self, ino: int, source: Version, start: int, stop: int) -> None:
        """Note that [start, stop) of the source was copied to the same place of the inode's file."""
        self._core.assert_held()
        before, copied = self._copies.pop(ino, (source, 0))
        if start == 0 or (before == source and start == copied):
            self._copies[ino] = (source, stop)
            if len(self._copies) > MOST:
                del self._copies[next(iter(self._copies))]

    def source_locked(self, ino: int) -> Version | None:
        """Return the version that was copied from its begin to its end; None: there is none."""
        self._core.assert_held()
        source, copied = self._copies.get(ino, (None, 0))
        return source if source is not None and copied == source.size else None


def has_bytes_of(core: Core, version: Version, fd: int, size: int) -> bool:
    """True if the file has exactly the bytes of the version, as far as digests of the version are known."""
    digests = known_digests(core, version)
    return size == version.size and digests is not None and has_digests(os.pread, fd, size, digests)
