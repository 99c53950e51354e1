"""Names of rows; and a Bloom filter of those that a table may have, so that most lookups without a row touch neither file
nor lock. A false positive costs a query; an error the other way a download or HEAD.

A deleted name stays in it: after RELOAD_AFTER added ones all names are read anew.

Threads: `lacks` in any; the other methods under the lock of the table's shelf.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import Final

from r2fs.model.records import Version

LOAD_AFTER: Final = 32  # lookups without a row: a single one must not wait for the names of a large table
RELOAD_AFTER: Final = 200_000  # names added: with as many at first, 0.7 % are false positives

_MASK: Final = (1 << 23) - 1  # bits


@lru_cache(4096)  # a version that is opened again and again is named each time
def row_name(key: str, etag: str) -> str:
    """Return the name of a version's row: json.dumps([etag, key]), without the time for an encoder."""
    return f"[{_quoted(etag)}, {_quoted(key)}]"


def version_of(name: str) -> tuple[str, str]:
    """Return ETag and key of the version that a row has the name of."""
    etag, key = json.loads(name)
    return etag, key


def parts_row_name(version: Version) -> str:
    """Return the name of the row with the digests of a version's parts."""
    return json.dumps([version.etag, version.key, "parts"])


class NameFilter:
    def __init__(self) -> None:
        # guarded by: the shelf's lock, but for reads in `lacks`
        self._bits: bytearray | None = None  # None: not loaded
        self._missed = self._added = 0

    def lacks(self, name: str) -> bool:
        """True if the table has certainly no row of `name`."""
        bits = self._bits
        if bits is None:
            return False
        first = hash(name)
        second = first >> 32
        return not (
            bits[(first & _MASK) >> 3] & 1 << (first & 7) and bits[(second & _MASK) >> 3] & 1 << (second & 7)
        )

    def add(self, name: str) -> None:
        """Enter a name, before its row is written."""
        if self._bits is None:
            return
        self._added += 1
        if self._added > RELOAD_AFTER:
            self._bits = None
        else:
            _enter(self._bits, name)

    def missed(self, names: Iterable[str]) -> None:
        """Count a lookup without a row; at each LOAD_AFTERth fill an empty filter with `names`, all of the table."""
        self._missed += 1
        if self._bits is None and self._missed % LOAD_AFTER == 0:
            bits = bytearray((_MASK + 1) >> 3)
            for name in names:
                _enter(bits, name)
            self._bits, self._added = bits, 0


def _enter(bits: bytearray, name: str) -> None:
    first = hash(name)
    for number in (first, first >> 32):
        bits[(number & _MASK) >> 3] |= 1 << (number & 7)
