"""Operations of the control socket of a mirror: ping, status, flush, stop, and those on named objects.

Owns:    the answers' fields: those of a mount where both have them, and `mirror` for a mirror's own.
Threads: each operation runs in a thread of its own, many at once.
Locks:   none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from r2fs import __version__
from r2fs.daemon import metrics, spending
from r2fs.daemon.bandwidth_operations import BandwidthOperations
from r2fs.daemon.control import Request
from r2fs.daemon.cost_operations import Costed, CostOperations
from r2fs.daemon.objects import ObjectOperations
from r2fs.daemon.parts import MirrorParts
from r2fs.daemon.protocol import HEARTBEAT_S
from r2fs.daemon.stopping import Stopping
from r2fs.model.errors import MountError
from r2fs.model.settings.timetable import Timetable
from r2fs.model.views import CacheView, QueueView


class MirrorOperations:
    """Each operation answers one request; a refusal is an R2fsError."""

    def __init__(self, parts: MirrorParts, stopping: Stopping) -> None:
        self._parts = parts
        self._mirror = parts.engine
        self._stopping = stopping
        self._started_at_s = time.time()

    def table(self) -> dict[str, Callable[[Request], Mapping[str, object]]]:
        return {
            "ping": self.ping,
            "status": self.status,
            "flush": self.flush,
            "stop": self.stop,
            "restart": self.restart,
            **BandwidthOperations(self._parts.store, self._limited).table(),
            **CostOperations(self._costed(), self._started_at_s).table(),
            "settings": self.settings,
            **ObjectOperations(self._parts).table(),
        }

    def _costed(self) -> Costed:
        mirror, parts = self._mirror, self._parts
        return Costed(
            parts.store, parts.spending, lambda: mirror.settings, mirror.sizes, mirror.receipts.locate
        )

    def _limited(self, up: Timetable, down: Timetable) -> None:
        self._mirror.change_settings(replace(self._mirror.settings, upload_limit=up, download_limit=down))

    def ping(self, request: Request) -> dict[str, object]:
        return {"pid": os.getpid(), "version": __version__}

    def status(self, request: Request) -> dict[str, object]:
        settings, queue = self._mirror.settings, self._mirror.queue_view()
        no_cache = CacheView(0, 0, 0, 0, 0, 0, 0)
        return {
            "mount": {
                "mountpoint": self._parts.target,
                "url": settings.bucket.url,
                "name": settings.name,
                "pid": os.getpid(),
                "state": self._state(),
                "read_only": settings.read_only,
                "driver": "mirror",
                "state_dir": str(settings.state_dir),
            },
            "warnings": [
                *metrics.warnings(settings, queue, no_cache),
                *spending.warnings(self._parts.spending.view()),
            ],
            "queue": metrics.queue(queue),
            "downloads": [metrics.fields_of(each) for each in self._mirror.downloads()[1]],
            "cache": metrics.cache(no_cache),
            "mirror": self._described(),
            "requests": metrics.requests(self._parts.store),
            "bandwidth": metrics.bandwidth(self._parts.store),
            "health": metrics.health(self._parts.store),
        }

    def _state(self) -> str:
        if self._stopping.requested.is_set():
            return "stopping"
        return "running" if self._mirror.compared.is_set() else "starting"

    def _queue(self) -> dict[str, Any]:
        return metrics.queue(self._mirror.queue_view())

    def _described(self) -> dict[str, Any]:
        last = self._mirror.pass_view()
        return {
            **asdict(self._mirror.counts()),
            "to_fetch": self._mirror.downloads()[0],
            "compared_at_s": last.at_s,
            "error": last.error,
            "skipped": self._mirror.skipped(),
            "carries_removals": self._mirror.carries_removals,
        }

    def flush(self, request: Request) -> dict[str, object]:
        """Send what the bucket lacks below `paths` (none: all), and wait at most `timeout_s` for it.

        With `retry`, parked files below them are tried once more.
        """
        reported_s = time.monotonic()
        request.progress(queue=self._queue())
        paths = request.texts("paths") or []
        if request.message.get("retry") is True:
            self._mirror.retry_parked(paths)

        def progress(view: QueueView) -> None:
            nonlocal reported_s
            if time.monotonic() - reported_s >= HEARTBEAT_S:
                reported_s = time.monotonic()
                request.progress(queue=metrics.queue(view))

        sent = self._mirror.flush_paths(paths, request.number("timeout_s"), progress, request.gone.is_set)
        parked, refusal = self._mirror.parked_at(paths), self._mirror.refusal()
        return {"sent": sent, **metrics.flushed(self._mirror.queue_view(), parked, refusal)}

    def settings(self, request: Request) -> dict[str, object]:
        """The settings in force."""
        return {"settings": metrics.settings(self._mirror.settings)}

    def restart(self, request: Request) -> dict[str, object]:
        raise MountError(
            f"{self._parts.target} is a mirror: end it (r2fs umount {self._parts.target}), and start it again"
        )

    def stop(self, request: Request) -> dict[str, object]:
        """Send what the bucket lacks, and end the mirror. Progress lines until the outcome is known."""
        request.progress(queue=self._queue())
        self._stopping.unmount_now(lambda lazy: None, False, request.number("timeout_s"))
        while True:
            progress, outcome = self._stopping.wait(HEARTBEAT_S)
            if outcome is not None:
                return {"queue": metrics.queue(outcome.left), "exit_code": outcome.exit_code, "mirror": True}
            request.progress(queue=metrics.queue(progress) if progress is not None else self._queue())
