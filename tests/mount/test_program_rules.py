"""Rules for programs on a mount, of every driver: a thumbnailer is known by its name, however it is started."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.daemons import BucketMount, until
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1 << 20
RULES = """
[programs.thumbnailers]
comm = ["tumbler*"]
read = "header"
header = "64KiB"

[programs.indexers]
comm = ["baloo_file"]
read = "slow"
"""


@pytest.fixture
def programs(tmp_path: Path) -> Callable[[str], str]:
    """cat(1) under another name, which is its process's then."""

    def make(name: str) -> str:
        return str(shutil.copy2("/bin/cat", tmp_path / name))

    return make


@pytest.mark.usefixtures("main_driver")
def test_a_thumbnailer_gets_headers_and_others_all(
    mounts: Callable[..., BucketMount],
    seaweed: SeaweedFS,
    s3: S3Client,
    programs: Callable[[str], str],
    tmp_path: Path,
) -> None:
    (tmp_path / "settings.toml").write_text(RULES)
    mount = mounts("a", config=tmp_path / "settings.toml", read_ahead="0")
    large, small = os.urandom(9 * MIB), os.urandom(40_000)
    for name, data in (("large.wav", large), ("small.wav", small), ("other.wav", large)):
        s3.put_object(Bucket=seaweed.endpoint.bucket, Key=f"{mount.prefix}{name}", Body=data)
    thumbnailer, indexer = programs("tumblerd"), programs("baloo_file")

    done = subprocess.run([thumbnailer, mount.path / "large.wav"], capture_output=True, timeout=60)
    assert done.returncode == 1
    assert os.strerror(errno.EPERM) in done.stderr.decode()
    assert len(done.stdout) >= 64 << 10
    assert large.startswith(done.stdout)
    assert mount.status()["requests"]["received_bytes"] <= 3 * MIB, "with the kernel's own read-ahead"
    assert subprocess.run([thumbnailer, mount.path / "small.wav"], capture_output=True).stdout == small

    done = subprocess.run([indexer, mount.path / "other.wav"], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, large)

    assert (mount.path / "large.wav").read_bytes() == large
    done = subprocess.run([thumbnailer, mount.path / "large.wav"], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, large), "it is here now"

    # a changed file of settings takes effect in the running mount
    s3.put_object(Bucket=seaweed.endpoint.bucket, Key=f"{mount.prefix}new.wav", Body=large)
    (tmp_path / "settings.toml").write_text("")
    until("the change is taken up", lambda: "[programs] = none" in mount.log())
    done = subprocess.run([thumbnailer, mount.path / "new.wav"], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, large)
