"""Operation of the control socket on the limits of bandwidth: limit.

Owns:    a limit until the daemon ends, or the settings file has another one.
Threads: each operation runs in a thread of its own, many at once.
Locks:   none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from r2fs.daemon import metrics
from r2fs.daemon.control import Request
from r2fs.model.errors import InvalidArgument
from r2fs.model.settings.timetable import BandwidthLimit, Timetable

log = logging.getLogger(__name__)


class BandwidthOperations:
    """`changed` is called with the new limits of uploads and downloads."""

    def __init__(self, store: Any, changed: Callable[[Timetable, Timetable], None]) -> None:
        self._store = store
        self._changed = changed

    def table(self) -> dict[str, Callable[[Request], Mapping[str, object]]]:
        return {"limit": self.limit}

    def limit(self, request: Request) -> dict[str, object]:
        """Set the limits `up` and `down`, each if given, as texts; answer with those in force."""
        bandwidth = self._store.bandwidth
        up = _given(request, "up", bandwidth.up.timetable)
        down = _given(request, "down", bandwidth.down.timetable)
        if (up, down) != (bandwidth.up.timetable, bandwidth.down.timetable):
            bandwidth.change(up, down)
            self._changed(up, down)
            log.info("r2fs limit: upload_limit = %s, download_limit = %s", up, down)
        return {"bandwidth": metrics.bandwidth(self._store)}


def _given(request: Request, name: str, present: Timetable) -> Timetable:
    if request.message.get(name) is None:
        return present
    try:
        return BandwidthLimit().parse(request.text(name))
    except ValueError as error:
        raise InvalidArgument(f"{name}: {error}; allowed: {BandwidthLimit().allowed}") from None
