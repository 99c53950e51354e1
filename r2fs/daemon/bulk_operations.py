"""Control operations on many objects: remove, set.

The work runs on a thread of the engine. After the client has left it ends, between two requests to the bucket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from threading import Event

from r2fs.daemon.control import Request
from r2fs.daemon.protocol import HEARTBEAT_S, failure
from r2fs.engine.build import Engine
from r2fs.model.errors import InvalidArgument, MountError, R2fsError
from r2fs.model.header_change import HeaderChange
from r2fs.model.reports import BulkReport

log = logging.getLogger(__name__)


class BulkOperations:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def remove(self, request: Request) -> dict[str, object]:
        """Remove `path` here and in the bucket; with `recursive` all below it, with `dry_run` nothing."""
        path = request.text("path")
        recursive, dry_run = request.flag("recursive"), request.flag("dry_run")

        def work(report: BulkReport, cancelled: Event) -> None:
            self._engine.removal.run(path, report, recursive=recursive, dry_run=dry_run, cancelled=cancelled)

        return self._carried_out(request, work)

    def set(self, request: Request) -> dict[str, object]:
        """Change type and headers of the file at `path`, with `recursive` of all files below, and wait for the bucket."""
        path, change = request.text("path"), _change_in(request.message)
        recursive, dry_run = request.flag("recursive"), request.flag("dry_run")

        def work(report: BulkReport, cancelled: Event) -> None:
            self._engine.header_changes.run(
                path, change, report, recursive=recursive, dry_run=dry_run, cancelled=cancelled
            )
            if not dry_run and report.done:
                sent = self._engine.flush_paths([path], None, None, cancelled.is_set)
                for transfer in self._engine.parked_at([path]):
                    report.fail(transfer.path, transfer.reason or "it is parked")
                report.waiting = 0 if sent else report.done

        return self._carried_out(request, work)

    def _carried_out(self, request: Request, work: Callable[[BulkReport, Event], None]) -> dict[str, object]:
        """The report of `work`, with the error that ended it after it had begun."""
        report, ended, cancelled = BulkReport(), Event(), Event()
        errors: list[R2fsError] = []

        def job() -> None:
            try:
                work(report, cancelled)
            except R2fsError as error:
                errors.append(error)
            except Exception as error:
                log.exception("the command's work failed")
                errors.append(R2fsError(f"the daemon could not carry out the request: {error!r}"))
            finally:
                ended.set()

        if not self._engine.in_background(job):
            raise MountError("the mount is about to end")
        while not ended.wait(HEARTBEAT_S):
            request.progress(report=_counts(report))
            if request.gone.is_set():
                cancelled.set()
        if errors and not report.found:
            raise errors[0]
        stopped = failure(errors[0]) if errors else None
        return {"report": {**_counts(report), "errors": report.errors}, "stopped": stopped}


def _change_in(message: Mapping[str, object]) -> HeaderChange:
    """The change that a request names. InvalidArgument for another form."""
    kind, headers = message.get("content_type"), message.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise InvalidArgument("headers are texts by name")
    return HeaderChange(kind if isinstance(kind, str) else None, headers, message.get("guess") is True)


def _counts(report: BulkReport) -> dict[str, object]:
    fields = asdict(report)
    del fields["errors"]
    return fields
