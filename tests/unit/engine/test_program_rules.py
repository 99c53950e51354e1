"""Rules for programs: what a thumbnailer or an indexer fetches of a file that is not here, and that others lose nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2fs.engine.content import hydrate, jobs
from r2fs.engine.content.windows import FIRST
from r2fs.model.errors import NotPermitted, ReadFailed, Unavailable
from r2fs.model.ports import Caller
from r2fs.model.settings.program_rules import TAIL, ProgramRule
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore
from tests.unit.engine.test_hedges import Stalling

KIB, MIB = 1 << 10, 1 << 20
ME = Path("/proc/self/comm").read_text().strip()
OTHER = "another-program"


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Gets(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.gets: list[tuple[str, int, int]] = []

    def get(self, key: str, *, start: int = 0, length: int | None = None, **named: Any) -> Any:
        stop = len(self.data(key)) if length is None else start + length
        self.gets.append((key, start, stop))
        return super().get(key, start=start, length=length, **named)


@pytest.fixture
def store() -> Gets:
    return Gets()


def with_rule(make: MakeEngine, **rule: Any) -> Engine:
    """An engine with a rule for this process, whose calls have no process otherwise."""
    programs = (ProgramRule("tools", (ME[:3] + "*",), **rule),)
    engine = make(programs=programs, small_file=256 * KIB)
    engine.caller = Caller(pid=os.getpid())
    return engine


def read(engine: Engine, name: str, at: int, size: int) -> bytes:
    opened = engine.open(name)
    try:
        return engine.fs.read(engine.caller, opened.handle, at, size)
    finally:
        engine.close(opened)


def test_header_only_fetches_begin_and_end(make: MakeEngine, store: Gets) -> None:
    data = os.urandom(3 * MIB)
    store.set("a.wav", data)
    engine = with_rule(make, read="header", header=64 * KIB)
    opened = engine.open("a.wav")
    assert opened.local is None, "no passthrough"
    assert engine.fs.read(engine.caller, opened.handle, 0, 4 * KIB) == data[: 4 * KIB]
    # a READ of the kernel that begins within the header is answered whole: a short one would be the file's end
    assert engine.fs.read(engine.caller, opened.handle, 60 * KIB, 8 * KIB) == data[60 * KIB : 68 * KIB]
    assert engine.fs.read(engine.caller, opened.handle, len(data) - TAIL, TAIL) == data[-TAIL:]
    for at in (64 * KIB + 4 * KIB, MIB, len(data) - TAIL - 1):
        with pytest.raises(NotPermitted, match=r"\[programs.tools\]"):
            engine.fs.read(engine.caller, opened.handle, at, 1 if at > MIB else 4 * KIB)
    engine.close(opened)
    assert sum(stop - start for _, start, stop in store.gets) <= 64 * KIB + 8 * KIB + TAIL


def test_what_is_here_is_read_whatever_the_program(make: MakeEngine, store: Gets) -> None:
    data = os.urandom(3 * MIB)
    store.set("a.wav", data)
    engine = with_rule(make, read="header", header=64 * KIB)
    mine, engine.caller = engine.caller, Caller()
    assert engine.read("a.wav") == data
    engine.caller = mine
    opened = engine.open("a.wav")
    assert opened.local is not None, "and passed through"
    engine.close(opened)
    assert engine.read("a.wav") == data


def test_other_programs_read_all(make: MakeEngine, store: Gets) -> None:
    data = os.urandom(3 * MIB)
    store.set("a.wav", data)
    engine = make(programs=(ProgramRule("tools", (OTHER,), read="header"),), small_file=0)
    engine.caller = Caller(pid=os.getpid())
    assert engine.read("a.wav") == data


def test_a_small_file_comes_whole_only_if_it_is_a_header(make: MakeEngine, store: Gets) -> None:
    store.set("a", os.urandom(60 * KIB))
    store.set("b", os.urandom(200 * KIB))
    engine = with_rule(make, read="header", header=64 * KIB)
    assert len(read(engine, "a", 0, 1)) == len(read(engine, "b", 0, 1)) == 1
    assert store.gets == [("a", 0, 60 * KIB), ("b", 0, 1)]


def test_without_prefetch_no_more_is_fetched_than_read(make: MakeEngine, store: Gets) -> None:
    names = [f"{number:02d}.wav" for number in range(12)]
    for name in names:
        store.set(name, os.urandom(20 * KIB))
    store.set("large.wav", os.urandom(8 * MIB))
    engine = with_rule(make, prefetch=False)
    engine.entry("")
    engine.fs.readdir(engine.caller, 1)
    for name in names[:6]:
        assert len(read(engine, name, 0, 100)) == 100
    opened = engine.open("large.wav")
    for at in range(0, 2 * MIB, 128 * KIB):
        engine.fs.read(engine.caller, opened.handle, at, 128 * KIB)
    engine.close(opened)
    assert [get for get in store.gets if get[0] in names] == [(name, 0, 20 * KIB) for name in names[:6]]
    of_large = [(start, stop) for key, start, stop in store.gets if key == "large.wav"]
    assert max(stop for _, stop in of_large) == 2 * MIB, "and neither the end of the file nor a window"
    assert len(of_large) == 2 * MIB // FIRST


def test_the_same_with_prefetch_is_ahead(make: MakeEngine, store: Gets) -> None:
    """The counterpart: the test above would pass without a rule otherwise."""
    names = [f"{number:02d}.wav" for number in range(12)]
    for name in names:
        store.set(name, os.urandom(20 * KIB))
    engine = make(small_file=256 * KIB)
    engine.fs.readdir(engine.caller, 1)
    for name in names[:6]:
        read(engine, name, 0, 100)
    until(lambda: len(store.gets) > 6)


def test_a_slow_program_waits_behind_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "CRAWL_S", 1e9)
    inner = Stalling()
    for name in ("x", "slow", "daily"):
        inner.set(name, os.urandom(50_000 + len(name)))
    engine = Engine(
        tmp_path / "a", inner, programs=(ProgramRule("tools", (ME,), read="slow"),), download_threads=1, read_timeout_s=1
    )  # fmt: skip
    inner.stall = {0}
    found: dict[str, bytes] = {}
    indexer, daily = Caller(pid=os.getpid()), engine.caller

    def reads(name: str, caller: Caller) -> threading.Thread:
        ino = engine.entry(name).ino

        def run() -> None:
            if name == "x":  # the bucket is silent: it takes longer than read_timeout
                with pytest.raises(ReadFailed):
                    engine.fs.open(caller, ino, os.O_RDONLY)
                return
            opened = engine.fs.open(caller, ino, os.O_RDONLY)
            found[name] = engine.fs.read(caller, opened.handle, 0, MIB)
            engine.fs.release(opened.handle)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    try:
        threads = [reads("x", daily)]
        assert inner.silent.wait(20)
        threads.append(reads("slow", indexer))
        until(lambda: engine.queued_downloads == 1)
        time.sleep(1.2)  # longer than read_timeout: it waits, and does not fail
        threads.append(reads("daily", daily))
        until(lambda: engine.queued_downloads == 2)
        inner.go_on.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert [stop - 50_000 for _, stop in inner.gets] == [1, len("daily"), len("slow")]
        assert found == {name: inner.data(name) for name in ("slow", "daily")}
    finally:
        inner.go_on.set()
        engine.stop()


def test_a_slow_program_asks_a_second_time_behind_others_too(
    make: MakeEngine, store: Gets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hydrate, "RESEND_S", 0.01)
    data, asked, real_get = os.urandom(MIB), list[int](), store.get
    store.set("a.wav", data)
    engine = with_rule(make, read="slow")
    real = jobs.DownloadQueue.submit

    def submit(self: jobs.DownloadQueue, job: jobs.Job, priority: int = jobs.URGENT) -> bool:
        asked.append(priority)
        return real(self, job, priority)

    def get(key: str, **named: Any) -> Any:
        if len(asked) < 2:
            raise Unavailable("the bucket is away for a moment")
        return real_get(key, **named)

    monkeypatch.setattr(jobs.DownloadQueue, "submit", submit)
    monkeypatch.setattr(store, "get", get)
    assert read(engine, "a.wav", 0, 4 * KIB) == data[: 4 * KIB]
    assert len(asked) > 1
    assert set(asked) == {jobs.SLOW}


def test_without_rules_no_process_is_looked_at(
    make: MakeEngine, store: Gets, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r2fs.engine.files import open_files

    class Never:
        def name(self, tid: int) -> str:
            raise AssertionError("looked at")

    store.set("a", b"x")
    engine = make()
    engine.caller = Caller(pid=os.getpid())
    monkeypatch.setattr(open_files, "PROGRAMS", Never())
    assert engine.read("a") == b"x"


def test_a_copy_by_a_header_only_program_is_refused_too(make: MakeEngine, store: Gets) -> None:
    """copy_file_range has no way around: the kernel reads instead, and the rule holds."""
    from r2fs.model.errors import NotSupported

    store.set("a.wav", os.urandom(3 * MIB))
    engine = with_rule(make, read="header", header=64 * KIB)
    opened, target = engine.open("a.wav"), engine.open("b.wav", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(NotSupported):
        engine.fs.copy_file_range(engine.caller, opened.handle, 0, target.handle, 0, MIB)
    engine.close(opened)
    engine.close(target)
    assert not store.gets
