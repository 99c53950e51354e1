"""A later mount of the same state shows programs what they saw before, with an empty cache too."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.daemons import BucketMount
from tests.support.faulty import FaultyProxy, drop
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.usefixtures("main_driver")

PAST_NS = 1_600_000_000_123_456_789


def run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=60, check=False, **options
    )  # type: ignore[call-overload]


def a_tree(top: Path) -> None:
    for number, mode in enumerate((0o600, 0o640, 0o755)):
        path = top / "songs" / f"take {number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(number))
        os.utime(path, ns=(PAST_NS, PAST_NS + number))
        path.chmod(mode)
    (top / "empty").mkdir(mode=0o700)
    (top / "link").symlink_to("songs/take 1.wav")
    for name, when in (("songs", 10**9), ("empty", 5)):
        os.utime(top / name, ns=(when, when))


def shown(top: Path) -> dict[str, tuple[int, ...]]:
    """What programs compare that look for changes."""
    found: dict[str, tuple[int, ...]] = {}
    for path in (top, *sorted(top.rglob("*"))):
        s = path.lstat()
        found[str(path.relative_to(top))] = (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
    return found


def test_nothing_is_new_to_programs_after_a_remount_with_an_empty_cache(
    mounts: Callable[..., BucketMount], tmp_path: Path, s3: S3Client, seaweed: SeaweedFS
) -> None:
    a_tree(tmp_path / "source")
    mount = mounts("host")
    theirs = f"{tmp_path.name}/theirs/take.wav"
    s3.put_object(Bucket=seaweed.endpoint.bucket, Key=theirs, Body=b"theirs")
    copied = run("rsync", "-a", f"{tmp_path}/source/", f"{mount.path}/copy/")
    assert copied.returncode == 0, copied.stderr
    before = shown(mount.path)
    assert len({row[0] for row in before.values()}) == len(before) == 10
    index, archive = tmp_path / "index", tmp_path / "archive.tar"
    # The kernel gives each mount a device number, and another one if somebody mounts meanwhile.
    tar = (
        "tar",
        "--create",
        f"--listed-incremental={index}",
        "--no-check-device",
        "--verbose",
        f"--directory={mount.path}",
    )
    assert run(*tar, f"--file={archive}", ".").returncode == 0
    assert mount.stop() == 0
    shutil.rmtree(tmp_path / "host" / "cache")
    mount = mounts("host")
    dry = run("rsync", "-an", "--itemize-changes", f"{tmp_path}/source/", f"{mount.path}/copy/")
    assert (dry.returncode, dry.stdout) == (0, "")
    assert shown(mount.path) == before
    with os.scandir(mount.path / "copy") as lines:
        assert {line.name: line.inode() for line in lines} == {
            name: before[f"copy/{name}"][0] for name in ("songs", "empty", "link")
        }
    again = run(*tar, f"--file={archive}", ".")
    assert [line for line in again.stdout.splitlines() if not line.endswith("/")] == []


@pytest.fixture
def line(seaweed: SeaweedFS) -> Iterator[FaultyProxy]:
    """The way to the server, which can be cut. To be asked for before `mounts`, to end after."""
    with FaultyProxy(seaweed.endpoint.url) as proxy:
        yield proxy


@pytest.mark.long
def test_a_mount_that_begins_without_the_bucket(
    line: FaultyProxy, mounts: Callable[..., BucketMount], s3: S3Client, seaweed: SeaweedFS, driver: str
) -> None:
    if driver != "kernel":
        pytest.skip("the driver has no part in it")
    mount = mounts("host", url=line.url)
    os.makedirs(mount.path / "songs" / "deep")
    (mount.path / "songs" / "take.wav").write_bytes(b"take")
    assert mount.stop() == 0
    line.rule(drop(), times=None)
    mount = mounts("host", start=False, url=line.url)
    mount.allowed += [r" WARNING .*(mounted without the bucket|does not answer|answers again)"]
    mount.start()
    assert sorted(os.listdir(mount.path / "songs")) == ["deep", "take.wav"]
    assert (mount.path / "songs" / "take.wav").read_bytes() == b"take"
    (mount.path / "songs" / "deep" / "new.wav").write_bytes(b"new")
    line.clear()
    mount.flush()
    key = f"{mount.prefix}songs/deep/new.wav"
    assert s3.get_object(Bucket=seaweed.endpoint.bucket, Key=key)["Body"].read() == b"new"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_with_allow_other_an_object_that_is_closed_is_closed_at_the_first_look(
    mounts: Callable[..., BucketMount], tmp_path: Path, s3: S3Client, seaweed: SeaweedFS
) -> None:
    for name, metadata in (("closed", {"mode": str(0o100600)}), ("plain", {})):
        key = f"{tmp_path.name}/{name}"
        s3.put_object(Bucket=seaweed.endpoint.bucket, Key=key, Body=b"take", Metadata=metadata)
    mount = mounts("host", allow_other="true")
    for directory in (mount.path, *mount.path.parents[:3]):
        if directory != mount.path:
            os.chmod(directory, 0o711)
    other = {"user": 65534, "group": 65534, "extra_groups": [], "cwd": mount.path}
    assert run("ls", "-l", **other).returncode == 0  # a listing tells the kernel nothing of it
    assert "Permission denied" in run("cat", "closed", **other).stderr
    assert run("cat", "plain", **other).stdout == "take"
    assert (mount.path / "closed").read_bytes() == b"take"
    assert "Permission denied" in run("cat", "closed", **other).stderr
