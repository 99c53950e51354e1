"""Multipart uploads of a local bucket.

Owns:  `ROOT/.r2fs/uploads/ID/`: `upload.json`, and one file `NUMBER.ETAG` for each part.
Never: publishes: `LocalDirStore` reads the parts in order and does.
Fails: UploadMissing if the id is unknown or the parts do not fit, by R2's rules: equal parts,
       the last no larger, none but the last below the least size.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from r2fs.model.errors import UploadMissing
from r2fs.model.keys import printable
from r2fs.model.records import ObjectMeta, Part
from r2fs.store.local.files import CHUNK

_ID = re.compile(r"[0-9a-f]{32}\Z")


class Uploads:
    def __init__(self, directory: Path, min_part: int) -> None:
        self._directory = directory
        self._min_part = min_part

    def create(self, key: str, meta: ObjectMeta) -> str:
        upload_id = secrets.token_hex(16)
        directory = self._directory / upload_id
        directory.mkdir(parents=True)
        (directory / "upload.json").write_text(json.dumps({"key": key, "meta": asdict(meta)}))
        return upload_id

    def meta(self, key: str, upload_id: str) -> ObjectMeta:
        try:
            if not _ID.match(upload_id):
                raise FileNotFoundError(upload_id)
            data = json.loads((self._directory / upload_id / "upload.json").read_bytes())
            if data["key"] != key:
                raise FileNotFoundError(upload_id)
        except FileNotFoundError:
            raise UploadMissing(f"{printable(key)}: the multipart upload is gone") from None
        return ObjectMeta(**data["meta"])

    def add(self, upload_id: str, file: Path, part: Part) -> None:
        """Move `file` to its place as `part`; an older part of the same number is removed."""
        directory = self._directory / upload_id
        for old in directory.glob(f"{part.number:05d}.*"):
            if old.name != _name(part):
                old.unlink(missing_ok=True)
        file.replace(directory / _name(part))

    def read(self, key: str, upload_id: str, parts: Sequence[Part]) -> Iterator[bytes]:
        """Bytes of `parts`, in their order."""
        files = [self._directory / upload_id / _name(part) for part in parts]
        sizes = [file.stat().st_size if file.is_file() else -1 for file in files]
        ascending = all(a.number < b.number for a, b in pairwise(parts))
        equal = len(set(sizes[:-1])) <= 1 and all(size >= self._min_part for size in sizes[:-1])
        if not parts or -1 in sizes or not ascending or not equal or sizes[-1] > sizes[0]:
            raise UploadMissing(f"{printable(key)}: the parts of the multipart upload do not fit")
        for path in files:
            with path.open("rb", buffering=0) as file:
                while data := file.read(CHUNK):
                    yield data

    def remove(self, key: str, upload_id: str) -> None:
        try:
            self.meta(key, upload_id)
            shutil.rmtree(self._directory / upload_id)
        except (UploadMissing, FileNotFoundError):
            pass


def _name(part: Part) -> str:
    return f"{part.number:05d}.{part.etag}"
