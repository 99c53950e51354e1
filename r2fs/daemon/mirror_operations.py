"""Control operations of a mirror: those of a mount where both have them, with the field `mirror` for a mirror's own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from r2fs.daemon import metrics
from r2fs.daemon.control import Operation, Request, operations_of
from r2fs.daemon.cost_operations import CostOperations
from r2fs.daemon.object_operations import ObjectOperations
from r2fs.daemon.operations import CommonOperations
from r2fs.daemon.parts import MirrorParts
from r2fs.daemon.stopping import Stopping
from r2fs.model.errors import MountError
from r2fs.model.views import CacheView

NO_CACHE = CacheView(0, 0, 0, 0, 0, 0, 0)


class MirrorOperations(CommonOperations):
    def __init__(self, parts: MirrorParts, stopping: Stopping) -> None:
        super().__init__(parts, stopping)
        self._mirror = parts.engine

    def status(self, request: Request) -> dict[str, Any]:
        mirror, last = self._mirror, self._mirror.pass_view()
        to_fetch, downloads = mirror.downloads()
        state = "running" if mirror.compared.is_set() else "starting"
        return {
            **self._status(state, "mirror", NO_CACHE),
            "downloads": [metrics.fields_of(each) for each in downloads],
            "mirror": {
                **asdict(mirror.counts()),
                "to_fetch": to_fetch,
                "compared_at_s": last.at_s,
                "error": last.error,
                "skipped": mirror.skipped(),
                "carries_removals": mirror.carries_removals,
            },
        }

    def restart(self, request: Request) -> dict[str, object]:
        raise MountError(
            f"{self._target} is a mirror: end it (r2fs umount {self._target}), and start it again"
        )

    def stop(self, request: Request) -> dict[str, object]:
        """Send what the bucket lacks, and end the mirror. Progress lines until the outcome is known."""
        request.progress(queue=self._queue())
        self._stopping.unmount_now(lambda lazy: None, False, request.number("timeout_s"))
        return {**self._ended(request), "mirror": True}


def table_of(parts: MirrorParts, stopping: Stopping) -> dict[str, Operation]:
    """All operations of a mirror, by name."""
    own, sizes = MirrorOperations(parts, stopping), parts.engine.receipts
    return operations_of(own, ObjectOperations(parts), CostOperations(parts, sizes))
