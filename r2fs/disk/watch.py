"""Watches for changes of files, by watchdog: of single files, such as settings, and of a whole directory tree.

Threads: watchdog's own; callbacks run in one of them and must return at once.
Fails:   OSError where the kernel has no watches left.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

CHANGES = frozenset({"created", "modified", "moved", "deleted", "closed"})  # "closed": after writing
OF_A_TREE = CHANGES | {"attrib"}  # a mode or a time, too
ENDS_S = 5.0  # for its threads
SWAPPED = "..data"  # the link that Kubernetes exchanges for all files of a volume at once


class _Watch:
    def __init__(self) -> None:
        # watchdog calls an event that meets the end of a watch an error.
        logging.getLogger("watchdog").setLevel(logging.CRITICAL)
        # A directory that appears while its parent is gone through: watched once, whatever the warning says.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        # constant
        self._observer = Observer()

    def start(self) -> None:
        """Return once every directory is watched."""
        self._observer.start()

    def stop(self) -> None:
        self._observer.stop()
        self._observer.join(ENDS_S)


class FileWatch(_Watch):
    """Calls `changed` after each event that may have changed one of `files`, which need not be there: a write in place,
    a replacement by a rename, a creation, a removal, or the exchange of a symbolic link."""

    def __init__(self, files: Iterable[Path], changed: Callable[[], None]) -> None:
        super().__init__()
        by_directory: dict[Path, set[str]] = {}
        for file in files:
            for path in {file, Path(os.path.realpath(file))}:
                by_directory.setdefault(path.parent, {SWAPPED}).add(path.name)
        for directory, names in by_directory.items():
            if directory.is_dir():
                self._observer.schedule(_Handler(frozenset(names), changed), str(directory))


class TreeWatch(_Watch):
    """Calls `touched(path, is_directory)` for each path below `root` that an event names; symbolic links are not
    followed. Events may be lost: the kernel's queue has an end."""

    def __init__(self, root: Path, touched: Callable[[str, bool], None]) -> None:
        super().__init__()
        self._observer.schedule(_TreeHandler(touched), str(root), recursive=True)


class _TreeHandler(FileSystemEventHandler):
    def __init__(self, touched: Callable[[str, bool], None]) -> None:
        self._touched = touched

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in OF_A_TREE:
            return
        if event.is_directory and event.event_type in ("modified", "attrib"):
            return  # the events of the names in it say more
        for path in (event.src_path, event.dest_path):
            if path:
                self._touched(os.fsdecode(path), event.is_directory)


class _Handler(FileSystemEventHandler):
    def __init__(self, names: frozenset[str], changed: Callable[[], None]) -> None:
        self._names = names
        self._changed = changed

    def on_any_event(self, event: FileSystemEvent) -> None:
        touched = {os.path.basename(os.fsdecode(path)) for path in (event.src_path, event.dest_path) if path}
        if event.event_type in CHANGES and touched & self._names:
            self._changed()
