"""The daemon's memory: bounded while a large file and many small ones are read for the first time."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.daemons import BucketMount
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1 << 20
LIMIT_MIB = 128  # of a small machine, or a cgroup


@pytest.fixture(scope="session")
def driver() -> str:
    return "kernel"


def memory_mib(pid: int) -> dict[str, int]:
    lines = [
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    ]
    return {name: int(value.split()[0]) // 1024 for name, value in lines if value.endswith(" kB")}


def test_cold_reads_leave_no_memory_behind(
    mounts: Callable[..., BucketMount], s3: S3Client, seaweed: SeaweedFS, tmp_path: Path
) -> None:
    bucket, prefix = seaweed.endpoint.bucket, tmp_path.name
    small, large = os.urandom(4096), os.urandom(200 * MIB)
    s3.put_object(Bucket=bucket, Key=f"{prefix}/large.wav", Body=large)
    with ThreadPoolExecutor(4) as senders:
        for n in range(400):
            senders.submit(s3.put_object, Bucket=bucket, Key=f"{prefix}/kit/{n:03}.wav", Body=small)
    mount = mounts("reader")
    start = memory_mib(mount.child.pid)
    with open(mount.path / "large.wav", "rb", buffering=0) as file:
        while file.read(MIB):
            pass
    for path in sorted((mount.path / "kit").iterdir()):
        assert path.read_bytes() == small
    found = memory_mib(mount.child.pid)
    assert found["RssAnon"] - start["RssAnon"] <= 16, f"{start}, then {found}"
    assert found["VmHWM"] <= LIMIT_MIB, f"{start}, then {found}"
