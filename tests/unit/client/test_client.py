"""r2fs.client without a server: targets, errors, the two ways of a directory in place of a bucket."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path, PurePosixPath

import pytest

from r2fs import client
from r2fs.client import AsyncClient, Client, errors
from r2fs.client.process import has_boto3, program
from r2fs.client.targets import key_of, path_of
from r2fs.model import errors as inner


def test_a_path_and_a_key_are_told_apart():
    assert path_of("/mnt/a") == "/mnt/a"
    assert path_of(PurePosixPath("a/b")) == "a/b"
    assert path_of("a/b") is None
    assert path_of("r2://b/k") is None
    assert key_of("r2://b/a%20b").bucket == "b"
    for wrong in (Path("/mnt/a"), "r2://b", ""):
        with pytest.raises(client.InvalidTarget):
            key_of(wrong)


def _classes(base: type[inner.R2fsError]) -> list[type[inner.R2fsError]]:
    return [base, *(each for below in base.__subclasses__() for each in _classes(below))]


def test_each_error_of_a_bucket_or_a_way_to_it_has_a_type():
    for kind in [*_classes(inner.StoreError), inner.DaemonUnreachable, inner.NotFound, inner.SettingsError]:
        if kind.__module__ != inner.__name__ or kind in (inner.StoreError, inner.PreconditionFailed):
            continue
        if kind in (inner.RangeInvalid, inner.UploadMissing):
            continue
        assert type(errors.of(kind("x"))) is not client.Error, kind
        assert type(errors.of_kind(kind.__name__, "x")) is type(errors.of(kind("x")))
    assert isinstance(errors.of(inner.ObjectMissing("x")), FileNotFoundError)
    assert isinstance(errors.of(inner.BadCredentials("x")), PermissionError)
    assert isinstance(errors.of(inner.Unavailable("x")), ConnectionError)
    assert issubclass(client.NotConfirmed, TimeoutError)


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bucket").mkdir()
    with Client(f"file://{tmp_path / 'bucket'}") as found:
        yield found


def test_files_bytes_and_open_files(local, tmp_path):
    source = tmp_path / "a.wav"
    source.write_bytes(b"0123")
    assert local.upload(source, "d/a.wav") == "d/a.wav"
    local.upload(str(source), "b.wav")
    local.upload(memoryview(b"view"), "c.wav")
    with source.open("rb") as file:
        file.seek(2)
        local.upload(file, "rest.wav")
    local.upload(io.BytesIO(b"memory"), "m.wav")
    local.upload(b"", "empty.wav")
    contents = {
        name: local.download(name) for name in ("d/a.wav", "b.wav", "c.wav", "rest.wav", "m.wav", "empty.wav")
    }
    assert list(contents.values()) == [b"0123", b"0123", b"view", b"23", b"memory", b""]
    assert local.download("m.wav", tmp_path / "out").read_bytes() == b"memory"
    with pytest.raises(client.NotFound):
        local.download("none", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"memory", "a failed download replaces nothing"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "bucket", "out"]


def test_deleting_twice_and_what_was_replaced(local, tmp_path):
    local.upload(b"one", "a")
    local.wait("a")
    (tmp_path / "bucket/a").write_bytes(b"another")
    with pytest.raises(client.Replaced):
        local.wait("a")
    for _ in range(2):
        local.delete("a")
    local.wait("a")
    assert not local.exists("a")
    with pytest.raises(client.NotFound):
        local.wait("never")


def test_keys_of_elsewhere_are_refused(local):
    for wrong in ("r2://other/a", "/tmp/a", Path("a")):
        with pytest.raises(client.InvalidTarget):
            local.exists(wrong)


def test_a_process_that_was_killed_is_started_again(local):
    local.upload(b"one", "a")
    process = local._backend._process[0]
    process.kill()
    process.wait()
    assert local.download("a") == b"one"


def test_many_at_once(local, tmp_path):
    async def one(store: AsyncClient, number: int) -> bytes:
        await store.upload(b"%d" % number, f"k{number}")
        await store.wait(f"k{number}")
        return await store.download(f"k{number}")

    async def all_of_them() -> list[bytes]:
        async with AsyncClient(f"file://{tmp_path / 'bucket'}") as store:
            return await asyncio.gather(*(one(store, number) for number in range(20)))

    assert asyncio.run(all_of_them()) == [b"%d" % number for number in range(20)]


def test_without_a_bucket_it_says_what_to_set():
    with pytest.raises(client.Misconfigured, match="no bucket is named"):
        Client(environ={"HOME": "/nowhere"})
    with pytest.raises(client.InvalidTarget, match="in no mount"):
        Client("/tmp", environ={"HOME": "/nowhere", "R2FS_RUN_DIR": "/nowhere"})


def test_an_old_boto3_is_not_used(monkeypatch):
    from importlib import metadata

    monkeypatch.setattr(metadata, "version", lambda name: "1.34.0")
    assert not has_boto3()
    with pytest.raises(client.Misconfigured, match="R2FS_PYTHON"):
        program({"PATH": "/nowhere"})
