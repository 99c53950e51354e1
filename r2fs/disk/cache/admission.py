"""Admission: a file that is to become an entry of the clean cache."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from r2fs.disk.durable import BLOCK
from r2fs.model.ranges import RangeSet
from r2fs.model.records import Version

PAGE = 4096  # a complete file counts in whole blocks of this


class Admission(NamedTuple):
    """The file at `path`, which keeps that name, with bytes of `version`."""

    version: Version
    path: Path
    size: int
    present: RangeSet | None  # None: all
    stored_at_s: float | None = None  # age of a new entry, as Clock.time(); None: now

    def about(self) -> str:
        """Return the row's text: size, present ranges and the file's mtime now. Raises OSError."""
        present = None if self.present is None else list(self.present)
        return json.dumps([self.version.size, present, os.stat(self.path).st_mtime_ns])

    def cost(self) -> int:
        """Return the bytes that count against the cache's limit. Raises OSError."""
        if self.present is None:
            return -(-self.size // PAGE) * PAGE
        return os.stat(self.path).st_blocks * BLOCK
