"""Status: answered from counters, with no request to the bucket, soon, while hundreds of uploads are under way."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from types import SimpleNamespace
from typing import Any

from r2fs.daemon.operations import MountOperations
from r2fs.daemon.spending import SpentView
from r2fs.model.ports import SystemClock
from r2fs.model.views import QueueView
from r2fs.store.retry import RetryingStore
from tests.mount.daemons import until
from tests.support.clocks import ManualClock
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore

FILES = 500


def operations(engine: Engine) -> Any:
    parts = SimpleNamespace(
        target="/mnt",
        engine=engine.fs,
        settings=engine.settings,
        store=RetryingStore(engine.store, SystemClock()),
        driver=object(),
        takeover=SimpleNamespace(describe=dict),
        spending=SimpleNamespace(view=lambda: SpentView("2026-11", 0, 0, 0.0, 0.0, 0.0)),
        mounted=threading.Event(),
        started_at_s=0.0,
    )
    stopping = SimpleNamespace(requested=threading.Event())
    return MountOperations(parts, stopping, lambda: None)  # type: ignore[arg-type]


def test_status_takes_no_request_and_answers_soon_while_500_uploads_run(
    make: MakeEngine, store: MemoryStore
) -> None:
    askers: set[int] = set()
    gate = threading.Event()

    def slowly(name: str, key: str) -> None:
        askers.add(threading.get_ident())
        gate.wait(0.002)

    engine = make(upload_threads=64)
    store.before = slowly
    for number in range(FILES):
        engine.write(f"{number:03}.wav", b"x" * 1000)
    asked, left = operations(engine), [FILES]
    took: list[float] = []
    askers.clear()
    while left[-1] and len(took) < 20:
        began = time.thread_time()  # its own work: a busy machine makes any wait longer
        answer = asked.status(None)
        took.append(time.thread_time() - began)
        left.append(answer["queue"]["left"])
    gate.set()
    assert left[1] > 0, "no upload was under way"
    assert threading.get_ident() not in askers
    assert median(took) < 0.1, took
    engine.drain()


def test_a_status_takes_as_many_calls_for_many_pending_files_as_for_few(make: MakeEngine) -> None:
    engine = make(threads=False, upload_delay_s=3600.0, upload_deadline_s=3600.0)
    asked, calls = operations(engine), []
    for first, last in ((0, 150), (150, 600)):  # more than a status names
        for number in range(first, last):
            engine.write(f"{number:03}.wav", b"x" * 1000)
        answer = asked.status(None)
        assert (answer["queue"]["left"], answer["queue"]["bytes"]) == (last, last * 1000)
        calls.append(calls_of(engine.fs.queue_view))
    assert calls[0] == calls[1]


def calls_of(work: Callable[[], object]) -> int:
    count = 0

    def see(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_the_oldest_changes_come_first_after_a_restart_too(make: MakeEngine, store: MemoryStore) -> None:
    clock = ManualClock()
    engine = make(threads=False, clock=clock, upload_delay_s=3600.0, upload_deadline_s=3600.0)
    engine.mkdir("d")
    names = ["d/7.wav", "3.wav", "d/1.wav", "2.wav"]  # replayed from the root down
    for name in names:
        engine.write(name, b"x" * 10)
        clock.advance(5)
    assert files(engine.fs.queue_view()) == names
    engine.kill()
    again = make(threads=False, clock=clock, upload_delay_s=3600.0, upload_deadline_s=3600.0)
    view = again.fs.queue_view()
    assert files(view) == names
    assert view.oldest_s == max(one.age_s for one in view.transfers)


def files(view: QueueView) -> list[str]:
    return [one.path for one in view.transfers if not one.path.endswith("/")]


def test_files_that_begin_to_stay_here_leave_the_queue(make: MakeEngine) -> None:
    engine = make(threads=False, upload_delay_s=3600.0, upload_deadline_s=3600.0)
    for name in ("a.wav", "b.tmp", "c.db-wal"):
        engine.write(name, b"x" * 10)
    assert (engine.fs.queue_view().files, engine.fs.queue_view().bytes) == (2, 20)
    engine.fs.change_settings(replace(engine.settings, local_patterns=("*.tmp",)))
    view = engine.fs.queue_view()
    assert ({one.path for one in view.transfers}, view.bytes) == ({"a.wav", "c.db-wal"}, 20)


def test_status_waits_for_no_answer_of_the_bucket(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    gate = threading.Event()

    def hold(name: str, key: str) -> None:
        if name == "put":
            gate.wait(10)

    store.before = hold
    engine.write("a.wav", b"a")
    while not engine.fs.queue_view().active:
        time.sleep(0.005)
    answer = operations(engine).status(None)
    assert [one["state"] for one in answer["queue"]["transfers"]] == ["uploading"]
    assert not gate.is_set()
    gate.set()
    engine.drain()


def test_a_download_is_shown_while_it_is_on_its_way(make: MakeEngine, store: MemoryStore) -> None:
    store.set("takes/large.wav", b"x" * (8 << 20))
    engine = make(small_file=1 << 20)
    gate = threading.Event()

    def hold(name: str, key: str) -> None:
        if name == "get":
            gate.wait(20)

    engine.listdir("takes")
    store.before = hold
    reader = threading.Thread(target=lambda: engine.read("takes/large.wav"))
    reader.start()
    asked = operations(engine)
    until("the download", lambda: asked.status(None)["downloads"])
    (shown,) = asked.status(None)["downloads"]
    gate.set()
    reader.join(20)
    assert (shown["path"], shown["verb"], shown["size"]) == ("takes/large.wav", "download", 8 << 20)
    assert 0 <= shown["sent"] < 8 << 20
    until("its end", lambda: not asked.status(None)["downloads"])


def test_files_fetched_ahead_in_vain_are_counted(make: MakeEngine, store: MemoryStore) -> None:
    for number in range(40):
        store.set(f"d/{number:02}.wav", b"x" * 100)
    engine = make(freshness_s=3600.0)
    engine.listdir("d")
    for number in (0, 1, 2, 3, 30, 31, 32):  # those between are passed over
        engine.read(f"d/{number:02}.wav")
    with engine.lock:
        surplus = engine.prefetch.surplus
    assert surplus > 0
    assert operations(engine).status(None)["cache"]["surplus"] == surplus
