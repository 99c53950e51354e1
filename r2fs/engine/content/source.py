"""Source: where the missing ranges of one content come from, and what is on its way.

Owns:    the state of one file's fetching, for `content/hydrate.py`, `content/download.py` and `content/streaming.py`.
Never:   fetches, or decides.
Locks:   `lock` (rank 35): a SparseFile's may be taken inside; no request, and not Core.lock, under it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from r2fs.disk.sparse_file import SparseFile
from r2fs.model.ranges import Range, RangeSet
from r2fs.model.records import ObjectInfo, Version

FIRST_WINDOW = 512 << 10  # the smallest fetch of a large file: one request's worth of a fast link's latency
NEAR = 2 << 20  # bytes: the kernel's own read-ahead, twice
WHOLE = 1 << 62  # bytes: no limit


@dataclass(eq=False)
class Source:
    version: Version  # another one only for the same bytes: a rename's copy has got there
    content: SparseFile  # constant
    on_info: Callable[[ObjectInfo], None]  # constant: told of each answer's metadata
    on_lost: Callable[[Version], None]  # constant: told that the bucket has this version no more
    ino: int = 0  # constant
    lock: threading.Lock = field(default_factory=threading.Lock)
    # guarded by: lock
    coming: RangeSet = field(default_factory=RangeSet)
    wanted: list[Range] = field(default_factory=list)  # what somebody waits for: not to be given back
    window: int = FIRST_WINDOW
    expected: int = 0  # where a sequential reader reads next
    allowed: int = WHOLE  # bytes of it that may be here at once; changed by `content/streaming.py` alone
    trouble: str | None = None  # what the last attempt met that may pass; None: it went well

    def is_near(self, start: int) -> bool:
        """True if a read there goes on with the sequence: the kernel's reads ahead come in any order."""
        return abs(start - self.expected) <= max(self.window, NEAR)
