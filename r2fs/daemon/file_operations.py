"""Operations of the control socket on what is known of files: file, files, shares.

Owns:    the answers' fields.
Threads: each operation runs in a thread of its own, many at once.
Locks:   none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

from r2fs.daemon.control import Request
from r2fs.daemon.parts import Parts
from r2fs.model.ports import Caller
from r2fs.model.views import FileView


class FileOperations:
    def __init__(self, parts: Parts) -> None:
        self._views = parts.engine.maintenance.file_views
        self._shares = parts.engine.maintenance.shares
        self._history = parts.engine.maintenance.records.core.history
        self._settings, self._store = parts.settings, parts.store

    def table(self) -> dict[str, Callable[[Request], Mapping[str, object]]]:
        return {"file": self.file, "files": self.files, "shares": self.shares}

    def file(self, request: Request) -> dict[str, object]:
        """The file or directory `path`, and its history."""
        path = request.text("path")
        view = self._views.one(path, Caller(cancelled=request.gone))
        history = [asdict(event) for event in self._views.history(path)]
        return {**self._fields(view), "history": history, "history_since_at_s": self._history.since_at_s}

    def files(self, request: Request) -> dict[str, object]:
        """The names in the directory `path`, in lines of progress; the last line has none."""
        for page in self._views.pages(request.text("path")):
            request.progress(files=[self._fields(view) for view in page])
            if request.gone.is_set():
                break
        return {"files": []}

    def shares(self, request: Request) -> dict[str, object]:
        """The known bytes below each directory in the directory `path`, and those on this host."""

        def heard() -> bool:
            request.heartbeat()
            return not request.gone.is_set()

        return {"shares": [asdict(view) for view in self._shares.below(request.text("path"), heard)]}

    def _fields(self, view: FileView) -> dict[str, object]:
        """Fields of the view. `unavailable`: why the file's bucket does not answer; null: it does."""
        health = self._store.health.view()
        silent = getattr(health, "buckets", {"": health} if not health.answers else {})
        name = view.path.partition("/")[0] if self._settings.bucket.several else ""
        bucket = silent.get(name)
        return {
            **asdict(view),
            "whole": view.whole,
            "unavailable": None if bucket is None or not view.path else bucket.reason,
        }
