"""Directories that go with the last object in them, as in a bucket, even if a kill comes between.

Owns:    `ROOT/.r2fs/emptied/`: one small JSON file, a note, for each removal that is under way.
Never:   removes a directory that has a marker or anything in it.
Threads: no state; `LocalDirStore` holds its lock, exclusively, around all of it.
Fails:   a note that cannot be written, read or ended never stands in the way of a delete or of a mount.

An empty directory counts as the object `dir/`. If a kill came between the removal of the last object
in it and its own, it would be back as one, under a name that was removed. So the directories are
written down before the object goes, and whoever holds the lock next ends what is written there. An
empty directory that another program had kept in just that time goes, too.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from r2fs.model.keys import is_name
from r2fs.store.local.files import is_empty
from r2fs.store.local.listing import OWN
from r2fs.store.local.sidecar import sync_directory

log = logging.getLogger(__name__)

_STAYS = (errno.ENOTEMPTY, errno.EEXIST)


class Emptied:
    def __init__(self, root: Path, directory: Path, has_marker: Callable[[Path], bool]) -> None:
        # constant
        self._root = root
        self._directory = directory
        self._has_marker = has_marker

    @contextmanager
    def by_removing(self, path: Path) -> Iterator[None]:
        """The block removes a file, or a directory's marker; what that leaves empty goes after it."""
        innermost = path if path.is_dir() else path.parent
        note = self._note(path, innermost)
        try:
            yield
        finally:  # half of it may be done
            self._remove_empty(innermost)
            if note is not None:
                note.unlink(missing_ok=True)

    def is_due(self) -> bool:
        """Is there a removal that nobody has ended, or, without the lock, one that somebody is at?"""
        return self._directory.is_dir() and not is_empty(self._directory)

    def finish(self) -> None:
        """Ends what a kill has left: while the lock is held, no note is anybody's."""
        try:
            notes = sorted(self._directory.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            log.debug("%s: cannot be read: %s", self._directory, error)
            return
        for note in notes:
            try:
                self._finish(note)
            except OSError as error:
                log.warning("%s: what a kill has left empty stays: %s", self._root, error)
            self._drop(note)

    # ------------------------------------------------------------------ inside
    def _note(self, path: Path, innermost: Path) -> Path | None:
        """Written only if something will be empty without `path`."""
        if innermost == self._root or not self._goes(path, innermost):
            return None
        note = self._directory / f"{secrets.token_hex(16)}.json"
        names = [
            [directory.relative_to(self._root).as_posix(), directory.stat().st_ino]
            for directory in (innermost, *innermost.parents)
            if directory.is_relative_to(self._root) and directory != self._root
        ]
        try:
            self._directory.mkdir(exist_ok=True)
            with note.open("wb") as file:
                file.write(json.dumps(names).encode())
                file.flush()
                os.fsync(file.fileno())
            sync_directory(self._directory)
        except OSError as error:  # a full disk: the delete is what frees it
            log.debug("%s: no note of what is removed: %s", self._root, error)
            self._drop(note)
            return None
        return note

    def _goes(self, path: Path, innermost: Path) -> bool:
        """Will `innermost` be empty, and not kept by a marker?"""
        if path == innermost:
            return is_empty(path)
        with os.scandir(innermost) as entries:
            alone = all(entry.name == path.name for entry in entries)
        return alone and not self._has_marker(innermost)

    def _finish(self, note: Path) -> None:
        for directory, inode in self._read(note):
            try:
                found = directory.stat(follow_symlinks=False).st_ino
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed before the kill: the one above it is next
            if found == inode:  # else it was made anew
                self._remove_empty(directory)
            return

    @staticmethod
    def _drop(note: Path) -> None:
        try:
            note.unlink(missing_ok=True)
        except OSError as error:
            log.debug("%s: cannot be removed: %s", note, error)

    def _read(self, note: Path) -> Sequence[tuple[Path, int]]:
        """The directories, the innermost first; none if it is torn, or was not written here."""
        try:
            found = [(name.split("/"), int(inode)) for name, inode in json.loads(note.read_bytes())]
        except (ValueError, TypeError, AttributeError):
            return ()  # killed while it was written: nothing was removed yet
        if not all(all(map(is_name, parts)) and parts[0] != OWN for parts, _ in found):
            return ()
        return [(self._root.joinpath(*parts), inode) for parts, inode in found]

    def _remove_empty(self, directory: Path) -> None:
        """And those above that this leaves empty, up to one with a marker."""
        while directory != self._root:
            try:
                if self._has_marker(directory):
                    return
                directory.rmdir()
            except (FileNotFoundError, NotADirectoryError):
                return  # gone, or another program's file by now
            except OSError as error:
                if error.errno in _STAYS:
                    return
                raise
            directory = directory.parent
