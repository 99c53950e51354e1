"""Files and directories of a mount, opened by a path from a request, part by part, and none outside of the mount.

Never: follows a symbolic link; crosses into another file system.
Fails: InvalidArgument for a malformed path, NotFound, AccessRefused, NotADirectory, ReadFailed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, unquote_to_bytes

from r2fs.model.errors import (
    AccessRefused,
    InvalidArgument,
    NotADirectory,
    NotFound,
    NotPermitted,
    ReadFailed,
    ReadRefused,
)
from r2fs.model.keys import printable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def ref_of(path: str) -> str:
    """A path as the page sends it back: ASCII, also for names that are not UTF-8.

    >>> ref_of("a b/\\udcff.wav"), path_of("a%20b/%FF.wav")
    ('a%20b/%FF.wav', 'a b/\\udcff.wav')
    """
    return quote(os.fsencode(path))


def path_of(ref: str) -> str:
    """The path, relative to a mount, of a ref; "" is the mount's root."""
    try:
        path = os.fsdecode(unquote_to_bytes(ref.encode("ascii")))
    except UnicodeEncodeError:
        raise InvalidArgument("a path is percent-encoded ASCII") from None
    if "\0" in path or (path and any(part in ("", ".", "..") for part in path.split("/"))):
        raise InvalidArgument(f"{printable(path)!r} is no path in a mount")
    return path


@contextmanager
def directory(root: str, path: str) -> Iterator[int]:
    """Descriptor of the directory at `path` below the directory `root`."""
    with errors(path):
        fd = os.open(root, _DIRECTORY)
        try:
            device = os.fstat(fd).st_dev
            for part in filter(None, path.split("/")):
                deeper = os.open(part, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = deeper
                _check_device(fd, device, path)
        except BaseException:
            os.close(fd)
            raise
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def file(root: str, path: str) -> Iterator[tuple[int, os.stat_result]]:
    """Descriptor, for reading, and stat of the regular file at `path` below `root`."""
    above, _, name = path.rpartition("/")
    with directory(root, above) as at:
        with errors(path):
            if not name:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            fd = os.open(name, _FILE, dir_fd=at)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise AccessRefused(f"{printable(path)} is no regular file")
            _check_device(fd, os.fstat(at).st_dev, path)
            yield fd, found
        finally:
            os.close(fd)


def look(root: str, path: str) -> None:
    """Make the mount read the listing of a directory."""
    with directory(root, path) as fd, errors(path):
        os.listdir(fd)


def _check_device(fd: int, device: int, path: str) -> None:
    if os.fstat(fd).st_dev != device:
        raise AccessRefused(f"{printable(path)} is on another file system than the mount")


@contextmanager
def errors(path: str) -> Iterator[None]:
    """Raise an OSError as an error of r2fs that names the path."""
    name = printable(path) or "/"
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"{name}: no such file or directory") from None
    except NotADirectoryError:  # O_DIRECTORY with O_NOFOLLOW: a file, or a link to anything
        raise NotADirectory(f"{name}: a part of it is no directory, or a symbolic link") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise AccessRefused(f"{name} is a symbolic link: the page follows none") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ReadRefused(f"{name}: {error.strerror}") from None
        if error.errno in (errno.EROFS, errno.ENOSPC):
            raise NotPermitted(f"{name}: {error.strerror}") from None
        raise ReadFailed(f"{name}: {error.strerror}") from None
