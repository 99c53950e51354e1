"""State directory of one mount: locked, made where missing, and removed after a failed start that made the directory.

Never:   removes a file of staging; removes a file without the lock, or of a journal that an earlier start made.
Fails:   StateLocked, DirectoryUnusable.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from r2fs.disk import spent
from r2fs.disk.reserve import DiskReserve
from r2fs.disk.staging import Staging
from r2fs.model import mount_record, owned_paths
from r2fs.model.errors import DirectoryUnusable, R2fsError, StateLocked

log = logging.getLogger(__name__)

FILES = ("lock", "journal.db", "journal.db-wal", "journal.db-shm", "reserve")  # opened by their names
PID_BYTES = 20  # of the lock file: written over in place, which needs no room on a full disk
TABLES_OF_WORK = ("inode", "pending_delete", "staging_garbage", "attempt", "multipart", "part")


class StateDirectory:
    """Made by `take`; not thread-safe."""

    def __init__(self, path: Path, staging: Staging, lock_fd: int) -> None:
        # constant
        self.path = path
        self.staging = staging
        self.reserve = DiskReserve(path / "reserve")
        self.is_new = not any(path.glob("journal.db*"))  # no earlier start has made a journal here
        self._lock_fd = lock_fd

    @classmethod
    def take(cls, path: Path, staging: Staging) -> Self:
        """Make the missing ones of the directory and `staging`, and take the lock.

        Raises StateLocked, DirectoryUnusable.
        """
        with usable(path):
            lock_fd = take_lock(path, *FILES)
            try:
                # Under the lock: another start that fails removes its directories.
                staging.make()
                return cls(path, staging, lock_fd)
            except BaseException:
                os.close(lock_fd)
                raise

    @property
    def lock_fd(self) -> int:
        """Descriptor of the lock file; -1: released."""
        return self._lock_fd

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)

    def is_void(self, query: Callable[[str], Sequence[object]]) -> bool:
        """True if the journal has no row of work and staging no file. False where that cannot be known."""
        try:
            rows = [query(f"SELECT 1 FROM {name} LIMIT 1") for name in TABLES_OF_WORK]
            return not any(rows) and self.staging.is_empty()
        except (OSError, R2fsError) as error:
            log.info("%s: kept, since it is not known to be void: %s", self.path, error)
            return False

    def remove(self) -> None:
        """Remove the files of a void journal, which is closed, and the empty directories. The lock file is removed last."""
        self.reserve.give_up()
        with suppress(OSError):  # a link to staging beside the cache, or a directory that holds other things
            self.staging.remove_directories()
        for name in ("journal.db", "journal.db-wal", mount_record.NAME, spent.NAME, "lock"):
            with suppress(FileNotFoundError):
                (self.path / name).unlink()


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Raise DirectoryUnusable in place of an OSError of the block."""
    try:
        yield
    except OSError as error:
        raise DirectoryUnusable(
            f"the state directory {path} cannot be used ({error.strerror}): "
            "make it writable, or choose another by --state-dir"
        ) from error


# ------------------------------------------------------------------ the lock
def take_lock(path: Path, *files: str) -> int:
    """Make the directory where missing, check its files of these names, and take its lock (`lock_state`)."""
    owned_paths.make_directory(path)
    owned_paths.check_files(path, *files)
    return lock_state(path)


def lock_state(state_dir: Path) -> int:
    """Take the lock; return the descriptor that holds it: closing that gives the lock back."""
    path = state_dir / "lock"
    while True:
        fd = owned_paths.open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, PID_BYTES, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise StateLocked(
                f"the state directory {state_dir} is in use by another r2fs (pid {pid}){_mounted_on(state_dir)}: "
                "unmount that one first, or give this mount a --state-dir of its own"
            ) from None
        if _is_named(fd, path):
            break
        # A start that failed has just removed it: the lock of a file without a name excludes no other daemon.
        os.close(fd)
    os.pwrite(fd, f"{os.getpid():<{PID_BYTES}}\n".encode(), 0)
    return fd


def _mounted_on(state_dir: Path) -> str:
    """Return the mountpoint in the record of the lock's holder, as text; "" before it is written."""
    try:
        data = owned_paths.read_file(state_dir / mount_record.NAME, mount_record.MAX_BYTES)
    except OSError:
        return ""
    record = mount_record.parse(data.decode(errors="replace"))
    return "" if record is None else f", mounted on {record.mountpoint}"


def _is_named(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
