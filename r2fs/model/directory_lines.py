"""Directory lines: the names of a directory at one moment, as READDIR shows them: files without a node, then nodes.

The numbers of files are computed as the lines are read: a reader has the first page of a large directory at once.

Threads: any, without a lock: number and kind of a name never change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, overload

from r2fs.model.records import DirEntry, Kind

CHUNK: Final = 128  # numbers computed at once

Line = tuple[bytes, int, Kind]  # name, number that stat shows, kind
Numbers = Callable[[int, int], Sequence[int]]  # of files[start:stop]


def encoded(name: str) -> bytes:
    """The bytes of a name; lone surrogates become bytes that are not UTF-8, as by os.fsencode."""
    return name.encode("utf-8", "surrogateescape")


class DirectoryLines(Sequence[DirEntry]):
    """`valid_s`: seconds for which the names stay fresh."""

    def __init__(
        self,
        nodes: Sequence[tuple[str, Kind, int]],
        files: Sequence[str] = (),
        numbers: Numbers = lambda start, stop: (),
        valid_s: float = 0.0,
    ) -> None:
        # constant
        self._nodes = nodes
        self._files = files
        self._numbers = numbers
        self.valid_s = valid_s

    def __len__(self) -> int:
        return len(self._files) + len(self._nodes)

    @overload
    def __getitem__(self, at: int) -> DirEntry: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[DirEntry]: ...
    def __getitem__(self, at: int | slice) -> DirEntry | Sequence[DirEntry]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        if at < len(self._files):
            return DirEntry(self._files[at], Kind.FILE, at + 1, self._numbers(at, at + 1)[0])
        name, kind, number = self._nodes[at - len(self._files)]
        return DirEntry(name, kind, at + 1, number)

    def names(self, start: int, stop: int) -> Iterator[tuple[bytes, Kind]]:
        """Yield name and kind of the lines from `start` to `stop`: no number is computed."""
        for name in self._files[start:stop]:
            yield encoded(name), Kind.FILE
        before = len(self._files)
        for name, kind, _ in self._nodes[max(0, start - before) : max(0, stop - before)]:
            yield encoded(name), kind

    def raw(self, start: int) -> Iterator[Line]:
        """Yield the lines from `start` on."""
        files = self._files
        while start < len(files):
            stop = min(start + CHUNK, len(files))
            for name, number in zip(files[start:stop], self._numbers(start, stop), strict=True):
                yield encoded(name), number, Kind.FILE
            start = stop
        for name, kind, number in self._nodes[start - len(files) :]:
            yield encoded(name), number, kind
