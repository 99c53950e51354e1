"""Control operations on the files of a mount: their state, their pending changes, and their local copies."""

from __future__ import annotations

from dataclasses import asdict

from r2fs.daemon.control import Request
from r2fs.daemon.parts import Parts
from r2fs.engine.content.warm import Watched
from r2fs.model.ports import Caller
from r2fs.model.views import NOTHING_WARMED, Export, FileView, WarmView


class FileOperations:
    def __init__(self, parts: Parts) -> None:
        self._engine = parts.engine
        self._store = parts.store

    # ------------------------------------------------------------------ state
    def file(self, request: Request) -> dict[str, object]:
        """The file or directory `path`, and its history."""
        path, views = request.text("path"), self._engine.file_views
        view = views.one(path, Caller(cancelled=request.gone))
        since_at_s = self._engine.history.since_at_s
        history = [asdict(event) for event in views.history(path)]
        return {**self._fields(view), "history": history, "history_since_at_s": since_at_s}

    def files(self, request: Request) -> dict[str, object]:
        """The names in the directory `path`, in lines of progress; the last line has none."""
        for page in self._engine.file_views.pages(request.text("path")):
            request.progress(files=[self._fields(view) for view in page])
            if request.gone.is_set():
                break
        return {"files": []}

    def shares(self, request: Request) -> dict[str, object]:
        """The known bytes below each directory in the directory `path`, and those on this host."""

        def heard() -> bool:
            request.heartbeat()
            return not request.gone.is_set()

        return {
            "shares": [asdict(view) for view in self._engine.file_views.shares(request.text("path"), heard)]
        }

    def _fields(self, view: FileView) -> dict[str, object]:
        """Fields of the view. `unavailable`: why the file's bucket does not answer; null: it does."""
        health = self._store.health.view()
        silent = getattr(health, "buckets", {"": health} if not health.answers else {})
        name = view.path.partition("/")[0] if self._engine.settings.bucket.several else ""
        bucket = silent.get(name)
        return {
            **asdict(view),
            "whole": view.whole,
            "unavailable": None if bucket is None or not view.path else bucket.reason,
        }

    # ------------------------------------------------------------------ pending changes
    def pending(self, request: Request) -> dict[str, object]:
        """All pending changes below `paths` (none: all), in lines of progress; the last line has none."""
        for page in self._engine.pending_pages(request.paths()):
            request.progress(transfers=[asdict(view) for view in page])
            if request.gone.is_set():
                break
        return {"transfers": []}

    def retry(self, request: Request) -> dict[str, object]:
        """Send the parked changes below `paths` (none: all) once more."""
        return {"released": self._engine.retry_parked(request.paths())}

    def discard(self, request: Request) -> dict[str, object]:
        """Give up the changes of the file `path`, of which a copy has `size` bytes and the digest `sha256`."""
        export = Export(int(request.number("size") or 0), request.text("sha256"))
        kept = self._engine.discards.discard(
            request.text("path"), export, lambda done: request.heartbeat(compared=done)
        )
        return {"in_bucket": kept}

    # ------------------------------------------------------------------ local copies
    def warm(self, request: Request) -> dict[str, object]:
        """Download the files at and below `paths`, with progress lines. A client that leaves ends it."""
        return self._warmed(request, request.paths())

    def _warmed(self, request: Request, paths: list[str]) -> dict[str, object]:
        def report(view: WarmView) -> None:
            request.heartbeat(**asdict(view))

        return asdict(self._engine.local_copies.warm(paths, Caller(cancelled=request.gone), report))

    def evict(self, request: Request) -> dict[str, object]:
        """Drop the cached content at and below `paths`."""
        return asdict(self._engine.local_copies.evict(request.paths()))

    def pin(self, request: Request) -> dict[str, object]:
        """Pin `paths`, for themselves or as the files to which `session` refers, then download them, with progress lines.

        A client that leaves ends the progress; the download goes on in the background. So it does with `wait` false.
        """
        paths, session = request.paths(), request.message.get("session")
        caller = Watched(Caller(cancelled=request.gone), lambda: request.heartbeat(**asdict(NOTHING_WARMED)))
        self._engine.pins.pin(paths, session if isinstance(session, str) else None, caller)
        if request.message.get("wait") is False:
            return asdict(NOTHING_WARMED)
        return self._warmed(request, paths)

    def unpin(self, request: Request) -> dict[str, object]:
        """Remove the pins at and below `paths`."""
        return {"unpinned": self._engine.pins.unpin(request.paths())}

    def pins(self, request: Request) -> dict[str, object]:
        """All pins, and the part of the cache that they may have."""
        limit, pins = self._engine.pins.view()
        return {"limit": limit, "pins": [asdict(pin) for pin in pins]}

    # ------------------------------------------------------------------ cache
    def cache_check(self, request: Request) -> dict[str, object]:
        """Compare cached files with their ETags, and drop those that differ."""
        return asdict(
            self._engine.cache_care.check(lambda view: request.heartbeat(**asdict(view)), request.gone.is_set)
        )

    def cache_clear(self, request: Request) -> dict[str, object]:
        """Remove all clean content that is not open."""
        before, after = self._engine.cache_care.clear()
        return {
            "removed": before.entries - after.entries,
            "removed_bytes": before.bytes - after.bytes,
            "entries": after.entries,
            "bytes": after.bytes,
        }
