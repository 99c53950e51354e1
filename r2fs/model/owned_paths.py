"""Paths that another user of this machine may have prepared: opened without trust and without waiting.

Directories and files are opened by descriptor, without following a link, without waiting for a FIFO, and checked by
fstat(2) before any byte is used. A directory on the way is trusted if its owner is (this process's user, root, and the
owner of `/`), and if no other user may write to it, or only to own entries (its mode has the sticky bit, as /tmp). A
group is trusted if root or this user gave it the right to write, except for r2fs's own directories. A link is followed
if its owner is trusted: a user's link to a cache on a larger disk, but no stranger's link in /tmp.

Never:   changes the mode or the owner of a found file; deletes files of others.
Threads: any.
Fails:   UnsafePath, an OSError whose `strerror` names the path and the fault; other OSErrors unchanged.
"""

from __future__ import annotations

import errno
import json
import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

SHARED: Final = stat.S_IWGRP | stat.S_IWOTH
CHUNK: Final = 1 << 16
MAX_LINKS: Final = 40  # symbolic links on one way, as in the kernel

PathLike = str | os.PathLike[str]


class UnsafePath(PermissionError):
    """Refusal of a path for its kind, owner or mode."""

    def __init__(self, path: PathLike, why: str) -> None:
        super().__init__(errno.EPERM, f"{os.fspath(path)} {why}")


def is_trusted(uid: int) -> bool:
    """True for root, this process's user, and the owner of `/`: in a user namespace, root under another number."""
    return uid in (0, os.geteuid()) or uid == os.lstat("/").st_uid


# ------------------------------------------------------------------ directories
def resolved(path: str | os.PathLike[str], link_at: Callable[[str], str | None]) -> str:
    """`path` without symbolic links, resolved part by part as in path_resolution(7).

    `link_at` returns the target of the link at a path, None for other files; it may raise to refuse a path.
    """
    done, waiting = "/", os.path.abspath(path).split("/")[::-1]
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = os.path.dirname(done)
            continue
        here = os.path.join(done, part)
        target = link_at(here)
        if target is None:
            done = here
            continue
        done = "/" if target.startswith("/") else done
        waiting += target.split("/")[::-1]
    return done


def real_path(path: PathLike, make: bool = False) -> str:
    """`path` without symbolic links, each directory on the way checked; `make`: makes missing ones, 0700.

    Raises UnsafePath if another user could replace a part of the path.
    """
    links = 0

    def link_at(here: str) -> str | None:
        nonlocal links
        found = _look(here, make)
        if not stat.S_ISLNK(found.st_mode):
            _check_way(here, found)
            return None
        _check_owner(here, found)
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
        return os.readlink(here)

    _check_way("/", os.lstat("/"))
    return resolved(path, link_at)


def _look(path: str, make: bool) -> os.stat_result:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    return os.lstat(path)


def _check_way(path: str, found: os.stat_result) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    _check_owner(path, found)
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise UnsafePath(path, "can be written by every user: chmod o-w it")


def _check_owner(path: PathLike, found: os.stat_result) -> None:
    if not is_trusted(found.st_uid):
        raise UnsafePath(path, f"belongs to another user (uid {found.st_uid})")


def open_directory(path: PathLike, make: bool = False) -> int:
    """Open a directory that only trusted users can write to; returns a descriptor, O_RDONLY."""
    real = real_path(path, make)
    fd = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        _check_owner(real, found)
        if found.st_mode & SHARED:
            raise UnsafePath(real, "can be written by other users: check its content, then chmod go-w it")
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def directory(path: PathLike, make: bool = False) -> Iterator[int]:
    """`open_directory` for a with statement."""
    fd = open_directory(path, make)
    try:
        yield fd
    finally:
        os.close(fd)


def make_sure(path: PathLike) -> None:
    """Raise UnsafePath if `open_directory` refuses `path`."""
    os.close(open_directory(path))


def make_directory(path: PathLike) -> None:
    """Make `path` and its parents, 0700, or check the existing directory."""
    os.close(open_directory(path, make=True))


# ------------------------------------------------------------------ files
def open_file(
    name: PathLike, flags: int, mode: int = 0o600, dir_fd: int | None = None, unlinked: bool = False
) -> int:
    """open(2) of a regular file of a trusted user. No O_TRUNC in `flags`: it would act before the check.

    `unlinked`: also refuses a file with a second name, for a directory in which others may make names.
    """
    assert not flags & os.O_TRUNC
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafePath(name, "is a symbolic link") from None
        if error.errno in (errno.ENXIO, errno.ENODEV, errno.EISDIR):
            raise UnsafePath(name, "is not a regular file") from None
        raise
    try:
        check_file(name, os.fstat(fd), unlinked)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_file(name: PathLike, found: os.stat_result, unlinked: bool = False) -> None:
    """Raise UnsafePath unless the file is regular, of a trusted user, and not writable by others."""
    if not stat.S_ISREG(found.st_mode):
        raise UnsafePath(
            name, "is a symbolic link" if stat.S_ISLNK(found.st_mode) else "is not a regular file"
        )
    _check_owner(name, found)
    if found.st_mode & stat.S_IWOTH:
        raise UnsafePath(name, "can be written by every user: chmod o-w it")
    if unlinked and found.st_nlink > 1:
        raise UnsafePath(name, "has a second name (a hard link)")


def check_files(path: PathLike, *names: str) -> None:
    """Check the existing files among `names` in the directory `path`, for a library that opens files by itself."""
    for name in names:
        with suppress(FileNotFoundError):
            full = os.path.join(path, name)
            check_file(full, os.lstat(full))


def read_file(name: PathLike, limit: int, dir_fd: int | None = None) -> bytes:
    """Read a regular file of a trusted user. Raises UnsafePath if larger than `limit` bytes."""
    fd = open_file(name, os.O_RDONLY, dir_fd=dir_fd)
    try:
        return _read(fd, name, limit)
    finally:
        os.close(fd)


def _read(fd: int, name: PathLike, limit: int) -> bytes:
    pieces: list[bytes] = []
    left = limit + 1
    while left > 0 and (piece := os.read(fd, min(left, max(CHUNK, os.fstat(fd).st_size)))):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0:
        raise UnsafePath(name, f"is larger than {limit} bytes")
    return b"".join(pieces)


def replace_file(dir_fd: int, name: str, data: bytes) -> None:
    """Replace the file `name` by `data`, 0600, atomically. Not synced."""
    temporary = f".{name}.{os.urandom(8).hex()}.new"  # secrets would import OpenSSL into each command
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd
    )
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise


def read_named(path: PathLike, limit: int, patience_s: float, trusted: bool = False) -> bytes:
    """Read a file named by a person, or a pipe of the shell, through any link; of any owner, unless `trusted`.

    Bounded in bytes and in time: raises UnsafePath for more than `limit` bytes, TimeoutError if a pipe's other
    end has not finished after `patience_s` seconds.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if trusted:
            check_file(path, found)
        if stat.S_ISREG(found.st_mode):
            return _read(fd, path, limit)
        return _read_patiently(fd, path, limit, time.monotonic() + patience_s)
    finally:
        os.close(fd)


def _read_patiently(fd: int, path: PathLike, limit: int, deadline: float) -> bytes:
    poll, data = select.poll(), b""
    poll.register(fd, select.POLLIN)
    while len(data) <= limit:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            raise TimeoutError(errno.ETIMEDOUT, "no data arrives from it", os.fspath(path))
        if not (more := os.read(fd, CHUNK)):
            return data
        data += more
    raise UnsafePath(path, f"is larger than {limit} bytes")


# ------------------------------------------------------------------ content
def load_json(data: bytes | str) -> Any:
    """Parse JSON. Raises ValueError, also for text nested too deeply."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
