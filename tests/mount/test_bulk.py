"""Trees of many objects through a real mount: walked, renamed and removed, with few requests."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.daemons import BucketMount, until
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SIZES = [
    pytest.param((1020, 60), id="1020"),
    pytest.param((10_000, 1100), id="10000", marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
]
LONG_S = 600.0  # ten thousand copies on two cores that other tests share


@pytest.fixture(scope="session")
def driver() -> str:
    """What is counted here does not depend on it."""
    return "kernel"


@pytest.fixture
def make(mounts: Callable[..., BucketMount]) -> Callable[..., BucketMount]:
    """What is counted must not depend on how long this machine takes."""
    return partial(mounts, freshness="10m")


def fill(s3: S3Client, seaweed: SeaweedFS, prefix: str, files: int, directories: int) -> dict[str, bytes]:
    """Objects below `prefix`, made by another client: relative path and bytes of each."""
    tree = {f"d{n % directories:04}/f{n:05}.wav": b"RIFF%d" % n for n in range(files)}

    def put(item: tuple[str, bytes]) -> None:
        s3.put_object(
            Bucket=seaweed.endpoint.bucket,
            Key=prefix + item[0],
            Body=item[1],
            ContentType="audio/x-take",
            CacheControl="max-age=60",
            Metadata={"mtime": "1700000000.5", "who": "somebody"},
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, tree.items()))
    return tree


def keys(s3: S3Client, seaweed: SeaweedFS, prefix: str) -> set[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=seaweed.endpoint.bucket, Prefix=prefix)
    return {found["Key"][len(prefix) :] for page in pages for found in page.get("Contents", ())}


def requests(mount: BucketMount) -> Counter[str]:
    return Counter(mount.status()["requests"]["by_verb"])


@pytest.mark.parametrize("size", SIZES)
def test_a_tree_is_walked_and_removed_with_few_requests(
    size: tuple[int, int],
    make: Callable[..., BucketMount],
    seaweed: SeaweedFS,
    s3: S3Client,
    tmp_path: Path,
) -> None:
    files, directories = size
    tree = fill(s3, seaweed, f"{tmp_path.name}/top/", files, directories)
    mount = make("m", upload_delay="60s")
    before = requests(mount)
    found = subprocess.run(
        ["find", "top", "-type", "f"],
        cwd=mount.path,
        check=True,
        capture_output=True,
        text=True,
        timeout=LONG_S,
    )
    assert set(found.stdout.split()) == {f"top/{path}" for path in tree}
    assert (requests(mount) - before)["ListObjectsV2"] <= 8 + files // 500  # one by one: one a directory
    before = requests(mount)
    subprocess.run(["rm", "-rf", "top"], cwd=mount.path, check=True, timeout=LONG_S)
    assert os.listdir(mount.path) == []
    mount.flush(LONG_S)
    sent = requests(mount) - before
    assert keys(s3, seaweed, f"{tmp_path.name}/") == set()
    assert sent["DeleteObjects"] + sent["DeleteObject"] <= 10 + files // 300
    assert sent["HeadObject"] <= 10
    assert sent["PutObject"] <= 10


@pytest.mark.parametrize("size", [pytest.param((300, 20), id="300"), SIZES[1]])
def test_a_directory_is_renamed_and_the_daemon_killed_meanwhile(
    size: tuple[int, int],
    make: Callable[..., BucketMount],
    seaweed: SeaweedFS,
    s3: S3Client,
    tmp_path: Path,
) -> None:
    files, directories = size
    tree = fill(s3, seaweed, f"{tmp_path.name}/top/", files, directories)
    mount = make("m")
    before = requests(mount)
    os.rename(mount.path / "top", mount.path / "other")
    assert os.listdir(mount.path) == ["other"]
    assert (requests(mount) - before)["ListObjectsV2"] <= 6 + files // 500
    last = f"d{(files - 1) % directories:04}/f{files - 1:05}.wav"
    until("some copies", lambda: (requests(mount) - before)["CopyObject"] > files // 10, LONG_S)
    assert (mount.path / "other" / last).read_bytes() == tree[last]
    (mount.path / "other" / "d0001" / "new").write_bytes(b"written meanwhile")
    (mount.path / "other" / "d0002" / "f00002.wav").unlink()
    (mount.path / "other" / "d0003" / "f00003.wav").write_bytes(b"overwritten")
    os.rename(mount.path / "other", mount.path / "third")
    mount.kill()
    again = make("m")
    want = {path: data for path, data in tree.items() if path != "d0002/f00002.wav"}
    want |= {"d0001/new": b"written meanwhile", "d0003/f00003.wav": b"overwritten"}
    assert os.listdir(again.path) == ["third"]
    assert (again.path / "third" / last).read_bytes() == tree[last]
    again.flush(LONG_S)
    # A file was removed from d0002. Where none of its others was copied by then, it got an object, so that the bucket
    # keeps it whatever becomes of the copies; and after a restart each pending directory gets its own.
    stored_keys = keys(s3, seaweed, f"{tmp_path.name}/") - {"third/d0002/"}
    assert stored_keys == {f"third/{path}" for path in want}
    for path in [*list(want)[:20], "d0001/new", "d0003/f00003.wav"]:
        assert (again.path / "third" / path).read_bytes() == want[path]
    stored = s3.get_object(Bucket=seaweed.endpoint.bucket, Key=f"{tmp_path.name}/third/{last}")
    assert stored["Body"].read() == tree[last]
    assert (stored["ContentType"], stored["CacheControl"]) == ("audio/x-take", "max-age=60")
    assert stored["Metadata"]["who"] == "somebody"
    assert float(stored["Metadata"]["mtime"]) == 1700000000.5


@contextmanager
def took(what: str) -> Iterator[None]:
    """Says so in the test's output (`-rP` shows it): how long it takes says more of the machine than of us."""
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s")


def looks(mount: BucketMount) -> int:
    asked = requests(mount)
    return asked["ListObjectsV2"] + asked["HeadObject"]


LARGE = (pytest.mark.long, pytest.mark.timeout(3600))


@pytest.mark.parametrize(
    ("driver", "files"),
    [
        ("kernel", 1020),
        pytest.param("kernel", 100_000, marks=LARGE),
        pytest.param("libfuse", 100_000, marks=LARGE),
    ],
)
def test_one_directory_of_many_files(
    driver: str,
    files: int,
    make: Callable[..., BucketMount],
    seaweed: SeaweedFS,
    s3: S3Client,
    tmp_path: Path,
) -> None:
    """Made while the first of them are uploaded, listed, looked at, by another host too, and removed one by one."""
    want = {f"{n:06}.wav": len(b"RIFF%d" % n) for n in range(files)}
    mount = make("m", upload_delay="0s")
    place = mount.path / "many"
    place.mkdir()
    # SeaweedFS loses a marker that comes together with the first object below it: 1 of 300, with boto3 alone.
    mount.flush()
    with took(f"{files} made"):
        for n, name in enumerate(want):
            (place / name).write_bytes(b"RIFF%d" % n)
    with took("listed"):
        assert set(os.listdir(place)) == set(want)
    with took("each looked at"):
        assert {name: os.stat(place / name).st_size for name in want} == want
    with took("uploaded"):
        mount.flush(3000)
    assert looks(mount) <= 50 + files // 20  # each by itself: one to four a file
    assert keys(s3, seaweed, f"{tmp_path.name}/") == {"many/", *(f"many/{name}" for name in want)}
    assert mount.stop() == 0
    mount = make("n")
    place = mount.path / "many"
    with took("listed and looked at by a host that has nothing of it"), os.scandir(place) as entries:
        assert {entry.name: entry.stat().st_size for entry in entries} == want
    assert (place / list(want)[-1]).read_bytes() == b"RIFF%d" % (files - 1)
    with took("removed"):
        for name in want:
            os.unlink(place / name)
    assert os.listdir(place) == []
    with took("deleted in the bucket"):
        mount.flush(3000)
    assert looks(mount) <= 50 + files // 20
    assert keys(s3, seaweed, f"{tmp_path.name}/") == {"many/"}
