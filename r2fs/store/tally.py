"""Tally: requests by directory and by program, and the last ones in full.

Owns:    the bounds: DIRECTORIES, PROGRAMS and RECENT entries, about 3 MB at most. What comes after is counted as OTHERS.
Never:   outlives the daemon; knows prices.
Threads: none of its own; `RequestCounter` holds its lock around each call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from r2fs.model.causes import Cause
from r2fs.model.values import dataclass

DIRECTORIES = 5000
PROGRAMS = 200
RECENT = 5000  # requests
OTHERS = "\0others"  # no directory and no program has this name

Counts = tuple[int, ...]  # of class A, of class B, free


@dataclass(slots=True, eq=False)
class Sent:
    """A request. The fields with a default are set by its answer."""

    at_s: float  # seconds since 1970
    verb: str
    key: str  # of its object, or the prefix of a LIST; of several objects, the first
    cause: Cause
    size: int  # bytes of its body
    status: int | None = None  # None: no answer, or not yet
    took_s: float | None = None


class Tally:
    def __init__(self) -> None:
        self._directories: dict[str, list[int]] = {}
        self._programs: dict[str, list[int]] = {}
        self._recent: deque[Sent] = deque(maxlen=RECENT)

    def add(self, sent: Sent, kind: int) -> None:
        """Enter a request. `kind`: its class, 0 for A, 1 for B, 2 for a free one."""
        _counts(self._directories, directory_of(sent.key), DIRECTORIES)[kind] += 1
        _counts(self._programs, sent.cause.program, PROGRAMS)[kind] += 1
        self._recent.append(sent)

    def take_back(self, sent: Sent, kind: int) -> None:
        """Undo `add`: the request was not sent."""
        _counts(self._directories, directory_of(sent.key), DIRECTORIES)[kind] -= 1
        _counts(self._programs, sent.cause.program, PROGRAMS)[kind] -= 1
        try:
            self._recent.remove(sent)
        except ValueError:
            return  # so many were sent since

    def by_directory(self) -> Mapping[str, Counts]:
        """Requests by directory: the key without its last part."""
        return {name: tuple(counts) for name, counts in self._directories.items()}

    def by_program(self) -> Mapping[str, Counts]:
        return {name: tuple(counts) for name, counts in self._programs.items()}

    def recent(self) -> tuple[Sent, ...]:
        """The last RECENT requests, the oldest first."""
        return tuple(self._recent)


def directory_of(key: str) -> str:
    """
    >>> directory_of("takes/07.wav"), directory_of("takes/"), directory_of("07.wav")
    ('takes', 'takes', '')
    """
    return key.rpartition("/")[0]


def _counts(table: dict[str, list[int]], name: str, limit: int) -> list[int]:
    found = table.get(name)
    if found is None:
        if len(table) >= limit and name != OTHERS:
            return _counts(table, OTHERS, limit)
        found = table[name] = [0, 0, 0]
    return found
