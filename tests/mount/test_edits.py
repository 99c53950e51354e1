"""A tag is changed in a large object: how much of it goes over the network."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.daemons import BucketMount, until
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1 << 20
SMALL = {"multipart_threshold": "20MiB", "part_size": "5MiB"}
SIZES = [
    pytest.param((27 * MIB + 17, 5 * MIB, SMALL), id="27MiB"),
    pytest.param((200_000_000, 16 * MIB, {}), id="200MB", marks=pytest.mark.long),
    pytest.param(
        ((3 << 30) + 1, 16 * MIB, {}), id="3GiB", marks=[pytest.mark.long, pytest.mark.timeout(1200)]
    ),
]
LONG_S = 600.0


pytestmark = pytest.mark.usefixtures("engine_driver")


def store(s3: S3Client, seaweed: SeaweedFS, key: str, path: Path, size: int) -> None:
    """Another client puts an object of random bytes there; `path` has them, too."""
    rng = random.Random(5)
    with path.open("wb") as file:
        for at in range(0, size, MIB):
            file.write(rng.randbytes(min(MIB, size - at)))
    s3.upload_file(str(path), seaweed.endpoint.bucket, key)


def stored_digest(s3: S3Client, seaweed: SeaweedFS, key: str) -> str:
    digest = hashlib.sha256()
    for chunk in s3.get_object(Bucket=seaweed.endpoint.bucket, Key=key)["Body"].iter_chunks(MIB):
        digest.update(chunk)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def change(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def requests(mount: BucketMount) -> dict[str, int]:
    found = mount.status()["requests"]
    return {**found["by_verb"], "sent": found["sent_bytes"]}


@pytest.mark.parametrize("size", SIZES)
def test_a_tag_in_a_large_object(
    size: tuple[int, int, dict[str, str]],
    mounts: Callable[..., BucketMount],
    seaweed: SeaweedFS,
    s3: S3Client,
    tmp_path: Path,
) -> None:
    """First of an object that is not here, then of what that made, then at both ends."""
    length, part, settings = size
    key, copy = f"{tmp_path.name}/take.wav", tmp_path / "copy"
    store(s3, seaweed, key, copy, length)
    mount = mounts("m", **settings)
    take = mount.path / "take.wav"
    edits = [
        [(length // 2, b"not here yet")],
        [(length // 3, b"here")],
        [(0, b"RIFX"), (length - 4, b"TAG!")],
    ]
    for number, edit in enumerate(edits):
        before = requests(mount)
        for at, data in edit:
            change(take, at, data)
            change(copy, at, data)
        mount.flush(LONG_S)
        after = requests(mount)
        assert stored_digest(s3, seaweed, key) == digest_of(copy), f"edit {number}"
        assert after["sent"] - before["sent"] <= len(edit) * part + 10_000, f"edit {number}"
        touched = {one // part for at, data in edit for one in (at, at + len(data) - 1)}
        assert after["UploadPart"] - before.get("UploadPart", 0) == len(touched)
    assert digest_of(take) == digest_of(copy)


def test_a_tag_in_a_file_that_was_read(
    mounts: Callable[..., BucketMount], seaweed: SeaweedFS, s3: S3Client, tmp_path: Path
) -> None:
    length, copy = 27 * MIB + 17, tmp_path / "copy"
    key = f"{tmp_path.name}/take.wav"
    store(s3, seaweed, key, copy, length)
    mount = mounts("m", **SMALL)
    take = mount.path / "take.wav"
    assert digest_of(take) == digest_of(copy)
    until("its digests", lambda: _digests(mount))
    before = requests(mount)
    change(take, 11 * MIB, b"TAG")
    change(copy, 11 * MIB, b"TAG")
    os.utime(take, ns=(10**18, 10**18))
    mount.flush(LONG_S)
    after = requests(mount)
    assert stored_digest(s3, seaweed, key) == digest_of(copy)
    assert after["UploadPart"] == 1
    assert after["sent"] - before["sent"] <= 5 * MIB + 10_000
    assert float(s3.head_object(Bucket=seaweed.endpoint.bucket, Key=key)["Metadata"]["mtime"]) == 10**9


def _digests(mount: BucketMount) -> bool:
    """Written behind the last close: the database of attributes has a row that names parts."""
    return any(b'"parts"' in path.read_bytes() for path in (mount.base / "cache").rglob("cache.db*"))
