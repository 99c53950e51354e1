"""Staging: the directory of this host's files that are not, or not only, in the cache.

    data/     files of which the bucket lacks bytes, one an inode; a journal row names each
    open/     hard links of clean files that are open; void once no daemon runs
    orphans/  files of data/ without a journal row, kept for a person

Owns:    every path and name in it, the spare files, and the boot id under which files are written.
Never:   removes a file of data/ unasked: the engine decides, by the journal.
Threads: every method.
Fails:   R2fsError by `local_error` from `create`, `sync` and `sync_file`; OSError elsewhere.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from r2fs.disk.filecalls import boot_id, fsync_dir, local_error, local_errors, spread_subdirectories
from r2fs.disk.spares import Spares
from r2fs.disk.sparse_file import SparseFile
from r2fs.model import owned_paths
from r2fs.model.errors import StateDamaged

log = logging.getLogger(__name__)

FileId = tuple[int, int]  # st_dev and st_ino
MOVE_NS = 2_000_000_000  # at most, between the time in a name and the ctime that the move leaves


class Staging:
    def __init__(self, directory: Path) -> None:
        # constant
        self.directory = directory
        self.data_dir = directory / "data"
        self._data = str(self.data_dir)  # a Path takes ten times as long to make
        self.open_dir = directory / "open"
        self.orphan_dir = directory / "orphans"
        self.spares = Spares(self.data_dir)
        self.boot = boot_id()
        self._run, self._made = secrets.token_hex(8), count()  # of names

    # ------------------------------------------------------------------ the directory
    def make(self) -> None:
        """Make the directories, or check existing ones. Raises OSError, such as UnsafePath."""
        owned_paths.make_directory(self.directory)
        spread_subdirectories(self.directory)
        for directory in (self.data_dir, self.open_dir):
            if not os.path.lexists(directory):
                # ext4 chooses the block group by the name: by a usual one, the group of others that were removed
                made = self.directory / secrets.token_hex(8)
                made.mkdir(0o700)
                made.rename(directory)
            owned_paths.make_directory(directory)

    def is_empty(self) -> bool:
        """True if neither data/ nor orphans/ holds a file; links in open/ do not count."""
        return not any(os.listdir(each) for each in (self.data_dir, self.orphan_dir) if each.is_dir())

    def remove_directories(self) -> None:
        """Remove the empty directories. OSError for a directory that is not empty."""
        for directory in (self.data_dir, self.open_dir, self.orphan_dir, self.directory):
            with suppress(FileNotFoundError):
                directory.rmdir()

    # ------------------------------------------------------------------ data/
    def path(self, name: str) -> Path:
        return self.data_dir / name

    def holds(self, path: Path) -> bool:
        return path.parent == self.data_dir

    def create(self) -> SparseFile:
        """Return an empty file of data/, complete, with the times of now."""
        try:
            path, fd = self.spares.take()
        except OSError as error:
            raise local_error(error, self.data_dir) from error
        os.utime(fd)  # a spare was made earlier
        return SparseFile.empty(path, fd)

    def adopt(self, file: SparseFile, ino: int, unwritten_ns: Collection[int] = ()) -> str:
        """Move an open file of inode `ino` to data/; return its new name.

        `unwritten_ns`: mtimes with which it has the bucket's bytes. The name tells them and the time of the move, for
        `is_unwritten`.
        """
        size = os.fstat(file.fd).st_size
        marks = [self._mark(size, each) for each in unwritten_ns]
        name = "-".join([self._unused_name(ino), *([str(time.time_ns())] if marks else []), *marks])
        file.rename_to(self.path(name))
        return name

    def is_unwritten(self, name: str) -> bool:
        """True if the file was moved to data/ with the bucket's bytes, and not written since, by its size and times.

        False after a power cut, which may leave newer bytes with an older mtime, and for a file that was changed MOVE_NS
        after the move: a program may set back the mtime after a write, as editors of tags do, but never the ctime.
        """
        made_ns, *marks = name.split("-")[2:] or [""]
        found = self.stat(name)
        if self._mark(found.st_size, found.st_mtime_ns) not in marks:
            return False
        return abs(found.st_ctime_ns - int(made_ns)) < MOVE_NS

    def _mark(self, size: int, mtime_ns: int) -> str:
        return hashlib.sha256(f"{self.boot} {size} {mtime_ns}".encode()).hexdigest()[:16]

    def lost(self, path: Path, key: str) -> StateDamaged:
        """Return the error for a file of data/ that a row names, and that does not exist."""
        return StateDamaged(f"{key}: its bytes should be in {path}, and are not")

    def stat(self, name: str) -> os.stat_result:
        return os.stat(f"{self._data}/{name}")

    def set_times(self, name: str, atime_ns: int, mtime_ns: int) -> None:
        os.utime(self.path(name), ns=(atime_ns, mtime_ns))

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(f"{self._data}/{name}")

    def scan(self) -> Iterator[tuple[str, int]]:
        """Yield name and size in bytes of each file in data/."""
        for path in self.data_dir.iterdir():
            yield path.name, path.stat().st_size

    def sync(self) -> None:
        """Make names added to and removed from data/ survive a power cut. Waits for the disk."""
        with local_errors(self.data_dir):
            fsync_dir(self.data_dir)

    def sync_file(self, fd: int) -> None:
        """Make the bytes of a staged file survive a power cut. Waits for the disk."""
        with local_errors(self.data_dir):
            os.fsync(fd)

    # ------------------------------------------------------------------ open/
    def link_path(self, ino: int) -> Path:
        """Return an unused path in open/ for a file of inode `ino`."""
        return self.open_dir / self._unused_name(ino)

    def _unused_name(self, ino: int) -> str:
        """The inode number tells the run that made the file; the random part differs between daemons of one directory."""
        return f"{ino}-{self._run}{next(self._made):x}"

    def unlink(self, path: Path) -> None:
        """Remove a name that no row has. Where that fails, the next start removes it."""
        try:
            path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            log.info("%s stays: %s", path, error)

    def links(self) -> dict[FileId, Path]:
        found = {}
        with os.scandir(self.open_dir) as entries:
            for entry in entries:
                stat = entry.stat(follow_symlinks=False)
                found[stat.st_dev, stat.st_ino] = Path(entry.path)
        return found

    def clear_links(self, kept: Collection[FileId] = ()) -> None:
        """Remove every name in open/ but the names of the files `kept`."""
        paths = {path for file, path in self.links().items() if file in kept}
        for path in self.open_dir.iterdir():
            if path not in paths:
                path.unlink()

    # ------------------------------------------------------------------ orphans/
    def set_aside(self, name: str) -> Path:
        """Move a file of data/ to orphans/; return its new path."""
        self.orphan_dir.mkdir(mode=0o700, exist_ok=True)
        path = self.orphan_dir / name
        self.path(name).rename(path)
        return path

    def orphans(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield path and status of each orphan, in the order of names."""
        for path in sorted(self.orphan_dir.glob("*")):
            with suppress(FileNotFoundError):  # a person has taken it away meanwhile
                yield path, path.stat()


def ino_of(name: str) -> int:
    """The number of the inode for which a file was made; 0: its name does not tell."""
    text = name.partition("-")[0]
    return int(text) if text.isascii() and text.isdigit() else 0
