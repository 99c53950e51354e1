"""`r2fs rm` and `r2fs set` on a real mount: programs see the change at once, the bucket at the command's end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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
    assert (again.returncode, again.stdout) == (0, "deleted 0 objects (0.00 MB); 0 failed\n")
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
    assert (done.returncode, done.stdout) == (13, "deleted 19 objects (0.00 MB); 1 failed\n")
    assert "p/03.wav" in done.stderr
    until("shown again", lambda: exists(mount.path / "p/03.wav"))
    r2.bucket.locked.clear()
    assert mount.r2fs("rm", "-r", mount.path / "p").returncode == 0
    assert r2.bucket.contents() == {}
