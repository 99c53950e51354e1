"""`r2fs rm` and `r2fs set` on a real mount: programs see the change at once, the bucket at the command's end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r2fs.model.records import ObjectMeta
from tests.mount.daemons import BucketMount, end_all, until
from tests.support.strict import StrictR2


@pytest.fixture
def driver() -> str:
    return "kernel"


@pytest.fixture
def r2() -> Iterator[StrictR2]:
    with StrictR2(write_interval_s=0.0) as server:
        yield server
    assert server.faults == []


@pytest.fixture
def make(driver: str, r2: StrictR2, tmp_path: Path) -> Iterator[Callable[..., BucketMount]]:
    made: list[BucketMount] = []

    def mount(**settings: Any) -> BucketMount:
        base = tmp_path / f"m{len(made)}"
        base.mkdir()
        made.append(BucketMount(base, driver, r2.endpoint, "users/anna/", **settings))
        made[-1].start()
        return made[-1]

    yield mount
    end_all(made)


def exists(path: Path) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def test_ten_thousand_objects_of_a_mount(make: Callable[..., BucketMount], r2: StrictR2) -> None:
    for n in range(10_000):
        r2.bucket.set(f"users/anna/p45/scenes/{n % 50}/{n}.mp3", b"x" * 500)
    r2.bucket.set("users/anna/p456/a.mp4", b"kept")
    mount = make(freshness="10m")
    first = mount.path / "p45/scenes/7/7.mp3"
    assert first.read_bytes() == b"x" * 500
    with (mount.path / "p45/scenes/8/8.mp3").open("rb") as opened:
        r2.requests.clear()
        done = mount.r2fs("rm", "-r", mount.path / "p45")
        assert (done.returncode, done.stdout) == (0, "deleted 10000 objects (5.00 MB); 0 failed\n"), (
            done.stderr
        )
        assert r2.bucket.contents() == {"users/anna/p456/a.mp4": b"kept"}
        assert not exists(first)
        assert not exists(mount.path / "p45")
        assert os.listdir(mount.path) == ["p456"]
        sent = {name: r2.requests[name] for name in ("list", "delete_many", "delete", "head")}
        assert sent["list"] <= 10
        assert sent["delete_many"] <= 10
        assert sent["delete"] == sent["head"] == 0
        assert opened.read() == b"x" * 500


@pytest.mark.parametrize("driver", ["kernel", "libfuse"])
def test_what_is_not_uploaded_yet_goes_too(make: Callable[..., BucketMount], r2: StrictR2) -> None:
    r2.bucket.set("users/anna/p/old.wav", b"12345")
    mount = make(upload_delay="1h", upload_deadline="1h")
    (mount.path / "p/new").mkdir()
    (mount.path / "p/new/a.wav").write_bytes(b"x" * 2_000_000)
    assert (mount.path / "p/old.wav").read_bytes() == b"12345"
    os.rename(mount.path / "p/old.wav", mount.path / "moved.wav")
    dry = mount.r2fs("rm", "-r", "--dry-run", mount.path / "p")
    assert "would delete 1 object (2.00 MB), 1 of them not uploaded yet" in dry.stdout
    done = mount.r2fs("rm", "-r", "--json", mount.path / "p")
    report = json.loads(done.stdout)
    assert (done.returncode, report["deleted_count"], report["not_uploaded_count"]) == (0, 1, 1)
    assert os.listdir(mount.path) == ["moved.wav"]
    (mount.path / "p").mkdir()  # the name is free at once
    mount.flush()
    assert r2.bucket.contents() == {"users/anna/moved.wav": b"12345"}
    again = mount.r2fs("rm", "-r", mount.path / "nothing")
    assert (again.returncode, again.stdout) == (0, "deleted 0 objects (0 B); 0 failed\n")
    assert "nothing is there" in again.stderr
    assert mount.r2fs("rm", mount.path / "nothing").returncode == 1
    assert mount.r2fs("rm", mount.path / "p").returncode == 1
    refused = mount.r2fs("rm", "-r", mount.path)
    assert (refused.returncode, exists(mount.path / "moved.wav")) == (2, True)
    assert mount.r2fs("rm", "-r", "--yes", mount.path).returncode == 0
    assert r2.bucket.contents() == {}


def test_killed_in_the_middle_the_next_mount_and_a_repeat_finish(
    make: Callable[..., BucketMount], r2: StrictR2
) -> None:
    for n in range(3000):
        r2.bucket.set(f"users/anna/p/{n}.wav", b"whole")

    def slowly(name: str, key: str) -> None:
        if name == "delete_many":
            time.sleep(0.3)

    r2.bucket.after = slowly
    mount = make()
    command = mount.start_r2fs("rm", "-r", mount.path / "p")
    until("the first are gone", lambda: len(r2.bucket.keys()) < 3000)
    mount.kill()
    assert command.wait(30) != 0
    assert set(r2.bucket.contents().values()) == {b"whole"}
    r2.bucket.after = lambda name, key: None
    mount.start()
    assert mount.r2fs("rm", "-r", mount.path / "p").returncode == 0
    assert r2.bucket.contents() == {}


@pytest.mark.expect_warnings
def test_what_is_refused_is_reported(make: Callable[..., BucketMount], r2: StrictR2) -> None:
    for n in range(20):
        r2.bucket.set(f"users/anna/p/{n:02}.wav", b"12")
    r2.bucket.locked.add("users/anna/p/03.wav")
    mount = make()
    mount.allowed.append("its delete is parked")
    done = mount.r2fs("rm", "-r", mount.path / "p")
    assert (done.returncode, done.stdout) == (13, "deleted 19 objects (38 B); 1 failed\n")
    assert "p/03.wav" in done.stderr
    until("shown again", lambda: exists(mount.path / "p/03.wav"))
    r2.bucket.locked.clear()
    assert mount.r2fs("rm", "-r", mount.path / "p").returncode == 0
    assert r2.bucket.contents() == {}


# ------------------------------------------------------------------ set
def test_types_and_headers_below_a_directory(make: Callable[..., BucketMount], r2: StrictR2) -> None:
    """T4, R12, R26."""
    octets = ObjectMeta("application/octet-stream", {"who": "a-worker"})
    for n in range(20):
        r2.bucket.store_version(f"users/anna/results/{n:02}", b"RIFF\0\0\0\0WAVEfmt ", octets)
    mount = make(upload_delay="1h", upload_deadline="1h")
    (mount.path / "results/new.mp3").write_bytes(b"ID3")
    words = ("set", "-r", "--guess-type", "--cache-control", "public, max-age=3600", mount.path / "results")
    dry = mount.r2fs(*words, "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, "would change 21 objects; 0 were as wanted; 0 failed\n"), dry
    done = mount.r2fs(*words)
    assert (done.returncode, done.stdout) == (0, "changed 21 objects; 0 were as wanted; 0 failed\n"), done
    for n in range(20):
        meta = r2.bucket.objects[f"users/anna/results/{n:02}"].meta
        assert (meta.content_type, meta.headers) == ("audio/wav", {"cache-control": "public, max-age=3600"})
        assert meta.metadata["who"] == "a-worker"
    meta = r2.bucket.objects["users/anna/results/new.mp3"].meta
    assert (meta.content_type, meta.headers) == ("audio/mpeg", {"cache-control": "public, max-age=3600"})
    first = mount.path / "results/00"
    assert os.getxattr(first, "user.mime_type") == b"audio/wav"
    assert os.getxattr(first, "user.r2fs.cache-control") == b"public, max-age=3600"
    assert mount.r2fs(*words).stdout == "changed 0 objects; 21 were as wanted; 0 failed\n"
    # single files, by their attributes
    os.setxattr(first, "user.r2fs.content-disposition", b'attachment; filename="a.wav"')
    os.removexattr(first, "user.r2fs.cache-control")
    os.setxattr(first, "user.mime_type", b"audio/x-own")
    for name, value in (("user.r2fs.cache-control", b"a\nb"), ("user.mime_type", b"none")):
        with pytest.raises(OSError, match="Invalid argument"):
            os.setxattr(first, name, value)
    with pytest.raises(PermissionError):
        os.setxattr(first, "user.r2fs.etag", b"x")
    mount.flush()
    meta = r2.bucket.objects["users/anna/results/00"].meta
    assert (meta.content_type, meta.headers) == (
        "audio/x-own",
        {"content-disposition": 'attachment; filename="a.wav"'},
    )
    assert mount.r2fs("set", mount.path / "results", "--content-type", "a/b").returncode == 1
    assert mount.r2fs("set", mount.path / "nothing", "--content-type", "a/b").returncode == 1


# ------------------------------------------------------------------ expiry
def test_t11_what_a_lifecycle_rule_removes_is_gone_here(
    make: Callable[..., BucketMount], r2: StrictR2, tmp_path: Path
) -> None:
    data = b"result of a job " * 1000
    for name in ("results/3f2a", "results/77ab"):
        r2.bucket.set(f"users/anna/{name}", data)
    mount = make(freshness="1s")
    path = mount.path / "results/3f2a"
    assert path.read_bytes() == data

    def on_disk() -> int:
        files = [file for file in (tmp_path / "m0").glob("[cs]*/**/*") if file.is_file()]
        return sum(data in file.read_bytes() for file in files)

    assert on_disk() == 1
    r2.bucket.remove("users/anna/results/3f2a")
    began = time.monotonic()
    until("the name gone", lambda: not exists(path))
    assert time.monotonic() - began < 5
    with pytest.raises(FileNotFoundError):
        path.read_bytes()
    assert os.listdir(path.parent) == ["77ab"]
    until("the bytes gone", lambda: on_disk() == 0)
    assert (path.parent / "77ab").read_bytes() == data
