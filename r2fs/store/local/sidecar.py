"""Side files: ETag, metadata and headers of objects in a local bucket.

Owns:    `ROOT/.r2fs/meta`: a JSON file for each object written by r2fs.
Never:   touches the objects themselves; decides which version is current.
Threads: no state; `LocalDirStore` holds its lock around writes.

A side file is named by the key and by the identity (inode, size, mtime) of its object's file, and is
written before the object gets its name: a crash between the two leaves the old object with its old side
file, and another side file without an object. A file written or changed by another program has no side
file; its ETag is made from its identity.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from stat import S_ISDIR

from r2fs.model.etags import EMPTY_MD5
from r2fs.model.records import ObjectInfo, ObjectMeta
from r2fs.store.local.files import sync_directory

OCTETS = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class SideData:
    etag: str
    content_type: str
    metadata: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)  # as in ObjectMeta

    @classmethod
    def of(cls, etag: str, meta: ObjectMeta) -> SideData:
        return cls(etag, meta.content_type, dict(meta.metadata), dict(meta.headers or {}))


def chosen_meta(source: ObjectInfo, meta: ObjectMeta | None) -> ObjectMeta:
    """Metadata of a copy of `source`."""
    if meta is None:
        return ObjectMeta(source.content_type or "", source.metadata or {}, source.headers)
    return meta if meta.headers is not None else replace(meta, headers=source.headers)


class Sidecars:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, key: str, stat: os.stat_result) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        # The identity of a directory changes with each file in it; a marker has no bytes to tell apart.
        directory = S_ISDIR(stat.st_mode)
        identity = "dir" if directory else f"{stat.st_ino:x}-{stat.st_size:x}-{stat.st_mtime_ns:x}"
        return self._directory / name[:2] / f"{name}-{identity}.json"

    def stored(self, key: str, stat: os.stat_result) -> SideData | None:
        """Side data of the file with this identity. None if another program wrote or changed it."""
        try:
            data = json.loads(self._path(key, stat).read_bytes())
            texts = [
                {str(n): str(v) for n, v in data.get(part, {}).items()} for part in ("metadata", "headers")
            ]
            return SideData(str(data["etag"]), str(data["content_type"]), *texts)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # torn by a power cut: the file then counts as another program's

    def read(self, key: str, stat: os.stat_result) -> SideData:
        return self.stored(key, stat) or foreign(key, stat)

    def write(self, key: str, stat: os.stat_result, side: SideData) -> None:
        path = self._path(key, stat)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            file.write(json.dumps({"key": key, **asdict(side)}).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)

    def drop(self, key: str, stat: os.stat_result) -> None:
        self._path(key, stat).unlink(missing_ok=True)


def foreign(key: str, stat: os.stat_result) -> SideData:
    """Side data of another program's file. The ETag is no MD5, which would need a read of the file."""
    if S_ISDIR(stat.st_mode):
        return SideData(EMPTY_MD5, OCTETS)
    etag = f"local-{stat.st_size:x}-{stat.st_mtime_ns:x}-{stat.st_ino:x}"
    return SideData(etag, mimetypes.guess_type(key)[0] or OCTETS)
