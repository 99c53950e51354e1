"""Range header: the one range of bytes that a player asks for (RFC 9110, section 14)."""

from __future__ import annotations

import re
from typing import NamedTuple

_ONE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class Extent(NamedTuple):
    start: int
    stop: int  # the byte after the last


class Unsatisfiable(Exception):
    """No byte of the range is in the file."""


def parse(header: str | None, size: int) -> Extent | None:
    """The range of a header for a file of `size` bytes; None: all of the file. Several ranges count as none.

    >>> parse("bytes=2-", 10), parse("bytes=-3", 10), parse("bytes=0-99", 10), parse("bytes=0-1,4-5", 10)
    (Extent(start=2, stop=10), Extent(start=7, stop=10), Extent(start=0, stop=10), None)
    """
    found = _ONE.fullmatch((header or "").strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, stop = max(0, size - int(found[2])), size
    else:
        start, stop = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
        if found[2] and int(found[2]) < start:
            return None  # no range at all, which a server ignores
    if start >= stop:
        raise Unsatisfiable
    return Extent(start, stop)
