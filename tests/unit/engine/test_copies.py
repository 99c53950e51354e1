"""copy_file_range inside the mount: what is missing is downloaded once, and nothing is uploaded that the bucket can copy."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext

import pytest

from r2fs.engine.files.copy_range import PIECE
from r2fs.engine.writeback.upload import COPIED_FROM
from r2fs.model.errors import (
    BadHandle,
    NoSpace,
    NotSupported,
    PreconditionFailed,
    Refused,
    Stale,
    Unavailable,
)
from r2fs.model.metadata import attributes_from
from r2fs.model.ports import Caller
from r2fs.model.records import AttributeChange, Opened, PendingInode
from tests.mount.daemons import until
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore
from tests.support.power import Stop

SIZE = 2 * COPIED_FROM + 17
HELD = 3600.0  # until a test has prepared the bucket


@pytest.fixture
def data(store: MemoryStore) -> bytes:
    data = os.urandom(SIZE)
    store.set("source.wav", data)
    return data


@pytest.fixture
def engine(make: MakeEngine, data: bytes) -> Engine:
    return make(upload_delay_s=HELD, freshness_s=HELD)


def copy_all(engine: Engine, source: Opened, target: Opened) -> None:
    """As cp does: until nothing is left."""
    at = 0
    while done := engine.fs.copy_file_range(engine.caller, source.handle, at, target.handle, at, 1 << 30):
        at += done


def cp(
    engine: Engine, source: str, target: str, then: Callable[[Opened], None] = lambda opened: None
) -> None:
    one = engine.open(source)
    other = engine.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    copy_all(engine, one, other)
    then(other)
    engine.close(one)
    engine.close(other)


def sent(store: MemoryStore) -> Counter[str]:
    return Counter(verb for verb, _ in store.calls if verb in ("put", "copy", "put_part", "copy_part"))


@pytest.mark.parametrize("here", [False, True])
def test_a_copy_is_a_copy_in_the_bucket(engine: Engine, store: MemoryStore, data: bytes, here: bool) -> None:
    if here:
        engine.read("source.wav")
    store.calls.clear()
    cp(engine, "source.wav", "target.wav")
    assert engine.read("target.wav") == data
    engine.drain()
    assert sent(store) == {"copy": 1}
    assert store.data("target.wav") == data
    assert store.metadata("target.wav")["mtime"]
    assert sum(verb == "get" for verb, _ in store.calls) == (0 if here else 1)


def test_a_copy_that_was_changed_is_sent(engine: Engine, store: MemoryStore, data: bytes) -> None:
    def change(opened: Opened) -> None:
        engine.fs.write(engine.caller, opened.handle, 100, b"changed")

    cp(engine, "source.wav", "target.wav", change)
    engine.drain()
    assert sent(store) == {"put": 1}
    assert store.data("target.wav") == data[:100] + b"changed" + data[107:]


@pytest.mark.parametrize("what", ["removed", "replaced", "refused"])
def test_a_copy_outlives_its_source(engine: Engine, store: MemoryStore, data: bytes, what: str) -> None:
    cp(engine, "source.wav", "target.wav")
    if what == "removed":
        store.remove("source.wav")
    elif what == "replaced":
        store.set("source.wav", b"of another host")

    def refuse(name: str, key: str) -> None:
        if name == "copy" and what == "refused":
            raise Refused("no copies here")

    store.before = refuse
    engine.drain()
    assert sent(store)["put"] == 1
    assert store.data("target.wav") == data


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_where_the_disk_refuses_the_kernel_reads_and_writes(
    engine: Engine, store: MemoryStore, data: bytes, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A write makes room where a copy has none, and a read of a bad sector fetches the file again."""

    def refuse(*args: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    with pytest.raises(NotSupported):
        cp(engine, "source.wav", "target.wav")


def test_a_copy_of_a_part_is_sent(engine: Engine, store: MemoryStore, data: bytes) -> None:
    one, other = engine.open("source.wav"), engine.open("target.wav", os.O_WRONLY | os.O_CREAT)
    assert engine.fs.copy_file_range(engine.caller, one.handle, 10, other.handle, 0, 1000) == 1000
    engine.close(one)
    engine.close(other)
    engine.drain()
    assert sent(store) == {"put": 1}
    assert store.data("target.wav") == data[10:1010]


@pytest.mark.expect_warnings
def test_another_host_has_made_the_name_meanwhile(engine: Engine, store: MemoryStore, data: bytes) -> None:
    cp(engine, "source.wav", "target.wav")
    store.set("target.wav", b"theirs")
    engine.drain()
    assert store.data("target.wav") == b"theirs"
    (copy,) = (key for key in store.objects if "conflict" in key)
    assert store.data(copy) == data


def test_after_a_kill_the_copy_is_sent(
    make: MakeEngine, engine: Engine, store: MemoryStore, data: bytes
) -> None:
    cp(engine, "source.wav", "target.wav")
    engine.kill()
    later = make()
    later.drain()
    assert store.data("target.wav") == data


def test_a_large_file_in_parts(make: MakeEngine, store: MemoryStore) -> None:
    """Its ETag is no MD5: the digests of its parts, taken once this host has sent it, prove the bytes."""
    engine = make(multipart_threshold=1 << 20, part_size=1 << 19)
    data = os.urandom(5 << 19)
    engine.write("source.wav", data)
    engine.drain()
    version = store.head("source.wav").version
    until("digests", lambda: engine.cache.recall_parts(version))
    store.calls.clear()
    cp(engine, "source.wav", "target.wav")
    engine.drain()
    assert sent(store) == {"copy": 1}
    assert store.data("target.wav") == data


def test_a_piece_at_a_time_is_downloaded(make: MakeEngine, store: MemoryStore) -> None:
    data = os.urandom(PIECE + 1000)
    store.set("long.wav", data)
    engine = make(upload_delay_s=HELD)
    one, other = engine.open("long.wav"), engine.open("target.wav", os.O_WRONLY | os.O_CREAT)
    assert engine.fs.copy_file_range(engine.caller, one.handle, 0, other.handle, 0, 1 << 30) == PIECE
    copy_all(engine, one, other)
    with pytest.raises(BadHandle):
        engine.fs.copy_file_range(engine.caller, other.handle, 0, one.handle, 0, 10)
    engine.close(one)
    engine.close(other)
    assert engine.read("target.wav") == data


# ------------------------------------------------------------------ what is not here
FAR = 5 << 20  # bytes: more than are downloaded at an open


@pytest.fixture
def far(engine: Engine, store: MemoryStore) -> bytes:
    """A large file that is not here, and a program with a process id, as the kernel gives one."""
    data = os.urandom(FAR)
    store.set("far.wav", data)
    engine.caller = Caller(pid=4711)
    return data


def gets(store: MemoryStore) -> int:
    return sum(verb == "get" for verb, _ in store.calls)


def test_what_is_not_here_is_copied_by_one_request(engine: Engine, store: MemoryStore, far: bytes) -> None:
    """In the bucket when copy_file_range(2) returns: nothing of it depends on the source from then on."""
    seen: list[bytes] = []

    def then(opened: Opened) -> None:
        seen.append(store.data("target.wav"))
        assert engine.entry("target.wav").attributes.size == FAR

    cp(engine, "far.wav", "target.wav", then)
    engine.drain()
    assert seen == [far]
    assert (sent(store), gets(store)) == ({"copy": 1}, 0)
    store.remove("far.wav")
    assert engine.read("target.wav") == far


def test_it_is_a_clean_file_afterwards(
    make: MakeEngine, engine: Engine, store: MemoryStore, far: bytes
) -> None:
    cp(engine, "far.wav", "target.wav")
    with engine.lock:
        assert engine.node("target.wav").pending is None
    engine.kill()
    later = make()
    later.drain()
    assert (sent(store), gets(store)) == ({"copy": 1}, 0)
    assert later.read("target.wav") == far


@pytest.mark.parametrize(("change", "here"), [("times", False), ("times", True), ("name", False)])
def test_a_source_with_new_times_or_a_new_name_is_copied_too(
    engine: Engine, store: MemoryStore, far: bytes, change: str, here: bool
) -> None:
    """Neither is stored yet; the bytes are those of its object."""
    name = "far.wav"
    if here:
        engine.read(name)
    if change == "times":
        engine.fs.setattr(engine.caller, engine.entry(name).ino, AttributeChange(mtime_ns=10**18))
    else:
        engine.rename(name, name := "renamed.wav")
    store.calls.clear()
    cp(engine, name, "target.wav")
    engine.drain()
    assert (sent(store), gets(store)) == ({"copy": 2}, 0), "its own, and the target's"
    assert store.data("target.wav") == store.data(name) == far
    assert (change == "name") is ("far.wav" not in store.objects)


def test_what_is_written_into_the_copy_counts(engine: Engine, store: MemoryStore, far: bytes) -> None:
    def change(opened: Opened) -> None:
        engine.fs.write(engine.caller, opened.handle, 100, b"changed")

    cp(engine, "far.wav", "target.wav", change)
    assert engine.read("target.wav") == far[:100] + b"changed" + far[107:]
    engine.drain()
    assert store.data("target.wav") == far[:100] + b"changed" + far[107:]
    assert store.data("far.wav") == far


@pytest.mark.parametrize(
    "error", [Refused("no copies here"), Unavailable("away"), PreconditionFailed("theirs"), None]
)
def test_a_copy_that_the_bucket_refuses_is_downloaded(
    engine: Engine, store: MemoryStore, far: bytes, error: Exception | None
) -> None:
    """None: the name was made by the bucket's other users meanwhile."""

    def refuse(name: str, key: str) -> None:
        if name == "copy" and error is not None:
            raise error

    store.before = refuse
    cp(engine, "far.wav", "target.wav")
    store.before = lambda name, key: None
    engine.drain()
    assert store.data("target.wav") == engine.read("target.wav") == far


def test_an_answer_that_is_lost_leaves_one_object(engine: Engine, store: MemoryStore, far: bytes) -> None:
    """The bucket has the copy, and this host does not know."""

    def lose(name: str, key: str) -> None:
        if name == "copy":
            raise Unavailable("the answer was lost")

    store.after = lose
    cp(engine, "far.wav", "target.wav")
    store.after = lambda name, key: None
    engine.drain()
    assert store.data("target.wav") == far
    assert not [key for key in store.objects if "conflict" in key]


def test_a_source_that_was_replaced_is_not_copied(engine: Engine, store: MemoryStore, far: bytes) -> None:
    one, other = engine.open("far.wav"), engine.open("target.wav", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    store.set("far.wav", b"of another host")
    with pytest.raises(Stale):
        copy_all(engine, one, other)
    engine.close(one)
    engine.close(other)
    assert "target.wav" not in store.objects or store.data("target.wav") == b""


@pytest.mark.parametrize("what", ["rename", "remove", "write"])
def test_a_target_that_changes_meanwhile(engine: Engine, store: MemoryStore, far: bytes, what: str) -> None:
    """The object made under its name goes, or is overwritten."""
    one, other = engine.open("far.wav"), engine.open("target.wav", os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def meanwhile(name: str, key: str) -> None:
        if name == "copy":
            store.after = lambda name, key: None
            if what == "rename":
                engine.rename("target.wav", "renamed.wav")
            elif what == "remove":
                engine.unlink("target.wav")
            else:
                engine.fs.write(engine.caller, other.handle, FAR, b"by another thread")

    store.after = meanwhile
    with pytest.raises(NotSupported) if what == "remove" else nullcontext():  # the kernel reads and writes
        copy_all(engine, one, other)
    engine.close(one)
    engine.close(other)
    engine.drain()
    expected = {"rename": {"far.wav", "renamed.wav", "source.wav"}, "remove": {"far.wav", "source.wav"}}
    assert set(store.objects) == expected.get(what, {"far.wav", "source.wav", "target.wav"})
    if what == "rename":
        assert store.data("renamed.wav") == far
    elif what == "write":
        assert store.data("target.wav") == far + b"by another thread"


def test_a_writer_that_opens_the_target_meanwhile_loses_nothing(
    engine: Engine, store: MemoryStore, far: bytes
) -> None:
    """It has the descriptor of the empty file, into which nobody would look after the copy."""
    one, other = engine.open("far.wav"), engine.open("target.wav", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    writers: list[Opened] = []

    def meanwhile(name: str, key: str) -> None:
        if name == "copy":
            store.after = lambda name, key: None
            writers.append(engine.open("target.wav", os.O_WRONLY))

    store.after = meanwhile
    copy_all(engine, one, other)
    (writer,) = writers
    assert writer.local is not None
    os.pwrite(writer.local, b"HEAD", 0)
    for opened in (writer, one, other):
        engine.close(opened)
    engine.drain()
    assert store.data("target.wav") == engine.read("target.wav") == b"HEAD" + far[4:]


def test_attributes_that_are_set_meanwhile_are_stored(engine: Engine, store: MemoryStore, far: bytes) -> None:
    one, other = engine.open("far.wav"), engine.open("target.wav", os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def meanwhile(name: str, key: str) -> None:
        if name == "copy":
            store.after = lambda name, key: None
            ino = engine.entry("target.wav").ino
            engine.fs.setattr(engine.caller, ino, AttributeChange(mode=0o600))
            engine.fs.setxattr(engine.caller, ino, "user.take", b"1", 0)

    store.after = meanwhile
    copy_all(engine, one, other)
    for opened in (one, other):
        engine.close(opened)
    engine.drain()
    assert store.data("target.wav") == far
    assert attributes_from(store.head("target.wav")).mode == 0o600
    assert store.metadata("target.wav")["take"] == "1"


@pytest.mark.parametrize("commits", [0, 1, 2])
def test_a_kill_leaves_no_copy_of_a_target_that_was_removed_meanwhile(
    make: MakeEngine, engine: Engine, store: MemoryStore, far: bytes, commits: int
) -> None:
    """A name that a program has removed must not come back as an object that nobody knows as this host's."""
    one, other = engine.open("far.wav"), engine.open("target.wav", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    left = commits

    def stop(name: str) -> None:
        nonlocal left
        left -= name == "commit"
        if left < 0:
            raise Stop(name)

    def meanwhile(name: str, key: str) -> None:
        if name == "copy":
            engine.unlink("target.wav")
            engine.commit_point = stop

    store.after = meanwhile
    with pytest.raises((Stop, NotSupported)):
        copy_all(engine, one, other)
    store.after = lambda name, key: None
    engine.commit_point = lambda name: None
    engine.kill()
    assert "target.wav" in store.objects
    later = make()
    later.drain()
    assert "target.wav" not in store.objects


def test_without_room_in_the_journal_the_name_stays(
    engine: Engine, store: MemoryStore, far: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is not counted on before the journal has it; the bytes are written once more."""
    one, other = engine.open("far.wav"), engine.open("target.wav", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    put = engine.journal.put_inode
    names = {path.name for path in engine.core.staging.open_dir.iterdir()}

    def full(row: PendingInode) -> None:
        raise NoSpace("no room for a row")

    monkeypatch.setattr(engine.journal, "put_inode", full)
    with pytest.raises(NoSpace):
        copy_all(engine, one, other)
    monkeypatch.setattr(engine.journal, "put_inode", put)
    assert {path.name for path in engine.core.staging.open_dir.iterdir()} == names
    assert engine.fs.write(engine.caller, other.handle, 0, b"own") == 3
    engine.close(one)
    engine.close(other)
    engine.drain()
    assert store.data("target.wav") == engine.read("target.wav") == b"own"


@pytest.mark.parametrize("why", ["read before", "another process", "a part", "not empty"])
def test_what_is_no_copy_of_all_is_copied_here(
    engine: Engine, store: MemoryStore, far: bytes, why: str
) -> None:
    one = engine.open("far.wav")
    if why == "read before":
        engine.fs.read(engine.caller, one.handle, 0, 10)
    elif why == "another process":
        engine.caller = Caller(pid=4712)
    other = engine.open("target.wav", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    assert (other.local is None) == (why in ("a part", "not empty"))
    length = 1000 if why == "a part" else FAR
    if why == "not empty":
        engine.fs.write(engine.caller, other.handle, 0, b"x")
    done = engine.fs.copy_file_range(engine.caller, one.handle, 0, other.handle, 0, length)
    assert 0 < done <= length
    assert not sent(store)
    engine.close(one)
    engine.close(other)
    engine.drain()
    assert store.data("target.wav") == far[:done]
