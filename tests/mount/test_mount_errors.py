"""What keeps a mount from coming up: one sentence with the remedy, an exit code, and no traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from r2fs.drivers import kmount
from r2fs.model import errors
from tests.mount.daemons import DRIVERS
from tests.support.commands import run_r2fs
from tests.support.faulty import FaultyProxy, answer
from tests.support.namespaces import WITHOUT_OTHER_MOUNTS
from tests.support.servers import clean_environment, free_ports


@pytest.fixture(scope="session")
def driver():
    """Nearly all is checked before a driver has anything to do."""
    return "auto"


@pytest.fixture
def refuse(driver, seaweed, tmp_path):
    """`refuse(exit_code, **changes)`: runs `r2fs mount`, which must fail so; its sentence."""
    (tmp_path / "mnt").mkdir()

    def run(
        code: int,
        *,
        url: str = "",
        directory: Path = tmp_path / "mnt",
        before: Sequence[str] = (),
        path: str | None = None,
        **changes: object,
    ) -> str:
        endpoint = seaweed.endpoint
        values = {
            "access_key_id": endpoint.access_key,
            "secret_access_key": endpoint.secret_key,
            "endpoint_url": endpoint.url,
            "region": endpoint.region,
            "driver": driver,
            "cache_dir": tmp_path / "cache",
            "state_dir": tmp_path / "state",
            "run_dir": tmp_path / "run",
            **changes,
        }
        variables = {f"R2FS_{name.upper()}": str(value) for name, value in values.items()}
        environment = clean_environment(HOME=str(tmp_path), **variables)
        if path is not None:
            environment["PATH"] = path
        target = url or f"s3://{endpoint.bucket}/errors"
        done = run_r2fs(environment, "mount", target, directory, before=before)
        said = done.stderr
        assert done.returncode == code, said
        assert "Traceback" not in said
        lines = [line for line in said.splitlines() if not re.search(r"^[-\d]+ [\d:,]+ INFO ", line)]
        assert len(lines) == 1, said
        assert endpoint.secret_key not in said
        assert not os.path.ismount(directory)
        return lines[0]

    return run


# ------------------------------------------------------------------ the bucket
def test_wrong_key(refuse):
    said = refuse(errors.BadCredentials.exit_code, secret_access_key="wrong")
    assert "secret" in said or "key" in said


def test_unknown_key_id(refuse):
    said = refuse(errors.BadCredentials.exit_code, access_key_id="nobody")
    assert "key" in said


def test_no_credentials(refuse):
    said = refuse(errors.BadCredentials.exit_code, access_key_id="", secret_access_key="")
    assert "credentials" in said.lower() or "key" in said


def test_missing_bucket(refuse):
    said = refuse(errors.BucketMissing.exit_code, url="s3://no-such-bucket")
    assert "no-such-bucket" in said


def test_nobody_at_the_endpoint(refuse):
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    said = refuse(errors.Unavailable.exit_code, endpoint_url=url)
    assert url in said or url.removeprefix("http://") in said


def test_clock_off(refuse, seaweed):
    with FaultyProxy(seaweed.endpoint.url) as proxy:
        proxy.rule(answer(403, "RequestTimeTooSkewed"), times=None)
        said = refuse(errors.ClockSkewed.exit_code, endpoint_url=proxy.url)
    assert "clock" in said


def test_a_directory_that_plays_the_bucket_is_missing(refuse, tmp_path):
    said = refuse(errors.BucketMissing.exit_code, url=f"file://{tmp_path}/nothing")
    assert "nothing" in said


# ------------------------------------------------------------------ the mount point
def test_not_empty(refuse, tmp_path):
    (tmp_path / "mnt" / "mine").touch()
    said = refuse(errors.MountPointBad.exit_code)
    assert "not empty" in said
    assert (tmp_path / "mnt" / "mine").exists()


def test_not_there(refuse, tmp_path):
    said = refuse(errors.MountPointBad.exit_code, directory=tmp_path / "nowhere")
    assert "nowhere" in said


def test_not_a_directory(refuse, tmp_path):
    (tmp_path / "file").touch()
    said = refuse(errors.MountPointBad.exit_code, directory=tmp_path / "file")
    assert "not a directory" in said


def test_mounted_already(refuse, mounts):
    serving = mounts("host")
    with pytest.raises(AssertionError):  # it is a mount, of the daemon that was there
        refuse(errors.AlreadyMounted.exit_code, directory=serving.path)
    assert serving.path.is_mount()
    os.listdir(serving.path)


def test_a_dead_mount_of_another_program(refuse, tmp_path):
    if not kmount.privileged():
        pytest.skip("only root can make a FUSE mount whose program is gone without that program")
    directory = tmp_path / "mnt"
    subprocess.run([sys.executable, "-c", DEAD, directory], check=True, timeout=60)
    try:
        said = refuse(errors.MountPointStale.exit_code)
        assert "umount" in said
    finally:
        subprocess.run(["umount", "-l", directory], check=True, timeout=60)


DEAD = """
import ctypes, os, sys
fd = os.open("/dev/fuse", os.O_RDWR)
data = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b"other", os.fsencode(sys.argv[1]), b"fuse.other", 0, data) == 0, ctypes.get_errno()
"""


# ------------------------------------------------------------------ this host
@pytest.mark.parametrize("driver", DRIVERS)
def test_no_fuse_in_the_kernel(refuse, driver):
    if not kmount.privileged():
        pytest.skip("only root can take /dev/fuse away, in a mount namespace of its own")
    script = f'{WITHOUT_OTHER_MOUNTS} mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && exec "$@"'
    said = refuse(errors.FuseMissing.exit_code, before=["unshare", "--mount", "sh", "-c", script, "sh"])
    assert "/dev/fuse" in said


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_fusermount(refuse, tmp_path, driver):
    if kmount.privileged():
        pytest.skip("root needs no fusermount3: the suite is run as an ordinary user too")
    said = refuse(errors.FuseMissing.exit_code, path=str(tmp_path))
    assert "fuse" in said


@pytest.mark.parametrize("name", ["cache_dir", "state_dir"])
def test_a_directory_that_cannot_be_written(refuse, tmp_path, name):
    (tmp_path / "file").touch()
    said = refuse(errors.DirectoryUnusable.exit_code, **{name: tmp_path / "file" / "below"})
    assert str(tmp_path / "file") in said


def test_a_state_directory_that_is_in_use(mounts):
    serving = mounts("host")
    other = mounts("other", start=False, state_dir=serving.base / "state")
    other.launch()
    assert other.wait() == errors.StateLocked.exit_code
    assert "Traceback" not in other.log()
    assert str(serving.base / "state") in other.log()
    os.listdir(serving.path)


def test_a_cache_inside_the_mount_point(refuse, tmp_path):
    said = refuse(errors.SettingsError.exit_code, cache_dir=tmp_path / "mnt" / "cache")
    assert "cache_dir" in said


def test_a_wrong_setting(refuse):
    said = refuse(errors.SettingsError.exit_code, cache_size="much")
    assert "cache_size" in said
    assert "R2FS_CACHE_SIZE" in said


def test_a_wrong_url(refuse):
    said = refuse(errors.SettingsError.exit_code, url="ftp://bucket")
    assert "s3://" in said
