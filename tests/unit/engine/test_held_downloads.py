"""A limit of bandwidth holds downloads: that is no silence of the bucket, and no program's read fails by it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r2fs.engine.content import hydrate, jobs, windows
from r2fs.engine.content.source import SHARE, Piece
from r2fs.model.flow import Flow
from r2fs.model.settings.timetable import OFF, BandwidthLimit
from r2fs.store.retry import RetryingStore
from tests.support.clocks import Later
from tests.support.engine import Engine
from tests.support.memory_store import MemoryStore
from tests.unit.engine.test_hedges import Stalling

KIB, MIB = 1 << 10, 1 << 20
SLOW = BandwidthLimit().parse("16k")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def inner() -> Iterator[Stalling]:
    made = Stalling()
    yield made
    made.go_on.set()


@pytest.fixture
def limited(
    tmp_path: Path, inner: Stalling, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[Engine, RetryingStore, Later]]]:
    monkeypatch.setattr(hydrate, "RESEND_S", 0.01)
    made: list[tuple[Engine, RetryingStore]] = []

    def make(**settings: object) -> tuple[Engine, RetryingStore, Later]:
        clock = Later()
        store = RetryingStore(inner, clock)
        store.bandwidth.down.change(SLOW)
        changes: Any = {"download_limit": SLOW, **settings}
        engine = Engine(tmp_path / "a", store, clock=clock, **changes)
        made.append((engine, store))
        return engine, store, clock

    yield make
    inner.go_on.set()
    for engine, store in made:
        store.bandwidth.lift()
        engine.stop()


def test_what_our_limit_holds_is_neither_late_nor_failed(limited, inner: Stalling) -> None:
    engine, store, clock = limited(read_timeout_s=5.0)
    for _ in range(2 * SHARE):
        engine.hedges.sent()
        engine.hedges.first_byte(64 * KIB, 0.1)
    data = os.urandom(300_000)
    inner.set("a.wav", data)
    store.bandwidth.down.take(1 << 30)  # the line is busy for long
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(engine.read("a.wav")))
    reader.start()
    until(lambda: store.bandwidth.down.view().waiting)
    for _ in range(4):
        clock.advance(4.0)  # 16 s: more than read_timeout, and 160 times the first byte of others
        reader.join(0.03)
    assert reader.is_alive()
    assert len(inner.gets) == 1
    store.bandwidth.down.change(OFF)
    reader.join(20)
    assert found == [data]
    assert engine.hedges.late_s(64 * KIB) == pytest.approx(0.4, abs=0.1)


def test_silence_of_the_bucket_counts_under_a_limit_too(limited, inner: Stalling) -> None:
    engine, store, clock = limited(read_timeout_s=5.0)
    inner.set("a.wav", os.urandom(30_000))
    inner.stall = {0}
    failed: list[BaseException] = []

    def read() -> None:
        try:
            engine.read("a.wav")
        except Exception as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert inner.silent.wait(20)
    until(lambda: not store.bandwidth.down.view().waiting)
    clock.advance(6.0)
    reader.join(20)
    assert "not fetched within 5 s" in str(failed[0])


def test_less_is_requested_ahead_under_a_limit(limited, inner: Stalling) -> None:
    """A reader of a large file has no more than AHEAD_S of the limit on the line, for others wait behind it."""
    engine, store, _ = limited(small_file=KIB)
    store.bandwidth.down.change(OFF)  # the setting alone counts
    inner.set("a.bin", bytes(16 * MIB))
    opened = engine.open("a.bin")
    for at in range(0, 2 * MIB, 128 * KIB):
        engine.fs.read(engine.caller, opened.handle, at, 128 * KIB)
    engine.close(opened)
    assert max(stop for _, stop in inner.gets) <= 2 * MIB + windows.FIRST


def test_a_piece_that_a_reader_waits_for_goes_before_others(
    limited, inner: Stalling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefetched files are queued; a program opens the second one, and need not wait for the first."""
    monkeypatch.setattr(jobs, "CRAWL_S", 1e9)
    engine, store, _ = limited(download_threads=1, small_file=MIB)
    store.bandwidth.down.change(OFF)
    for name in ("x", "w", "y"):
        inner.set(name, os.urandom(50_000 + ord(name)))
    inner.stall = {0}
    first = threading.Thread(target=engine.read, args=("x",))
    first.start()
    assert inner.silent.wait(20)  # it has the only slot
    for name in ("w", "y"):
        node = engine.node(name)
        with engine.lock:
            source = engine.contents.source(node)
        engine.reader.begin(source)
    second = threading.Thread(target=engine.read, args=("y",))
    second.start()
    until(lambda: engine.queued_downloads == 3)  # the reader has queued it again
    inner.go_on.set()
    for thread in (first, second):
        thread.join(20)
        assert not thread.is_alive()
    until(lambda: len(inner.gets) == 3)
    assert [stop - 50_000 for _, stop in inner.gets] == [ord(name) for name in ("x", "y", "w")]


def test_a_piece_is_downloaded_by_one_thread() -> None:
    piece, flow = Piece(0, 10, urgent=False), Flow()
    assert piece.held, "in the queue"
    assert piece.promote(), "and it is to be queued before others"
    assert not piece.promote()
    assert piece.begin(flow)
    assert flow.urgent
    assert not piece.begin(Flow())
    assert not piece.held


def test_a_flow_under_way_becomes_urgent() -> None:
    piece, flow = Piece(0, 10, urgent=False), Flow()
    assert piece.begin(flow)
    assert not flow.urgent
    assert not piece.promote(), "it is not in the queue"
    assert flow.urgent


def test_a_stop_does_not_wait_for_the_limit(tmp_path: Path) -> None:
    inner, clock = MemoryStore(), Later()
    store = RetryingStore(inner, clock)
    store.bandwidth.change(SLOW, OFF)
    store.bandwidth.up.take(1 << 30)
    engine = Engine(tmp_path / "a", store, clock=clock, upload_limit=SLOW)
    engine.write("a.wav", bytes(100_000))
    until(lambda: store.bandwidth.up.view().waiting)
    engine.fs.stop()  # as the daemon's shutdown does
    store.bandwidth.lift()
    engine.end()
    assert not inner.keys()
    engine.fs.close()
