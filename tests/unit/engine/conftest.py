"""Engines on one store in memory, each a host of its own name; ended whatever happens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.clocks import ManualClock
from tests.support.engine import Engine, MakeEngine
from tests.support.kernel import FRESH_S, Kernel, Mount, without_threads
from tests.support.memory_store import MemoryStore
from tests.support.power import Power
from tests.support.session import Session


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def engine_settings() -> Mapping[str, object]:
    """What a module wants of all its engines."""
    return {}


@pytest.fixture
def make(tmp_path: Path, store: MemoryStore, engine_settings: Mapping[str, object]) -> Iterator[MakeEngine]:
    made: list[Engine] = []

    def make_engine(name: str = "a", **changes: object) -> Engine:
        engine = Engine(tmp_path / name, store, **{**engine_settings, **changes})  # type: ignore[arg-type]
        made.append(engine)
        return engine

    yield make_engine
    for engine in made:
        engine.end()


@pytest.fixture
def power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Power:
    return Power(tmp_path, monkeypatch)


@pytest.fixture
def large(store: MemoryStore) -> bytes:
    """An object that does not come whole."""
    data = os.urandom(300_000)
    store.set("large.wav", data)
    return data


@pytest.fixture
def session(tmp_path: Path, store: MemoryStore) -> Iterator[Callable[..., Session]]:
    made: list[Session] = []

    def make(**changes: object) -> Session:
        made.append(Session(tmp_path, store, **changes))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def mount(
    session: Callable[..., Session], store: MemoryStore, engine_settings: Mapping[str, object]
) -> Mount:
    """An engine whose every step the test takes, under a kernel that remembers names for as long as it may."""
    clock = ManualClock()
    one = session(clock=clock, threads=False, **{"freshness_s": FRESH_S, **engine_settings})
    without_threads(one.engine)
    return Mount(one, Kernel(one, clock), clock, store)
