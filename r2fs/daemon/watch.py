"""Watching files for changes, by watchdog: those whose new content a running daemon is to take up.

Owns:    which events of a directory mean that one of the files may have changed: written in place, replaced by a
         rename, made, removed, or reached over a symbolic link that was exchanged.
Never:   reads the files.
Threads: watchdog's own; `changed` is called in one of them and must return at once.
Fails:   OSError where the kernel has no watches left.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

CHANGES = frozenset({"created", "modified", "moved", "deleted", "closed"})  # "closed": after writing
ENDS_S = 5.0  # for its threads
SWAPPED = "..data"  # the link that Kubernetes exchanges for all files of a volume at once


class FileWatch:
    """Calls `changed` after each event that may have changed one of `files`, which need not be there."""

    def __init__(self, files: Iterable[Path], changed: Callable[[], None]) -> None:
        # It calls an event that meets the end of a watch an error.
        logging.getLogger("watchdog").setLevel(logging.CRITICAL)
        # constant
        self._observer = Observer()
        by_directory: dict[Path, set[str]] = {}
        for file in files:
            for path in {file, Path(os.path.realpath(file))}:
                by_directory.setdefault(path.parent, {SWAPPED}).add(path.name)
        for directory, names in by_directory.items():
            if directory.is_dir():
                self._observer.schedule(_Handler(frozenset(names), changed), str(directory))

    def start(self) -> None:
        self._observer.start()

    def stop(self) -> None:
        self._observer.stop()
        self._observer.join(ENDS_S)


class _Handler(FileSystemEventHandler):
    def __init__(self, names: frozenset[str], changed: Callable[[], None]) -> None:
        self._names = names
        self._changed = changed

    def on_any_event(self, event: FileSystemEvent) -> None:
        touched = {os.path.basename(os.fsdecode(path)) for path in (event.src_path, event.dest_path) if path}
        if event.event_type in CHANGES and touched & self._names:
            self._changed()
