"""Paths that another user of this machine may have prepared: opened so that nothing there is believed or waited for.

Owns:    who is trusted (this process's user, root, and whoever owns `/`), and how directories and files whose
         names r2fs did not just make itself are opened: by descriptor, without following a link, without
         waiting for a FIFO, and looked at by fstat(2) before a byte of them counts.
Never:   changes the mode or the owner of what it finds; deletes but what it has made itself.
Threads: functions without state: any thread.
Fails:   UnsafePath, an OSError whose `strerror` names the path and what is wrong; other OSErrors as they come.

A directory on the way is trusted if its owner is, and if nobody else may write to it, or may (its mode has the
sticky bit, as /tmp) but not to the entry of another. A group is trusted with what root or this user gave it,
but for directories of our own, to which no group may write. A link is followed if its owner is trusted: that is
how a cache on a larger disk is reached, and how one that a stranger put into /tmp is not.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import select
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from r2fs.model.path_walk import MAX_LINKS, resolved

SHARED: Final = stat.S_IWGRP | stat.S_IWOTH
CHUNK: Final = 1 << 16

PathLike = str | os.PathLike[str]


class UnsafePath(PermissionError):
    """Refusal of a path whose kind, owner or mode is not as it must be."""

    def __init__(self, path: PathLike, why: str) -> None:
        super().__init__(errno.EPERM, f"{os.fspath(path)} {why}")


def is_trusted(uid: int) -> bool:
    """True for root, this process's user, and the owner of `/`, who in a user namespace is root under another number."""
    return uid in (0, os.geteuid()) or uid == os.lstat("/").st_uid


# ------------------------------------------------------------------ directories
def real_path(path: PathLike, make: bool = False) -> str:
    """`path` without symbolic links, each directory on the way looked at; `make`: missing ones, 0700.

    Raises UnsafePath where another user could put something else in the place of a part of it.
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
    """A descriptor of a directory that nobody but a trusted user can write to, O_RDONLY."""
    real = real_path(path, make)
    fd = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        _check_owner(real, found)
        if found.st_mode & SHARED:
            raise UnsafePath(real, "can be written by other users: look at what is in it, then chmod go-w it")
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
    """UnsafePath unless the directory is one that `open_directory` would give."""
    os.close(open_directory(path))


def make_directory(path: PathLike) -> None:
    """Make it and its parents, 0700, or look at the one that is there."""
    os.close(open_directory(path, make=True))


# ------------------------------------------------------------------ files
def open_file(
    name: PathLike, flags: int, mode: int = 0o600, dir_fd: int | None = None, unlinked: bool = False
) -> int:
    """open(2) of a regular file of a trusted user. O_TRUNC is not for `flags`: it would come before the look.

    `unlinked`: in a directory where others may make names, one with a second name is not taken either.
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
    """UnsafePath unless it is a regular file of a trusted user, to which nobody else may write."""
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
    """Those of these names that are there in the directory `path`: for a library that opens them by itself."""
    for name in names:
        with suppress(FileNotFoundError):
            full = os.path.join(path, name)
            check_file(full, os.lstat(full))


def read_file(name: PathLike, limit: int, dir_fd: int | None = None) -> bytes:
    """All of a regular file of a trusted user; more than `limit` bytes are an UnsafePath."""
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
    """Put `data` at `name`, 0600, in the place of whatever is there. Visible whole; not synced."""
    temporary = f".{name}.{secrets.token_hex(8)}.new"
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
    """Read a file that a person named, or a pipe of the shell, through any link; of any owner, unless `trusted`.

    Bounded in bytes and in time: UnsafePath for more than `limit`, TimeoutError where a pipe's other
    end is not through after `patience_s` seconds.
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
            raise TimeoutError(errno.ETIMEDOUT, "nothing comes from it", os.fspath(path))
        if not (more := os.read(fd, CHUNK)):
            return data
        data += more
    raise UnsafePath(path, f"is larger than {limit} bytes")


# ------------------------------------------------------------------ what is in them
def load_json(data: bytes | str) -> Any:
    """json.loads; ValueError also for what is nested too deeply to be read."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
