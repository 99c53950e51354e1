"""Random operations on a mount, compared with a model; and fio, which checks its own sums.

Each way to a file (passthrough, the page cache, libfuse) once with room for everything, and once with
files that are larger than a read ahead, come from the bucket in pieces, and are evicted while they are
used. Uploads go on meanwhile. The exerciser runs in a process of its own (see tests/exerciser).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from r2fs.drivers import kmount
from tests.exerciser.exerciser import Exerciser, content
from tests.mount.daemons import REPO, BucketMount, CachedMount, serve, until
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1 << 20
ROOT_ONLY = pytest.mark.skipif(not kmount.privileged(), reason="passthrough needs CAP_SYS_ADMIN")
WAYS = (
    pytest.param("passthrough", marks=ROOT_ONLY),
    "page cache",
    "libfuse",
    pytest.param("libfuse2", marks=pytest.mark.long),
)
LARGE = {"f0": 3 * MIB, "f1": 3 * MIB + 4097, "f2": 2 * MIB - 1}  # in the bucket at the beginning
SEEDS = (1, 2)
OPERATIONS, MANY = 1500, 100_000
SENT_S = 60.0
TIGHT = {"cache_size": "3MiB", "small_file": "64KiB", "read_ahead": "512KiB"}


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["tight", pytest.param("roomy", marks=pytest.mark.long)])
def room(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def mount(
    way: str, room: str, seaweed: SeaweedFS, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BucketMount]:
    base = tmp_path_factory.mktemp(f"{way}-{room}".replace(" ", "-"))
    settings = {"upload_delay": "20ms", "log_level": "info", **(TIGHT if room == "tight" else {})}
    mount: BucketMount
    if way == "page cache":
        mount = CachedMount(base, seaweed.endpoint, f"{base.name}/", **settings)
    else:
        driver = "kernel" if way == "passthrough" else way
        mount = BucketMount(base, driver, seaweed.endpoint, f"{base.name}/", **settings)
    yield from serve(mount)


def exercise(
    mount: BucketMount, room: str, name: str, seed: int, operations: int, server: SeaweedFS, s3: S3Client
) -> None:
    bucket, existing = server.endpoint.bucket, LARGE if room == "tight" else {}
    for file, size in existing.items():
        s3.put_object(Bucket=bucket, Key=f"{mount.prefix}{name}/{file}", Body=content(seed, file, size))
    if existing:
        until(
            "what is there already",
            lambda: set(existing) <= {path.name for path in (mount.path / name).glob("*")},
        )
    else:
        (mount.path / name).mkdir()
    command = [sys.executable, "-m", "tests.exerciser", str(seed), str(operations), str(mount.path / name)]
    command += ["--pause", "0.1", "--largest", str(4 * MIB if existing else 400 << 10)]
    command += [word for file, size in existing.items() for word in ("--existing", f"{file}={size}")]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, f"{done.stderr}\n{mount.complaints()}"
    left = json.loads(done.stdout)
    mount.flush(SENT_S)
    start = f"{mount.prefix}{name}/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start)
    keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
    stored = {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys if key != start}
    assert {key[len(start) :]: hashlib.sha256(body).hexdigest() for key, body in stored.items()} == left
    assert mount.complaints() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_some_random_operations(mount: BucketMount, room: str, seed: int, seaweed: SeaweedFS, s3: S3Client):
    exercise(mount, room, f"some {seed}", seed, OPERATIONS, seaweed, s3)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_random_operations(mount: BucketMount, room: str, seaweed: SeaweedFS, s3: S3Client):
    seed = int.from_bytes(os.urandom(4), "big")
    exercise(mount, room, f"many {seed}", seed, MANY, seaweed, s3)


def test_the_exerciser_finds_what_is_wrong(tmp_path: Path):
    """On a directory whose file changes behind its back."""
    (tmp_path / "f0").write_bytes(content(2, "f0", 100_000))
    with pytest.raises(AssertionError, match=r"seed 1, operation"):
        Exerciser(tmp_path, 1, {"f0": 100_000}).run(500)


# ------------------------------------------------------------------ fio
JOBS = """
[global]
directory={directory}
size={size}
verify=crc32c
verify_fatal=1
do_verify=1
fallocate=none
group_reporting
[random]
rw=randwrite
bsrange=512-64k
numjobs=2
ioengine=psync
[mapped]
stonewall
rw=randwrite
bs=4k
ioengine=mmap
numjobs=2
[mixed]
stonewall
rw=randrw
bs=8k
ioengine=psync
fsync=16
"""


def fio(directory: Path, size: str) -> None:
    assert shutil.which("fio"), "fio is not installed"
    jobs = directory.parent.parent / "jobs.fio"
    jobs.write_text(JOBS.format(directory=directory, size=size))
    done = subprocess.run(
        ["fio", "--output-format=terse", jobs], capture_output=True, text=True, timeout=600, cwd=jobs.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verify" not in done.stderr, done.stderr


@pytest.mark.parametrize("size", ["1m", pytest.param("64m", marks=pytest.mark.long)])
def test_fio_finds_what_it_wrote(mount: BucketMount, size: str):
    directory = mount.path / f"fio {size}".replace(" ", "-")
    directory.mkdir()
    fio(directory, size)
    shutil.rmtree(directory)
    assert mount.complaints() == []
