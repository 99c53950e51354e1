"""Export of pending files to another disk, and digests of the copies.

Owns:  the copy (bytes, times, links), made durable before it counts; the digest of an exported copy.
Never: replaces a file; follows a symbolic link in place of a file.
Fails: R2fsError for one file; the partial copy is removed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from r2fs.disk.filecalls import fsync_dir
from r2fs.model.errors import IsADirectory, R2fsError

PIECE = 1 << 20  # bytes read at once


def export(source: Path, target: Path, below: Path) -> int:
    """Copy one file or symbolic link to `target`, in the directory `below`; return its bytes. A copy that is there
    with the same bytes counts."""
    try:
        found = os.lstat(source)
        _make_directories(target.parent, below)
        if stat.S_ISLNK(found.st_mode):
            _link(source, target)
            return 0
        if not stat.S_ISREG(found.st_mode):
            raise IsADirectory(f"{source} is no file")
        _copy(source, target, found)
        fsync_dir(target.parent)
    except OSError as error:
        raise R2fsError(f"{error.filename or source}: {error.strerror}") from error
    return found.st_size


def _make_directories(directory: Path, below: Path) -> None:
    """Make missing directories, each durable in the one above."""
    missing = []
    while directory != below and not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        fsync_dir(each.parent)


def _link(source: Path, target: Path) -> None:
    wanted = os.readlink(source)
    if not (target.is_symlink() and os.readlink(target) == wanted):
        os.symlink(wanted, target)
    fsync_dir(target.parent)


def _copy(source: Path, target: Path, found: os.stat_result) -> None:
    with open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as reading:
        try:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            if _synced_digest(target) == _digest_of(reading.fileno()):
                return
            raise R2fsError(
                f"{target} is there with other bytes, and is not replaced: choose another directory"
            ) from None
        try:
            with open(fd, "wb", buffering=0) as writing:
                while data := reading.read(PIECE):
                    rest = memoryview(data)
                    while rest:
                        rest = rest[writing.write(rest) :]
                os.fchmod(fd, stat.S_IMODE(found.st_mode))
                os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))
                os.fsync(fd)
        except BaseException:
            os.unlink(target)
            raise


def digest(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of an exported copy, as it is on the disk now."""
    try:
        return _synced_digest(path)
    except OSError as error:
        raise R2fsError(f"{path}: {error.strerror}: there is no exported copy to compare with") from error


def _synced_digest(path: Path) -> tuple[int, str]:
    """`digest` after an fsync: a killed export may have left a copy that is not on the disk."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as copy:
        os.fsync(copy.fileno())
        return _digest_of(copy.fileno())


def _digest_of(fd: int) -> tuple[int, str]:
    sha256, at = hashlib.sha256(), 0
    while data := os.pread(fd, PIECE, at):
        sha256.update(data)
        at += len(data)
    return at, sha256.hexdigest()
