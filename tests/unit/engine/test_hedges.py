"""A second GET for one that is silent: when, how many, and that no bytes are mixed."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r2fs.engine.content import hydrate
from r2fs.engine.content import source as module
from r2fs.engine.content.source import ENOUGH, KEEP, LEAST_S, SHARE, Hedges, Piece
from tests.support.clocks import Later
from tests.support.engine import Engine
from tests.support.memory_store import MemoryDownload, MemoryStore

KIB, MIB = 1 << 10, 1 << 20
KIND = 64 * KIB


def known(*seconds: float, kind: int = KIND) -> Hedges:
    hedges = Hedges()
    for each in seconds:
        hedges.first_byte(kind, each)
    return hedges


# ---- statistics
@pytest.mark.parametrize("count", range(ENOUGH))
def test_too_few_gets_say_nothing(count: int) -> None:
    assert known(*[1.0] * count).late_s(KIND) is None


@pytest.mark.parametrize(
    ("seconds", "late_s"),
    [
        ([1.0] * ENOUGH, 4.0),
        ([0.1] * 99 + [9.0], 0.4),  # the slowest of a hundred is not the rule
        ([0.1] * 98 + [9.0] * 2, 9.0),
        ([0.1] * 19 + [9.0], 9.0),  # of few it may be
        ([0.001] * 100, LEAST_S),
        ([0.0] * 100, LEAST_S),
        ([0.1] * 50 + [1.0] * 50, 2.2),
    ],
)
def test_late_is_the_larger_of_p99_and_four_medians(seconds: list[float], late_s: float) -> None:
    random.Random(1).shuffle(seconds)
    assert known(*seconds).late_s(KIND) == pytest.approx(late_s)


def test_old_times_are_forgotten() -> None:
    assert known(*[100.0] * KEEP, *[1.0] * KEEP).late_s(KIND) == 4.0


def test_each_kind_has_its_own_times() -> None:
    hedges = known(*[1.0] * ENOUGH)
    for _ in range(ENOUGH):
        hedges.first_byte(MIB, 10.0)
    assert (hedges.late_s(KIND), hedges.late_s(MIB), hedges.late_s(1)) == (4.0, 40.0, None)


@pytest.mark.parametrize("seed", range(20))
def test_no_more_than_two_in_a_hundred(seed: int) -> None:
    hedges, rng, sent, taken = Hedges(), random.Random(seed), 0, 0
    for _ in range(3000):
        if rng.random() < 0.5:
            hedges.sent()
            sent += 1
        elif hedges.take():
            taken += 1
            sent += 1
            hedges.sent()  # a second GET is one, too
        assert taken * SHARE <= sent
    assert taken, "and some there are"


def test_a_reader_that_comes_before_its_get_is_sent_looks_again_in_time() -> None:
    hedges, piece = known(*[0.1] * ENOUGH), Piece(0, KIND)
    second, again_s = piece.hedge(hedges, 5.0)
    assert second is None and again_s == LEAST_S
    piece.sent(0, KIND, 5.01)
    second, again_s = piece.hedge(hedges, 5.0 + LEAST_S)
    assert second is None and again_s == pytest.approx(0.4 + 0.01 - LEAST_S)


# ---- wired
class Stalling(MemoryStore):
    """The GETs numbered in `stall` are silent until `go_on`: before their first byte, or after `stall_after` bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.gets: list[tuple[int, int]] = []
        self.stall: set[int] = set()
        self.stall_after = 0
        self.wrong: set[int] = set()
        self.silent = threading.Event()
        self.go_on = threading.Event()
        self.over = threading.Semaphore(0)  # released for each answer that was read or left

    def get(self, key: str, *, start: int = 0, length: int | None = None, **named: Any) -> MemoryDownload:
        number = len(self.gets)
        stop = len(self.data(key)) if length is None else start + length
        self.gets.append((start, stop))
        download = super().get(key, start=start, length=length, **named)
        if number in self.wrong:
            download.data = bytes([download.data[0] ^ 1]) + download.data[1:]
        return Stalled(self, download, number in self.stall)


class Stalled(MemoryDownload):
    def __init__(self, store: Stalling, inner: MemoryDownload, stalls: bool) -> None:
        self.info, self.data = inner.info, inner.data
        self._store, self._stalls = store, stalls

    def chunks(self, size: int = 262144) -> Iterator[bytes]:
        done = 0
        for chunk in super().chunks(size):
            if self._stalls and done >= self._store.stall_after:
                self._store.silent.set()
                assert self._store.go_on.wait(30)
            yield chunk
            done += len(chunk)

    def __exit__(self, *exc: object) -> None:
        self._store.over.release()


@pytest.fixture
def store() -> Iterator[Stalling]:
    made = Stalling()
    yield made
    made.go_on.set()


@pytest.fixture
def engine(tmp_path: Path, store: Stalling, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(hydrate, "RESEND_S", 0.01)
    engine = Engine(tmp_path / "a", store, clock=Later(), read_ahead=0)
    for _ in range(2 * SHARE):
        engine.hedges.sent()
        for kind in (64 * KIB, 256 * KIB):
            engine.hedges.first_byte(kind, 0.1)
    yield engine
    store.go_on.set()
    engine.stop()


def read_past_silence(engine: Engine, store: Stalling, name: str) -> bytes:
    """Read all; the clock goes on once a GET is silent."""
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(engine.read(name)))
    reader.start()
    assert store.silent.wait(30)
    clock = engine.core.clock
    assert isinstance(clock, Later)
    clock.advance(10.0)
    reader.join(30)
    assert not reader.is_alive() and found
    return found[0]


def test_a_silent_get_has_a_second_one(engine: Engine, store: Stalling) -> None:
    data = os.urandom(300_000)
    store.set("a.wav", data)
    store.stall = {0}
    assert read_past_silence(engine, store, "a.wav") == data
    assert store.gets == [(0, 300_000)] * 2
    store.go_on.set()
    for _ in range(2):
        assert store.over.acquire(timeout=30)
    assert engine.read("a.wav") == data, "nothing of the first one's bytes was written after"


def test_a_get_that_falls_silent_has_a_second_one_for_the_rest(engine: Engine, store: Stalling) -> None:
    data = os.urandom(6 * MIB)
    store.set("a.bin", data)
    store.stall, store.stall_after = {0}, 128 * KIB
    assert read_past_silence(engine, store, "a.bin") == data
    assert store.gets[:2] == [(0, MIB), (128 * KIB, MIB)]


@pytest.mark.expect_warnings
@pytest.mark.parametrize("wrong", [0, 1])
def test_wrong_bytes_of_either_are_never_seen(engine: Engine, store: Stalling, wrong: int) -> None:
    data = os.urandom(300_000)
    store.set("a.wav", data)
    store.stall, store.wrong = {0}, {wrong}
    assert read_past_silence(engine, store, "a.wav") == data
    store.go_on.set()
    for _ in range(len(store.gets)):
        assert store.over.acquire(timeout=30)
    assert engine.read("a.wav") == data


def test_a_get_has_no_third(engine: Engine, store: Stalling) -> None:
    data = os.urandom(300_000)
    store.set("a.wav", data)
    store.stall = {0, 1}
    reader = threading.Thread(target=engine.read, args=("a.wav",))
    reader.start()
    clock = engine.core.clock
    assert isinstance(clock, Later)
    assert store.silent.wait(30)
    store.silent.clear()
    clock.advance(1.0)
    assert store.silent.wait(30), "the second one is silent, too"
    clock.advance(1.0)
    reader.join(0.2)
    assert len(store.gets) == 2
    store.go_on.set()
    reader.join(30)
    assert not reader.is_alive()


def test_without_a_budget_there_is_none(
    engine: Engine, store: Stalling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARE", 1000)
    store.set("a.wav", os.urandom(300_000))
    store.stall = {0}
    reader = threading.Thread(target=engine.read, args=("a.wav",))
    reader.start()
    assert store.silent.wait(30)
    clock = engine.core.clock
    assert isinstance(clock, Later)
    clock.advance(1.0)
    reader.join(0.2)
    assert len(store.gets) == 1
    store.go_on.set()
    reader.join(30)
    assert not reader.is_alive()


def test_the_soonest_answer_of_any_kind() -> None:
    hedges = Hedges()
    assert hedges.soonest_s() == 0.0
    for kind, seconds in ((64, 0.05), (64, 0.04), (256, 0.03), (64, 2.0)):
        hedges.first_byte(kind, seconds)
    assert hedges.soonest_s() == 0.03
