"""What comes from the bucket is what was asked for, and is read whatever room there is for it."""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from r2fs.disk import filecalls
from r2fs.disk.filecalls import BLOCK
from r2fs.engine.content import hydrate, windows
from r2fs.engine.content import streaming as streams
from r2fs.model.errors import NoSpace, ReadFailed, Stale, Unavailable
from r2fs.model.records import Opened
from tests.support.engine import Engine, MakeEngine, do_at_once
from tests.support.memory_store import MemoryDownload, MemoryStore

KIB, MIB = 1 << 10, 1 << 20


# ------------------------------------------------------------------ another version's answer
class Careless(MemoryStore):
    """It does not know If-Match, as some servers and all caches on the way."""

    def get(self, key: str, *, if_match: str | None = None, **named: Any) -> MemoryDownload:
        return super().get(key, **named)


@pytest.fixture
def careless(tmp_path: Path) -> Careless:
    return Careless()


@pytest.mark.parametrize("size", [3 * MIB, 3 * MIB - 1], ids=["as long", "shorter"])
def test_two_versions_are_never_mixed(tmp_path: Path, careless: Careless, size: int) -> None:
    careless.set("long.wav", b"1" * 3 * MIB)
    engine = Engine(tmp_path / "a", careless, small_file=1024, read_ahead=0, freshness_s=3600.0)
    try:
        opened = engine.open("long.wav")
        assert engine.fs.read(engine.caller, opened.handle, 0, 4096) == b"1" * 4096
        version = engine.node("long.wav").base
        careless.set("long.wav", b"2" * size)
        with pytest.raises(Stale):
            engine.fs.read(engine.caller, opened.handle, 2 * MIB, 4096)
        engine.fs.release(opened.handle)
        assert version is not None
        taken = engine.cache.take(version, tmp_path / "taken")
        if taken is not None:  # what came of the first version, and nothing else
            assert taken.present is not None
            with (tmp_path / "taken").open("rb") as file:
                for start, stop in taken.present:
                    file.seek(start)
                    assert file.read(stop - start) == b"1" * (stop - start)
    finally:
        engine.stop()


def test_a_small_file_of_another_version_is_not_cached(tmp_path: Path, careless: Careless) -> None:
    careless.set("a.wav", b"1" * 5000)
    engine = Engine(tmp_path / "a", careless, freshness_s=3600.0)
    try:
        engine.listdir()
        careless.set("a.wav", b"2" * 5000)
        with pytest.raises(Stale):
            engine.read("a.wav")
        assert engine.fs.cache_view().bytes == 0
    finally:
        engine.stop()


# ------------------------------------------------------------------ bytes that are not the object's
class Damaging(MemoryStore):
    """The first `wrong` answers have one byte changed on the way."""

    wrong = 0

    def get(self, key: str, **named: Any) -> MemoryDownload:
        download = super().get(key, **named)
        if self.wrong:
            self.wrong -= 1
            download.data = bytes([download.data[0] ^ 1]) + download.data[1:]
        return download


@pytest.fixture
def damaging() -> Damaging:
    return Damaging()


@pytest.mark.expect_warnings
def test_wrong_bytes_are_fetched_again(
    tmp_path: Path, damaging: Damaging, caplog: pytest.LogCaptureFixture
) -> None:
    data = os.urandom(300_000)
    damaging.set("a.wav", data)
    damaging.wrong = 1
    engine = Engine(tmp_path / "a", damaging)
    try:
        assert engine.read("a.wav") == data
        assert damaging.count("get") == 2
        assert "MD5" in caplog.text
        assert not engine.fs.damaged_view()
    finally:
        engine.stop()


@pytest.mark.expect_warnings
def test_wrong_bytes_are_an_error_and_are_not_kept(
    tmp_path: Path, damaging: Damaging, caplog: pytest.LogCaptureFixture
) -> None:
    data = os.urandom(300_000)
    damaging.set("a.wav", data)
    damaging.wrong = 1000
    engine = Engine(tmp_path / "a", damaging)
    try:
        with pytest.raises(ReadFailed, match=r"a\.wav: .* MD5"):
            engine.read("a.wav")
        assert damaging.count("get") == 2, "not asked for again and again"
        assert engine.fs.cache_view().entries == 0
        (told,) = engine.fs.damaged_view()
        assert told.startswith("a.wav: ")
        assert "could not be read" in caplog.text
        damaging.wrong = 0
        assert engine.read("a.wav") == data
        assert not engine.fs.damaged_view()
    finally:
        engine.stop()


def test_an_answer_that_is_cut_is_compared_as_a_whole(tmp_path: Path, store: MemoryStore) -> None:
    from tests.support.faulty import FaultyStore

    data = os.urandom(300_000)
    store.set("a.wav", data)
    engine = Engine(tmp_path / "a", FaultyStore(store, "c.", only=["get"]))
    try:
        assert engine.read("a.wav") == data
        assert store.count("get") == 2
    finally:
        engine.stop()


def test_an_etag_that_is_no_md5_is_not_compared(make: MakeEngine, store: MemoryStore) -> None:
    """Of parts, or where the bucket encrypts by a key of its own: the store says so by leaving `md5` out."""
    data = os.urandom(300_000)
    store.set("a.wav", data)
    store.objects["a.wav"].etag = "9" * 32 + "-2"
    assert make().read("a.wav") == data


# ------------------------------------------------------------------ more than there is room for
@pytest.fixture
def in_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sizes an eighth."""
    for name in ("FIRST", "LEAST", "MEMORY", "IN_MEMORY"):
        monkeypatch.setattr(streams, name, getattr(streams, name) // 8)
    monkeypatch.setattr(hydrate, "PIECE", hydrate.PIECE // 8)
    for name in ("FIRST", "PIECE", "SECOND"):
        monkeypatch.setattr(windows, name, getattr(windows, name) // 8)


def on_disk(engine: Engine) -> int:
    """Bytes that the cache and what is open occupy, each file once however many names it has."""
    found = {}
    for base in (engine.settings.cache_dir / "content", engine.core.staging.open_dir):
        for folder, _, names in os.walk(base):
            for name in names:
                try:
                    stat = os.stat(os.path.join(folder, name))
                except FileNotFoundError:
                    continue
                if stat.st_size >= 4096 and not name.startswith("cache.db"):
                    found[stat.st_ino] = stat.st_blocks * BLOCK
    return sum(found.values())


def pattern(size: int) -> bytes:
    return b"".join(at.to_bytes(8, "big") for at in range(0, size, 8))


def test_an_object_larger_than_the_cache_is_read_from_end_to_end(
    make: MakeEngine, store: MemoryStore, in_small: None
) -> None:
    data = pattern(6144 * KIB)
    store.set("long.wav", data)
    engine = make(cache_size=2048 * KIB, small_file=128 * KIB)
    opened = engine.open("long.wav")
    most = 0
    for at in range(0, len(data), 64 * KIB):
        assert engine.fs.read(engine.caller, opened.handle, at, 64 * KIB) == data[at : at + 64 * KIB]
        most = max(most, on_disk(engine))
    assert most <= 2048 * KIB
    assert engine.fs.read(engine.caller, opened.handle, 0, 4096) == data[:4096], "its beginning comes again"
    again = engine.open("long.wav")
    assert again.local is None, "who gets the file itself would read holes"
    engine.close(again)
    engine.close(opened)
    assert engine.fs.cache_view().bytes <= 2048 * KIB
    assert store.count("get") < 100


def test_open_files_together_keep_to_the_limit(make: MakeEngine, store: MemoryStore, in_small: None) -> None:
    datas = {f"{n}.wav": pattern(1536 * KIB) for n in range(4)}
    for name, data in datas.items():
        store.set(name, data)
    engine = make(cache_size=3072 * KIB, small_file=128 * KIB)
    opened = {name: engine.open(name) for name in datas}
    for at in range(0, 1536 * KIB, 128 * KIB):
        for name, data in datas.items():
            assert (
                engine.fs.read(engine.caller, opened[name].handle, at, 128 * KIB) == data[at : at + 128 * KIB]
            )
    # what streams may have its least besides
    assert on_disk(engine) <= 3072 * KIB + 4 * 512 * KIB
    for each in opened.values():
        engine.close(each)
    assert engine.fs.cache_view().bytes <= 3072 * KIB


def test_what_streams_is_whole_once_it_is_written(
    make: MakeEngine, store: MemoryStore, in_small: None
) -> None:
    data = pattern(3072 * KIB)
    store.set("long.wav", data)
    engine = make(cache_size=1024 * KIB, small_file=128 * KIB)
    reader = engine.open("long.wav")
    for at in range(0, 2048 * KIB, 128 * KIB):
        engine.fs.read(engine.caller, reader.handle, at, 128 * KIB)
    engine.write("long.wav", b"TAG", os.O_RDWR, at=100)
    engine.close(reader)
    engine.drain()
    want = data[:100] + b"TAG" + data[103:]
    assert store.data("long.wav") == want
    assert engine.read("long.wav") == want


class SmallDisk:
    """Files of one engine take at most `room` bytes of it; what is in memory counts for nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self.engine: Engine | None = None
        self._write = filecalls.write
        self._lock = threading.Lock()
        monkeypatch.setattr(filecalls, "write", self.write)
        monkeypatch.setattr(filecalls, "claim_blocks", self.claim)

    def write(self, fd: int, data: Any, offset: int, path: Path) -> int:
        with self._lock:
            on_a_disk = os.fstat(fd).st_nlink > 0
            if self.engine is not None and on_a_disk and on_disk(self.engine) + len(data) > self.room:
                raise NoSpace(f"{path}: no space left on device")
            return self._write(fd, data, offset, path)

    def claim(self, fd: int, length: int, offset: int = 0) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> SmallDisk:
    return SmallDisk(monkeypatch, 0)


@pytest.mark.expect_warnings
def test_a_file_larger_than_the_disk_is_read_from_end_to_end(
    make: MakeEngine, store: MemoryStore, small_disk: SmallDisk, in_small: None
) -> None:
    data = pattern(5120 * KIB)
    store.set("long.wav", data)
    engine = make(small_file=128 * KIB, read_ahead=1024 * KIB)
    small_disk.engine, small_disk.room = engine, 1536 * KIB
    opened = engine.open("long.wav")
    for at in range(0, len(data), 128 * KIB):
        assert engine.fs.read(engine.caller, opened.handle, at, 128 * KIB) == data[at : at + 128 * KIB]
    engine.close(opened)


@pytest.mark.expect_warnings
def test_on_a_full_disk_small_files_are_read_in_memory(
    make: MakeEngine, store: MemoryStore, small_disk: SmallDisk, in_small: None
) -> None:
    datas = {f"{n}.wav": os.urandom(90_000) for n in range(3)}
    for name, data in datas.items():
        store.set(name, data)
    engine = make()
    small_disk.engine, small_disk.room = engine, 20_000
    for name, data in datas.items():
        assert engine.read(name) == data
    assert not engine.in_memory(), "given back with the last close"
    small_disk.room = 1 << 40
    assert engine.read("0.wav") == datas["0.wav"]
    assert engine.fs.cache_view().entries == 1, "kept again as soon as there is room"


@pytest.mark.expect_warnings
def test_on_a_full_disk_a_large_file_is_read_in_bounded_memory(
    make: MakeEngine, store: MemoryStore, small_disk: SmallDisk, in_small: None
) -> None:
    data = pattern(5120 * KIB)
    store.set("long.wav", data)
    engine = make(small_file=128 * KIB)
    small_disk.engine, small_disk.room = engine, 0
    opened = engine.open("long.wav")
    content = engine.node("long.wav").content
    assert content is not None
    for at in range(0, len(data), 128 * KIB):
        assert engine.fs.read(engine.caller, opened.handle, at, 128 * KIB) == data[at : at + 128 * KIB]
        assert content.allocated() <= 3072 * KIB
    assert content.in_memory
    engine.close(opened)


def test_two_downloads_of_a_file_meet_the_full_disk_at_once(
    make: MakeEngine, store: MemoryStore, small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second found the file in memory already, and failed the read."""
    data = pattern(5120 * KIB)
    store.set("long.wav", data)
    engine = make(small_file=128 * KIB)
    small_disk.engine, small_disk.room = engine, 0
    both, plain = threading.Barrier(2), streams.Streams.give_way
    calls = iter(range(2))

    def give_way(self: streams.Streams, source: Any, at: int, size: int) -> bool:
        gave = plain(self, source, at, size)
        if next(calls, None) is not None:
            both.wait(20)
        return gave

    monkeypatch.setattr(streams.Streams, "give_way", give_way)
    opened = engine.open("long.wav")
    assert engine.fs.read(engine.caller, opened.handle, 0, 128 * KIB) == data[: 128 * KIB]
    assert next(calls, None) is None, "the begin and the end are downloaded at once"
    engine.close(opened)


@pytest.mark.expect_warnings
def test_what_is_read_in_memory_can_be_written_when_there_is_room(
    make: MakeEngine, store: MemoryStore, small_disk: SmallDisk, in_small: None
) -> None:
    data = os.urandom(90_000)
    store.set("a.wav", data)
    engine = make()
    small_disk.engine, small_disk.room = engine, 20_000
    reader = engine.open("a.wav")
    assert engine.fs.read(engine.caller, reader.handle, 0, 1000) == data[:1000]
    small_disk.room = 1 << 40
    engine.write("a.wav", b"TAG", os.O_RDWR, at=10)
    assert engine.fs.read(engine.caller, reader.handle, 0, 1000) == data[:10] + b"TAG" + data[13:1000]
    engine.close(reader)
    engine.drain()
    assert store.data("a.wav") == data[:10] + b"TAG" + data[13:]


@pytest.mark.parametrize("late", ["to_memory", "give_way"])
def test_what_is_opened_for_writing_while_a_full_disk_is_met_stays_on_it(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, in_small: None, late: str
) -> None:
    data = pattern(3072 * KIB)
    store.set("long.wav", data)
    engine = make(cache_size=1024 * KIB, small_file=128 * KIB)
    reader, writers = engine.open("long.wav"), list[Opened]()
    for at in range(0, 2048 * KIB, 128 * KIB):
        engine.fs.read(engine.caller, reader.handle, at, 128 * KIB)
    one, (source,) = engine.streams, engine.open_downloads()
    assert source.content.streams

    def open_to_write() -> None:
        if not writers:  # somebody else, between the question and what follows from it
            writers.append(engine.open("long.wav", os.O_RDWR))

    engine.on_streamed(open_to_write)
    if late == "give_way":
        one.give_way(source, 0, 128 * KIB)
    with suppress(NoSpace):
        one.to_memory(source, 0)
    assert not source.content.in_memory
    engine.fs.write(engine.caller, writers[0].handle, 100, b"TAG")
    for opened in (reader, *writers):
        engine.close(opened)
    engine.drain()
    assert store.data("long.wav") == data[:100] + b"TAG" + data[103:]


def test_a_fetch_that_comes_after_the_last_close_takes_no_room(
    make: MakeEngine, store: MemoryStore, in_small: None
) -> None:
    store.set("long.wav", pattern(3072 * KIB))
    engine = make(cache_size=8192 * KIB, small_file=128 * KIB)
    reader = engine.open("long.wav")
    engine.fs.read(engine.caller, reader.handle, 0, 128 * KIB)
    one, (source,) = engine.streams, engine.open_downloads()
    engine.close(reader)
    assert not one.give_way(source, 0, 128 * KIB)
    with pytest.raises(ValueError, match="is closed"):
        one.to_memory(source, 0)
    assert engine.reserved() == {} and source.content.release(0, 128 * KIB) == 0


def test_memory_is_shared_by_who_reads(
    make: MakeEngine, store: MemoryStore, small_disk: SmallDisk, in_small: None
) -> None:
    for n in range(8):
        store.set(f"{n}.wav", pattern(2048 * KIB))
    engine = make(small_file=128 * KIB)
    small_disk.engine, small_disk.room = engine, 0
    opened = [engine.open(f"{n}.wav") for n in range(8)]
    nodes = [engine.node(f"{n}.wav") for n in range(8)]
    for one in opened:
        for at in range(0, 2048 * KIB, 128 * KIB):
            assert engine.fs.read(engine.caller, one.handle, at, 8) == at.to_bytes(8, "big")
    # Of 16 MiB. A read ahead may have a piece on its way that is not given back yet.
    assert sum(node.content.allocated() for node in nodes if node.content) <= (10240 + 1024) * KIB
    for one in opened:
        engine.close(one)


# ------------------------------------------------------------------ an outage
def test_a_read_waits_for_the_bucket_as_long_as_promised(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hydrate, "RESEND_S", 0.02)
    store.set("a.wav", b"data")
    left = [5]

    def away(name: str, key: str) -> None:
        if name == "get" and left[0]:
            left[0] -= 1
            raise Unavailable(f"{key}: no answer")

    store.before = away
    assert make().read("a.wav") == b"data"


def test_then_it_is_an_error_that_says_why(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hydrate, "RESEND_S", 0.02)
    store.set("a.wav", b"data")

    def away(name: str, key: str) -> None:
        if name == "get":
            raise Unavailable(f"{key}: the line is cut")

    store.before = away
    engine = make(read_timeout_s=0.2)
    with pytest.raises(ReadFailed, match=r"within 0\.2 s: .*the line is cut"):
        engine.read("a.wav")


# ------------------------------------------------------------------ its time to live
def test_what_is_past_its_time_to_live_is_soon_gone(make: MakeEngine, store: MemoryStore) -> None:
    store.set("a.wav", os.urandom(50_000))
    engine = make(cache_ttl_s=0.5)
    engine.read("a.wav")
    view = engine.fs.cache_view()
    assert (view.entries, view.bytes > 0) == (1, True), "what is open still, in case, counts as an entry"
    assert on_disk(engine) > 0
    deadline = time.monotonic() + 5
    while on_disk(engine):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert engine.fs.cache_view().entries == 0


@pytest.mark.expect_warnings
def test_a_lost_version_is_named_also_when_no_time_is_left(
    make: MakeEngine, store: MemoryStore, large: bytes
) -> None:
    """The upload of an edit would take "not fetched in time" for an outage, and try again for ever."""
    engine = make(threads=False, read_timeout_s=0.0, small_file=0)
    do_at_once(engine.downloads)
    opened = engine.open("large.wav")
    store.set("large.wav", b"another version")
    with pytest.raises(Stale):
        engine.fs.read(engine.caller, opened.handle, 0, 4096)
