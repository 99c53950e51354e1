"""One contract, seven stores: every test of the suite runs over each of them, and over two of them by boto3, too.

The servers run for the whole session, each in a process or thread of its own; a test has a
prefix of its own in the bucket.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from r2fs.model.ports import Limits, ObjectStore, SystemClock
from r2fs.model.settings import Bucket
from r2fs.store import open_store
from r2fs.store.buckets import Buckets
from r2fs.store.counting import RequestCounter
from r2fs.store.retry import RetryingStore
from tests.contract.cannot import BY_BOTO3, CANNOT, NOT_RUN
from tests.support.faulty import FaultyProxy
from tests.support.memory_store import MemoryStore
from tests.support.servers import Endpoint, Moto, SeaweedFS, Simulator
from tests.support.strict import StrictR2

KINDS = tuple(CANNOT)
SERVERS = ("moto", "seaweedfs", "simulator")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        kind = callspec.params.get("kind") if callspec is not None else None
        if not isinstance(kind, str) or kind not in CANNOT:  # the hook sees tests of other folders, too
            continue
        for name in names_of(item, kind):
            if reason := CANNOT.get(kind, {}).get(name):
                item.add_marker(pytest.mark.xfail(strict=True, reason=f"{kind}: {reason}"))
            if reason := NOT_RUN.get(kind, {}).get(name):
                item.add_marker(pytest.mark.xfail(run=False, reason=f"{kind}: {reason}"))


def names_of(item: pytest.Item, kind: str) -> tuple[str, str]:
    """`test_x` and `test_x[its own parameters]`, without the kind."""
    function = item.name.partition("[")[0]
    own = item.name.partition("[")[2].removesuffix("]").removeprefix(kind).removeprefix("-")
    return function, f"{function}[{own}]"


@pytest.fixture(scope="session")
def moto() -> Iterator[Endpoint]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line for each request otherwise
    server = Moto()
    yield server.endpoint
    server.stop()


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    server = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    yield server.endpoint
    server.stop()


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    server = Simulator(tmp_path_factory.mktemp("simulator"))
    yield server.endpoint
    server.stop()


@pytest.fixture(scope="session")
def double() -> Iterator[Endpoint]:
    """The strict double, but for R2's pace of one write of a key a second: the contract knows none."""
    with StrictR2(write_interval_s=0.0) as server:
        yield server.endpoint


@dataclass(frozen=True)
class Place:
    """A bucket of some kind, and a prefix in it that is this test's own."""

    kind: str
    prefix: str
    settings: Bucket
    endpoint: Endpoint | None

    def open(self, limits: Limits | None = None) -> ObjectStore:
        if self.kind == "memory":
            return MemoryStore(limits or Limits(), now_ns=time.time_ns)
        if self.kind == "buckets":
            return buckets_in_memory(self.settings, limits)
        return open_store(self.settings, SystemClock(), limits)


def buckets_in_memory(settings: Bucket, limits: Limits | None) -> Buckets:
    clock = SystemClock()

    def open_one(one: Bucket) -> RetryingStore:
        return RetryingStore(MemoryStore(limits or Limits(), now_ns=time.time_ns), clock)

    return Buckets(settings, RequestCounter(), open_one, list)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    prefix = f"t{uuid.uuid4().hex[:12]}/"
    if kind == "localdir":
        root = tmp_path / "bucket"
        root.mkdir()
        return Place(kind, prefix, Bucket("file", str(root)), None)
    if kind == "buckets":
        members = (Bucket("s3", "one"), Bucket("s3", "two"))
        return Place(kind, f"one/{prefix}", Bucket("s3", "", members=members, given="r2://one+two"), None)
    if kind == "memory":
        return Place(kind, prefix, Bucket("file", "/nowhere"), None)
    endpoint: Endpoint = request.getfixturevalue(kind.removesuffix(BY_BOTO3))
    settings = endpoint.settings(prefix=prefix)
    transport = "boto3" if kind.endswith(BY_BOTO3) else "auto"
    return Place(kind, prefix, replace(settings, transport=transport), endpoint)


@pytest.fixture(scope="session")
def clients() -> Iterator[dict[str, ObjectStore]]:
    """One store for each server: boto3 takes a quarter of a second to make a client."""
    opened: dict[str, ObjectStore] = {}
    yield opened
    for store in opened.values():
        store.close()


@pytest.fixture
def store(place: Place, clients: dict[str, ObjectStore]) -> Iterator[ObjectStore]:
    if place.endpoint is None:
        opened = place.open()
        yield opened
        opened.close()
        return
    if place.kind not in clients:
        clients[place.kind] = place.open()
    yield clients[place.kind]


@pytest.fixture
def p(place: Place) -> str:
    """The prefix of this test's keys."""
    return place.prefix


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Endpoint:
    endpoint: Endpoint = request.getfixturevalue(request.param)
    return endpoint


@pytest.fixture
def proxy(seaweedfs: Endpoint) -> Iterator[FaultyProxy]:
    with FaultyProxy(seaweedfs.url) as proxy:
        yield proxy
