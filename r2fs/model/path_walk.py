"""Path resolution, one part after the other, by a rule of the caller's.

Owns:  the walk as in path_resolution(7): `.`, `..`, and links that are absolute or not.
Never: looks at a file; the caller's `link_at` does, and may refuse.
"""

from __future__ import annotations

import os
from collections.abc import Callable

MAX_LINKS = 40  # symbolic links on one way, as in the kernel


def resolved(path: str | os.PathLike[str], link_at: Callable[[str], str | None]) -> str:
    """`path` without symbolic links. `link_at` gives the target of the link at a path; None: it is none."""
    done, waiting = "/", os.path.abspath(path).split("/")[::-1]
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = os.path.dirname(done)
            continue
        here = os.path.join(done, part)
        target = link_at(here)
        if target is None:
            done = here
            continue
        done = "/" if target.startswith("/") else done
        waiting += target.split("/")[::-1]
    return done
