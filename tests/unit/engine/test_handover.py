"""An engine that goes on with the nodes and the open files of one that was killed."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from r2fs.model.errors import NotFound, NotPermitted, Stale
from r2fs.model.ports import Caller
from r2fs.model.records import AttributeChange, Kind, ObjectMeta
from r2fs.model.settings.program_rules import ProgramRule
from r2fs.model.verbs import ROOT
from tests.support.memory_store import MemoryStore
from tests.support.session import Session

RDWR = os.O_RDWR | os.O_CREAT


def test_numbers_mean_what_they_meant(session: Callable[..., Session], store: MemoryStore):
    store.set("there/take.wav", b"there")
    one = session()
    one.engine.mkdir("made")
    one.engine.write("made/sent", b"sent")
    one.engine.drain()
    one.engine.write("made/owed", b"owed")
    paths = ["there", "there/take.wav", "made", "made/sent", "made/owed"]
    inodes = {path: one.ino(path) for path in paths}

    def shown() -> dict[str, object]:
        """Times of directories are kept in memory alone; an upload may be done meanwhile."""
        found = {path: one.attributes(ino) for path, ino in inodes.items()}
        return {
            path: (a.ino, a.kind, a.mode, a.uid, a.size, a.kind is Kind.FILE and a.mtime_ns)
            for path, a in found.items()
        }

    before = shown()
    for _ in range(2):
        one.kill()
        assert shown() == before
        assert {path: one.ino(path) for path in paths} == inodes
    one.engine.drain()
    assert store.data("made/owed") == b"owed"


def test_a_file_with_a_writer_is_not_sent_before_it_is_closed(
    session: Callable[..., Session], store: MemoryStore
):
    one = session()
    first, second = one.open("take.wav", RDWR), one.open("take.wav", RDWR)
    assert first.local is not None
    descriptor = os.dup(first.local)  # the kernel's: it writes on, whoever serves
    os.pwrite(descriptor, b"before ", 0)
    one.kill()
    os.pwrite(descriptor, b"during", 7)
    assert one.attributes(one.ino("take.wav")).size == 13
    one.engine.drain()
    assert not store.keys()
    one.close(first)
    one.engine.drain()
    assert not store.keys(), "there is another writer"
    one.kill()
    os.pwrite(descriptor, b"after ", 13)
    os.close(descriptor)
    one.close(second)
    one.engine.drain()
    assert store.data("take.wav") == b"before duringafter "


def test_opened_for_writing_and_not_written_is_still_clean(
    session: Callable[..., Session], store: MemoryStore
):
    store.set("take.wav", b"there")
    one = session()
    opened = one.open("take.wav", os.O_RDWR)
    one.kill()
    one.close(opened)
    one.engine.drain()
    assert one.engine.fs.queue_view().uploaded == 0


def test_writing_into_what_is_not_all_here(session: Callable[..., Session], store: MemoryStore):
    store.set("large", bytes(100_000))
    one = session(small_file=0)
    opened = one.open("large", os.O_RDWR)
    one.engine.fs.write(one.engine.caller, opened.handle, 50_000, b"here")
    one.kill()
    one.engine.fs.write(one.engine.caller, opened.handle, 60_000, b"there")
    one.close(opened)
    one.engine.drain()
    expected = bytearray(100_000)
    expected[50_000:50_004], expected[60_000:60_005] = b"here", b"there"
    assert store.data("large") == expected


def test_readers_go_on(session: Callable[..., Session], store: MemoryStore):
    store.set("a", b"version one")
    store.set("b", b"version one")
    one = session()
    whole, lazy = one.open("a", os.O_RDONLY), one.open("b", os.O_RDONLY)
    assert one.read(whole) == b"version one"
    one.kill()
    store.set("a", b"version two")
    assert one.engine.read("a") == b"version two"
    assert one.read(whole) == b"version one", "who has it open keeps it"
    assert one.read(lazy) == b"version one"
    for opened in (whole, lazy):
        one.close(opened)
    assert not one.engine.files.handles.all()


def test_a_reader_keeps_the_rule_of_its_program(session: Callable[..., Session], store: MemoryStore):
    store.set("large", bytes(1 << 20))
    own = Path("/proc/self/comm").read_text().strip()
    rule = ProgramRule("thumbnailers", (own,), read="header", header=4096)
    one = session(small_file=0, programs=(rule,))
    one.engine.caller = Caller(pid=os.getpid())
    opened = one.open("large", os.O_RDONLY)
    one.restart()
    one.engine.caller = Caller(pid=os.getpid())
    with pytest.raises(NotPermitted, match="thumbnailers"):
        one.engine.fs.read(one.engine.caller, opened.handle, 500_000, 100)
    assert one.read(opened) == bytes(100)
    one.close(opened)


def test_names_that_moved(session: Callable[..., Session], store: MemoryStore):
    one = session()
    one.engine.mkdir("old")
    for name in ("old/a", "b", "c"):
        one.engine.write(name, name.encode())
    one.engine.drain()
    inodes = {name: one.ino(name) for name in ("old", "old/a", "b", "c")}
    one.engine.rename("old", "new")
    one.engine.rename("b", "c")
    one.kill()
    assert (one.ino("new"), one.ino("new/a"), one.ino("c")) == (inodes["old"], inodes["old/a"], inodes["b"])
    for gone in ("old", "b"):
        with pytest.raises(NotFound):
            one.ino(gone)
    one.engine.drain()
    one.kill()
    assert (one.ino("new/a"), one.ino("c")) == (inodes["old/a"], inodes["b"])
    assert one.engine.tree() == {"new/": None, "new/a": b"old/a", "c": b"b"}


def test_unlinked_and_open(session: Callable[..., Session], store: MemoryStore):
    store.set("sent", b"sent")
    one = session()
    sent, new = one.open("sent", os.O_RDONLY), one.open("new", RDWR)
    one.engine.fs.write(one.engine.caller, new.handle, 0, b"new")
    numbers = one.ino("sent"), one.ino("new")
    one.engine.unlink("sent")
    one.engine.unlink("new")
    one.kill()
    assert one.engine.listdir() == []
    assert [one.attributes(ino).nlink for ino in numbers] == [0, 0]
    assert (one.read(sent), one.read(new)) == (b"sent", b"new")
    one.engine.fs.fsync(one.engine.caller, new.handle, False)
    one.close(sent)
    one.close(new)
    one.engine.drain()
    assert not store.keys()
    assert one.engine.open_files() == []


def test_unlinked_and_open_without_its_bytes_is_stale_and_can_be_closed(
    session: Callable[..., Session], store: MemoryStore
):
    """Not passed through: nothing says any more which file it was."""
    one = session()
    opened = one.open("new", RDWR)
    one.handle(one.handles[opened.handle]._replace(backing_id=0, file=(0, 0)))
    one.engine.unlink("new")
    one.kill()
    with pytest.raises(Stale):
        one.read(opened)
    one.close(opened)


def test_what_the_log_does_not_tell_is_stale(session: Callable[..., Session], store: MemoryStore):
    store.set("a", b"a")
    one = session()
    ino = one.ino("a")
    one.nodes.clear()
    one.kill()
    with pytest.raises(Stale):
        one.attributes(ino)
    assert one.ino("a") != ino


def test_changed_in_the_bucket_meanwhile(session: Callable[..., Session], store: MemoryStore):
    store.set("same", b"same")
    store.set("other", b"one")
    store.set("gone", b"gone")
    one = session()
    inodes = {name: one.ino(name) for name in ("same", "other", "gone")}
    one.kill()
    store.set("other", b"two")
    store.remove("gone")
    assert one.ino("same") == inodes["same"]
    assert one.ino("other") != inodes["other"]
    assert one.engine.read("other") == b"two"
    with pytest.raises(NotFound):
        one.ino("gone")


@pytest.mark.parametrize("way", ["restart", "cache lost"])
def test_what_an_object_says_besides_its_bytes_is_kept_over_a_take_over(
    session: Callable[..., Session], store: MemoryStore, way: str
) -> None:
    """The session's log holds a few attributes: the others are asked for before the object is written again."""
    meta = ObjectMeta("audio/x-special", {"artist": "Anna", "mode": str(stat.S_IFREG | 0o640)})
    store.store_version("take.wav", b"a take", meta, "etag")
    one = session(mtime="exact")
    fs, caller = one.engine.fs, one.engine.caller
    assert fs.getxattr(caller, one.ino("take.wav"), "user.artist") == b"Anna"
    ino = one.ino("take.wav")
    one.kill(lose_cache=way == "cache lost")
    one.engine.fs.setattr(one.engine.caller, ino, AttributeChange(mode=0o600))
    one.engine.drain()
    after = store.head("take.wav")
    assert after.metadata is not None
    assert after.content_type == "audio/x-special" and after.metadata["artist"] == "Anna"
    assert after.metadata["mode"] == "0100600"


@pytest.mark.parametrize("lose_cache", [False, True])
def test_a_device_is_one_after_a_take_over(session: Callable[..., Session], lose_cache: bool) -> None:
    one = session()
    fs, caller = one.engine.fs, one.engine.caller
    ino = fs.mknod(caller, ROOT, "null", stat.S_IFCHR | 0o644, os.makedev(1, 3)).ino
    one.engine.drain()
    one.kill(lose_cache=lose_cache)
    found = one.attributes(ino)
    assert (found.kind, found.rdev) == (Kind.CHARACTER_DEVICE, os.makedev(1, 3))


def test_a_directory_keeps_the_spelling_that_the_bucket_has(
    session: Callable[..., Session], store: MemoryStore
) -> None:
    """On a server that tells spellings apart its files lie nowhere else."""
    store.tells_spellings_apart = True
    store.set(unicodedata.normalize("NFD", "Bj\u00f6/take"), b"there")
    one = session(freshness_s=3600.0)
    ino = one.ino("Bj\u00f6")
    one.kill()
    assert [entry.name for entry in one.engine.fs.readdir(one.engine.caller, ino)] == ["take"]
    one.engine.rename("Bj\u00f6", "new")
    one.engine.drain()
    assert store.contents() == {"new/take": b"there"}
