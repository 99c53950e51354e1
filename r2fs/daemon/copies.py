"""Operations of the control socket on local copies: warm, evict.

Owns:    the answers' fields.
Threads: each operation runs in a thread of its own, many at once.
Locks:   none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict

from r2fs.daemon.control import Request
from r2fs.daemon.parts import Parts
from r2fs.daemon.protocol import HEARTBEAT_S
from r2fs.model.ports import Caller
from r2fs.model.views import WarmView


class CopyOperations:
    def __init__(self, parts: Parts) -> None:
        self._copies = parts.engine.local_copies

    def table(self) -> dict[str, Callable[[Request], Mapping[str, object]]]:
        return {"warm": self.warm, "evict": self.evict}

    def warm(self, request: Request) -> dict[str, object]:
        """Download the files at and below `paths`, with progress lines. A client that leaves ends it."""
        return asdict(
            self._copies.warm(request.texts("paths") or [], Caller(cancelled=request.gone), reporter(request))
        )

    def evict(self, request: Request) -> dict[str, object]:
        """Drop the cached content at and below `paths`."""
        return asdict(self._copies.evict(request.texts("paths") or []))


def reporter(request: Request) -> Callable[[WarmView], None]:
    """Return a function that sends progress, at most one line in HEARTBEAT_S."""
    sent_s = float("-inf")

    def report(view: WarmView) -> None:
        nonlocal sent_s
        if time.monotonic() - sent_s >= HEARTBEAT_S:
            sent_s = time.monotonic()
            request.progress(**asdict(view))

    return report
