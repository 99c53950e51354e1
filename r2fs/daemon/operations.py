"""Operations of the control socket on the mount as a whole: ping, status, flush, stop, restart.

Owns:    the answers' fields, with metrics.py.
Never:   decides how the daemon stops (stopping.py) or restarts (service.py).
Threads: each operation runs in a thread of its own, many at once.
Locks:   none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from threading import Event

from r2fs import __version__
from r2fs.daemon import metrics, spending
from r2fs.daemon.bandwidth_operations import BandwidthOperations
from r2fs.daemon.bulk import BulkOperations
from r2fs.daemon.cache_operations import CacheOperations
from r2fs.daemon.control import Request
from r2fs.daemon.copies import CopyOperations
from r2fs.daemon.cost_operations import Costed, CostOperations
from r2fs.daemon.file_operations import FileOperations
from r2fs.daemon.objects import ObjectOperations
from r2fs.daemon.parts import Parts
from r2fs.daemon.protocol import HEARTBEAT_S, peer_pid
from r2fs.daemon.queue_operations import QueueOperations
from r2fs.daemon.stopping import Stopping
from r2fs.model.errors import MountError
from r2fs.model.ports import Caller
from r2fs.model.settings.timetable import Timetable
from r2fs.model.views import QueueView


class Operations:
    """Each operation answers one request; a refusal is an R2fsError."""

    def __init__(self, parts: Parts, stopping: Stopping, target: str, restart: Callable[[], None]) -> None:
        self._parts = parts
        self._restart = restart
        self._stopping = stopping
        self._target = target
        self._state = "starting"  # changed once, by mounted()
        self._started_at_s = time.time()

    def table(self) -> dict[str, Callable[[Request], Mapping[str, object]]]:
        return {
            "ping": self.ping,
            "status": self.status,
            "flush": self.flush,
            "stop": self.stop,
            "restart": self.restart,
            "refresh": self.refresh,
            "settings": self.settings,
            **ObjectOperations(self._parts).table(),
            **CopyOperations(self._parts).table(),
            **BulkOperations(self._parts).table(),
            **FileOperations(self._parts).table(),
            **QueueOperations(self._parts).table(),
            **BandwidthOperations(self._parts.store, self._limited).table(),
            **CacheOperations(self._parts).table(),
            **CostOperations(self._costed(), self._started_at_s).table(),
        }

    def _costed(self) -> Costed:
        parts, care = self._parts, self._parts.engine.maintenance
        locate = parts.engine.receipts.locate
        return Costed(parts.store, parts.spending, lambda: care.settings, care.stored_sizes, locate)

    def _limited(self, up: Timetable, down: Timetable) -> None:
        engine = self._parts.engine
        engine.change_settings(replace(engine.settings, upload_limit=up, download_limit=down))

    def mounted(self) -> None:
        """Show the mount as running. Called once, by the readiness thread."""
        self._state = "running"

    def ping(self, request: Request) -> dict[str, object]:
        return {"pid": os.getpid(), "version": __version__}

    def status(self, request: Request) -> dict[str, object]:
        """The whole mount, from counters and views: no request to the bucket, and no wait for one."""
        parts = self._parts
        state = "stopping" if self._stopping.requested.is_set() else self._state
        queue, cache = parts.engine.queue_view(), parts.engine.cache_view()
        return {
            "mount": {
                **metrics.mount(parts.settings, self._target, os.getpid(), state, parts.driver),
                "buckets": metrics.buckets(parts.settings, parts.store),
                **parts.takeover.describe(),
                "started_at_s": self._started_at_s,
            },
            "warnings": [
                *metrics.warnings(parts.engine.maintenance.settings, queue, cache),
                *spending.warnings(parts.spending.view()),
            ],
            "queue": metrics.queue(queue),
            "downloads": metrics.downloads(parts.engine.downloads_view(), parts.engine.maintenance.paths_of),
            "cache": metrics.cache(cache, parts.engine.maintenance.surplus()),
            "pins": asdict(parts.engine.pins.summary()),
            "room": metrics.room(parts.engine.room_view()),
            "aside": metrics.aside(parts.engine.aside_view()),
            "damaged": list(parts.engine.damaged_view()),
            "requests": metrics.requests(parts.store),
            "bandwidth": metrics.bandwidth(parts.store),
            "health": metrics.health(parts.store),
            "kernel": metrics.kernel(parts.driver, parts.engine.maintenance.paths_of),
        }

    def flush(self, request: Request) -> dict[str, object]:
        """Upload the pending changes below `paths` (none: all), and wait at most `timeout_s` for them.

        With `retry`, parked files below them are tried once more.
        """
        reported_s = time.monotonic()
        request.progress(
            queue=metrics.queue(self._parts.engine.queue_view())
        )  # what is pending before it begins
        paths = request.texts("paths") or []
        if request.message.get("retry") is True:
            self._parts.engine.retry_parked(paths)

        def progress(view: QueueView) -> None:
            nonlocal reported_s
            if time.monotonic() - reported_s >= HEARTBEAT_S:
                reported_s = time.monotonic()
                request.progress(queue=metrics.queue(view))

        engine, timeout_s = self._parts.engine, request.number("timeout_s")
        sent = engine.flush_paths(paths, timeout_s, progress, request.gone.is_set)
        parked, refusal = engine.parked_at(paths), engine.refusal(paths)
        return {"sent": sent, **metrics.flushed(engine.queue_view(), parked, refusal, paths)}

    def refresh(self, request: Request) -> dict[str, object]:
        """Forget names at and below `paths`; with `wait` ask for them now, with `recursive` for all below."""
        directories = files = 0
        failed: list[tuple[str, str]] = []
        caller = HeardCaller(lambda: request.progress(directories=directories), request.gone)
        for path in request.texts("paths") or [""]:
            view = self._parts.engine.refreshing.forget(path)
            if request.message.get("wait") is True:
                view = self._parts.engine.refreshing.ask(
                    caller, path, request.message.get("recursive") is True
                )
            directories, files = directories + view.directories, files + view.files
            failed += view.failed
        named = [{"path": path, "error": error} for path, error in failed]
        return {"directories": directories, "files": files, "failed": named}

    def settings(self, request: Request) -> dict[str, object]:
        """The settings in force."""
        return {"settings": metrics.settings(self._parts.engine.maintenance.settings)}

    def restart(self, request: Request) -> dict[str, object]:
        """Begin a restart and answer at once; the successor's card shows its end. MountError before the mount is ready."""
        if self._state != "running":
            raise MountError(f"{self._target} is not mounted yet")
        self._restart()
        return {"pid": os.getpid()}

    def stop(self, request: Request) -> dict[str, object]:
        """Unmount, upload, end the daemon. Progress lines until the outcome is known."""
        timeout_s, lazy = request.number("timeout_s"), request.message.get("lazy") is True
        request.progress(queue=metrics.queue(self._parts.engine.queue_view()))
        self._stopping.unmount_now(self._parts.driver.unmount, lazy, timeout_s, peer_pid(request.connection))
        while True:
            progress, outcome = self._stopping.wait(HEARTBEAT_S)
            if outcome is not None:
                return {"queue": metrics.queue(outcome.left), "exit_code": outcome.exit_code}
            request.progress(queue=metrics.queue(progress or self._parts.engine.queue_view()))


class HeardCaller(Caller):
    """A caller whose client hears of each second of a wait."""

    __slots__ = ("_progress",)

    def __init__(self, progress: Callable[[], None], gone: Event) -> None:
        super().__init__(cancelled=gone)
        self._progress = progress

    def about_to_wait(self) -> None:
        super().about_to_wait()
        self._progress()
