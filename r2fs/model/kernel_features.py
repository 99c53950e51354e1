"""Features of FUSE in the kernel that make a mount faster, and the release of Linux that brought each.

A release is no proof: distributions take features back to earlier ones. `r2fs doctor` gets the kernel's own answer.
"""

from __future__ import annotations

import re

PASSTHROUGH = "passthrough"
RESEND = "resend after a take-over"
MMAP = "mmap of streamed files"
EXPIRY = "expiry of names"
PAGES = "kept page cache"
SINCE = {PASSTHROUGH: "6.9", RESEND: "6.9", MMAP: "6.6", EXPIRY: "6.2", PAGES: "5.2"}


def by_release(release: str) -> list[str]:
    """Return the features of a kernel release (uname(2)), such as 6.1.0-18-amd64; none of a release in another form."""
    found = _numbers(release)
    return [name for name, since in SINCE.items() if found >= _numbers(since)]


def _numbers(release: str) -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)", release)
    return tuple(map(int, match.groups())) if match else ()
