"""Operations of the control socket on pending changes: pending, retry, discard.

Owns:    the answers' fields.
Threads: each operation runs in a thread of its own, many at once.
Locks:   none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

from r2fs.daemon.control import Request
from r2fs.daemon.parts import Parts
from r2fs.model.views import Export


class QueueOperations:
    def __init__(self, parts: Parts) -> None:
        self._engine = parts.engine

    def table(self) -> dict[str, Callable[[Request], Mapping[str, object]]]:
        return {"pending": self.pending, "retry": self.retry, "discard": self.discard}

    def pending(self, request: Request) -> dict[str, object]:
        """All pending changes below `paths` (none: all), in lines of progress; the last line has none."""
        for page in self._engine.maintenance.pending_pages(request.texts("paths") or []):
            request.progress(transfers=[asdict(view) for view in page])
            if request.gone.is_set():
                break
        return {"transfers": []}

    def retry(self, request: Request) -> dict[str, object]:
        """Send the parked changes below `paths` (none: all) once more."""
        return {"released": self._engine.retry_parked(request.texts("paths") or [])}

    def discard(self, request: Request) -> dict[str, object]:
        """Give up the changes of the file `path`, of which a copy has `size` bytes and the digest `sha256`."""
        export = Export(int(request.number("size") or 0), request.text("sha256"))
        kept = self._engine.maintenance.discards.discard(
            request.text("path"), export, lambda done: request.heartbeat(compared=done)
        )
        return {"in_bucket": kept}
