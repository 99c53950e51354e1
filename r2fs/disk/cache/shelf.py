"""Shelf: a directory of files with a table, which may be lost at any time, and is begun anew then: after `rm -rf` of the
directory, also while it is in use, after damage to the table, after a power cut.

`lock` in the directory is held while it is open: two mounts do not share a shelf. `session` holds
the boot id of a session that has not been closed: after a kill the table is right, but the directory may
hold files without a row; after a power cut neither can be trusted.

Never:   deletes a file without a name of the shelf's form.
Threads: every public method.
Locks:   Shelf.lock (leaf): around every use of the table. Files are unlinked after it is released.
Fails:   softly: `run` returns the caller's default.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import TypeVar

from r2fs.disk.cache.table import DATABASE, DATABASE_ERRORS, Table, passes
from r2fs.disk.filecalls import boot_id, sync_file_system
from r2fs.model import owned_paths
from r2fs.model.ports import Clock

log = logging.getLogger(__name__)

RETRY_S = 5.0  # how long a shelf that cannot be opened is left alone

LOCK, SESSION = "lock", "session"
DATABASE_FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal")
FOLDER, FILE = re.compile(r"[0-9a-f]{2}"), re.compile(r"[0-9a-f]{30}")


T = TypeVar("T")


class Shelf:
    def __init__(self, directory: Path, clock: Clock) -> None:
        # constant
        self.directory = directory
        self.lock = RLock()
        self._clock = clock
        self._database = os.fspath(directory / DATABASE)
        # guarded by: lock
        self._table: Table | None = None
        self._identity = (0, 0)
        self._lock_fd = -1
        self._retry_at_s = 0.0
        self._closed = False
        self._has_orphans = False  # the last session was killed, and `look_over` has not been called since
        with self.lock:
            self._ready_locked()

    def run(self, work: Callable[[Table], T], otherwise: T) -> T:
        """Call `work` with the table, under the lock; return `otherwise` where it is missing, damaged or full."""
        with self.lock:
            table = self._ready_locked()
            if table is None:
                return otherwise
            try:
                result, failed = work(table), False
            except DATABASE_ERRORS as error:
                self._failed_locked(error)
                result, failed = otherwise, True
            condemned = table.condemned(failed)
        for path in condemned:
            with suppress(OSError):  # gone already, or with the directory: a scan finds the rest
                os.unlink(path)
        return result

    def look_over(self) -> None:
        """Remove files without a row, which a killed session left. Slow for a large shelf, so not a part of opening."""
        with self.lock:
            pending, self._has_orphans = self._has_orphans and self._ready_locked() is not None, False
        if not pending:
            return
        files = [(path, f"{path.parent.name}/{path.name}") for path in _files(self.directory)]
        # A file is linked, and its row written, under the lock: what was found above has its row by now.
        nothing: set[str] = set()
        known = self.run(lambda table: table.filenames(), nothing)
        for path, name in files if known is not nothing else ():  # else the table cannot be read now
            if name not in known:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Make the shelf survive a power cut and mark it closed, so that the next session trusts it."""
        with self.lock:
            self._closed = True
            table = self._table
            self._shut_locked()
            if table is None:
                return
        try:
            sync_file_system(self.directory)
            os.unlink(self.directory / SESSION)
        except OSError as error:
            log.info("%s: closed without a mark, so it will be looked over: %s", self.directory, error)

    # -------------------------------------------------------------- opening and losing it
    def _ready_locked(self) -> Table | None:
        if self._table is not None:
            if self._same_file_locked():
                return self._table
            log.info("%s: removed while in use; the cache begins anew", self.directory)
            self._shut_locked()
            self._wipe_locked()
        if self._closed or self._clock.monotonic() < self._retry_at_s:
            return None
        try:
            self._open_locked()
        except BlockingIOError:
            self._give_up_locked("used by another mount; this one works without it")
        except OSError as error:
            self._give_up_locked(f"cannot be used, so nothing is cached: {error}")
        return self._table

    def _same_file_locked(self) -> bool:
        try:
            now = os.stat(self._database)
        except OSError:
            return False
        return (now.st_dev, now.st_ino) == self._identity

    def _open_locked(self) -> None:
        # After `rm -rf` of a cache in a place like /tmp, another user may have made the directory.
        owned_paths.make_directory(self.directory)
        owned_paths.check_files(self.directory, SESSION, *DATABASE_FILES)
        self._lock_fd = owned_paths.open_file(self.directory / LOCK, os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        look_over = self._begin_session_locked() or _is_missing(self._database)
        try:
            self._table = Table(self.directory)
            self._has_orphans = look_over
        except DATABASE_ERRORS as error:
            log.warning(
                "%s: the database cannot be opened (%s); the cache begins anew", self.directory, error
            )
            if self._table is not None:
                self._table.close()
            self._begin_anew_locked()
        found = os.stat(self._database)
        self._identity = (found.st_dev, found.st_ino)
        self._retry_at_s = 0.0

    def _begin_anew_locked(self) -> None:
        self._wipe_locked()
        self._begin_session_locked()
        try:
            self._table = Table(self.directory)
        except DATABASE_ERRORS as error:
            raise OSError(f"no database can be made there: {error}") from error

    def _begin_session_locked(self) -> bool:
        """Mark the session; return True if the last session was killed. After a power cut all is removed:
        neither the database nor the files were synced."""
        mark, boot = self.directory / SESSION, boot_id()
        earlier = mark.read_text(errors="replace") if mark.exists() else None
        if earlier is not None and earlier != boot:
            log.info("%s: not closed before the machine stopped; the cache begins anew", self.directory)
            self._wipe_locked()
        try:
            mark.write_text(boot)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            log.info("%s: the disk is full; the cache begins anew, which frees some", self.directory)
            self._wipe_locked()
            mark.write_text(boot)
        return earlier == boot

    def _failed_locked(self, error: Exception) -> None:
        """Reopen later after a full or busy database or a lack of descriptors; begin anew after any other error."""
        table = self._table
        if passes(error):
            log.info("%s: not cached: %s", self.directory, error)
            if table is not None:
                table.close()  # ends a transaction that was cut off; the next call opens the table again
            return
        if self._same_file_locked():
            log.warning("%s: the database is damaged (%s); the cache begins anew", self.directory, error)
        self._shut_locked()
        self._wipe_locked()

    def _give_up_locked(self, why: str) -> None:
        if self._retry_at_s == 0.0:
            log.warning("%s: %s", self.directory, why)
        self._shut_locked()
        self._retry_at_s = self._clock.monotonic() + RETRY_S

    def _shut_locked(self) -> None:
        table, self._table = self._table, None
        if table is not None:
            with suppress(*DATABASE_ERRORS):  # given up with any error
                table.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _wipe_locked(self) -> None:
        """Remove the files that this module names, and no others that the directory may hold."""
        for path in _files(self.directory):
            with suppress(OSError):
                path.unlink()
        for name in (*DATABASE_FILES, SESSION):  # not the lock: it is held
            with suppress(OSError):
                os.unlink(self.directory / name)


def _is_missing(database: str) -> bool:
    """True if SQLite would make a new database: no file, or an empty file."""
    return not os.path.exists(database) or os.stat(database).st_size == 0


def _files(directory: Path) -> Iterator[Path]:
    with suppress(OSError):
        for folder in os.scandir(directory):
            if FOLDER.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    yield from (Path(f.path) for f in os.scandir(folder) if FILE.fullmatch(f.name))
