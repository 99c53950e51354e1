"""Source: the version from which one file's missing ranges are downloaded, and the ranges under way.

Owns:    the state of one file's downloads, for `content/hydrate.py`, `content/download.py` and `content/streaming.py`.
Never:   downloads, or decides.
Locks:   `lock` (rank 35): a SparseFile's may be taken inside; neither a request nor Core.lock under it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from r2fs.disk.sparse_file import SparseFile
from r2fs.model.ranges import Range, RangeSet
from r2fs.model.records import ObjectInfo, Version

FIRST_WINDOW = 512 << 10  # bytes of the first GET of a large file: a fast link's rate times its latency
NEAR = 2 << 20  # bytes: the kernel's own read-ahead, twice
WHOLE = 1 << 62  # bytes: no limit


@dataclass(eq=False)
class Source:
    version: Version  # replaced only by another version of the same bytes: a rename's copy
    content: SparseFile  # constant
    on_info: Callable[[ObjectInfo], None]  # constant: called with each answer's metadata
    on_lost: Callable[[Version], None]  # constant: called if the bucket no longer has this version
    ino: int = 0  # constant
    lock: threading.Lock = field(default_factory=threading.Lock)
    # guarded by: lock
    coming: RangeSet = field(default_factory=RangeSet)
    wanted: list[Range] = field(default_factory=list)  # ranges that readers wait for: not to be released
    window: int = FIRST_WINDOW
    expected: int = 0  # offset of a sequential reader's next read
    allowed: int = WHOLE  # bytes that may be in the file at once; changed by `content/streaming.py` alone
    trouble: str | None = None  # the last attempt's transient error; None: it succeeded

    def is_near(self, start: int) -> bool:
        """True if a read at `start` continues the sequence: the kernel's reads ahead arrive in any order."""
        return abs(start - self.expected) <= max(self.window, NEAR)
