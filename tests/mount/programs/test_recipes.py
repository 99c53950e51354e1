"""What scripts do to files: each recipe on the local disk and on a mount, and then what the bucket has of it.

The inputs lie in the bucket before the mount is made, so that each recipe reads what is not here
yet. One mount and one drain for all recipes of a driver; at the end the bucket is read by another
S3 client, and a mount with nothing of its own shows the same files again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.daemons import BucketMount
from tests.mount.programs import audio, files, inputs, scripts, trees
from tests.mount.programs.recipe import Found, Ran, Recipe, contents, differences, run
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RECIPES = [*audio.RECIPES, *files.RECIPES, *trees.RECIPES, *scripts.RECIPES]
DRIVERS = ("kernel", "libfuse", pytest.param("libfuse2", marks=pytest.mark.long))
UNTIL_SENT_S = 90.0
SYMLINK = ".rclonelink"


@pytest.fixture(scope="session", params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def pantry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    inputs.make(directory)
    return directory


@dataclass
class Local:
    """Recipes on the local disk, each once for all drivers."""

    base: Path
    pantry: Path
    ran: dict[str, Ran] = field(default_factory=dict)

    def run(self, recipe: Recipe) -> Ran:
        if recipe.name not in self.ran:
            directory, side = self.directory(recipe), self.base / f"{folder(recipe)}-side"
            directory.mkdir()
            side.mkdir()
            for name in recipe.needs:
                shutil.copy2(self.pantry / name, directory / name)
            self.ran[recipe.name] = run(recipe, directory, side)
        return self.ran[recipe.name]

    def directory(self, recipe: Recipe) -> Path:
        return self.base / folder(recipe)


def folder(recipe: Recipe) -> str:
    """A name that is like people's: it has spaces."""
    return f"{RECIPES.index(recipe):02} {recipe.name.partition(':')[0].partition(',')[0]}"


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory, pantry: Path) -> Local:
    return Local(tmp_path_factory.mktemp("local"), pantry)


@dataclass
class Kitchen:
    """One mount for all recipes, with their inputs in the bucket."""

    mount: BucketMount
    seaweed: SeaweedFS
    s3: S3Client
    left: dict[str, dict[str, Found]] = field(default_factory=dict)  # what a recipe left, by its folder

    def key(self, path: str) -> str:
        return self.mount.prefix + path

    def put_inputs(self, pantry: Path) -> None:
        def put(path: str, name: str) -> None:
            body, at = (pantry / name).read_bytes(), {"mtime": f"{inputs.TIME_NS / 1e9:.9f}"}
            bucket = self.seaweed.endpoint.bucket
            self.s3.put_object(Bucket=bucket, Key=self.key(path), Body=body, Metadata=at)

        with ThreadPoolExecutor(8) as pool:
            wanted = [(f"{folder(recipe)}/{name}", name) for recipe in RECIPES for name in recipe.needs]
            for done in [pool.submit(put, *pair) for pair in wanted]:
                done.result()

    def objects(self, below: str) -> dict[str, bytes]:
        """Everything in the bucket below a directory, by path."""
        start = self.key(below + "/")
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.seaweed.endpoint.bucket, Prefix=start
        )
        keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
        with ThreadPoolExecutor(8) as pool:
            bodies = pool.map(self._get, keys)
            return {key[len(start) :]: body for key, body in zip(keys, bodies, strict=True)}

    def _get(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=self.seaweed.endpoint.bucket, Key=key)["Body"].read()


@pytest.fixture(scope="module")
def kitchen(
    driver: str, seaweed: SeaweedFS, s3: S3Client, pantry: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kitchen]:
    base = tmp_path_factory.mktemp(f"{driver}-recipes")
    # SeaweedFS goes on listing a directory whose last object has gone: nothing is listed twice here.
    # Small enough that the long recording comes in pieces, and is larger than one read ahead of it
    settings = {
        "mtime": "exact",
        "freshness": "5m",
        "small_file": "1MiB",
        "read_ahead": "1MiB",
        "upload_delay": "100ms",
    }
    mount = BucketMount(base, driver, seaweed.endpoint, f"{base.name}/", **settings)
    kitchen = Kitchen(mount, seaweed, s3)
    kitchen.put_inputs(pantry)
    try:
        mount.start()
        yield kitchen
        mount.stop()
    finally:
        mount.end()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_as_on_the_local_disk(recipe: Recipe, kitchen: Kitchen, local: Local, tmp_path: Path):
    complaints = len(kitchen.mount.complaints())
    before = local.run(recipe)
    assert before.code == 0, f"the recipe fails on the local disk: {before.errors}"
    directory = kitchen.mount.path / folder(recipe)
    directory.mkdir(exist_ok=True)
    after = run(recipe, directory, tmp_path)
    assert after.code == 0, after.errors
    assert after.output.splitlines() == before.output.splitlines()
    left = kitchen.left[folder(recipe)] = contents(directory)
    assert differences(recipe, local.directory(recipe), before, directory, after, left) == []
    assert kitchen.mount.complaints()[complaints:] == []


def test_the_bucket_has_it_all(kitchen: Kitchen):
    """Every file, and nothing else, as another S3 client reads it."""
    assert kitchen.left
    kitchen.mount.flush(UNTIL_SENT_S)
    wrong = []
    for name, left in kitchen.left.items():
        wrong += [f"{name}/{said}" for said in compared(left, kitchen.objects(name))]
    assert wrong == []


def compared(shown: dict[str, Found], stored: dict[str, bytes]) -> Iterator[str]:
    files = {
        path + (SYMLINK if found.kind == "l" else ""): found
        for path, found in shown.items()
        if found.kind != "d"
    }
    objects = {path: body for path, body in stored.items() if path and not path.endswith("/")}
    for path in sorted(files.keys() | objects.keys()):
        if path not in objects or path not in files:
            yield f"{path} is {'not in the bucket' if path in files else 'in the bucket alone'}"
            continue
        is_link = files[path].kind == "l"
        body = objects[path].decode() if is_link else hashlib.sha256(objects[path]).hexdigest()
        if body != files[path].content:
            yield f"{path} is {len(objects[path])} bytes of something else in the bucket"
    # Directories' objects are not looked at: SeaweedFS takes them away with the last file below.


def test_a_host_that_knows_nothing_sees_the_same(kitchen: Kitchen, driver: str, tmp_path: Path):
    """Bytes, modes, times and links came back out of the bucket."""
    if driver != "kernel":
        pytest.skip("what the bucket has does not depend on who reads it: the kernel driver's turn is enough")
    mount = kitchen.mount
    mount.flush(UNTIL_SENT_S)
    other = BucketMount(
        tmp_path, "kernel", kitchen.seaweed.endpoint, mount.prefix, mtime="exact", host="other"
    )
    other.start()
    try:
        wrong = [
            said for name, left in kitchen.left.items() for said in changed(name, left, other.path / name)
        ]
        assert wrong == []
        assert other.complaints() == []
    finally:
        other.end()


def changed(name: str, before: dict[str, Found], directory: Path) -> Iterator[str]:
    """SeaweedFS keeps no metadata of a directory's object, and shows a directory for a while that has lost
    its last object: of directories only those count that should be there."""
    after = contents(directory)
    for path in sorted(before.keys() | after.keys()):
        one, two = before.get(path), after.get(path)
        if one is None and two is not None and two.kind == "d":
            continue
        if one is not None and two is not None and one.kind != "-":
            one, two = (replace(found, mode=0, mtime_ns=0) for found in (one, two))
        if one != two:
            yield f"{name}/{path}: {one} is {two}"
