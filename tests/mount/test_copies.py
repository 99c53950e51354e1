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

    def cp(source: str, target: str) -> None:
        subprocess.run(["cp", "-p", mount.path / source, mount.path / target], check=True, timeout=60)

    def stored(name: str) -> bytes:
        answer = s3.get_object(Bucket=bucket, Key=mount.prefix + name)
        assert answer["ContentType"] == "audio/wav"
        return answer["Body"].read()

    cp("take.wav", "not here.wav")
    assert stored("not here.wav") == data, "cp has returned, and the bucket has not got it"
    requests = mount.status()["requests"]["by_verb"]
    assert requests["CopyObject"] == 1
    assert not {"GetObject", "PutObject"} & requests.keys()
    os.unlink(mount.path / "take.wav")
    assert (mount.path / "not here.wav").read_bytes() == data
    mount.flush()  # the times
    cp("not here.wav", "here.wav")
    mount.flush()
    cp("here.wav", "again.wav")
    mount.flush()
    for name in ("here.wav", "again.wav", "not here.wav"):
        assert (mount.path / name).read_bytes() == stored(name) == data
        assert (mount.path / name).stat().st_mtime == (mount.path / "here.wav").stat().st_mtime
    assert "PutObject" not in mount.status()["requests"]["by_verb"]
    assert mount.stop() == 0
