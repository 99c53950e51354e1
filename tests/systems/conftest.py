"""Fixtures of the five systems: buckets of their own on SeaweedFS, mounts of whole buckets, and the examples.

`bucket`    a new, empty bucket
`mount_of`  makes a mount of a bucket (or of a local directory), and ends it
`example`   loads a file of examples/
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from tests.mount import conftest as of_mounts
from tests.mount.daemons import BucketMount, end_all
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MountOf = Callable[..., BucketMount]

_numbers = itertools.count(1)

proxy, s3 = of_mounts.proxy, of_mounts.s3


class LocalMount(BucketMount):
    """A mount of a directory in place of a bucket."""

    def __init__(self, base: Path, server: SeaweedFS, directory: Path, **settings: Any) -> None:
        super().__init__(base, "kernel", server.endpoint, "", **settings)
        self._command[-2] = f"file://{directory}"


@pytest.fixture
def bucket(s3: S3Client) -> str:
    name = f"system-{os.getpid()}-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run directory of all mounts of a test: programs find their daemons as they do on a host."""
    found = tmp_path / "run"
    monkeypatch.setenv("R2FS_RUN_DIR", str(found))
    return found


@pytest.fixture
def mount_of(seaweed: SeaweedFS, run_dir: Path, tmp_path: Path) -> Iterator[MountOf]:
    """`mount_of(bucket, name, **settings)`: a mount at `tmp_path/name/mnt`; a Path is a directory in its place."""
    made: list[BucketMount] = []

    def make(
        bucket: str | Path, name: str = "host", *, url: str | None = None, start: bool = True, **settings: Any
    ) -> BucketMount:
        base = tmp_path / name
        base.mkdir(exist_ok=True)
        settings = {"run_dir": run_dir, **settings}
        if isinstance(bucket, Path):
            serving: BucketMount = LocalMount(base, seaweed, bucket, **settings)
        else:
            serving = BucketMount(
                base, "kernel", replace(seaweed.endpoint, bucket=bucket), "", url, **settings
            )
        made.append(serving)
        if start:
            serving.start()
        return serving

    yield make
    end_all(made)


@pytest.fixture
def example(repo_root: Path) -> Callable[[str], ModuleType]:
    def load(name: str) -> ModuleType:
        path = repo_root / "examples" / f"{name}.py"
        assert len(path.read_text().splitlines()) <= 40, "an example shows how little is needed"
        spec = importlib.util.spec_from_file_location(f"examples_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load
