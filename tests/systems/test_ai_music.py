"""AI Music Generator (M): a worker on one host, an API on another, each with the variables that it has today."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from r2fs.client import AsyncClient, Client, Misconfigured, Refused, Unavailable
from r2fs.client.process import StoreClient, program
from tests.mount.daemons import until
from tests.support.faulty import answer
from tests.systems.helpers import body, fetch, keys

WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(100_000)


@pytest.fixture
def storage(seaweed, bucket, tmp_path):
    """Its environment, and no other variables of this machine's."""
    endpoint = seaweed.endpoint
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", str(Path.cwd())),
        "HOME": str(tmp_path),
        "R2FS_TEST_SESSION": os.environ["R2FS_TEST_SESSION"],
        "STORAGE_ENDPOINT_URL": endpoint.url,
        "STORAGE_ACCESS_KEY_ID": endpoint.access_key,
        "STORAGE_SECRET_ACCESS_KEY": endpoint.secret_key,
        "STORAGE_BUCKET_NAME": bucket,
        "STORAGE_REGION": "us-east-1",
    }


def test_m3_m7_m8_a_worker_with_a_mount_and_an_api_without(example, mount_of, bucket, storage, s3):
    """M2, M3, M5, M6, M7, M8: the key is what is kept; 307 to a presigned URL, 404 for what is not there."""
    music = example("ai_music")
    mount = mount_of(bucket)
    record = music.Worker(Client(mount.path)).finish("job1", WAV)
    assert record == {"status": "completed", "storage_key": "job1.wav", "storage_type": "s3"}
    stored = s3.get_object(Bucket=bucket, Key="job1.wav")
    assert (stored["Body"].read(), stored["ContentType"]) == (WAV, "audio/wav")

    async def ask() -> tuple[tuple[int, str], tuple[int, str], tuple[int, str]]:
        async with AsyncClient(environ=storage) as client:
            api = music.Api(client)
            missing = {"storage_key": "no.wav"}
            return await api.redirect(record), await api.redirect(missing), await api.redirect({})

    found, missing, legacy = asyncio.run(ask())
    assert found[0] == 307
    assert fetch(found[1])[1] == WAV
    assert (missing[0], legacy[0]) == (404, 404)


def test_m3_the_variables_in_an_env_file(storage, tmp_path, s3, bucket):
    """M3: its `.env`, named once, and nothing of it in the process's own variables."""
    lines = [f"{name}={value}" for name, value in storage.items() if name.startswith("STORAGE_")]
    path = tmp_path / "worker.env"
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    rest = {name: value for name, value in storage.items() if not name.startswith("STORAGE_")}
    with Client(environ={**rest, "R2FS_ENV_FILE": str(path)}) as client:
        client.upload(WAV, "job5.wav")
    assert body(s3, bucket, "job5.wav") == WAV


def test_m2_a_reader_on_another_host(mount_of, bucket):
    """M2, T12: closed here, there within `freshness`."""
    one, other = mount_of(bucket, "worker", upload_delay="0s"), mount_of(bucket, "api")
    assert os.listdir(other.path) == []
    (one.path / "job2.wav").write_bytes(WAV)
    until("the file on the other host", (other.path / "job2.wav").exists, 5)
    assert (other.path / "job2.wav").read_bytes() == WAV


def test_m6_both_sides_without_a_mount(example, storage, s3, bucket):
    """M6, M8: an upload that the bucket refuses raises; afterwards the same client goes on."""
    music = example("ai_music")
    with Client(environ=storage) as client:
        assert not client.is_mounted
        assert music.Worker(client).finish("job3", WAV)["status"] == "completed"
        assert client.exists("job3.wav")
        assert body(s3, bucket, "job3.wav") == WAV
        s3.put_object(Bucket=bucket, Key="job3.wav", Body=b"another")
        with pytest.raises(Refused, match="another version"):
            client.wait("job3.wav")
        client.delete("job3.wav")
        client.wait("job3.wav")
    assert keys(s3, bucket) == {}


def test_m8_500_where_the_bucket_does_not_answer(example, storage, proxy):
    music = example("ai_music")

    async def ask() -> list[int]:
        async with AsyncClient(environ={**storage, "STORAGE_ENDPOINT_URL": proxy.url}) as client:
            api = music.Api(client)
            proxy.rule(answer(503), times=None)
            first = await api.redirect({"storage_key": "x.wav"})
            proxy.clear()
            return [first[0], (await api.redirect({"storage_key": "x.wav"}))[0]]

    assert asyncio.run(ask()) == [500, 404]


def test_m9_m10_local_files_first_and_the_bucket_by_variables_alone(example, tmp_path, storage, s3, bucket):
    """M9, M10: no endpoint, a directory; with the variables of the bucket, the bucket."""
    local = {name: value for name, value in storage.items() if not name.startswith("STORAGE_")}
    local["R2FS_URL"] = f"file://{tmp_path / 'music'}"
    (tmp_path / "music").mkdir()
    with Client(environ=local) as client:
        example("ai_music").Worker(client).finish("job4", WAV)
    assert (tmp_path / "music/job4.wav").read_bytes() == WAV
    with Client(environ=storage) as client:  # M10: the next phase; the program is the same
        kept = example("ai_music").Worker(client).finish("job6", WAV)
        client.upload(tmp_path / "music" / "job4.wav", "job4.wav")  # what was kept locally follows
        client.wait("job4.wav")
    assert kept["storage_key"] == "job6.wav"
    assert {key: body(s3, bucket, key) for key in keys(s3, bucket)} == {"job4.wav": WAV, "job6.wav": WAV}


OLD = """
import sys
for name in ("urllib3", "mfusepy", "click"):
    assert __import__("importlib.util").util.find_spec(name) is None, name
from r2fs import client
client.upload(b"from the old environment", "old.wav")
client.wait("old.wav")
print(client.url("old.wav"))
assert not {"boto3", "botocore", "urllib3"} & set(sys.modules)
"""


def test_m4_beside_a_pinned_old_boto3(storage, tmp_path, repo_root, s3, bucket):
    """M4: as `pip install --no-deps` leaves it: r2fs without its dependencies, in an environment with boto3 1.34.0."""
    venv.create(tmp_path / "old", with_pip=False)
    (packages,) = (tmp_path / "old/lib").glob("python*/site-packages")
    (packages / "boto3-1.34.0.dist-info").mkdir()
    (packages / "boto3-1.34.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: boto3\nVersion: 1.34.0\n"
    )
    (packages / "boto3.py").write_text("raise RuntimeError('the old boto3 was imported')")
    (packages / "r2fs").symlink_to(repo_root / "r2fs")
    environ = {**storage, "PATH": "/usr/bin:/bin"}
    old = [str(tmp_path / "old/bin/python"), "-c", OLD]
    without = {name: value for name, value in environ.items() if name != "PYTHONPATH"}
    alone = subprocess.run(old, env=without, capture_output=True, text=True, timeout=60, check=False)
    assert "Misconfigured" in alone.stderr
    assert "R2FS_PYTHON" in alone.stderr
    whole = tmp_path / "whole"  # an interpreter that has all, and finds this clone
    whole.write_text(f'#!/bin/sh\nPYTHONPATH="{repo_root}" exec "{sys.executable}" "$@"\n')
    whole.chmod(0o755)
    done = subprocess.run(
        old,
        env={**without, "R2FS_PYTHON": str(whole)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert fetch(done.stdout.strip())[1] == b"from the old environment"
    assert body(s3, bucket, "old.wav") == b"from the old environment"


def test_the_program_of_the_store(tmp_path):
    """$R2FS_PYTHON first, then this environment, which has boto3."""
    assert program({"R2FS_PYTHON": "/x/python"}) == ["/x/python", "-m", "r2fs"]
    assert program({}) == [sys.executable, "-m", "r2fs"]


def test_a_store_that_cannot_start_is_an_error_with_its_remedy(storage):
    client = Client(environ={**storage, "R2FS_PYTHON": "/bin/false"})
    assert isinstance(client._backend, StoreClient)
    with pytest.raises(Misconfigured, match="R2FS_PYTHON"):
        client.exists("x")
    gone = Client(environ={**storage, "R2FS_PYTHON": "/no/such/python"})
    with pytest.raises(Unavailable, match="cannot be started"):
        gone.exists("x")
