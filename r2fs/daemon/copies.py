"""Operations of the control socket on local copies: warm, evict, pin, unpin, pins.

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
from r2fs.engine.content.warm import Watched
from r2fs.model.ports import Caller
from r2fs.model.views import NOTHING_WARMED, WarmView


class CopyOperations:
    def __init__(self, parts: Parts) -> None:
        self._copies = parts.engine.local_copies
        self._pins = parts.engine.pins

    def table(self) -> dict[str, Callable[[Request], Mapping[str, object]]]:
        return {
            "warm": self.warm,
            "evict": self.evict,
            "pin": self.pin,
            "unpin": self.unpin,
            "pins": self.pins,
        }

    def warm(self, request: Request) -> dict[str, object]:
        """Download the files at and below `paths`, with progress lines. A client that leaves ends it."""
        return asdict(
            self._copies.warm(request.texts("paths") or [], Caller(cancelled=request.gone), reporter(request))
        )

    def evict(self, request: Request) -> dict[str, object]:
        """Drop the cached content at and below `paths`."""
        return asdict(self._copies.evict(request.texts("paths") or []))

    def pin(self, request: Request) -> dict[str, object]:
        """Pin `paths`, for themselves or as what `session` refers to, then download them, with progress lines.

        A client that leaves ends the progress; the download goes on in the background. So it does with `wait` false.
        """
        paths, session = request.texts("paths") or [], request.message.get("session")
        caller, report = Caller(cancelled=request.gone), reporter(request)
        waiting = Watched(caller, lambda: report(NOTHING_WARMED))
        self._pins.pin(paths, session if isinstance(session, str) else None, waiting)
        if request.message.get("wait") is False:
            return asdict(NOTHING_WARMED)
        return asdict(self._copies.warm(paths, caller, report))

    def unpin(self, request: Request) -> dict[str, object]:
        """Unpin what is pinned at and below `paths`."""
        return {"unpinned": self._pins.unpin(request.texts("paths") or [])}

    def pins(self, request: Request) -> dict[str, object]:
        """All pins, and the part of the cache that they may have."""
        limit, pins = self._pins.view()
        return {"limit": limit, "pins": [asdict(pin) for pin in pins]}


def reporter(request: Request) -> Callable[[WarmView], None]:
    """Return a function that sends progress, at most one line in HEARTBEAT_S."""
    sent_s = float("-inf")

    def report(view: WarmView) -> None:
        nonlocal sent_s
        if time.monotonic() - sent_s >= HEARTBEAT_S:
            sent_s = time.monotonic()
            request.progress(**asdict(view))

    return report
