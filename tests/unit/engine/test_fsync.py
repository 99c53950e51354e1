"""What is on the disk, and when: a power cut takes all that no fsync brought there, and loses nothing that was safe."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import LocalError, Unavailable
from r2fs.model.records import AttributeChange
from r2fs.model.verbs import RENAME_EXCHANGE
from tests.support.engine import Engine, MakeEngine, do_at_once
from tests.support.memory_store import MemoryStore
from tests.support.power import (
    IN_PARTS,
    LATER,
    ONE,
    OTHER,
    Power,
    bucket,
    save,
    send_until,
    slow,
)

SWAPPED = {"a.wav": OTHER, "b.wav": ONE}


# ------------------------------------------------------------------ what replaces a synced file
@pytest.mark.parametrize("closed", [False, True])
def test_what_replaces_a_synced_file_is_on_the_disk_before_that_goes(
    make: MakeEngine, store: MemoryStore, power: Power, closed: bool
):
    """An atomic save without an fsync: after a power cut it is the old file or the new one, and no third."""
    store.set("take.wav", b"what the bucket has")
    engine = make(**LATER)
    opened = engine.open("take.wav", os.O_WRONLY | os.O_TRUNC)
    engine.fs.write(engine.caller, opened.handle, 0, b"synced, and not sent")
    engine.fs.fsync(engine.caller, opened.handle, False)
    if closed:
        engine.close(opened)
    save(engine, "take.wav.tmp", b"saved anew", sync=False)
    engine.rename("take.wav.tmp", "take.wav")
    power.cut(engine)
    after = make()
    assert after.read("take.wav") == b"saved anew"
    after.drain()
    assert bucket(store) == {"take.wav": b"saved anew"}


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("closed", [False, True])
def test_a_rename_waits_for_no_disk_where_nothing_is_at_stake(
    make: MakeEngine, power: Power, sync: bool, closed: bool
):
    """Nobody was told that the old file is safe; or the new one is as safe."""
    engine = make(**LATER)
    for _ in range(3):
        opened = engine.open("take.wav.tmp", os.O_WRONLY | os.O_CREAT)
        engine.fs.write(engine.caller, opened.handle, 0, b"a take")
        if sync:
            engine.fs.fsync(engine.caller, opened.handle, False)
        if closed:
            engine.close(opened)
        before = power.syncs
        engine.rename("take.wav.tmp", "take.wav")
        assert power.syncs == before


@pytest.mark.expect_warnings
def test_the_second_word_of_a_disk_that_has_failed_is_not_taken(make: MakeEngine, power: Power):
    """The kernel tells of a failed write once. Nothing that was safe is given up for it."""
    engine = make(**LATER)
    save(engine, "take.wav", b"safe", sync=True)
    save(engine, "take.wav.tmp", b"saved anew", sync=False)
    power.fails = 1
    for _ in range(2):
        with pytest.raises(LocalError):
            engine.rename("take.wav.tmp", "take.wav")
    opened = engine.open("take.wav.tmp")
    with pytest.raises(LocalError):
        engine.fs.fsync(engine.caller, opened.handle, False)
    engine.close(opened)
    assert engine.read("take.wav") == b"safe"
    assert all(node.content is None for node in engine.pending_nodes()), "a descriptor is left open"


# ------------------------------------------------------------------ two files that exchange their names
@pytest.fixture
def exchanged(make: MakeEngine, store: MemoryStore) -> Callable[..., Engine]:
    """An engine that has exchanged two names, and sent nothing of it yet."""

    def start(**settings: object) -> Engine:
        store.set("a.wav", ONE)
        store.set("b.wav", OTHER)
        engine: Engine = make(**settings)
        engine.rename("a.wav", "b.wav", RENAME_EXCHANGE)
        return engine

    return start


def test_names_that_are_exchanged_leave_both_files_their_bytes(
    exchanged: Callable[..., Engine], store: MemoryStore, power: Power
):
    """One of them is brought here, and its object replaced: by then its bytes are on the disk."""

    def look(name: str, key: str) -> None:
        if name in ("put", "copy", "delete"):
            left = {stored.data for other, stored in store.objects.items() if other != key}
            assert left | power.synced >= {ONE, OTHER}, f"{name} {key}: its bytes are nowhere else"

    store.before = look
    exchanged().drain()
    assert bucket(store) == SWAPPED


@pytest.mark.parametrize("read_first", [False, True])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize("point", ["materialised", "bytes_synced", "sync_journalled"])
def test_a_power_cut_while_a_file_is_brought_here(
    make: MakeEngine,
    store: MemoryStore,
    power: Power,
    point: str,
    names: bool,
    cached: bool,
    read_first: bool,
):
    """Nothing of it was written here: its object is where it was, and nothing may be torn."""
    store.set("a.wav", ONE)
    store.set("b.wav", OTHER)
    engine = make(threads=False)
    do_at_once(engine.downloads)
    if cached:
        assert (engine.read("a.wav"), engine.read("b.wav")) == (ONE, OTHER)
    engine.rename("a.wav", "b.wav", RENAME_EXCHANGE)
    send_until(engine, point)
    power.cut(engine, names)
    after = make()
    if read_first:
        assert after.tree() == SWAPPED
    after.drain()
    assert not after.fs.queue_view().transfers
    assert bucket(store) == SWAPPED
    after.sweep_staging()
    assert not [path for path in after.staged_files() if path.stat().st_size]


@pytest.mark.parametrize("point", ["materialised", "bytes_synced", "sync_journalled"])
def test_a_kill_while_a_file_is_brought_here(
    exchanged: Callable[..., Engine], make: MakeEngine, store: MemoryStore, point: str
):
    engine = exchanged(threads=False)
    send_until(engine, point)
    engine.kill()
    make().drain()
    assert bucket(store) == SWAPPED


def test_a_row_that_is_written_while_a_file_is_brought_here(
    exchanged: Callable[..., Engine],
    make: MakeEngine,
    store: MemoryStore,
    power: Power,
    monkeypatch: pytest.MonkeyPatch,
):
    """A program's chmod, between the last byte and the sync."""
    engine = exchanged(threads=False)
    durability = engine.disk_sync
    sync = durability.sync

    def chmod_first(node: Node) -> None:
        engine.fs.setattr(engine.caller, node.ino, AttributeChange(mode=0o600))
        sync(node)

    monkeypatch.setattr(durability, "sync", chmod_first)
    send_until(engine, "bytes_synced")
    power.cut(engine, names=False)
    make().drain()
    assert bucket(store) == SWAPPED


@pytest.mark.parametrize("by", ["rename", "fsync", "open", "write"])
def test_a_program_that_comes_while_a_file_is_brought_here(make: MakeEngine, store: MemoryStore, by: str):
    one, other = os.urandom(4 << 20), os.urandom(4 << 20)
    store.set("a.wav", one)
    store.set("b.wav", other)
    asked, go_on = slow(store)
    engine = make(**IN_PARTS)
    engine.rename("a.wav", "b.wav", RENAME_EXCHANGE)
    assert asked.wait(30)
    (coming,) = filter(engine.staged_path, engine.pending_nodes())
    was, name = (one, "b.wav") if coming.name == "b.wav" else (other, "a.wav")
    want = {"a.wav": other, "b.wav": one}
    if by == "rename":
        engine.rename(name, "c.wav")
        want["c.wav"] = want.pop(name)
    elif by == "fsync":
        opened = engine.open(name)
        engine.fs.fsync(engine.caller, opened.handle, False)
        engine.close(opened)
    elif by == "open":
        engine.close(engine.open(name, os.O_RDWR))
    else:
        save(engine, name, b"HEAD", sync=True, flags=os.O_RDWR)
        want[name] = b"HEAD" + was[4:]
    go_on.set()
    engine.drain()
    assert bucket(store) == want


@pytest.mark.expect_warnings
def test_a_file_that_the_disk_could_not_take_keeps_its_object(
    make: MakeEngine, store: MemoryStore, power: Power
):
    store.set("a.wav", ONE)
    store.set("b.wav", OTHER)
    engine = make(**LATER)
    power.fails = 1
    engine.rename("a.wav", "b.wav", RENAME_EXCHANGE)
    engine.fs.drain(3.0)
    assert sorted(bucket(store).values()) == sorted([ONE, OTHER])
    assert "parked" in [transfer.state for transfer in engine.fs.queue_view().transfers]


# ------------------------------------------------------------------ files of which not all is here
@pytest.mark.parametrize("read", [False, True])
def test_a_file_that_was_synced_before_it_was_all_here_is_filled_and_sent(
    make: MakeEngine, store: MemoryStore, large: bytes, read: bool
):
    _, go_on = slow(store)
    engine = make(**IN_PARTS)
    save(engine, "large.wav", b"HEAD", sync=True, flags=os.O_WRONLY)
    go_on.set()
    if read:
        assert engine.read("large.wav") == b"HEAD" + large[4:]
    engine.drain()
    assert store.data("large.wav") == b"HEAD" + large[4:]


@pytest.mark.parametrize("killed_before", [False, True])
@pytest.mark.parametrize("point", ["bytes_synced", "claimed"])
def test_what_was_synced_in_part_is_whole_after_a_power_cut(
    make: MakeEngine, store: MemoryStore, power: Power, large: bytes, point: str, killed_before: bool
):
    """The rest came after the fsync: no row counts on it before it is synced as well."""
    engine = make(threads=False, **IN_PARTS)
    save(engine, "large.wav", b"HEAD", sync=True, flags=os.O_WRONLY)
    if killed_before:
        engine.kill()
        engine = make(threads=False, **IN_PARTS)
    send_until(engine, point)
    power.cut(engine, names=False)
    after = make(**IN_PARTS)
    assert after.read("large.wav") == b"HEAD" + large[4:]
    after.drain()
    assert store.data("large.wav") == b"HEAD" + large[4:]


def test_an_orderly_end_syncs_what_is_here(make: MakeEngine, store: MemoryStore, power: Power, large: bytes):
    engine = make(threads=False, **IN_PARTS)
    save(engine, "large.wav", b"HEAD", sync=False, flags=os.O_WRONLY)
    save(engine, "small.wav", ONE, sync=False)
    engine.stop()
    power.cut(engine)
    make(**IN_PARTS).drain()
    assert bucket(store) == {"large.wav": b"HEAD" + large[4:], "small.wav": ONE}


def test_a_file_edited_in_part_replaces_one_that_was_synced(
    make: MakeEngine, store: MemoryStore, large: bytes
):
    _, go_on = slow(store)
    engine = make(upload_delay_s=0.5, **IN_PARTS)
    save(engine, "take.wav", ONE, sync=True)
    save(engine, "large.wav", b"HEAD", sync=False, flags=os.O_WRONLY)
    engine.rename("large.wav", "take.wav")
    go_on.set()
    engine.drain()
    assert bucket(store) == {"take.wav": b"HEAD" + large[4:]}


@pytest.mark.expect_warnings("could not be read")
@pytest.mark.parametrize("killed", [False, True])
def test_a_renamed_file_that_is_opened_and_not_written_keeps_its_object(
    make: MakeEngine, store: MemoryStore, large: bytes, killed: bool
):
    """A new file at its old name waits, though nothing of the renamed one is here and nobody has it open."""
    away = threading.Event()
    away.set()

    def refuse(name: str, key: str) -> None:
        if name in ("get", "copy") and away.is_set():
            raise Unavailable(f"{key}: no answer")

    store.before = refuse
    engine = make(upload_delay_s=0.2, threads=not killed, **IN_PARTS)
    engine.rename("large.wav", "renamed.wav")
    opened = engine.open("renamed.wav", os.O_RDWR)
    save(engine, "large.wav", ONE, sync=False)
    if killed:
        engine.kill()
        engine = make(**IN_PARTS)
    else:
        engine.close(opened)
    engine.fs.drain(1.0)
    away.clear()
    engine.drain()
    assert bucket(store) == {"large.wav": ONE, "renamed.wav": large}


@pytest.mark.parametrize(
    "by", ["write", "append", "truncate", "cut", "grow", "fallocate", "punch", "past us"]
)
def test_what_is_written_once_all_is_here_is_known_after_kill_9(
    make: MakeEngine, store: MemoryStore, large: bytes, by: str
):
    """The last bytes came by a read: the row, which listed none of this host's, is told of what is written next."""
    engine = make(threads=False, **IN_PARTS)
    do_at_once(engine.downloads)
    opened = engine.open("large.wav", os.O_RDWR | (os.O_APPEND if by == "append" else 0))
    assert engine.read("large.wav") == large  # what is to fetch it in the background has not run
    want = bytearray(large)
    if by in ("write", "append"):
        at = 0 if by == "write" else len(large)
        engine.fs.write(engine.caller, opened.handle, at, b"HEAD")
        want[at : at + 4] = b"HEAD"
    elif by == "truncate":
        engine.fs.setattr(engine.caller, engine.entry("large.wav").ino, AttributeChange(size=0))
        want.clear()
    elif by in ("cut", "grow"):
        size = len(large) // 2 if by == "cut" else len(large) + 9
        engine.fs.setattr(engine.caller, engine.entry("large.wav").ino, AttributeChange(size=size))
        want = bytearray(bytes(want).ljust(size, b"\0")[:size])
    elif by in ("fallocate", "punch"):
        mode, start, size = (0, len(large), 9) if by == "fallocate" else (3, 0, 4096)
        engine.fs.fallocate(engine.caller, opened.handle, mode, start, size)
        want[start : start + size] = bytes(size)
    else:
        second = engine.open("large.wav", os.O_RDWR)
        if second.local is not None:
            os.pwrite(second.local, b"HEAD", 0)
        else:
            engine.fs.write(engine.caller, second.handle, 0, b"HEAD")
        want[:4] = b"HEAD"
    engine.kill()
    after = make(**IN_PARTS)
    assert after.read("large.wav") == want
    after.drain()
    assert store.data("large.wav") == want
