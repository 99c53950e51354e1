"""The engine by its verbs, on a bucket in memory: what programs see, and what the bucket gets."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from r2fs.disk import filecalls
from r2fs.disk.sparse_file import SparseFile
from r2fs.model.errors import DirectoryNotEmpty, Exists, NotFound, Stale
from r2fs.model.ports import NoKernelCache
from r2fs.model.records import AttributeChange, Version
from tests.mount.daemons import until
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore


def test_what_is_written_is_read_and_arrives(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    engine.mkdir("takes")
    engine.write("takes/01.wav", b"RIFF" * 1000)
    assert engine.read("takes/01.wav") == b"RIFF" * 1000
    engine.drain()
    assert list(store.contents()) == ["takes/01.wav"]
    assert store.data("takes/01.wav") == b"RIFF" * 1000
    assert store.head("takes/01.wav").content_type == "audio/wav"
    assert engine.read("takes/01.wav") == b"RIFF" * 1000
    assert engine.listdir() == ["takes"]


def test_a_new_file_is_as_old_as_its_name(make: MakeEngine, store: MemoryStore) -> None:
    """And not as the file in staging that was made ahead of need."""
    engine = make()
    os.utime(engine.make_spare(), (1, 1))
    engine.close(engine.open("empty", os.O_WRONLY | os.O_CREAT))
    assert engine.entry("empty").attributes.mtime_ns > 1_000_000_000


def test_a_foreign_object_is_read_once_and_then_from_the_cache(make: MakeEngine, store: MemoryStore) -> None:
    store.set("a/b/c.flac", b"x" * 100_000)
    engine = make()
    assert engine.read("a/b/c.flac") == b"x" * 100_000
    assert engine.read("a/b/c.flac") == b"x" * 100_000
    assert store.count("get") == 1
    assert engine.fs.cache_view().hits >= 1


class SharedPages(NoKernelCache):
    shares_pages = True


@pytest.mark.parametrize(("kernel", "largest"), [(NoKernelCache(), 64 << 10), (SharedPages(), 512 << 10)])
def test_large_pieces_are_for_files_that_the_kernel_reads_by_itself(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, kernel: NoKernelCache, largest: int
) -> None:
    pieces: list[int] = []
    fill = SparseFile.fill

    def watched(content: SparseFile, at: int, data: bytes) -> None:
        pieces.append(len(data))
        fill(content, at, data)

    monkeypatch.setattr(SparseFile, "fill", watched)
    data = os.urandom(1 << 16) * 320  # 20 MiB
    store.set("long.wav", data)
    engine = make(small_file=len(data))
    engine.fs.set_kernel_cache(kernel)
    assert engine.read("long.wav") == data
    assert sum(pieces) == len(data)
    assert max(pieces) == largest


def test_an_edit_in_place_keeps_the_rest(make: MakeEngine, store: MemoryStore) -> None:
    store.set("song.mp3", bytes(range(256)) * 40_000)
    engine = make(small_file=1 << 16)
    engine.write("song.mp3", b"TAG", os.O_RDWR, at=5_000_000)
    engine.drain()
    want = bytearray(bytes(range(256)) * 40_000)
    want[5_000_000:5_000_003] = b"TAG"
    assert store.data("song.mp3") == bytes(want)
    assert engine.read("song.mp3") == bytes(want)


def test_unlinked_while_its_rest_is_fetched(make: MakeEngine, store: MemoryStore) -> None:
    """Who fetches has nobody to fetch for any more, which is no defect: nothing is logged."""
    store.set("long.wav", bytes(1 << 20))
    engine, asked, go_on = make(small_file=1 << 10), threading.Event(), threading.Event()

    def wait(name: str, key: str) -> None:
        if name == "get":
            asked.set()
            assert go_on.wait(30)

    store.before = wait
    opened = engine.open("long.wav", os.O_RDWR)
    assert asked.wait(30)
    engine.unlink("long.wav")
    engine.close(opened)
    go_on.set()
    engine.drain()
    engine.stop()
    assert store.keys() == []


def test_nobody_fills_what_is_entered_into_the_cache(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fill changes the file's time and sets it back: the entry would vouch for what it saw between."""
    data = os.urandom(4 << 20)
    store.set("long.dat", data)  # of no media file the end is fetched as well
    engine, written, go_on = make(small_file=1 << 10), threading.Event(), threading.Event()
    opened = engine.open("long.dat")
    assert engine.fs.read(engine.caller, opened.handle, 0, 4096) == data[:4096]
    until("the GET has ended", lambda: not any(source.coming for source in engine.open_downloads()))
    node = engine.node("long.dat")
    content, cache = node.content, engine.cache
    assert content is not None
    admit, write = cache.admit, filecalls.write

    def half_way(*given: Any) -> int:
        done = write(*given)
        if threading.current_thread() is filling:
            written.set()
            assert go_on.wait(30)
        return done

    def fill() -> None:
        with suppress(ValueError):  # closed
            content.fill(3 << 20, data[3 << 20 :])
        written.set()

    def while_somebody_fills(*given: Any, **named: Any) -> bool:
        filling.start()
        assert written.wait(30)
        admitted = admit(*given, **named)
        go_on.set()
        filling.join()
        return admitted

    filling = threading.Thread(target=fill)
    monkeypatch.setattr(cache, "admit", while_somebody_fills)
    monkeypatch.setattr(filecalls, "write", half_way)
    engine.close(opened)
    assert not filling.is_alive()
    monkeypatch.undo()
    gets = store.count("get")
    opened = engine.open("long.dat")
    assert engine.fs.read(engine.caller, opened.handle, 0, 4096) == data[:4096]
    engine.close(opened)
    assert store.count("get") == gets
    assert not [record for record in caplog.records if record.levelname not in ("DEBUG", "INFO")]


def test_opened_for_writing_and_not_written_costs_nothing(make: MakeEngine, store: MemoryStore) -> None:
    store.set("song.mp3", b"abc")
    engine = make()
    engine.close(engine.open("song.mp3", os.O_RDWR))
    engine.drain()
    assert store.count("put") == 0
    assert engine.read("song.mp3") == b"abc"


class MeanwhileStore(MemoryStore):
    """`meanwhile(key)` runs when a PUT or a copy is carried out and its answer on the way."""

    meanwhile: Callable[[str], None] = staticmethod(lambda key: None)

    def put(self, key: str, *args: Any, **more: Any) -> str:
        etag = super().put(key, *args, **more)
        self.meanwhile(key)
        return etag

    def copy(self, source: Version, key: str, **more: Any) -> str:
        etag = super().copy(source, key, **more)
        self.meanwhile(key)
        return etag


@pytest.mark.parametrize("leaves", ["unlink", "rename"])
def test_a_name_that_is_taken_again_while_its_last_upload_ends_is_no_conflict(
    tmp_path: Path, leaves: str
) -> None:
    """As git has it: a file is replaced, removed and written once more within a second."""
    store = MeanwhileStore()
    store.set("long.wav", b"first")
    engine = Engine(tmp_path, store, freshness_s=3600.0)
    replaced: list[str] = []

    def replace_it(key: str) -> None:
        if key == "long.wav" and not replaced:  # `cut.wav` may have been sent before it was renamed
            replaced.append(key)
            engine.unlink("long.wav") if leaves == "unlink" else engine.rename("long.wav", "other.wav")
            engine.write("long.wav", b"third")

    store.meanwhile = replace_it
    engine.write("cut.wav", b"second")
    engine.rename("cut.wav", "long.wav")
    engine.drain()
    want = {"long.wav": b"third"} | ({"other.wav": b"second"} if leaves == "rename" else {})
    assert engine.tree() == want
    assert store.keys() == sorted(want)
    assert all(store.data(key) == data for key, data in want.items())
    engine.stop()


@pytest.mark.parametrize("sent", ["the bytes", "a copy"])
@pytest.mark.parametrize("change", ["times", "mode", "name"])
def test_what_changes_beside_the_bytes_of_a_file_that_is_open_while_it_is_sent(
    tmp_path: Path, sent: str, change: str
) -> None:
    """touch(1) opens a file for writing, sets its times and closes it: nothing was written, but something owed."""
    store = MeanwhileStore()
    store.set("f.wav", b"bytes")
    engine = Engine(tmp_path, store, freshness_s=3600.0)
    requests: list[str] = []

    def touch(key: str) -> None:
        requests.append(key)
        if len(requests) > 1:
            return
        opened = engine.open("f.wav", os.O_WRONLY)
        if change == "name":
            engine.rename("f.wav", "g.wav")
        else:
            what = AttributeChange(mtime_ns=10**18) if change == "times" else AttributeChange(mode=0o600)
            engine.fs.setattr(engine.caller, engine.entry("f.wav").ino, what, opened.handle)
        engine.close(opened)

    if sent == "the bytes":
        engine.write("f.wav", b"other")
    engine.drain()
    store.meanwhile = touch
    if sent == "the bytes":
        engine.write("f.wav", b"again")
    else:
        engine.fs.setattr(engine.caller, engine.entry("f.wav").ino, AttributeChange(mode=0o640))
    engine.drain()
    name = "g.wav" if change == "name" else "f.wav"
    assert store.keys() == [name]
    assert store.data(name) == (b"again" if sent == "the bytes" else b"bytes")
    metadata = store.head(name).metadata or {}
    if change == "times":
        assert metadata["mtime"].startswith("1000000000.")
    if change == "mode":
        assert int(metadata["mode"], 8) & 0o777 == 0o600
    assert len(requests) == 2, requests
    assert store.count("put") == (2 if sent == "the bytes" else 0), "what is only named anew is copied"
    engine.stop()


def test_attributes_of_a_directory_that_change_while_it_is_uploaded(tmp_path: Path) -> None:
    """Its object has no bytes that could be copied, and who removes it takes no child away."""
    store = MeanwhileStore()
    engine = Engine(tmp_path, store)
    puts: list[str] = []

    def change(key: str) -> None:
        puts.append(key)
        if puts == ["d/"]:
            engine.fs.setattr(engine.caller, engine.entry("d").ino, AttributeChange(mode=0o700))
            store.remove("d/")

    store.meanwhile = change
    engine.mkdir("d")
    engine.drain()
    assert puts == ["d/", "d/"]
    assert store.count("copy") == 0
    assert engine.entry("d").attributes.mode == 0o700
    assert engine.tree() == {"d/": None}
    engine.stop()


def test_the_atomic_save_is_one_put(make: MakeEngine, store: MemoryStore) -> None:
    store.set("mix.wav", b"old")
    engine = make(upload_delay_s=5.0)
    engine.write("mix.wav.tmp", b"new")
    engine.rename("mix.wav.tmp", "mix.wav")
    assert engine.read("mix.wav") == b"new"
    engine.drain()
    assert store.keys() == ["mix.wav"]
    assert store.data("mix.wav") == b"new"
    assert store.count("put") == 1
    assert store.count("delete") == 0


def test_a_rename_in_the_bucket_is_a_copy(make: MakeEngine, store: MemoryStore) -> None:
    store.set("a.wav", b"abc", mtime="1000000000.5")
    engine = make()
    engine.rename("a.wav", "b.wav")
    assert engine.listdir() == ["b.wav"]
    assert engine.read("b.wav") == b"abc"
    engine.drain()
    assert store.keys() == ["b.wav"]
    assert store.count("put") == 0
    assert store.head("b.wav").metadata["mtime"] == "1000000000.500000000"  # type: ignore[index]


def test_two_files_swap_names(make: MakeEngine, store: MemoryStore) -> None:
    store.set("a", b"was a")
    store.set("b", b"was b")
    engine = make(upload_delay_s=1.0)
    engine.rename("a", "t")
    engine.rename("b", "a")
    engine.rename("t", "b")
    engine.drain()
    assert engine.tree() == {"a": b"was b", "b": b"was a"}
    assert (store.data("a"), store.data("b")) == (b"was b", b"was a")
    assert store.keys() == ["a", "b"]


def test_a_directory_rename_takes_everything_along(make: MakeEngine, store: MemoryStore) -> None:
    for n in range(5):
        store.set(f"old/deep/{n}.wav", str(n).encode())
    engine = make()
    engine.write("old/new.wav", b"fresh")
    engine.rename("old", "new")
    assert engine.listdir("new") == ["deep", "new.wav"]
    assert engine.read("new/deep/3.wav") == b"3"
    engine.drain()
    assert store.keys() == ["new/deep/0.wav", "new/deep/1.wav", "new/deep/2.wav", "new/deep/3.wav", "new/deep/4.wav",
                            "new/new.wav"]  # fmt: skip
    assert engine.listdir() == ["new"]


def test_unlink_and_rmdir(make: MakeEngine, store: MemoryStore) -> None:
    store.set("d/a", b"1")
    engine = make()
    with pytest.raises(DirectoryNotEmpty):
        engine.rmdir("d")
    engine.unlink("d/a")
    with pytest.raises(NotFound):
        engine.entry("d/a")
    assert engine.listdir("d") == []
    engine.drain()
    assert store.keys() == ["d/"]
    engine.rmdir("d")
    assert engine.listdir() == []
    engine.drain()
    assert store.keys() == []


def test_many_deletes_go_in_one_request(make: MakeEngine, store: MemoryStore) -> None:
    for n in range(500):
        store.set(f"d/{n:03}.wav", b"x")
    engine = make(upload_delay_s=60.0)
    for name in engine.listdir("d"):
        engine.unlink(f"d/{name}")
    engine.rmdir("d")
    assert engine.listdir() == []
    lists = store.count("list")
    engine.drain()
    assert store.keys() == []
    assert store.count("delete_many") == 1
    assert store.count("head") == 0
    assert store.count("list") - lists <= 2


def test_a_delete_that_looks_by_head_follows_its_own_head_at_once(
    make: MakeEngine, store: MemoryStore
) -> None:
    """All were looked at first: another host's write to the first was lost while the last was looked at."""
    names = [f"ü{n}.wav" for n in range(5)]
    for name in names:
        store.set(name, b"old")
    engine = make(upload_delay_s=60.0)
    for name in names:
        engine.unlink(name)
    looked: list[str] = []

    def another_host_writes(call: str, key: str) -> None:
        if call == "head":
            for name in looked:
                store.set(name, b"another host's")
            looked.append(key)

    store.before = another_host_writes
    engine.drain()
    store.before = lambda call, key: None
    assert len(looked) == len(names)
    assert store.keys() == sorted(looked[:-1])
    assert {store.data(key) for key in looked[:-1]} == {b"another host's"}


def test_a_crash_after_close_loses_nothing(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(upload_delay_s=60.0)
    engine.write("take.wav", b"never lose me")
    engine.mkdir("d")
    engine.write("d/x", b"nor me")
    engine.kill()
    again = make()
    assert again.tree() == {"take.wav": b"never lose me", "d/": None, "d/x": b"nor me"}
    again.drain()
    assert store.keys() == ["d/", "d/x", "take.wav"]


def test_a_crash_while_writing_into_a_partial_file(make: MakeEngine, store: MemoryStore) -> None:
    base = os.urandom(20 << 20)
    store.set("big.wav", base)
    engine = make(threads=True, small_file=1 << 16, upload_delay_s=60.0)
    opened = engine.open("big.wav", os.O_RDWR)
    engine.fs.write(engine.caller, opened.handle, 15 << 20, b"mine")
    engine.kill()
    again = make()
    want = bytearray(base)
    want[15 << 20 : (15 << 20) + 4] = b"mine"
    again.drain()
    assert store.data("big.wav") == bytes(want)
    assert again.read("big.wav") == bytes(want)


@pytest.mark.expect_warnings
def test_two_hosts_write_one_name_and_both_stay(make: MakeEngine, store: MemoryStore) -> None:
    one, two = make("one", host="anna"), make("two", host="bert")
    mine = {engine: engine.open("take.wav", os.O_WRONLY | os.O_CREAT) for engine in (one, two)}
    for engine, data in ((one, b"anna's"), (two, b"bert's")):
        engine.fs.write(engine.caller, mine[engine].handle, 0, data)
        engine.close(mine[engine])
    one.drain()
    two.drain()
    assert sorted(stored.data for stored in store.objects.values()) == [b"anna's", b"bert's"]
    names = one.listdir()
    assert len(names) == 2
    assert "take.wav" in names
    conflicts = one.fs.queue_view().conflicts
    assert len(conflicts) == 1
    assert "conflict of" in conflicts[0]


def test_a_remote_change_is_another_file_and_an_open_one_stays(make: MakeEngine, store: MemoryStore) -> None:
    store.set("f", b"first version")
    engine = make()
    opened = engine.open("f")
    store.set("f", b"second")
    assert engine.read("f") == b"second"
    assert engine.fs.read(engine.caller, opened.handle, 0, 100) == b"first version"
    engine.close(opened)


def test_a_version_that_is_gone_is_stale_not_mixed(make: MakeEngine, store: MemoryStore) -> None:
    store.set("f", b"1" * 30_000_000)
    engine = make(small_file=1 << 16, read_ahead=1 << 20)
    opened = engine.open("f")
    assert engine.fs.read(engine.caller, opened.handle, 0, 10) == b"1" * 10
    store.set("f", b"2" * 30_000_000)
    with pytest.raises(Stale):
        engine.fs.read(engine.caller, opened.handle, 25_000_000, 10)


def test_an_unlinked_open_file_goes_on(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    opened = engine.open("f", os.O_RDWR | os.O_CREAT)
    engine.fs.write(engine.caller, opened.handle, 0, b"hello")
    engine.unlink("f")
    engine.fs.write(engine.caller, opened.handle, 5, b" world")
    assert engine.fs.read(engine.caller, opened.handle, 0, 20) == b"hello world"
    engine.close(opened)
    engine.drain()
    assert store.keys() == []


def test_exclusive_create(make: MakeEngine, store: MemoryStore) -> None:
    store.set("f", b"1")
    engine = make()
    with pytest.raises(Exists):
        engine.open("f", os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def test_large_files_go_in_equal_parts(make: MakeEngine, store: MemoryStore) -> None:
    engine = make(multipart_threshold=1 << 20, part_size=1 << 19)
    data = os.urandom((3 << 20) + 12345)
    engine.write("big.wav", data)
    engine.drain()
    assert store.data("big.wav") == data
    assert store.count("put_part") == 7
    assert store.head("big.wav").etag.endswith("-7")


def test_metadata_alone_is_a_copy_onto_itself(make: MakeEngine, store: MemoryStore) -> None:
    store.set("f.wav", b"abc", artist="x")
    engine = make()
    engine.fs.setattr(
        engine.caller, engine.entry("f.wav").ino, AttributeChange(mode=0o640, mtime_ns=5 * 10**9)
    )
    engine.drain()
    info = store.head("f.wav")
    assert info.metadata is not None
    assert info.metadata["mode"] == "0100640"
    assert info.metadata["mtime"] == "5.000000000"
    assert info.metadata["artist"] == "x"
    assert store.data("f.wav") == b"abc"
    assert store.count("put") == 0
    assert engine.entry("f.wav").attributes.mtime_ns == 5 * 10**9


def test_truncate_by_path(make: MakeEngine, store: MemoryStore) -> None:
    store.set("f", b"0123456789")
    engine = make()
    engine.truncate("f", 4)
    assert engine.read("f") == b"0123"
    engine.truncate("f", 6)
    assert engine.read("f") == b"0123\0\0"
    engine.drain()
    assert store.data("f") == b"0123\0\0"


def test_files_that_only_this_host_needs_stay_here(make: MakeEngine, store: MemoryStore) -> None:
    engine = make()
    engine.write("song.db", b"rows")
    engine.write("song.db-wal", b"log")
    engine.drain()
    assert store.keys() == ["song.db"]
    engine.stop()
    again = make()
    assert again.read("song.db-wal") == b"log"
    again.rename("song.db-wal", "song.log")
    again.drain()
    assert store.keys() == ["song.db", "song.log"]
    again.write("x-journal", b"1")
    again.unlink("x-journal")
    again.drain()
    assert store.keys() == ["song.db", "song.log"]


def test_a_directory_that_went_is_not_shown_by_a_listing_from_before(
    make: MakeEngine, store: MemoryStore
) -> None:
    engine = make()
    engine.mkdir("d")
    engine.write("d/f", b"1")
    engine.drain()
    for _ in range(20):  # the delete runs while the directory is listed
        engine.unlink("d/f")
        engine.rmdir("d")
        assert engine.listdir() == []
        engine.mkdir("d")
        engine.write("d/f", b"1")
    engine.drain()
    assert list(store.contents()) == ["d/f"]


def test_times_of_another_tool_as_listed_or_exact(make: MakeEngine, store: MemoryStore) -> None:
    store.set("f.wav", b"abc", mtime="1000000000.25")
    listed, exact = make("listed"), make("exact", mtime="exact")
    assert listed.entry("f.wav").attributes.mtime_ns == store.head("f.wav").modified_ns
    before = store.count("head")
    for _ in range(3):
        assert exact.entry("f.wav").attributes.mtime_ns == 1_000_000_000_250_000_000
    assert store.count("head") == before + 1


def test_a_sequential_reader_is_known_though_reads_come_in_any_order(
    make: MakeEngine, store: MemoryStore
) -> None:
    size, piece = 64 << 20, 128 << 10
    store.set("long.wav", bytes(size))
    engine = make()
    opened = engine.open("long.wav")
    for group in range(0, size, 8 * piece):  # as the kernel's read-ahead asks
        for place in (0, 3, 1, 2, 5, 4, 7, 6):
            engine.fs.read(engine.caller, opened.handle, group + place * piece, piece)
    engine.close(opened)
    assert store.count("get") <= 24


def test_deletes_of_one_moment_go_together(make: MakeEngine, store: MemoryStore) -> None:
    for n in range(100):
        store.set(f"d/{n:03}.wav", b"x")
    engine = make(upload_delay_s=0.3)
    for name in engine.listdir("d"):
        engine.unlink(f"d/{name}")
    assert engine.wait_until_sent(20.0)
    assert store.count("delete_many") <= 2
    assert store.count("delete") == 0


def test_a_flush_waits_for_a_close_that_the_kernel_has_not_told_yet(
    make: MakeEngine, store: MemoryStore
) -> None:
    engine = make()
    opened = engine.open("take.wav", os.O_WRONLY | os.O_CREAT)
    engine.fs.write(engine.caller, opened.handle, 0, b"take")
    assert engine.fs.flush_paths([], 10.0), "a file that is open does not count"
    engine.fs.flush(engine.caller, opened.handle)  # close() returns here
    later = threading.Timer(0.2, engine.fs.release, [opened.handle])
    later.start()
    assert engine.fs.flush_paths([], 10.0)
    assert store.data("take.wav") == b"take"
    later.join()
