"""What S3 keeps beside an object's bytes, for a bucket that is a directory.

Owns:    `ROOT/.r2fs/meta`: one small JSON file for each object that r2fs wrote.
Never:   touches the objects themselves; decides which version is current.
Threads: no state; `LocalDirStore` holds its lock around writes.

A side file is named by the key and by the identity (inode, size, mtime) of the very file that it
describes. So it can be written before that file gets its name: a crash between the two leaves
the old object with the old side file, and one too many, which nobody finds. A file that
another program wrote or changed has none, and gets an ETag from its identity.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISDIR

from r2fs.model.records import ObjectInfo, ObjectMeta

EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
OCTETS = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Facts:
    etag: str
    content_type: str
    metadata: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)  # as ObjectMeta has them


def facts_of(etag: str, meta: ObjectMeta) -> Facts:
    return Facts(etag, meta.content_type, dict(meta.metadata), dict(meta.headers or {}))


def chosen_meta(source: ObjectInfo, meta: ObjectMeta | None) -> ObjectMeta:
    """Metadata that a copy of `source` gets beside its bytes."""
    if meta is None:
        return ObjectMeta(source.content_type or "", source.metadata or {}, source.headers)
    return meta if meta.headers is not None else replace(meta, headers=source.headers)


class Sidecars:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, key: str, stat: os.stat_result) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        # A directory's identity changes with each file in it; its marker has no bytes to be told apart.
        identity = (
            "dir" if S_ISDIR(stat.st_mode) else f"{stat.st_ino:x}-{stat.st_size:x}-{stat.st_mtime_ns:x}"
        )
        return self._directory / name[:2] / f"{name}-{identity}.json"

    def stored(self, key: str, stat: os.stat_result) -> Facts | None:
        """What was written for exactly this file, if r2fs wrote it and nobody changed it."""
        try:
            data = json.loads(self._path(key, stat).read_bytes())
            metadata, headers = _texts(data["metadata"]), _texts(data.get("headers", {}))
            return Facts(str(data["etag"]), str(data["content_type"]), metadata, headers)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # torn by a power cut: the object itself is as good as another program's

    def facts(self, key: str, stat: os.stat_result) -> Facts:
        return self.stored(key, stat) or foreign(key, stat)

    def write(self, key: str, stat: os.stat_result, facts: Facts) -> None:
        path = self._path(key, stat)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = {
            "key": key,
            "etag": facts.etag,
            "content_type": facts.content_type,
            "metadata": facts.metadata,
            "headers": facts.headers,
        }
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            file.write(json.dumps(data).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)

    def drop(self, key: str, stat: os.stat_result) -> None:
        self._path(key, stat).unlink(missing_ok=True)


def _texts(data: dict[object, object]) -> dict[str, str]:
    return {str(name): str(value) for name, value in data.items()}


def foreign(key: str, stat: os.stat_result) -> Facts:
    """Of a file that another program wrote: not the MD5, which would take reading it."""
    if S_ISDIR(stat.st_mode):
        return Facts(EMPTY_MD5, OCTETS)
    etag = f"local-{stat.st_size:x}-{stat.st_mtime_ns:x}-{stat.st_ino:x}"
    return Facts(etag, mimetypes.guess_type(key)[0] or OCTETS)


def sync_directory(path: Path) -> None:
    """A name that was made or changed in `path` survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
