"""Streams: clean content that cannot be here as a whole. What lies behind its reader is given back.

Owns:    how many bytes of each open, clean, incomplete file may be on the disk, which count against the
         cache's limit, or in memory, where the disk has no room for it; and which of them go first.
Never:   gives back what this host wrote, what somebody waits for, or what is complete: that may be in use past us.
Threads: every public method is thread-safe.
Locks:   `_lock` (rank 32) around the two tables; inside Core.lock (30), and around a Source's (35) and a
         SparseFile's (40). No request and no fsync under it.
Fails:   NoSpace from `to_memory`.

A file may take ever more of the disk while it is read, as long as clean content can be evicted for it. Then, or
if it is larger than the cache, it streams: it never becomes complete, so no driver passes it through. A file
that is to be written is to be whole, and is limited by the disk alone (`keep`).
"""

from __future__ import annotations

import logging
from pathlib import Path

from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.content.source import NEAR, WHOLE, Source
from r2fs.engine.core import Core
from r2fs.model.errors import NoSpace
from r2fs.model.keys import printable
from r2fs.model.ranges import Range, RangeSet

log = logging.getLogger(__name__)

FIRST = 1 << 20  # bytes of a file that may come without asking for room
LEAST = 4 << 20  # bytes of one file, whatever the limit: one READ of 1 MiB and what is fetched with it
SHARE = 4  # of the cache's limit, at most this part for a file that is larger than it
LARGEST = 256 << 20  # bytes of such a file
MEMORY = 64 << 20  # bytes of all files together that are in memory
IN_MEMORY = 16 << 20  # bytes of one of them


class Streams:
    def __init__(self, core: Core) -> None:
        # constant
        self._core = core
        # guarded by: Core.lock
        self._reserved: dict[int, int] = {}  # by inode number: bytes that count besides the cache's entries
        self._alone: set[int] = set()  # those of them of which the cache has no entry
        # in order of use, the longest unused first. Changed and walked by single operations of dict
        self._memory: dict[int, Source] = {}  # by inode number

    # ------------------------------------------------------------------ how much, on the disk
    def begin(self, source: Source) -> None:
        """Clean content has been opened; what is here of it counts in the cache already. With Core.lock held."""
        size, entry_bytes = source.version.size, source.content.here().total()
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
        self._core.cache.make_room(0)
        source.allowed = allowed

    def end(self, ino: int) -> None:
        """It is closed, or counts elsewhere. With Core.lock held."""
        self._memory.pop(ino, None)
        if ino in self._reserved:
            self._set_reserved(ino, None)

    def _set_reserved(self, ino: int, size: int | None) -> None:
        if size is None:
            self._reserved.pop(ino, None)
            self._alone.discard(ino)
        else:
            self._reserved[ino] = size
        self._core.cache.set_reserved(sum(self._reserved.values()), len(self._alone))

    def keep(self, source: Source | None, content: SparseFile, path: Path) -> None:
        """It is about to be this host's: all of it has to come, and stay, on the disk. With Core.lock held."""
        if source is not None:
            source.allowed = WHOLE
            self._memory.pop(source.ino, None)
        content.keep(path)

    # ------------------------------------------------------------------ making way
    def admit(self, source: Source, start: int, stop: int) -> None:
        """[start, stop) is about to be sent for. Without a Source's lock."""
        content = source.content
        if source.allowed >= content.base_limit:
            return
        with source.lock:
            need = content.here().total() + source.coming.total() + (stop - start)
        if need <= source.allowed or self._grow(source, need):
            return
        if self._stream(source):
            self._give_back(source, need - source.allowed, (start, stop))
        if content.in_memory:
            self._make_memory(source, stop - start)

    def _grow(self, source: Source, need: int) -> bool:
        """Let it have so much more of the disk; evicts for it. False: there is no room."""
        version, content = source.version, source.content
        if content.in_memory or version.size > self._core.settings.cache_size or content.streams:
            return False
        with self._core.lock:
            counted = self._reserved.get(source.ino)
            if counted is None:
                return True  # it is not clean any more
            want = min(version.size, max(need, 2 * source.allowed))
            self._set_reserved(source.ino, counted + want - source.allowed)
            if not self._core.cache.make_room(0):
                self._set_reserved(source.ino, counted)
                return False
            source.allowed = want
            return True

    def _stream(self, source: Source) -> bool:
        """From now on its bytes come and go. False: it is to stay."""
        content = source.content
        if content.streams:
            return True
        with self._core.lock:
            if source.allowed == WHOLE or not content.stream():
                return False
            # The entry is the same file, and says what is in it.
            self._core.cache.drop(source.version)
            source.allowed = min(source.version.size, max(LEAST, source.allowed))
            self._alone.add(source.ino)
            self._set_reserved(source.ino, source.allowed)
            self._core.cache.make_room(0)
        log.debug("%s: streams: %d bytes of it are kept", printable(source.version.key), source.allowed)
        return True

    def _give_back(self, source: Source, size: int, coming: Range) -> int:
        """At least `size` bytes, if there are: first what lies behind the reader. How many it was."""
        content, freed = source.content, 0
        with source.lock:
            spared = RangeSet([*source.wanted, coming])
            spared.add(max(0, coming[0] - min(NEAR, source.allowed // 8)), coming[1])
            here = [free for some in content.here() for free in spared.missing(*some)]
        behind = [some for some in here if some[1] <= coming[0]]
        ahead = [some for some in here if some[0] >= coming[1]]
        slack = size + source.allowed // 8  # not at every turn
        for start, stop in behind:
            if freed >= slack:
                return freed
            freed += content.release(start, min(stop, start + slack - freed))
        for start, stop in reversed(ahead):
            if freed >= size:
                return freed
            freed += content.release(max(start, stop - (size - freed)), stop)
        return freed

    # ------------------------------------------------------------------ where the disk is full
    def give_way(self, source: Source, at: int, size: int) -> bool:
        """The disk took no more of it, at byte `at`: from now on it makes do with less. False: it cannot."""
        if source.content.in_memory or not self._stream(source):
            return False
        here = source.content.here().total()
        with self._core.lock:
            if source.allowed == WHOLE:  # it is opened for writing meanwhile
                return False
            source.allowed = min(source.allowed, max(LEAST, here - here // 4))
        return self._give_back(source, max(size, here - source.allowed), (at, at + size)) > 0

    def to_memory(self, source: Source, held: int) -> None:
        """The disk has no room at all for it: its bytes are this process's, for as long as it is open.

        `held`: of its first bytes, what was written and not yet seen. Raises NoSpace where it has to stay.
        """
        source.content.fd  # noqa: B018  (closed: nobody waits for it, ValueError says)
        if source.content.in_memory or not self._stream(source):
            raise NoSpace(f"{source.version.key}: there is no room on this disk for it")
        source.content.to_memory(held)
        with self._core.lock:
            if source.allowed == WHOLE:  # opened for writing meanwhile: it is on the disk again
                return
            self._set_reserved(source.ino, None)
            self._join_memory(source)
        log.info("%s: there is no room on this disk: it is read in memory", printable(source.version.key))

    def _join_memory(self, source: Source) -> None:
        source.allowed = IN_MEMORY
        self._memory[source.ino] = source
        self._make_memory(source, 0)

    def _make_memory(self, source: Source, size: int) -> None:
        """For `size` bytes more of this one: who was read the longest ago gives back."""
        if self._memory.pop(source.ino, None) is None:
            return
        self._memory[source.ino] = source
        others = list(self._memory.values())
        used = sum(one.content.here().total() for one in others) + size
        for one in others:
            if used <= MEMORY:
                return
            if one is not source:
                used -= self._give_back(one, used - MEMORY, (0, 0))
