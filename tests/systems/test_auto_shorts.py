"""System S, Auto Shorts: a program that knows paths and r2fs's commands, on real mounts and a real S3 server.

The numbers are those of the seed's facts: S1 and S2 the layout, S5 to S8 the clean-up, S9 to S12 the migration,
S13 the keys in URLs, S14 the isolation of users, S15 the plan of tests.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.mount.daemons import REPO, BucketMount, end_all, until
from tests.support.faulty import FaultyProxy, drop
from tests.support.servers import Endpoint, SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SIZES = [pytest.param(200, id="200"), pytest.param(2000, id="2000", marks=pytest.mark.long)]
MEDIA = {"audio": b"ID3\4" + b"a" * 40_000, "image": b"\x89PNG" + b"i" * 30_000, "video": b"v" * 90_000}
SUFFIX = {"audio": "mp3", "image": "png", "video": "mp4"}


class AutoShorts:
    """All of the system's storage: paths below a mount, and commands."""

    def __init__(self, root: Path, r2fs: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        self.root = root
        self._r2fs = r2fs

    def project(self, user: str, project: str) -> Path:
        return self.root / "users" / (user or "default") / "projects" / project

    def put_media(self, user: str, project: str, scene: str, kind: str, name: str, data: bytes) -> Path:
        return self._put(self.project(user, project) / "scenes" / scene / kind / name, data)

    def put_output(self, user: str, project: str, name: str, data: bytes) -> Path:
        return self._put(self.project(user, project) / "output" / name, data)

    def _put(self, path: Path, data: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def delete_scene(self, user: str, project: str, scene: str) -> tuple[int, dict[str, Any]]:
        return self.delete(self.project(user, project) / "scenes" / scene)

    def delete_project(self, user: str, project: str) -> tuple[int, dict[str, Any]]:
        return self.delete(self.project(user, project))

    def delete(self, path: Path) -> tuple[int, dict[str, Any]]:
        done = self._r2fs("rm", "-r", "--json", path)
        return done.returncode, json.loads(done.stdout or "{}")


@pytest.fixture
def mounted(seaweed: SeaweedFS, bucket: str, tmp_path: Path) -> Iterator[Callable[..., BucketMount]]:
    """`mounted(prefix="", url=None, **settings)`: a mount of the bucket, or of a prefix of it."""
    made: list[BucketMount] = []

    def make(prefix: str = "", url: str | None = None, **settings: Any) -> BucketMount:
        base = tmp_path / f"m{len(made)}"
        base.mkdir()
        endpoint = replace(seaweed.endpoint, bucket=bucket)
        made.append(BucketMount(base, "kernel", endpoint, prefix, url, **settings))
        made[-1].start()
        return made[-1]

    yield make
    end_all(made)


def command(
    endpoint: Endpoint, home: Path, *words: object, **variables: str
) -> subprocess.CompletedProcess[str]:
    """`r2fs …` without a mount."""
    environment = {
        **os.environ,
        "HOME": str(home),
        "R2FS_ENDPOINT_URL": endpoint.url,
        "R2FS_REGION": endpoint.region,
        "AWS_ACCESS_KEY_ID": endpoint.access_key,
        "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
        **variables,
    }
    return subprocess.run(
        [sys.executable, "-m", "r2fs", *map(str, words)],
        env=environment,
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def contents(s3: S3Client, bucket: str) -> Mapping[str, int]:
    """Size by key, markers of directories apart: another client's view."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    found = [one for page in pages for one in page.get("Contents", ())]
    return {one["Key"]: one["Size"] for one in found if not one["Key"].endswith("/")}


def fill(s3: S3Client, bucket: str, files: Mapping[str, bytes]) -> None:
    """Objects that another client makes."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: s3.put_object(Bucket=bucket, Key=item[0], Body=item[1]), files.items()))


# ------------------------------------------------------------------ the plan of tests (S15)
def test_s15_s16_upload_playback_and_clean_up(
    mounted: Callable[..., BucketMount], s3: S3Client, bucket: str
) -> None:
    mount = mounted(freshness="10m")  # SeaweedFS lists directories without a key for some seconds
    app = AutoShorts(mount.path, mount.r2fs)
    project = "65f0c1d2e3f4a5b6c7d8e9f0"
    paths = [
        app.put_media("anna", project, scene, kind, f"narration.{SUFFIX[kind]}", data)
        for scene in ("1", "2", "10")
        for kind, data in MEDIA.items()
    ]
    paths.append(app.put_output("anna", project, "final cut (1).mp4", b"o" * 500_000))
    # S3: no user is known; S5: a longer name
    app.put_media("", project + "0", "1", "image", "a.png", MEDIA["image"])
    for path in paths:  # playback, before and after it is in the bucket
        assert path.read_bytes() in (*MEDIA.values(), b"o" * 500_000)
    assert mount.r2fs("wait", *paths).returncode == 0
    prefix = f"users/anna/projects/{project}/"
    stored = s3.get_object(Bucket=bucket, Key=f"{prefix}scenes/10/audio/narration.mp3")
    assert (stored["Body"].read(), stored["ContentType"]) == (MEDIA["audio"], "audio/mpeg")
    key = mount.r2fs("key", "--encoded", paths[-1]).stdout.strip()
    assert key.startswith(f"users%2Fanna%2Fprojects%2F{project}%2Foutput%2F")  # S13
    assert mount.r2fs("path", "--encoded", key).stdout.strip() == str(paths[-1])
    # S16: a line for each key with its result
    assert f"{prefix}output/final cut (1).mp4: in the bucket (500000 bytes)" in mount.log()
    # a scene: 1 is no beginning of 10
    sizes = [len(data) for data in MEDIA.values()]
    code, report = app.delete_scene("anna", project, "1")
    assert (code, report["deleted_count"], report["failed_count"], report["total_bytes"]) == (
        0,
        3,
        0,
        sum(sizes),
    )
    assert report["errors"] == []
    scenes = app.project("anna", project) / "scenes"
    assert sorted(os.listdir(scenes)) == ["10", "2"]
    assert not [key for key in contents(s3, bucket) if key.startswith(f"{prefix}scenes/1/")]
    # the project, with a file that is still on its way
    app.put_output("anna", project, "late.mp4", b"late")
    code, report = app.delete_project("anna", project)
    assert (code, report["deleted_count"]) == (0, 8)
    assert report["total_bytes"] == 2 * sum(sizes) + 500_000 + 4
    with pytest.raises(FileNotFoundError):
        os.stat(scenes)
    mount.flush()
    assert list(contents(s3, bucket)) == [f"users/default/projects/{project}0/scenes/1/image/a.png"]
    # in the background, and once more: nothing is there, and that is no failure
    assert app.delete_project("anna", project) == (0, {**report, "deleted_count": 0, "total_bytes": 0,
                                                       "not_uploaded_count": 0})  # fmt: skip


@pytest.mark.parametrize("count", SIZES)
def test_a_deep_tree_is_removed_while_programs_look(
    mounted: Callable[..., BucketMount], s3: S3Client, bucket: str, count: int
) -> None:
    kinds = list(MEDIA)
    fill(
        s3,
        bucket,
        {f"users/anna/projects/p45/scenes/{n // 6}/{kinds[n % 3]}/{n}.bin": b"%04d" % n for n in range(count)}
        | {"users/anna/projects/p456/output/kept.mp4": b"kept"},
    )
    mount = mounted(freshness="10m")
    app = AutoShorts(mount.path, mount.r2fs)
    found = [path for path in app.project("anna", "p45").rglob("*.bin") if path.is_file()]
    assert len(found) == count
    with found[0].open("rb") as opened:
        code, report = app.delete_project("anna", "p45")
        assert (code, report["deleted_count"], report["total_bytes"]) == (0, count, 4 * count)
        assert not any(path.exists() for path in found)
        assert os.listdir(app.project("anna", "")) == ["p456"]
        assert len(opened.read()) == 4
    assert contents(s3, bucket) == {"users/anna/projects/p456/output/kept.mp4": 4}


# ------------------------------------------------------------------ migration (S9 to S12)
def test_s9_s10_s12_flat_keys_move_and_the_database_follows(
    mounted: Callable[..., BucketMount], s3: S3Client, bucket: str, seaweed: SeaweedFS, tmp_path: Path
) -> None:
    endpoint = replace(seaweed.endpoint, bucket=bucket)
    # two scenes' narration.mp3 have one base name (S10); one old key belongs to two scenes (S11)
    old = {f"17000000{n:02}_narration.mp3": b"narration of %02d" % n for n in range(20)}
    fill(
        s3,
        bucket,
        {**old, "shared_intro.mp4": b"intro", "users/anna/projects/p/output/a.mp4": b"new already"},
    )
    mount = mounted()
    flat = mount.path / "shared_intro.mp4"
    assert flat.read_bytes() == b"intro"
    scene = "users/anna/projects/p/scenes/{}/{}/{}".format
    database = {f"{n}/audio": (key, scene(n, "audio", "narration.mp3")) for n, key in enumerate(old)}
    database |= {f"{n}/video": ("shared_intro.mp4", scene(n, "video", "intro.mp4")) for n in (3, 4)}
    database["20/image"] = ("never_uploaded.png", scene(20, "image", "a.png"))
    with (tmp_path / "map.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("record", "old", "new"), *((r, *keys) for r, keys in database.items())])
    done = command(endpoint, tmp_path, "migrate", f"s3://{bucket}", "--map", tmp_path / "map.csv")
    assert done.returncode == 13
    assert "22 of 23 copies confirmed" in done.stdout
    assert "never_uploaded.png" in done.stderr
    with (tmp_path / "map.csv.results.csv").open(newline="") as file:
        moved = {row["record"]: row["new"] for row in csv.DictReader(file)}
    assert set(database) - set(moved) == {"20/image"}  # that record keeps its old key
    for record, key in moved.items():
        assert key == database[record][1]
        data = old.get(database[record][0], b"intro")
        until(f"{key} in the mount", (mount.path / key).exists)
        assert (mount.path / key).read_bytes() == data
    until("the flat keys gone", lambda: os.listdir(mount.path) == ["users"])
    assert (mount.path / "users/anna/projects/p/output/a.mp4").read_bytes() == b"new already"
    assert len(contents(s3, bucket)) == 23


# ------------------------------------------------------------------ isolation and the whole (S7, S14)
def test_s14_a_user_reaches_their_own_files_alone(
    mounted: Callable[..., BucketMount], s3: S3Client, bucket: str, seaweed: SeaweedFS, tmp_path: Path
) -> None:
    fill(s3, bucket, {f"users/{user}/projects/p/output/a.mp4": user.encode() for user in ("anna", "annabel")})
    anna = mounted("users/anna/")
    assert os.listdir(anna.path / "projects") == ["p"]
    assert (anna.path / "projects/p/output/a.mp4").read_bytes() == b"anna"
    assert anna.r2fs("path", "users/annabel/projects/p/output/a.mp4").returncode == 1
    assert not (anna.path / "../annabel").exists()
    shutil.copyfile(anna.path / "projects/p/output/a.mp4", anna.path / "b.mp4")
    anna.flush()
    assert contents(s3, bucket)["users/anna/b.mp4"] == 4
    assert anna.r2fs("rm", "-r", anna.path).returncode == 2  # a whole mount: asked first
    assert anna.r2fs("rm", "-r", "--yes", anna.path).returncode == 0
    assert list(contents(s3, bucket)) == ["users/annabel/projects/p/output/a.mp4"]
    # S7: the bucket is cleared
    where, endpoint = f"s3://{bucket}", replace(seaweed.endpoint, bucket=bucket)
    assert command(endpoint, tmp_path, "rm", "-r", where).returncode == 2
    done = command(endpoint, tmp_path, "rm", "-r", "--yes", where)
    assert done.returncode == 0
    assert contents(s3, bucket) == {}


# ------------------------------------------------------------------ failures
def test_no_bucket_and_a_wrong_key(seaweed: SeaweedFS, s3: S3Client, bucket: str, tmp_path: Path) -> None:
    fill(s3, bucket, {"users/a/projects/p/output/a.mp4": b"1"})
    endpoint = replace(seaweed.endpoint, bucket=bucket)
    done = command(endpoint, tmp_path, "rm", "-r", "s3://no-such-bucket-at-all/users/a/")
    assert (done.returncode, "no such bucket" in done.stderr) == (5, True), done
    done = command(
        endpoint,
        tmp_path,
        "set",
        "-r",
        "--guess-type",
        f"s3://{bucket}/users/a/",
        AWS_SECRET_ACCESS_KEY="wrong",
    )
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done
    assert contents(s3, bucket) == {"users/a/projects/p/output/a.mp4": 1}


def test_the_server_goes_away_in_the_middle(
    mounted: Callable[..., BucketMount], s3: S3Client, bucket: str, seaweed: SeaweedFS
) -> None:
    """What the program sees, and that nothing is lost."""
    fill(s3, bucket, {f"users/a/projects/p/scenes/{n}/audio/n.mp3": b"x" for n in range(50)})
    with FaultyProxy(seaweed.endpoint.url) as proxy:
        mount = mounted(url=proxy.url)
        mount.allowed += ["the bucket does not answer", "the bucket answers again"]
        app = AutoShorts(mount.path, mount.r2fs)
        scenes = app.project("a", "p") / "scenes"
        assert len(os.listdir(scenes)) == 50
        proxy.rule(drop(), method="POST", times=None)  # it lists, and deletes nothing
        done = mount.r2fs("rm", "-r", "--json", app.project("a", "p"))
        assert done.returncode == 11, done
        assert json.loads(done.stdout)["deleted_count"] == 0
        proxy.rule(drop(), times=None)
        path = app.put_output("a", "q", "made.mp4", b"made during the outage")  # close() does not wait
        assert path.read_bytes() == b"made during the outage"
        assert len(contents(s3, bucket)) == 50
        proxy.clear()
        code, _ = app.delete_project("a", "p")
        assert code == 0
        mount.flush()
        assert list(contents(s3, bucket)) == ["users/a/projects/q/output/made.mp4"]
