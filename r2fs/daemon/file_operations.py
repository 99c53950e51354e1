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
from r2fs.model.views import FileView


class FileOperations:
    def __init__(self, parts: Parts) -> None:
        self._views = parts.engine.maintenance.file_views
        self._shares = parts.engine.maintenance.shares

    def table(self) -> dict[str, Callable[[Request], Mapping[str, object]]]:
        return {"file": self.file, "files": self.files, "shares": self.shares}

    def file(self, request: Request) -> dict[str, object]:
        """The file or directory `path`."""
        return _fields(self._views.one(request.text("path")))

    def files(self, request: Request) -> dict[str, object]:
        """The names in the directory `path`, in lines of progress; the last line has none."""
        for page in self._views.pages(request.text("path")):
            request.progress(files=[_fields(view) for view in page])
            if request.gone.is_set():
                break
        return {"files": []}

    def shares(self, request: Request) -> dict[str, object]:
        """The known bytes below each directory in the directory `path`, and those on this host."""

        def heard() -> bool:
            request.heartbeat()
            return not request.gone.is_set()

        return {"shares": [asdict(view) for view in self._shares.below(request.text("path"), heard)]}


def _fields(view: FileView) -> dict[str, object]:
    return {**asdict(view), "whole": view.whole}
