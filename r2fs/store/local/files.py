"""Files of a local bucket: their paths, downloads, new files that are written whole, directories that are fsynced.

Owns:  the translation of errors of the disk into StoreError.
Fails: NoPath for a key that cannot be a path.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from r2fs.model.errors import (
    BodyDamaged,
    BucketMissing,
    ObjectMissing,
    PermissionRefused,
    Refused,
    StoreError,
    Unavailable,
)
from r2fs.model.keys import MAX_KEY_BYTES, is_name, printable
from r2fs.model.records import ObjectInfo
from r2fs.store.counting import RequestCounter

CHUNK = 1 << 20
OWN = ".r2fs"  # r2fs's own directory in the root: never listed

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_IMPOSSIBLE = (
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EILSEQ,
    errno.EXDEV,
)


class NoPath(Refused):
    """The key cannot be a path below the root."""


def path_of(root: Path, key: str) -> Path:
    """Path of an object, or of the directory if `key` names a marker. Raises NoPath."""
    parts = key.removesuffix("/").split("/")
    if not all(is_name(part) for part in parts) or parts[0] == OWN:
        raise NoPath(f"{printable(key)}: cannot be a file below {root}: choose another name")
    try:
        if len(key.encode()) > MAX_KEY_BYTES:
            raise NoPath(f"{printable(key[:60])}…: a key may have {MAX_KEY_BYTES} bytes")
    except UnicodeEncodeError:
        raise NoPath(f"{printable(key)}: object keys are UTF-8; this one is not") from None
    return root.joinpath(*parts)


def translated(root: Path, error: OSError, name: str) -> StoreError:
    """Error of the bucket for an error of the disk. `name`: the key, or the bucket's URL."""
    why = f"{name}: {error.strerror or error}"
    if error.errno in _MISSING:
        if not root.is_dir():
            return BucketMissing(f"file://{root}: there is no such directory: make it, or mount its disk")
        return ObjectMissing(f"{name}: there is no such object")
    if error.errno in _DENIED:
        return PermissionRefused(f"{why}: check the owner and mode below {root}")
    if error.errno in _FULL:
        return Refused(f"{why}: free space on the disk of {root}")
    if error.errno in _IMPOSSIBLE:
        return Refused(f"{why}: this key cannot be a file below {root}")
    return Unavailable(why)


class LocalDownload:
    """An open file. Keeps its version, also if another object gets its name."""

    def __init__(
        self, descriptor: int, info: ObjectInfo, stat: os.stat_result, span: range, counter: RequestCounter
    ) -> None:
        self._descriptor: int | None = descriptor
        self._stat = stat
        self._at, self._stop = span.start, span.stop
        self._counter = counter
        self.info = info

    def chunks(self, size: int = 262144) -> Iterator[bytes]:
        name = printable(self.info.key)
        while self._descriptor is not None and self._at < self._stop:
            try:
                data = os.pread(self._descriptor, min(size, self._stop - self._at), self._at)
                now = os.fstat(self._descriptor)
            except OSError as error:
                raise Unavailable(f"{name}: {error.strerror or error}") from error
            # Another program may write in place: the bytes would then be of two versions.
            same = (now.st_size, now.st_mtime_ns) == (self._stat.st_size, self._stat.st_mtime_ns)
            if not data or not same:
                raise BodyDamaged(f"{name}: the file changed while it was read")
            self._at += len(data)
            self._counter.received(len(data))
            yield data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def write_whole(path: Path, data: Iterator[bytes]) -> str:
    """Write a new file and sync its bytes. Returns their MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("xb", buffering=0) as file:
        for chunk in data:
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
            digest.update(chunk)
        os.fsync(file.fileno())
    return digest.hexdigest()


def make_directories(path: Path) -> None:
    """Make `path` and its parents, and sync their names. Raises FileExistsError if a file is in the way."""
    missing = []
    while not path.is_dir():
        if path.exists() or path.is_symlink():
            raise FileExistsError(errno.EEXIST, f"{path} is a file, and the key needs a directory there")
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


def sync_directory(path: Path) -> None:
    """Make new and changed names in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
