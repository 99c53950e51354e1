"""Control operations of a mount or a mirror as a whole: status, flush, stop, restart, settings, limit; and the tables of
all operations."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from r2fs import __version__
from r2fs.daemon import metrics, spending
from r2fs.daemon.bulk_operations import BulkOperations
from r2fs.daemon.control import Operation, Request, operations_of
from r2fs.daemon.cost_operations import CostOperations
from r2fs.daemon.file_operations import FileOperations
from r2fs.daemon.object_operations import ObjectOperations
from r2fs.daemon.parts import MirrorParts, Parts
from r2fs.daemon.protocol import HEARTBEAT_S, peer_pid
from r2fs.daemon.stopping import Stopping, exit_code
from r2fs.engine.content.warm import Watched
from r2fs.model.errors import InvalidArgument, MountError
from r2fs.model.ports import Caller
from r2fs.model.settings.timetable import BandwidthLimit, Timetable
from r2fs.model.views import CacheView

log = logging.getLogger(__name__)

NO_CACHE = CacheView(0, 0, 0, 0, 0, 0, 0)  # of a mirror


class CommonOperations:
    """Operations of a mount and of a mirror."""

    def __init__(self, parts: Parts | MirrorParts, stopping: Stopping) -> None:
        self._target = parts.target
        self._engine = parts.engine
        self._store = parts.store
        self._spending = parts.spending
        self._stopping = stopping

    def ping(self, request: Request) -> dict[str, object]:
        return {"pid": os.getpid(), "version": __version__}

    def settings(self, request: Request) -> dict[str, object]:
        """The settings in force."""
        return {"settings": metrics.settings(self._engine.settings)}

    def flush(self, request: Request) -> dict[str, object]:
        """Upload the pending changes below `paths` (none: all), and wait at most `timeout_s` for them.

        With `retry`, parked files below them are tried once more.
        """
        engine, paths = self._engine, request.paths()
        request.progress(queue=self._queue())  # what is pending before it begins
        if request.flag("retry"):
            engine.retry_parked(paths)
        sent = engine.flush_paths(
            paths,
            request.number("timeout_s"),
            lambda view: request.heartbeat(queue=metrics.queue(view)),
            request.gone.is_set,
        )
        parked, refusal = engine.parked_at(paths), engine.refusal(paths)
        return {"sent": sent, **metrics.flushed(engine.queue_view(), parked, refusal, paths)}

    def limit(self, request: Request) -> dict[str, object]:
        """Set the limits of bandwidth `up` and `down`, each if given, as texts; answer with those in force.

        They hold until the daemon ends, or the settings file has others.
        """
        bandwidth = self._store.bandwidth
        before = bandwidth.up.timetable, bandwidth.down.timetable
        up, down = (_given(request, name, limit) for name, limit in zip(("up", "down"), before, strict=True))
        if (up, down) != before:
            bandwidth.change(up, down)
            self._engine.change_settings(replace(self._engine.settings, upload_limit=up, download_limit=down))
            log.info("r2fs limit: upload_limit = %s, download_limit = %s", up, down)
        return {"bandwidth": metrics.bandwidth(self._store)}

    def _status(self, state: str, driver: str, cache: CacheView, surplus: int = 0) -> dict[str, Any]:
        settings, queue = self._engine.settings, self._engine.queue_view()
        return {
            "mount": {
                "mountpoint": self._target,
                "url": settings.bucket.url,
                "name": settings.name,
                "pid": os.getpid(),
                "state": "stopping" if self._stopping.requested.is_set() else state,
                "read_only": settings.read_only,
                "driver": driver,
                "state_dir": str(settings.state_dir),
            },
            "warnings": [
                *metrics.warnings(settings, queue, cache),
                *spending.warnings(self._spending.view()),
            ],
            "queue": metrics.queue(queue),
            "cache": metrics.cache(cache, surplus),
            "requests": metrics.requests(self._store),
            "bandwidth": metrics.bandwidth(self._store),
            "health": asdict(self._store.health.view()),
        }

    def _queue(self) -> dict[str, Any]:
        return metrics.queue(self._engine.queue_view())

    def _ended(self, request: Request) -> dict[str, object]:
        """Wait for the outcome of a stop, with a line of progress each HEARTBEAT_S."""
        while True:
            progress, left = self._stopping.wait(HEARTBEAT_S)
            if left is not None:
                return {"queue": metrics.queue(left), "exit_code": exit_code(left)}
            request.progress(queue=self._queue() if progress is None else metrics.queue(progress))


def _given(request: Request, name: str, present: Timetable) -> Timetable:
    if request.message.get(name) is None:
        return present
    try:
        return BandwidthLimit().parse(request.text(name))
    except ValueError as error:
        raise InvalidArgument(f"{name}: {error}; allowed: {BandwidthLimit().allowed}") from None


class MountOperations(CommonOperations):
    """Operations of a mount."""

    def __init__(self, parts: Parts, stopping: Stopping, restart: Callable[[], None]) -> None:
        super().__init__(parts, stopping)
        self._parts = parts
        self._restart = restart

    def status(self, request: Request) -> dict[str, Any]:
        """The whole mount, from counters and views: no request to the bucket, and no wait for one."""
        parts, engine = self._parts, self._parts.engine
        state = "running" if parts.mounted.is_set() else "starting"
        common = self._status(state, type(parts.driver).__name__, engine.cache_view(), engine.surplus())
        common["mount"] |= {
            "cache_dir": str(parts.settings.cache_dir),
            "staging_dir": str(parts.settings.staging_dir),
            "buckets": metrics.buckets(parts.settings, parts.store),
            **parts.takeover.describe(),
            "started_at_s": parts.started_at_s,
        }
        return {
            **common,
            "downloads": metrics.downloads(engine.downloads_view(), engine.paths_of),
            "pins": asdict(engine.pins.summary()),
            "room": asdict(engine.room_view()),
            "aside": asdict(engine.aside_view()),
            "damaged": list(engine.damaged_view()),
            "kernel": metrics.kernel(parts.driver, engine.paths_of),
        }

    def refresh(self, request: Request) -> dict[str, object]:
        """Forget names at and below `paths`; with `wait` ask for them now, with `recursive` for all below."""
        directories = files = 0
        failed: list[tuple[str, str]] = []
        refreshing = self._parts.engine.refreshing
        caller = Watched(Caller(cancelled=request.gone), lambda: request.heartbeat(directories=directories))
        for path in request.paths() or [""]:
            view = refreshing.forget(path)
            if request.flag("wait"):
                view = refreshing.ask(caller, path, request.flag("recursive"))
            directories, files = directories + view.directories, files + view.files
            failed += view.failed
        named = [{"path": path, "error": error} for path, error in failed]
        return {"directories": directories, "files": files, "failed": named}

    def restart(self, request: Request) -> dict[str, object]:
        """Begin a restart and answer at once; the successor's card shows its end. MountError before the mount is ready."""
        if not self._parts.mounted.is_set():
            raise MountError(f"{self._target} is not mounted yet")
        self._restart()
        return {"pid": os.getpid()}

    def stop(self, request: Request) -> dict[str, object]:
        """Unmount, upload, end the daemon. Progress lines until the outcome is known."""
        request.progress(queue=self._queue())
        self._stopping.unmount_now(
            self._parts.driver.unmount,
            request.flag("lazy"),
            request.number("timeout_s"),
            peer_pid(request.connection),
        )
        return self._ended(request)


class MirrorOperations(CommonOperations):
    """Operations of a mirror."""

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
        """Send pending changes, and end the mirror. Progress lines until the outcome is known."""
        request.progress(queue=self._queue())
        self._stopping.unmount_now(lambda lazy: None, False, request.number("timeout_s"))
        return {**self._ended(request), "mirror": True}


def table_of_mount(parts: Parts, stopping: Stopping, restart: Callable[[], None]) -> dict[str, Operation]:
    """All operations of a mount, by name."""
    own = MountOperations(parts, stopping, restart)
    sizes = parts.engine.file_views
    return operations_of(
        own,
        ObjectOperations(parts),
        FileOperations(parts),
        BulkOperations(parts.engine),
        CostOperations(parts, sizes),
    )


def table_of_mirror(parts: MirrorParts, stopping: Stopping) -> dict[str, Operation]:
    """All operations of a mirror, by name."""
    own, sizes = MirrorOperations(parts, stopping), parts.engine.receipts
    return operations_of(own, ObjectOperations(parts), CostOperations(parts, sizes))
