"""A mirror with its threads, over a bucket in memory: events, passes, errors and stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from r2fs.mirror import mirror as module
from r2fs.mirror.mirror import Mirror
from r2fs.mirror.settle import Rules
from r2fs.model.errors import PermissionRefused, Refused, Unavailable
from r2fs.model.ports import SystemClock
from tests.support.memory_store import MemoryStore
from tests.support.mirror_rig import MirrorRig


def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def running(rig: MirrorRig, every_s: float = 3600.0) -> Iterator[Mirror]:
    with rig.parts() as parts:
        mirror = Mirror(parts, Rules(), SystemClock(), every_s)
        mirror.open()
        mirror.watch()
        threads = [threading.Thread(target=work) for _, work in mirror.workers()]
        for thread in threads:
            thread.start()
        try:
            assert mirror.compared.wait(20)
            yield mirror
        finally:
            mirror.stop()
            for thread in threads:
                thread.join(20)
                assert not thread.is_alive()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def rig(tmp_path: Path, store: MemoryStore) -> MirrorRig:
    return MirrorRig(tmp_path, store, upload_threads=2)


def test_a_tree_that_appears_is_sent(rig: MirrorRig, store: MemoryStore) -> None:
    """Also files that were made before their directory was watched."""
    made = {f"new/{n}/deep/{n}": b"%d" % n for n in range(20)}
    with running(rig):
        for name, data in made.items():
            rig.write(name, data)
        until(lambda: store.contents() == made)


@pytest.mark.expect_warnings("cannot be watched")
def test_without_watches_passes_find_changes(
    rig: MirrorRig, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(module, "TreeWatch", refuse)
    with running(rig, every_s=0.2):
        rig.write("a", b"a")
        until(lambda: store.contents() == {"a": b"a"})


def test_a_file_changed_again_and_again_is_sent_at_the_deadline(tmp_path: Path, store: MemoryStore) -> None:
    rig = MirrorRig(tmp_path, store, upload_delay_s=0.5, upload_deadline_s=1.5, upload_threads=2)
    with running(rig):
        begun_s, number = time.monotonic(), 0
        while not store.contents():
            assert time.monotonic() - begun_s < 20
            rig.write("a", b"%d" % number)
            number += 1
            time.sleep(0.1)
        assert time.monotonic() - begun_s > 1.0
        until(lambda: store.contents() == {"a": b"%d" % (number - 1)})


@pytest.mark.expect_warnings("parked")
def test_a_refused_file_is_parked_until_it_changes(rig: MirrorRig, store: MemoryStore) -> None:
    def refuse(name: str, key: str) -> None:
        if name == "put":
            raise Refused("not this one")

    store.before = refuse
    with running(rig) as mirror:
        rig.write("a", b"a")
        until(lambda: mirror.queue_view().parked == 1)
        assert not mirror.flush_paths(["a"], 5)
        assert [transfer.reason for transfer in mirror.parked_at(["a"])] == ["not this one"]
        assert mirror.receipts.locate("a").state == "parked"
        store.before = lambda name, key: None
        rig.write("a", b"b")
        until(lambda: store.contents() == {"a": b"b"})
        assert mirror.flush_paths(["a"], 5)
        receipt = mirror.receipts.check(["a"])
        assert (receipt.checked, receipt.differing, receipt.changing) == (1, (), ())
        store.set("a", b"another host's")
        assert [name for name, _ in mirror.receipts.check([]).differing] == ["a"]


@pytest.mark.expect_warnings("tried again")
def test_a_bucket_that_refuses_all_ends_a_flush(rig: MirrorRig, store: MemoryStore) -> None:
    with running(rig) as mirror:
        store.before = lambda name, key: (_ for _ in ()).throw(PermissionRefused("no right"))
        rig.write("a", b"a")
        assert not mirror.flush_paths([], 20)
        assert isinstance(mirror.refusal(), PermissionRefused)
        store.before = lambda name, key: None
        assert mirror.flush_paths([], 20) or mirror.flush_paths([], 20)
        assert store.contents() == {"a": b"a"}


def test_a_stop_leaves_what_does_not_go_in_time(rig: MirrorRig, store: MemoryStore) -> None:
    def silent(name: str, key: str) -> None:
        if name != "list":
            raise Unavailable("no answer")

    with running(rig) as mirror:
        store.before = silent
        rig.write("a", b"a")
        until(lambda: mirror.queue_view().last_error is not None)
        left = mirror.drain(0.5)
    assert (left.files, left.last_error) == (1, "no answer")
    store.before = lambda name, key: None
    rig.run()
    assert store.contents() == {"a": b"a"}
