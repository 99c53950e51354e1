"""Fixtures of the mount suite: every driver that can run here, over a real S3 server or a mirror.

`mounted`  one mount per module: the same cases run over MirrorVerbs (is the driver right?) and over
           a bucket (is the whole right?)
`mount`    one mount of a bucket per module
`place`    an empty directory of its own for each test, in the mount that the module's fixture `serving` is
`mounts`   makes further mounts for one test, and ends them
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.mount.daemons import DRIVERS, BucketMount, MirrorMount, Mount, end_all, serve
from tests.support.faulty import FaultyProxy
from tests.support.servers import SeaweedFS, Simulator
from tests.support.strict import StrictR2

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """R2's own: directories' objects have metadata there, and go with their deletion."""
    server = Simulator(tmp_path_factory.mktemp("simulator"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def r2() -> Iterator[StrictR2]:
    """R2's rules, held strictly; what it should never have been asked fails the module."""
    with StrictR2() as server:
        yield server
    assert server.faults == []


@pytest.fixture(scope="session")
def s3(seaweed: SeaweedFS) -> S3Client:
    """Another S3 client than r2fs."""
    return client_of(seaweed)


def client_of(server: SeaweedFS) -> S3Client:
    import boto3

    logging.getLogger("botocore").setLevel(logging.INFO)  # else a failure's report is lost in it
    endpoint = server.endpoint
    return boto3.client(
        "s3",
        endpoint_url=endpoint.url,
        region_name=endpoint.region,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
    )


@pytest.fixture(scope="module")
def proxy(seaweed: SeaweedFS) -> Iterator[FaultyProxy]:
    """Counts requests, and breaks them on demand."""
    with FaultyProxy(seaweed.endpoint.url) as proxy:
        yield proxy


@pytest.fixture(scope="session", params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def main_driver(driver: str, request: pytest.FixtureRequest) -> str:
    """`driver`, but libfuse 2 only in the long run."""
    if driver == "libfuse2" and not request.config.getoption("--long"):
        pytest.skip("with libfuse 2 as well: --long runs it")
    return driver


@pytest.fixture(scope="session")
def engine_driver(driver: str, request: pytest.FixtureRequest) -> str:
    """`driver`, but the kernel driver alone except in the long run: for tests of what the engine does, whatever driver
    calls it."""
    if driver != "kernel" and not request.config.getoption("--long"):
        pytest.skip("the engine's affair: --long runs it with every driver")
    return driver


@pytest.fixture(scope="module", params=("mirror", "bucket"))
def mounted(
    request: pytest.FixtureRequest, driver: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mount]:
    if (driver, request.param) == ("libfuse2", "bucket") and not request.config.getoption("--long"):
        pytest.skip("of libfuse 2 the driver alone, over a mirror: --long runs it over a bucket as well")
    base = tmp_path_factory.mktemp(f"{driver}-{request.param}")
    if request.param == "mirror":
        yield from serve(MirrorMount(base, driver))
    else:
        server = request.getfixturevalue("seaweed")
        yield from serve(BucketMount(base, driver, server.endpoint, f"{base.name}/"))


@pytest.fixture(scope="module")
def mirror(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorMount]:
    yield from serve(MirrorMount(tmp_path_factory.mktemp(f"{driver}-mirror"), driver))


@pytest.fixture(scope="module")
def mount(
    driver: str, seaweed: SeaweedFS, proxy: FaultyProxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BucketMount]:
    base = tmp_path_factory.mktemp(f"{driver}-bucket")
    yield from serve(BucketMount(base, driver, seaweed.endpoint, f"{base.name}/", proxy.url))


@pytest.fixture
def place(serving: Mount) -> Iterator[Path]:
    """Fails the test, too, if the daemon complained in its log meanwhile."""
    before = len(serving.complaints())
    directory = serving.path / f"test{next(_numbers)}"
    os.mkdir(directory)
    yield directory
    assert serving.complaints()[before:] == []


@pytest.fixture
def mounts(driver: str, seaweed: SeaweedFS, tmp_path: Path) -> Iterator[Callable[..., BucketMount]]:
    """`mounts(name, **settings)`: a mount of its own, of this test's prefix; started unless start=False.

    A module that cares for some drivers alone has a fixture `driver` of its own.
    """
    made: list[BucketMount] = []

    def make(name: str, *, start: bool = True, url: str | None = None, **settings: Any) -> BucketMount:
        base = tmp_path / name
        base.mkdir(exist_ok=True)
        serving = BucketMount(base, driver, seaweed.endpoint, f"{tmp_path.name}/", url, **settings)
        made.append(serving)
        if start:
            serving.start()
        return serving

    yield make
    end_all(made)
