"""One server for the suite, and rigs that end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash.buckets import Folder, Server
from tests.crash.rig import Bucket, Rig
from tests.support.servers import SeaweedFS


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    server = SeaweedFS(tmp_path_factory.mktemp("seaweed"))
    yield server
    server.stop()


@pytest.fixture
def rig(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Rig]]:
    """`rig(driver, seed)` on a directory, `rig(driver, seed, on_server=True)` on the server."""
    made: list[Rig] = []

    def make(driver: str, seed: str, on_server: bool = False) -> Rig:
        base = tmp_path / str(len(made))
        base.mkdir()
        bucket: Bucket
        if on_server:
            bucket = Server(request.getfixturevalue("server").endpoint, f"{tmp_path.name}-{base.name}/")
        else:
            bucket = Folder(base / "bucket")
        made.append(Rig(base, driver, bucket, seed))
        made[-1].begin()
        return made[-1]

    yield make
    for each in made:
        each.end()
