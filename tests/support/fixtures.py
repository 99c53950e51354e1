"""Fixtures of every suite: one SeaweedFS for the mounts and the systems of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.servers import SeaweedFS


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    server = SeaweedFS(tmp_path_factory.mktemp("seaweed"))
    yield server
    server.stop()
