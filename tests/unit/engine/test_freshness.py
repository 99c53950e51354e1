"""What another host does is seen within `freshness`, however the kernel came to know the name."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from r2fs.model.errors import Exists, NotFound, Stale
from r2fs.model.records import Kind
from tests.support.kernel import FRESH_S, Mount


def written(mount: Mount) -> None:
    mount.kernel.create("d/take.wav", b"ours")


def written_again(mount: Mount) -> None:
    mount.store.set("d/take.wav", b"theirs, before")
    mount.kernel.create("d/take.wav", b"ours", exclusive=False)


def renamed(mount: Mount) -> None:
    mount.store.set("d/before.wav", b"ours")
    mount.kernel.rename("d/before.wav", "d/take.wav")


def renamed_before_it_was_sent(mount: Mount) -> None:
    mount.kernel.create("d/before.wav", b"ours")
    mount.kernel.rename("d/before.wav", "d/take.wav")


def renamed_with_its_directory(mount: Mount) -> None:
    mount.store.set("e/take.wav", b"ours")
    mount.store.set("e/other.wav", b"another")
    mount.kernel.unlink("d/other.wav")
    mount.send()
    mount.engine.rmdir("d")
    mount.send()
    mount.kernel.rename("e", "d")
    mount.kernel.stat("d/take.wav")


def listed(mount: Mount) -> None:
    mount.store.set("d/take.wav", b"ours")
    mount.kernel.listdir("d")


def looked_up(mount: Mount) -> None:
    mount.store.set("d/take.wav", b"ours")
    mount.kernel.stat("d/take.wav")


def read(mount: Mount) -> None:
    mount.store.set("d/take.wav", b"ours")
    mount.kernel.read("d/take.wav")


def held_open(mount: Mount) -> None:
    mount.store.set("d/take.wav", b"ours")
    mount.kernel.open("d/take.wav")


def written_and_listed(mount: Mount) -> None:
    mount.kernel.create("d/take.wav", b"ours")
    mount.kernel.listdir("d")


WAYS_IN = [written, written_again, renamed, renamed_before_it_was_sent, renamed_with_its_directory, listed,
           looked_up, read, held_open, written_and_listed]  # fmt: skip


def replaced(mount: Mount) -> None:
    mount.store.set("d/take.wav", b"theirs, and longer")


def deleted(mount: Mount) -> None:
    mount.store.remove("d/take.wav")


def made_anew(mount: Mount) -> None:
    mount.store.remove("d/take.wav")
    mount.store.set("d/take.wav", b"theirs, and longer")


CHANGES = [replaced, deleted, made_anew]


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("took_over", [False, True], ids=["", "taken over"])
@pytest.mark.parametrize("way_in", WAYS_IN, ids=lambda one: one.__name__)
def test_it_is_seen_by_each_call(
    mount: Mount, way_in: Callable[[Mount], None], change: Callable[[Mount], None], took_over: bool
):
    mount.store.set("d/other.wav", b"another")
    way_in(mount)
    mount.send()
    if took_over:
        mount.take_over()
    assert mount.kernel.stat("d/take.wav").size == 4
    mount.clock.advance(FRESH_S / 2)
    assert mount.kernel.stat("d/take.wav").size == 4
    change(mount)
    mount.clock.advance(FRESH_S)
    kernel = mount.kernel
    if change is deleted:
        for call in (kernel.stat, kernel.read):
            with pytest.raises(NotFound):
                call("d/take.wav")
        assert "take.wav" not in kernel.listdir("d")
        kernel.create("d/take.wav", b"ours again")
        mount.send()
        assert mount.store.data("d/take.wav") == b"ours again"
        return
    assert kernel.stat("d/take.wav").size == len(b"theirs, and longer")
    assert kernel.read("d/take.wav") == b"theirs, and longer"
    assert "take.wav" in kernel.listdir("d")
    with pytest.raises(Exists):
        kernel.create("d/take.wav", b"ours")


@pytest.mark.parametrize("took_over", [False, True], ids=["", "taken over"])
@pytest.mark.parametrize("gone", ["looked for", "unlinked", "renamed", "listed"])
def test_a_name_that_was_free_is_seen_by_each_call(mount: Mount, gone: str, took_over: bool):
    mount.store.set("d/other.wav", b"another")
    kernel = mount.kernel
    if gone in ("unlinked", "renamed"):
        kernel.create("d/take.wav", b"ours")
        mount.send()
    if gone == "unlinked":
        kernel.unlink("d/take.wav")
    elif gone == "renamed":
        kernel.rename("d/take.wav", "d/elsewhere.wav")
    elif gone == "listed":
        kernel.create("d/ours.wav", b"not sent yet: all that is shown is this host's own")
        assert "take.wav" not in kernel.listdir("d")
    with pytest.raises(NotFound):
        kernel.stat("d/take.wav")
    mount.send()
    if took_over:
        mount.take_over()
    mount.clock.advance(FRESH_S / 2)
    kernel.listdir("d")
    mount.store.set("d/take.wav", b"theirs")
    mount.clock.advance(FRESH_S)
    assert kernel.stat("d/take.wav").size == 6
    assert "take.wav" in kernel.listdir("d")
    assert kernel.read("d/take.wav") == b"theirs"
    with pytest.raises(Exists):
        kernel.create("d/take.wav", b"ours")


def test_a_listing_of_names_that_wait_is_kept_no_longer_than_it_is_fresh(mount: Mount):
    """Every line is this host's own; another host adds a name just after the LIST."""
    mount.kernel.create("ours.wav", b"not sent yet")
    mount.kernel.stat("ours.wav")
    mount.store.set("theirs.wav", b"theirs")
    mount.clock.advance(FRESH_S - 1)
    assert mount.kernel.listdir() == ["ours.wav"]
    mount.clock.advance(1.5)
    assert mount.kernel.listdir() == ["ours.wav", "theirs.wav"]


def test_what_waits_is_not_asked_for_more_than_once_in_freshness(mount: Mount):
    mount.kernel.create("ours.wav", b"not sent yet")
    asked = len(mount.store.calls)
    for _ in range(100):
        mount.clock.advance(0.05)
        mount.kernel.stat("ours.wav")
    assert mount.kernel._entry("ours.wav").valid_s == FRESH_S
    assert len(mount.store.calls) == asked, "and the bucket not at all"


# ------------------------------------------------------------------ gone since it was listed
@pytest.mark.parametrize("size", [4, 10 << 20], ids=["small", "large"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR], ids=["reading", "writing"])
def test_a_file_that_was_deleted_since_it_was_listed_is_not_found_at_open(
    mount: Mount, flags: int, size: int
):
    """Programs expect ENOENT; ESTALE is for who has it open."""
    mount.store.set("d/take.wav", bytes(size))
    mount.store.set("d/other.wav", b"another")
    mount.kernel.listdir("d")
    mount.store.remove("d/take.wav")
    if size > 4 << 20:  # its bytes come when they are read: the first open cannot know
        opened = mount.kernel.open("d/take.wav")
        with pytest.raises(Stale):
            mount.engine.fs.read(mount.engine.caller, opened.handle, 0, 100)
        mount.engine.close(opened)
    with pytest.raises(NotFound):
        mount.kernel.open("d/take.wav", flags)
    assert mount.kernel.listdir("d") == ["other.wav"]


def test_a_file_that_was_replaced_since_it_was_listed_is_the_new_one_at_open(mount: Mount):
    mount.store.set("d/take.wav", b"old")
    mount.kernel.listdir("d")
    mount.store.set("d/take.wav", b"new and longer")
    assert mount.kernel.read("d/take.wav") == b"new and longer"
    assert mount.kernel.stat("d/take.wav").size == 14


# ------------------------------------------------------------------ the directory's time
def made(mount: Mount) -> None:
    mount.store.set("d/new.wav", b"new")


def removed(mount: Mount) -> None:
    mount.store.remove("d/take.wav")


def made_a_directory(mount: Mount) -> None:
    mount.store.set("d/below/new.wav", b"new")


@pytest.mark.parametrize("change", [made, removed, made_a_directory], ids=lambda one: one.__name__)
@pytest.mark.parametrize("top", ["d", ""], ids=["a directory", "the root"])
def test_a_name_of_another_host_moves_the_directorys_time(
    mount: Mount, change: Callable[[Mount], None], top: str
):
    for name in ("take.wav", "other.wav", "kept/one.wav"):
        mount.store.set(f"d/{name}", b"there")
    if not top:
        mount.store.set("first.wav", b"there")
    mount.kernel.listdir(top)
    before = mount.kernel.stat(top)
    mount.clock.advance(FRESH_S)
    mount.kernel.listdir(top)
    assert mount.kernel.stat(top).mtime_ns == before.mtime_ns, "nothing has changed"
    mount.clock.advance(FRESH_S)
    if top:
        change(mount)
    else:
        mount.store.remove("first.wav")
    mount.kernel.listdir(top)
    after = mount.kernel.stat(top)
    assert after.mtime_ns > before.mtime_ns and after.ctime_ns > before.ctime_ns
    mount.clock.advance(FRESH_S)
    mount.kernel.listdir(top)
    assert mount.kernel.stat(top).mtime_ns == after.mtime_ns


def test_a_file_that_is_replaced_does_not_move_it(mount: Mount):
    mount.store.set("d/take.wav", b"there")
    mount.kernel.listdir("d")
    before = mount.kernel.stat("d").mtime_ns
    mount.store.set("d/take.wav", b"another")
    mount.clock.advance(FRESH_S)
    mount.kernel.listdir("d")
    assert mount.kernel.stat("d").mtime_ns == before


def test_what_is_made_here_moves_it_once(mount: Mount):
    mount.store.set("d/take.wav", b"there")
    mount.kernel.listdir("d")
    mount.kernel.create("d/ours.wav", b"ours")
    ino = mount.kernel.stat("d").ino
    before = mount.engine.fs.getattr(mount.engine.caller, ino).attributes.mtime_ns
    for _ in range(2):
        mount.send()
        mount.clock.advance(FRESH_S)
        mount.kernel.listdir("d")
    assert mount.kernel.stat("d").mtime_ns == before


# ------------------------------------------------------------------ memory
def nodes(mount: Mount) -> int:
    return len(list(mount.engine.inodes.all_nodes()))


def churn(mount: Mount, number: int) -> None:
    """Another client makes files and directories, and removes those of the round before."""
    for index in range(10):
        for key in (f"d/file {number} {index}", f"d/below {number}/{index}", f"d/deep {number}/{index}/x"):
            mount.store.set(key, b"x")
        for key in (f"d/file {number - 1} {index}", f"d/below {number - 1}/{index}",
                    f"d/deep {number - 1}/{index}/x"):  # fmt: skip
            mount.store.remove(key)
        mount.store.set(f"d/replaced {index}", str(number).encode())


def look_at_all(mount: Mount, path: str = "") -> None:
    for name in mount.kernel.listdir(path):
        below = f"{path}/{name}".lstrip("/")
        if mount.kernel.stat(below).kind is Kind.DIRECTORY:
            look_at_all(mount, below)


def test_nodes_of_what_another_client_removed_are_given_back(mount: Mount):
    counts = []
    for number in range(12):
        churn(mount, number)
        mount.clock.advance(FRESH_S)
        look_at_all(mount)
        mount.kernel.give_back()
        mount.engine.check_tree()
        counts.append(nodes(mount))
    assert max(counts[2:]) == counts[1], "every round is as large as the one before"


def test_a_node_that_is_open_is_given_back_when_it_is_closed(mount: Mount):
    mount.store.set("d/take.wav", b"there")
    mount.store.set("d/other.wav", b"there")
    opened = mount.kernel.open("d/take.wav")
    mount.kernel.stat("d/other.wav")
    before = nodes(mount)
    mount.store.remove("d/take.wav")
    mount.clock.advance(FRESH_S)
    assert mount.kernel.listdir("d") == ["other.wav"]
    mount.kernel.give_back()
    assert mount.engine.fs.read(mount.engine.caller, opened.handle, 0, 10) == b"there"
    mount.engine.close(opened)
    assert nodes(mount) == before - 1
    mount.engine.check_tree()


# ------------------------------------------------------------------ notifications of a first listing
def test_a_first_listing_tells_the_kernel_of_names_that_it_may_hold_as_absent_alone(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
):
    """Each notification has the kernel look a name up anew: of a hundred thousand, for seconds."""
    told: list[str] = []
    plain = mount.kernel.forget_name

    def forget_name(parent: int, name: str, gone: bool = False) -> None:
        told.append(name)
        plain(parent, name, gone)

    monkeypatch.setattr(mount.kernel, "forget_name", forget_name)
    for number in range(50):
        mount.store.set(f"takes/{number}.wav", b"RIFF")
    with pytest.raises(NotFound):
        mount.kernel.stat("takes/late.wav")
    mount.store.set("takes/late.wav", b"RIFF")
    mount.clock.advance(FRESH_S + 1)
    assert "late.wav" in mount.kernel.listdir("takes")
    assert told in ([], ["late.wav"])
    assert mount.kernel.stat("takes/late.wav").size == 4
    mount.store.set("takes/another.wav", b"RIFF")
    mount.clock.advance(FRESH_S + 1)
    assert "another.wav" in mount.kernel.listdir("takes")
    assert told[-1] == "another.wav", "the kernel keeps a listing by now"
