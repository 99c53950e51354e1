"""What every system meets: no bucket, a wrong key, a server that is down in the middle. Nothing is lost by it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from r2fs import client
from r2fs.client import Client
from tests.support.commands import run_r2fs
from tests.support.faulty import Fault, answer, drop
from tests.systems.helpers import body, keys


def settings(seaweed, bucket: str, tmp_path: Path, **changed: str) -> dict[str, str]:
    endpoint = seaweed.endpoint
    variables = {
        "STORAGE_ENDPOINT_URL": endpoint.url,
        "STORAGE_BUCKET_NAME": bucket,
        "STORAGE_ACCESS_KEY_ID": endpoint.access_key,
        "STORAGE_SECRET_ACCESS_KEY": endpoint.secret_key,
        "STORAGE_REGION": endpoint.region,
    }
    return {**os.environ, "HOME": str(tmp_path), **variables, **changed}


def test_r22_r23_no_mount_without_a_bucket_or_with_a_wrong_key(seaweed, bucket, tmp_path):
    """R18, R22, R23: told apart by exit codes; nothing is left on this host."""
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    missing = settings(seaweed, "no-such-bucket", tmp_path)
    wrong = settings(seaweed, bucket, tmp_path, STORAGE_SECRET_ACCESS_KEY="wrong")
    for environ, code, text in ((missing, 5, "no such bucket"), (wrong, 4, "signature")):
        done = run_r2fs(environ, "mount", mountpoint)
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr


def test_the_client_without_a_mount_tells_them_apart(seaweed, bucket, tmp_path, proxy):
    missing = settings(seaweed, "no-such-bucket", tmp_path)
    wrong = settings(seaweed, bucket, tmp_path, STORAGE_SECRET_ACCESS_KEY="wrong")
    for environ, kind in ((missing, client.BucketMissing), (wrong, client.AccessDenied)):
        with Client(environ=environ) as store:
            with pytest.raises(kind):
                store.upload(b"x", "x")
            with pytest.raises(kind):
                store.exists("x")
    with Client(environ=settings(seaweed, bucket, tmp_path, STORAGE_ENDPOINT_URL=proxy.url)) as store:
        store.upload(b"before", "before")
        proxy.rule(answer(403, "AccessDenied"), method="PUT", times=None)
        with pytest.raises(client.AccessDenied):
            store.upload(b"refused", "refused")
        proxy.clear()
        assert store.download("before") == b"before"
        with pytest.raises(client.NotFound):
            store.download("refused")
        store.upload(b"after", "refused")
        assert store.download("refused", tmp_path / "got").read_bytes() == b"after"


def test_the_bucket_is_deleted_in_the_middle(mount_of, s3, bucket):
    mount = mount_of(bucket, upload_delay="0s")
    mount.allowed = [" WARNING ", " ERROR "]
    assert os.listdir(mount.path) == []
    s3.delete_bucket(Bucket=bucket)
    client.upload(b"kept", mount.path / "kept.wav")
    with pytest.raises(client.BucketMissing):
        client.wait(mount.path / "kept.wav", timeout_s=60)
    assert (mount.path / "kept.wav").read_bytes() == b"kept"
    s3.create_bucket(Bucket=bucket)
    _confirmed(mount.path / "kept.wav")
    assert body(s3, bucket, "kept.wav") == b"kept"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(drop(), client.NotConfirmed), (answer(403, "InvalidAccessKeyId"), client.AccessDenied)],
    ids=["server-down", "key-refused"],
)
def test_in_the_middle_nothing_is_lost(mount_of, s3, bucket, proxy, fault: Fault, kind: type[Exception]):
    """The program sees what is wrong where it waits for the bucket; reads and writes of its own files go on."""
    mount = mount_of(bucket, url=proxy.url, upload_delay="0s")
    mount.allowed = [" WARNING ", " ERROR "]
    client.upload(b"before", mount.path / "0.wav")
    client.wait(mount.path / "0.wav")
    proxy.rule(fault, times=None)
    for number in range(1, 6):
        client.upload(b"%d" % number, mount.path / f"{number}.wav")
    with pytest.raises(kind):
        client.wait(mount.path, timeout_s=3 if kind is client.NotConfirmed else 60)
    assert client.download(mount.path / "0.wav") == b"before"
    assert client.download(mount.path / "5.wav") == b"5"
    assert client.url(mount.path / "5.wav")
    proxy.clear()
    _confirmed(mount.path)
    assert len(keys(s3, bucket)) == 6
    assert body(s3, bucket, "3.wav") == b"3"


def _confirmed(path: Path) -> None:
    """As a program that tries again."""
    for _ in range(30):
        try:
            return client.wait(path, timeout_s=30)
        except client.Refused:
            os.sync()
        except client.AccessDenied:
            os.sync()
    raise AssertionError("never confirmed")
