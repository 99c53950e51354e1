"""Last listings: names in directories when last listed, for use while the bucket does not answer.

Rows of the cache's shelf of attributes, one a directory. All directories together have ENTRIES_MAX names, the longest
unchanged go first; a directory of more than DIRECTORY_MAX names is not kept.

Threads: every method. Locks: the shelf's.
Fails:   softly: a listing is not kept, or not found.
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Final, NamedTuple

from r2fs.disk.cache.shelf import Shelf
from r2fs.disk.cache.table import Table
from r2fs.model.records import ObjectInfo

ENTRIES_MAX: Final = 2_000_000  # some 55 bytes each, and their names
DIRECTORY_MAX: Final = 100_000
REMEMBERED: Final = 10_000  # directories whose row is known by its digest


_KIND: Final = '["listing", '  # the beginning of a row's name


class Kept(NamedTuple):
    objects: tuple[ObjectInfo, ...]
    below: tuple[str, ...]  # names of directories
    names: Sequence[
        str
    ] = ()  # further files, of which `lines` has one line each, as the caller has packed it
    lines: Sequence[bytes] = ()


class LastListings:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._digests: dict[str, bytes] = {}  # by prefix; guarded by: the shelf's lock

    def keep(
        self,
        prefix: str,
        objects: Sequence[ObjectInfo],
        below: Sequence[str],
        packed: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """Keep the names directly in the directory `prefix`. `packed`: further files, each with a line of the caller's,
        of 255 bytes at most."""
        weight = len(objects) + len(below) + len(packed)
        if weight > DIRECTORY_MAX:
            self.drop(prefix)  # it may have been smaller
            return
        there = [[info.key[len(prefix) :], info.etag, info.size, info.modified_ns] for info in objects]
        lines = packed.values()
        text = json.dumps(
            [there, list(below), list(packed), _text(bytes(map(len, lines))), _text(b"".join(lines))]
        )
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

        def store(table: Table) -> None:
            if self._digests.get(prefix) == digest:
                return
            table.set(_name(prefix), text, tag=1 + weight)
            if len(self._digests) >= REMEMBERED:
                self._digests.clear()
            self._digests[prefix] = digest
            if table.weight() > ENTRIES_MAX:
                for key in table.lighten(ENTRIES_MAX):
                    self._digests.pop(json.loads(key)[1], None)

        self._shelf.run(store, None)

    def drop(self, prefix: str) -> bool:
        """Remove the listing of `prefix`, which has changed. True: removed."""

        def forget(table: Table) -> bool:
            self._digests.pop(prefix, None)
            return bool(table.delete(_name(prefix)))

        return self._shelf.run(forget, False)

    def clear(self) -> None:
        """Remove all listings, which may have changed."""

        def forget(table: Table) -> None:
            self._digests.clear()
            table.lighten(0)

        self._shelf.run(forget, None)

    def has(self, prefix: str) -> bool:
        return self._shelf.run(lambda table: _name(prefix) in table, False)

    def count(self, prefix: str) -> int:
        """Return the number of names kept of the directory, and 1; 0: none are kept."""
        return self._shelf.run(lambda table: table.weight_of(_name(prefix)), 0)

    def prefixes(self) -> list[str]:
        """Return the prefixes of all directories that are kept."""

        def load(table: Table) -> list[str]:
            return [json.loads(name)[1] for name in table.names() if name.startswith(_KIND)]

        return self._shelf.run(load, [])

    def find(self, prefix: str) -> Kept | None:
        def load(table: Table) -> Kept | None:
            row = table.row(_name(prefix))
            if row is None:
                return None
            objects, below, *packed = json.loads(row.about)
            names, lines = (packed[0], _lines(*packed[1:])) if packed else ((), ())
            return Kept(tuple(_info(prefix, *fields) for fields in objects), tuple(below), names, lines)

        return self._shelf.run(load, None)


def _text(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")


def _lines(lengths: str, joined: str) -> list[bytes]:
    data, ends = a2b_base64(joined), list(accumulate(a2b_base64(lengths), initial=0))
    return [data[start:end] for start, end in pairwise(ends)]


def _name(prefix: str) -> str:
    return json.dumps(["listing", prefix])


def _info(prefix: str, name: str, etag: str, size: int, modified_ns: int) -> ObjectInfo:
    return ObjectInfo(prefix + name, size, etag, modified_ns)
