"""cp inside a mount: the bucket copies, and nothing is uploaded."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.mount.daemons import BucketMount
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SIZE = 6 << 20


@pytest.fixture(scope="session")
def driver() -> str:
    """With libfuse the kernel reads and writes."""
    return "kernel"


def test_cp_is_a_copy_in_the_bucket(
    mounts: Callable[..., BucketMount], s3: S3Client, seaweed: SeaweedFS
) -> None:
    mount = mounts("cp", start=False)
    bucket, data = seaweed.endpoint.bucket, os.urandom(SIZE)
    s3.put_object(Bucket=bucket, Key=f"{mount.prefix}take.wav", Body=data)
    mount.start()
    for source, target in (("take.wav", "not here.wav"), ("take.wav", "here.wav"), ("here.wav", "again.wav")):
        subprocess.run(["cp", mount.path / source, mount.path / target], check=True, timeout=60)
        assert (mount.path / target).read_bytes() == data
        mount.flush()
        stored = s3.get_object(Bucket=bucket, Key=mount.prefix + target)
        assert stored["Body"].read() == data
        assert stored["ContentType"] == "audio/wav"
    requests = mount.status()["requests"]["by_verb"]
    assert requests["CopyObject"] == 3
    assert "PutObject" not in requests
    assert requests["GetObject"] == 1
    os.unlink(mount.path / "take.wav")
    assert (mount.path / "not here.wav").read_bytes() == data
    assert mount.stop() == 0
