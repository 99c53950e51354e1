"""Multipart uploads of a bucket that is a directory.

Owns:  `ROOT/.r2fs/uploads/ID/`: `upload.json`, and one file `NUMBER.ETAG` for each part.
Never: publishes: it hands the parts' files over in order.
Fails: UploadMissing where the id is unknown or the parts do not fit, by R2's rules: equal parts,
       the last no larger, none but the last below the least size.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from r2fs.model.errors import UploadMissing
from r2fs.model.keys import printable
from r2fs.model.ports import Limits
from r2fs.model.records import ObjectMeta, Part

_ID = re.compile(r"[0-9a-f]{32}\Z")


class Uploads:
    def __init__(self, directory: Path, limits: Limits) -> None:
        self._directory = directory
        self._limits = limits

    def create(self, key: str, meta: ObjectMeta) -> str:
        upload_id = secrets.token_hex(16)
        directory = self._directory / upload_id
        directory.mkdir(parents=True)
        data = {
            "key": key,
            "content_type": meta.content_type,
            "metadata": dict(meta.metadata),
            "headers": dict(meta.headers or {}),
        }
        (directory / "upload.json").write_text(json.dumps(data))
        return upload_id

    def directory(self, key: str, upload_id: str) -> Path:
        self.meta(key, upload_id)
        return self._directory / upload_id

    def meta(self, key: str, upload_id: str) -> ObjectMeta:
        try:
            if not _ID.match(upload_id):
                raise FileNotFoundError(upload_id)
            data = json.loads((self._directory / upload_id / "upload.json").read_bytes())
            if data["key"] != key:
                raise FileNotFoundError(upload_id)
        except FileNotFoundError:
            raise UploadMissing(f"{printable(key)}: the multipart upload is gone") from None
        return ObjectMeta(data["content_type"], data["metadata"], data.get("headers"))

    def files(self, key: str, upload_id: str, parts: Sequence[Part]) -> list[Path]:
        """Of the parts as named, in order."""
        directory = self.directory(key, upload_id)
        files = [directory / part_name(part) for part in parts]
        sizes = [file.stat().st_size if file.is_file() else -1 for file in files]
        ascending = all(a.number < b.number for a, b in pairwise(parts))
        equal = len(set(sizes[:-1])) <= 1 and all(size >= self._limits.min_part for size in sizes[:-1])
        if not parts or -1 in sizes or not ascending or not equal or sizes[-1] > sizes[0]:
            raise UploadMissing(f"{printable(key)}: the parts of the multipart upload do not fit")
        return files

    def remove(self, key: str, upload_id: str) -> None:
        try:
            shutil.rmtree(self.directory(key, upload_id))
        except (UploadMissing, FileNotFoundError):
            pass


def adopt(directory: Path, file: Path, part: Part) -> None:
    """`file` becomes the part; one of the same number goes."""
    for old in directory.glob(f"{part.number:05d}.*"):
        if old.name != part_name(part):
            old.unlink(missing_ok=True)
    file.replace(directory / part_name(part))


def part_name(part: Part) -> str:
    return f"{part.number:05d}.{part.etag}"


def read_all(files: Sequence[Path], size: int) -> Iterator[bytes]:
    for path in files:
        with path.open("rb", buffering=0) as file:
            while data := file.read(size):
                yield data
