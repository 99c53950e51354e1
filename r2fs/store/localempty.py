"""Directories that go with the last object in them, as in a bucket: all of them, or none.

Owns:    `ROOT/.r2fs/emptied/`: one small JSON file for each removal that is under way.
Never:   removes a directory that has a marker or anything in it.
Threads: no state; `LocalDirStore` holds its lock, exclusively, around all of it.

An empty directory counts as the object `dir/`. If a kill came between the removal of the last object
in it and its own, it would be back as one, under a name that was removed. So the directories are
written down before the object goes, and the next process ends what is written there.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from r2fs.store.localfiles import is_empty


class Emptied:
    def __init__(self, root: Path, directory: Path, has_marker: Callable[[Path], bool]) -> None:
        # constant
        self._root = root
        self._directory = directory
        self._has_marker = has_marker

    @contextmanager
    def by_removing(self, path: Path) -> Iterator[None]:
        """The block removes a file, or a directory's marker; what that leaves empty goes after it."""
        directories = self._will_be_empty(path)
        if not directories:
            yield
            return
        note = self._note(directories)
        try:
            yield
            self._remove(directories)
        finally:
            note.unlink()

    def is_due(self) -> bool:
        """Is there a removal that nobody has ended, or that another process is at?"""
        return self._directory.is_dir() and not is_empty(self._directory)

    def finish(self) -> None:
        """Ends what a kill has left."""
        for note in sorted(self._directory.iterdir()):
            try:
                names = json.loads(note.read_bytes())
            except ValueError:
                names = []  # killed while it was written: nothing was removed yet
            self._remove([self._root / name for name in names])
            note.unlink()

    # ------------------------------------------------------------------ inside
    def _will_be_empty(self, path: Path) -> list[Path]:
        """Without `path`, the innermost first."""
        found: list[Path] = []
        if path.is_dir():
            if not is_empty(path):
                return []
            found.append(path)
        while (above := path.parent) != self._root:
            if self._has_marker(above) or os.listdir(above) != [path.name]:
                break
            found.append(above)
            path = above
        return found

    def _note(self, directories: Sequence[Path]) -> Path:
        self._directory.mkdir(exist_ok=True)
        note = self._directory / f"{secrets.token_hex(16)}.json"
        with note.open("wb") as file:
            names = [directory.relative_to(self._root).as_posix() for directory in directories]
            file.write(json.dumps(names).encode())
            file.flush()
            os.fsync(file.fileno())
        return note

    def _remove(self, directories: Sequence[Path]) -> None:
        for directory in directories:
            try:
                if self._has_marker(directory):
                    return
                directory.rmdir()
            except (FileNotFoundError, NotADirectoryError):
                pass  # gone before the kill, or another program's by now
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                return
