"""Flat listings: what LISTs without a delimiter tell of each directory that they pass.

Owns:  the way from keys in the order of a listing to whole directories. The keys of one directory
       and of all below it come in one run, whether a server sorts by bytes or by names.
Never: asks the bucket; touches the tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from r2fs.engine.inodes.listing_pages import Pages
from r2fs.model.records import ListPage, ObjectInfo


@dataclass(slots=True)
class Found:
    """A directory as a flat listing shows it; it is whole once `FlatListing` yields it."""

    prefix: str  # its key, with the slash at the end
    began: int  # Tree.tick before the page in which its first key came was asked for
    asked_at_s: float  # Clock.monotonic() then
    objects: list[ObjectInfo] = field(default_factory=list)  # its own marker among them
    below: list[Found] = field(default_factory=list)  # its directories


class FlatListing:
    """Of everything below `prefix` that comes after the key `after`. Not thread-safe."""

    def __init__(self, prefix: str, after: str = "") -> None:
        self.pages = Pages(prefix or "the bucket", kept=True)
        self._after = after.encode()
        self._open: list[Found] = []
        self._top = prefix
        self._closed: set[str] = set()
        self.in_runs = True  # False: the server's order is another; nothing that it yields is whole

    def feed(self, page: ListPage, began: int, asked_at_s: float) -> Iterator[Found]:
        """The directories that the page has ended, children before their parents."""
        if not self._open:
            self._open.append(Found(self._top, began, asked_at_s))
        for info in page.objects:
            directory = info.key[: info.key.rfind("/") + 1]
            while not directory.startswith(self._open[-1].prefix) and len(self._open) > 1:
                yield from self._close()
            self._enter(directory, began, asked_at_s)
            self._open[-1].objects.append(info)
        if page.token is None:
            while len(self._open) > 1:
                yield from self._close()
            if not self._after:
                yield self._open[0]

    def own(self, prefix: str) -> int:
        """How many objects of this directory alone came so far, if it is not ended yet."""
        return sum(len(found.objects) for found in self._open if found.prefix == prefix)

    def _enter(self, directory: str, began: int, asked_at_s: float) -> None:
        while (above := self._open[-1]).prefix != directory:
            end = directory.index("/", len(above.prefix)) + 1
            found = Found(directory[:end], began, asked_at_s)
            self.in_runs = self.in_runs and found.prefix not in self._closed
            above.below.append(found)
            self._open.append(found)

    def _close(self) -> Iterator[Found]:
        found = self._open.pop()
        self._closed.add(found.prefix)
        if found.prefix.encode() > self._after:  # else what came before `after` is not in it
            yield found
