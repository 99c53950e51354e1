"""Bytes in and out of the files of a bucket that is a directory.

Owns:  reading an opened version to its end, and writing a new file whole.
Never: knows keys' paths, side files or the lock.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from r2fs.model.errors import BodyDamaged, Unavailable
from r2fs.model.keys import printable
from r2fs.model.records import ObjectInfo
from r2fs.store.bodies import Outgoing
from r2fs.store.counting import RequestCounter

CHUNK = 1 << 20


class LocalDownload:
    """An open file: it stays the version that was opened, whatever its name is given to."""

    def __init__(
        self,
        descriptor: int,
        info: ObjectInfo,
        stat: os.stat_result,
        start: int,
        stop: int,
        counter: RequestCounter,
    ) -> None:
        self._descriptor: int | None = descriptor
        self._stat = stat
        self._at, self._stop = start, stop
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
            # Another program that writes in place would tear the version that was promised.
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


def is_empty(path: Path) -> bool:
    with os.scandir(path) as entries:
        return next(entries, None) is None


def read_chunks(body: Outgoing) -> Iterator[bytes]:
    while data := body.read(CHUNK):
        yield data


def write_whole(path: Path, data: Iterator[bytes]) -> str:
    """A new file, on the disk when this returns; its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("xb", buffering=0) as file:
        for chunk in data:
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
            digest.update(chunk)
        os.fsync(file.fileno())
    return digest.hexdigest()
