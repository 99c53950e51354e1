"""What the crash suite found, each at its one bad moment: a kill between two steps, and the next start."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from r2fs.model.records import AttributeChange, Version
from tests.support.engine import Engine, do_at_once
from tests.support.memory_store import MemoryStore


class Killed(BaseException):
    pass


class Killer:
    """Ends the engine at the n'th passing of a point, once armed."""

    def __init__(self) -> None:
        self.name, self.times = "", 0

    def arm(self, name: str, times: int = 1) -> None:
        self.name, self.times = name, times

    def __call__(self, name: str) -> None:
        if name == self.name:
            self.times -= 1
            if self.times == 0:
                raise Killed(name)


class Host:
    """An engine without threads, and the next one on the same directories after a kill."""

    def __init__(self, base: Path, store: MemoryStore) -> None:
        self.base, self.store, self.killer = base, store, Killer()
        self.engine = self.start()

    def start(self, **changes: object) -> Engine:
        settings: dict[str, object] = {"part_size": 256, "multipart_threshold": 600, **changes}
        self.engine = Engine(
            self.base,
            self.store,
            threads=False,
            crash_point=self.killer,
            **settings,  # type: ignore[arg-type]
        )
        do_at_once(self.engine.parts)
        return self.engine

    def again(self) -> Engine:
        self.engine.kill()
        return self.start()

    def task(self) -> Callable[[], None]:
        """The next request, claimed and not yet sent."""
        task = self.engine.take_due()
        assert task is not None
        return task

    def send(self) -> None:
        self.engine.run_due()

    def killed_at(self, point: str, times: int = 1) -> None:
        self.killer.arm(point, times)
        with pytest.raises(Killed):
            self.send()
        self.killer.arm("")


@pytest.fixture
def host(tmp_path: Path, store: MemoryStore) -> Iterator[Host]:
    host = Host(tmp_path, store)
    yield host
    host.engine.kill()


def test_a_directory_that_an_earlier_attempt_made_stays(host: Host, store: MemoryStore):
    """The attempt is known from the journal, and its inode owes nothing any more: it is no late one."""
    host.engine.mkdir("d")
    host.killed_at("sent")
    host.again()
    host.send()  # 412: the marker is there
    host.again()
    host.send()
    assert store.keys() == ["d/"]
    assert host.engine.listdir() == ["d"]


@pytest.mark.parametrize("removed", [False, True])
def test_what_an_upload_left_under_a_name_is_overwritten_by_its_next_owner(
    host: Host, store: MemoryStore, removed: bool
):
    """A file is replaced while it is being sent: its object is neither a conflict nor left behind."""
    store.set("mix.wav", b"before")
    host.engine.write("mix.wav", b"first")
    first = host.task()
    host.engine.write("mix.wav.tmp", b"second")
    host.engine.rename("mix.wav.tmp", "mix.wav")
    with_gates_open(first)
    second = host.task()
    if removed:
        host.engine.unlink("mix.wav")
    second()
    host.send()
    found = {key: store.data(key) for key in [*store.objects]}
    assert found == ({} if removed else {"mix.wav": b"second"})


def with_gates_open(task: Callable[[], None]) -> None:
    """It is sent, as if its gate had been closed just after the last byte was read."""
    with patch("r2fs.disk.body.Gate.closed", False):
        task()


def test_an_upload_that_ends_after_its_file_was_removed_is_removed_whenever_it_is_killed(
    tmp_path: Path,
):
    commits = 0
    while True:
        commits += 1
        store = MemoryStore()
        host = Host(tmp_path / str(commits), store)
        host.engine.write("take.wav", b"gone")
        task = host.task()
        host.engine.unlink("take.wav")
        host.killer.arm("committed", commits)
        try:
            with_gates_open(task)
            killed = False
        except Killed:
            killed = True
        host.killer.arm("")
        host.again()
        host.send()
        assert store.keys() == []
        host.engine.kill()
        if not killed:
            break
    assert commits > 1


@pytest.mark.parametrize("size", [100, 700, 2000])
def test_an_attempts_id_stands_for_its_bytes(host: Host, store: MemoryStore, size: int):
    """Completed, killed before the journal knew, and edited: what is in the bucket is not what is here."""
    host.engine.write("mix.wav", b"1" * 1000)
    host.killed_at("multipart_completed")
    assert store.data("mix.wav") == b"1" * 1000
    host.again()
    host.engine.write("mix.wav", b"2" * size)
    host.send()
    assert store.data("mix.wav") == b"2" * size
    assert host.engine.read("mix.wav") == b"2" * size
    assert store.uploads == {}


def test_parts_that_no_longer_fit_are_given_up(host: Host, store: MemoryStore):
    host.engine.write("mix.wav", b"1" * 1000)
    host.killed_at("part_sent", 2)
    host.again()
    host.engine.write("mix.wav", b"2" * 100)
    host.send()
    assert store.data("mix.wav") == b"2" * 100
    assert store.uploads == {}


@pytest.mark.parametrize("point", ["multipart_begun", "part_sent", "parts_sent", "multipart_completed"])
def test_a_change_of_mode_is_in_the_bucket_though_the_upload_began_before_it(
    host: Host, store: MemoryStore, point: str
):
    """The parts that were there were completed as they had been begun: with the old mode, for good."""
    host.engine.write("run.sh", b"1" * 1000)
    host.killed_at(point)
    node = host.again().entry("run.sh")
    host.engine.fs.setattr(host.engine.caller, node.ino, AttributeChange(mode=0o700))
    host.again()
    host.send()
    assert store.objects["run.sh"].meta.metadata["mode"] == "0100700"
    assert store.uploads == {}


def test_a_kill_while_a_file_gets_into_staging_is_not_said_to_be_somebodys_write(
    host: Host, store: MemoryStore
):
    """The cache's entry was the same file, of which the time had been set: a warning at the next start."""
    do_at_once(host.engine.downloads)
    store.set("take.wav", b"1" * 100)  # what is fetched has another time than the object
    assert host.engine.read("take.wav") == b"1" * 100
    host.engine.stop()  # into the cache
    do_at_once(host.start().downloads)
    real = os.utime

    def killed(*args: Any, **more: Any) -> None:
        real(*args, **more)
        raise Killed

    with patch("os.utime", killed), pytest.raises(Killed):
        host.engine.open("take.wav", os.O_RDWR)
    do_at_once(host.again().downloads)
    assert host.engine.read("take.wav") == b"1" * 100


def test_what_is_renamed_while_it_is_copied_takes_its_cache_entry_along(host: Host, store: MemoryStore):
    """It stayed under the first name, and vouched for a file that was written to by then."""
    host.engine.write("a.wav", b"1" * 100)
    host.send()
    etag, cache = store.objects["a.wav"].etag, host.engine.cache
    host.engine.rename("a.wav", "b.wav")
    copy = host.task()
    host.engine.rename("b.wav", "c.wav")
    with_gates_open(copy)
    assert [name for name in "abc" if cache.contains(Version(f"{name}.wav", etag, 100))] == ["b"]
    host.engine.open("c.wav", os.O_RDWR)
    assert not any(cache.contains(Version(f"{name}.wav", etag, 100)) for name in "abc")


def test_a_change_of_mode_is_shown_after_a_kill(host: Host, store: MemoryStore):
    """The ETag is that of the bytes, and so is what is remembered by it."""
    host.engine.write("run.sh", b"#!/bin/sh\n")
    host.send()
    node = host.engine.entry("run.sh")
    host.engine.fs.setattr(host.engine.caller, node.ino, AttributeChange(mode=0o700))
    host.killed_at("put_committed")
    assert host.again().entry("run.sh").attributes.mode == 0o700


def test_nothing_is_said_of_an_object_that_a_late_attempt_of_ours_made(host: Host, store: MemoryStore):
    """Overwritten, killed while that was on its way, and removed: the row that watches for it does the work."""
    host.engine.write("take.wav", b"first")
    host.send()
    host.engine.write("take.wav", b"second", os.O_WRONLY | os.O_TRUNC)
    host.killed_at("sent")
    engine = host.again()
    host.engine.unlink("take.wav")
    of_the_first, watching = sorted(engine.deletes(), key=lambda row: row.etag is None)
    engine.carry_out_deletes([of_the_first, watching])  # a WARNING would fail this test
    assert store.keys() == []


@pytest.mark.parametrize("point", ["committed", "put_committed", "sent", "delete_looked", "deleted"])
def test_a_directory_without_an_object_of_its_own_stays_whenever_it_is_killed(tmp_path: Path, point: str):
    """Its only file is sent, and removed again: the bucket has one of the two whenever the file was sent."""
    times = 0
    while True:
        times += 1
        store = MemoryStore()
        host = Host(tmp_path / str(times), store)
        host.engine.mkdir("d")
        host.engine.write("d/f", b"take")
        host.killer.arm(point, times)
        removed = False
        try:
            host.send()
            host.engine.unlink("d/f")
            removed = True
            host.send()
        except Killed:
            pass
        survived = host.killer.times > 0
        host.killer.arm("")
        host.again()
        assert host.engine.listdir() == ["d"]
        if removed:
            assert store.keys(), "never without both"
        elif "f" in host.engine.listdir("d"):
            host.engine.unlink("d/f")
        host.send()
        assert store.keys() == ["d/"]
        assert host.engine.tree() == {"d/": None}
        host.engine.kill()
        if survived:
            break
    assert times > 1


@pytest.mark.expect_warnings("two rows of the journal|may be torn|used by another mount")
@pytest.mark.parametrize("nth", range(2, 7))
def test_a_torn_file_whose_name_is_taken_is_not_sent_whenever_it_is_killed(
    host: Host, store: MemoryStore, nth: int
):
    """Its row was committed with the size found before the file was parked, and the next start sent it."""
    for name in ("first", "second"):
        host.engine.write(name, name.encode())
    state_dir = host.engine.journal.state_dir
    torn = next(path for path in host.engine.staged_files() if path.read_bytes() == b"second")
    host.engine.kill()
    torn.write_bytes(b"sec")
    with closing(sqlite3.connect(state_dir / "journal.db")) as journal, journal:
        journal.execute("UPDATE inode SET key = 'first' WHERE key = 'second'")
    host.killer.arm("commit", nth)
    with suppress(Killed):
        host.start().kill()
    host.killer.arm("")
    host.start().run_due()
    assert [stored.data for stored in store.objects.values()] == [b"first"]
