"""Operations of the control socket on the cache: cache_check, cache_clear.

Owns:    the answers' fields.
Threads: each operation runs in a thread of its own, many at once.
Locks:   none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

from r2fs.daemon.control import Request
from r2fs.daemon.parts import Parts
from r2fs.model.views import CacheCheckView


class CacheOperations:
    def __init__(self, parts: Parts) -> None:
        self._engine = parts.engine

    def table(self) -> dict[str, Callable[[Request], Mapping[str, object]]]:
        return {"cache_check": self.check, "cache_clear": self.clear}

    def check(self, request: Request) -> dict[str, object]:
        """Compare cached files with their ETags, and drop those that differ."""

        def progress(view: CacheCheckView) -> None:
            request.heartbeat(**asdict(view))

        return asdict(self._engine.maintenance.cache_care.check(progress, request.gone.is_set))

    def clear(self, request: Request) -> dict[str, object]:
        """Remove all clean content that is not open."""
        before, after = self._engine.maintenance.cache_care.clear()
        return {
            "removed": before.entries - after.entries,
            "removed_bytes": before.bytes - after.bytes,
            "entries": after.entries,
            "bytes": after.bytes,
        }
