"""Idle files: small complete clean content kept open after its last close, for pipelines that open it again.

Invariant: an idle file's entry of the cache stays pinned: an eviction would free no disk.
Locks:     every method is called with Core.lock held.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from r2fs.engine.inodes.core import Core
from r2fs.engine.inodes.inode import Node

MOST = 2048  # files: a descriptor each
LARGEST = 1 << 20  # bytes of a file
TOGETHER = 16  # files that are given to the cache by one transaction: a program may wait for the lock
SHARE = 16  # the files together: at most this part of the cache's limit


@dataclass(slots=True, eq=False)
class IdleFile:
    """Each field is constant."""  # not frozen: a frozen one takes a microsecond at each close

    node: Node
    bytes: int  # of its base
    size: int  # fstat, as it became idle
    mtime_ns: int
    retire: Callable[[Sequence[IdleFile]], None]  # gives files to the cache

    def has_changed(self) -> bool:
        """True if another program wrote to the file meanwhile."""
        assert self.node.content is not None
        now = os.fstat(self.node.content.fd)  # complete: no download changes its times
        return (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns)


class IdleFiles:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._files: OrderedDict[int, IdleFile] = OrderedDict()  # by inode number; oldest first
        self._bytes = 0

    def __contains__(self, ino: int) -> bool:
        return ino in self._files

    def among(self, inos: Iterable[int]) -> set[int]:
        """Return those of `inos` that are idle."""
        return self._files.keys() & set(inos)

    def add(self, node: Node, retire: Callable[[Sequence[IdleFile]], None]) -> bool:
        """Keep the inode's content open; past the limits the oldest are retired. False: this one, too."""
        assert node.content is not None and node.base is not None
        now = node.content.stat()
        self._files[node.ino] = IdleFile(node, node.base.size, now.st_size, now.st_mtime_ns, retire)
        self._bytes += node.base.size
        limit = self._core.settings.cache_size // SHARE
        while len(self._files) > MOST or self._bytes > limit:
            self._retire_oldest(1 + len(self._files) // TOGETHER)
        return node.ino in self._files

    def take(self, ino: int) -> IdleFile | None:
        """End the idleness of an inode; return its file."""
        file = self._files.pop(ino, None)
        if file is not None:
            self._bytes -= file.bytes
        return file

    def retire(self, ino: int) -> None:
        if (file := self.take(ino)) is not None:
            file.retire([file])

    def retire_all(self) -> None:
        while self._files:
            self._retire_oldest(TOGETHER)

    def _retire_oldest(self, count: int) -> None:
        """Retire the oldest files, TOGETHER at most."""
        oldest = list(islice(self._files, min(count, TOGETHER)))
        files = [file for ino in oldest if (file := self.take(ino)) is not None]
        files[0].retire(files)

    def retire_expired(self, has_expired: Callable[[int], bool]) -> None:
        """Retire files past their time to live."""
        for ino in [ino for ino in self._files if has_expired(ino)]:
            self.retire(ino)

    def retire_nameless(self) -> None:
        """Retire files without a name."""
        for ino in [ino for ino, file in self._files.items() if file.node.deleted]:
            self.retire(ino)
