"""Streaming: bounds the bytes of each open, clean, incomplete file; those behind the reader are released.

Owns:    the bytes of such a file that may be on the disk, which count against the cache's limit, or in memory, if the
         disk has no room; the order in which they are released.
Never:   releases bytes that this host wrote, that a reader waits for, or of a complete file: the kernel may read it.
Threads: every public method is thread-safe.
Locks:   takes Core.lock (30), a Source's (35) and a SparseFile's (40), in this order. No request and no fsync under any.
Fails:   NoSpace from `to_memory`.

A file may take more and more of the disk while it is read, as long as clean content can be evicted for it. After
that, or if it is larger than the cache, it streams: it never becomes complete, so no driver passes it through. A file
about to be written must become complete, and is limited by the disk alone (`keep`).
"""

from __future__ import annotations

import logging
from pathlib import Path

from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.content.source import WHOLE, Source
from r2fs.engine.content.windows import NEAR
from r2fs.engine.inodes.core import Core
from r2fs.model.errors import NoSpace
from r2fs.model.keys import printable
from r2fs.model.ranges import Range, RangeSet

log = logging.getLogger(__name__)

UNSEEN = 256 << 10  # bytes of small files that may be opened until room is made for them
FIRST = 1 << 20  # bytes of a file that may be downloaded without an eviction
LEAST = 4 << 20  # bytes of a file, whatever the limit: a READ of 1 MiB and its window
SHARE = 4  # of the cache's limit, at most this part for a file that is larger than it
LARGEST = 256 << 20  # bytes of such a file
MEMORY = 64 << 20  # bytes in memory, of all files together
IN_MEMORY = 16 << 20  # of a single file


class Streams:
    def __init__(self, core: Core) -> None:
        # constant
        self._core = core
        # guarded by: Core.lock
        self._reserved: dict[int, int] = {}  # by inode number: bytes beside the cache's entries
        self._total = 0  # sum of `_reserved`
        self._unseen = 0  # bytes added by `begin` since its last eviction
        self._alone: set[int] = set()  # of these, inodes without an entry in the cache
        # in order of use, the longest unused first. Changed and walked by single operations of dict
        self._memory: dict[int, Source] = {}  # by inode number

    # ---- bytes on the disk
    def begin(self, source: Source) -> None:
        """Bound clean content that has been opened; bytes in its entry count already. With Core.lock held."""
        size, entry_bytes = source.version.size, source.content.here_bytes()
        if source.content.in_memory:
            self._join_memory(source)
            return
        limit = self._core.settings.cache_size
        if size <= self._core.settings.small_file:
            allowed = size
        elif size > limit:
            allowed = max(LEAST, min(limit // SHARE, LARGEST))
        else:
            allowed = min(size, max(FIRST, entry_bytes))
        if not entry_bytes:
            self._alone.add(source.ino)
        self._set_reserved(source.ino, max(0, allowed - entry_bytes))
        source.allowed = allowed
        self._unseen += max(0, allowed - entry_bytes)
        if self._unseen >= UNSEEN:
            self._unseen = 0
            self._core.cache.make_room(0)

    def end(self, ino: int) -> None:
        """Forget content that is closed, or counts elsewhere. With Core.lock held."""
        self._memory.pop(ino, None)
        if ino in self._reserved:
            self._set_reserved(ino, None)

    def _set_reserved(self, ino: int, size: int | None) -> None:
        self._total -= self._reserved.pop(ino, 0)
        if size is None:
            self._alone.discard(ino)
        else:
            self._reserved[ino] = size
            self._total += size
        self._core.cache.set_reserved(self._total, len(self._alone))

    def keep(self, source: Source | None, content: SparseFile, path: Path) -> None:
        """Keep all bytes on the disk: the file is about to be this host's. With Core.lock held."""
        if source is not None:
            source.allowed = WHOLE
            self._memory.pop(source.ino, None)
        content.keep(path)

    # ---- release
    def admit(self, source: Source, start: int, stop: int) -> None:
        """Make room for [start, stop), which is about to be requested. Without a Source's lock."""
        content = source.content
        if source.allowed >= content.base_limit:
            return
        with source.lock:
            need = content.here_bytes() + source.coming.total() + (stop - start)
        if need <= source.allowed or self._grow(source, need):
            return
        if self._stream(source):
            self._give_back(source, need - source.allowed, (start, stop))
        if content.in_memory:
            self._make_memory(source, stop - start)

    def _grow(self, source: Source, need: int) -> bool:
        """Allow `need` bytes on the disk, after an eviction if needed. False: no room is left."""
        version, content = source.version, source.content
        if content.in_memory or version.size > self._core.settings.cache_size or content.streams:
            return False
        with self._core.lock:
            counted = self._reserved.get(source.ino)
            if counted is None:
                return True  # no longer clean
            want = min(version.size, max(need, 2 * source.allowed))
            self._set_reserved(source.ino, counted + want - source.allowed)
            if not self._core.cache.make_room(0):
                self._set_reserved(source.ino, counted)
                return False
            source.allowed = want
            return True

    def _stream(self, source: Source) -> bool:
        """Let the file release bytes from now on. False: it must become complete."""
        content = source.content
        if content.streams:
            return True
        with self._core.lock:
            if source.allowed == WHOLE or not content.stream():
                return False
            # The entry is the same file, and lists its ranges.
            self._core.cache.drop(source.version)
            source.allowed = min(source.version.size, max(LEAST, source.allowed))
            self._alone.add(source.ino)
            self._set_reserved(source.ino, source.allowed)
            self._core.cache.make_room(0)
        log.debug("%s: streams: %d bytes of it are kept", printable(source.version.key), source.allowed)
        return True

    def _give_back(self, source: Source, size: int, coming: Range) -> int:
        """Release at least `size` bytes, if present, those behind the reader first; return their number."""
        content, freed = source.content, 0
        with source.lock:
            spared = RangeSet([*source.wanted, coming])
            spared.add(max(0, coming[0] - min(NEAR, source.allowed // 8)), coming[1])
            here = [free for some in content.here() for free in spared.missing(*some)]
        behind = [some for some in here if some[1] <= coming[0]]
        ahead = [some for some in here if some[0] >= coming[1]]
        slack = size + source.allowed // 8  # so that not each call releases
        for start, stop in behind:
            if freed >= slack:
                return freed
            freed += content.release(start, min(stop, start + slack - freed))
        for start, stop in reversed(ahead):
            if freed >= size:
                return freed
            freed += content.release(max(start, stop - (size - freed)), stop)
        return freed

    # ---- full disk
    def give_way(self, source: Source, at: int, size: int) -> bool:
        """Reduce the bytes of a file for which the disk was full at byte `at`. False: nothing was released."""
        if source.content.in_memory or not self._stream(source):
            return False
        here = source.content.here_bytes()
        with self._core.lock:
            if source.allowed == WHOLE:  # opened for writing meanwhile
                return False
            source.allowed = min(source.allowed, max(LEAST, here - here // 4))
        return self._give_back(source, max(size, here - source.allowed), (at, at + size)) > 0

    def to_memory(self, source: Source, held: int) -> None:
        """Keep the file's bytes in memory while it is open: the disk has no room at all.

        `held`: number of first bytes that are written and still hidden. Raises NoSpace if it must stay on the disk.
        """
        source.content.fd  # noqa: B018  (ContentClosed: no reader waits)
        if source.content.in_memory:  # another of its downloads met the full disk at the same moment
            return
        if not self._stream(source):
            raise NoSpace(f"{source.version.key}: there is no room on this disk for it")
        source.content.to_memory(held)
        with self._core.lock:
            if source.allowed == WHOLE:  # opened for writing meanwhile: on the disk again
                return
            self._set_reserved(source.ino, None)
            self._join_memory(source)
        log.info("%s: there is no room on this disk: it is read in memory", printable(source.version.key))

    def _join_memory(self, source: Source) -> None:
        source.allowed = IN_MEMORY
        self._memory[source.ino] = source
        self._make_memory(source, 0)

    def _make_memory(self, source: Source, size: int) -> None:
        """Make room for `size` bytes more of this file: the files unread for longest release theirs."""
        if self._memory.pop(source.ino, None) is None:
            return
        self._memory[source.ino] = source
        others = list(self._memory.values())
        used = sum(one.content.here_bytes() for one in others) + size
        for one in others:
            if used <= MEMORY:
                return
            if one is not source:
                used -= self._give_back(one, used - MEMORY, (0, 0))
