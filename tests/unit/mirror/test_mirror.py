"""Mirrors over a bucket in memory: what goes which way, what stays, and what is kept twice."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest

from r2fs.disk.plain_tree import OWN
from r2fs.mirror.decide import Way
from r2fs.mirror.settle import Later
from r2fs.model.errors import LocalError, Unavailable
from tests.support.memory_store import MemoryStore
from tests.support.mirror_rig import MirrorRig

YEAR_2020_NS = 1_577_836_800_123_456_789


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def rig(tmp_path: Path, store: MemoryStore) -> MirrorRig:
    return MirrorRig(tmp_path, store)


def conflicts(names: Iterable[str]) -> list[str]:
    return [name for name in names if "(conflict of here" in name]


# ------------------------------------------------------------------ both ways
def test_both_sides_get_what_they_lack(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("a/here.wav", b"here", YEAR_2020_NS)
    store.set("b/there.wav", b"there", mtime="1577836800.5", mode="0100640")
    rig.run()
    both = {"a/here.wav": b"here", "b/there.wav": b"there"}
    assert rig.contents() == both
    assert store.contents() == both
    found = os.stat(rig.dir / "b/there.wav")
    assert found.st_mtime_ns == 1_577_836_800_500_000_000
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert store.metadata("a/here.wav")["mtime"] == "1577836800.123456789"
    assert store.head("a/here.wav").content_type == "audio/wav"


def test_a_second_pass_has_nothing_to_do(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("here")
    store.set("there", b"y")
    rig.run()
    store.calls.clear()
    rig.run()
    assert store.calls == [("list", "")]


def test_changes_go_over(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("here", b"one")
    rig.write("there", b"one")
    rig.run()
    rig.write("here", b"two")
    store.set("there", b"two", title="new")
    counts = rig.run()
    assert (counts.sent, counts.fetched) == (1, 1)
    assert rig.contents() == store.contents() == {"here": b"two", "there": b"two"}


def test_a_prefix(tmp_path: Path, store: MemoryStore) -> None:
    store.set("mine/a", b"a")
    store.set("mine2/b", b"b")
    rig = MirrorRig(tmp_path, store, prefix="mine/")
    rig.write("c", b"c")
    rig.run()
    assert rig.contents() == {"a": b"a", "c": b"c"}
    assert store.contents() == {"mine/a": b"a", "mine2/b": b"b", "mine/c": b"c"}


def test_large_files_go_in_parts(tmp_path: Path, store: MemoryStore) -> None:
    rig = MirrorRig(tmp_path, store, multipart_threshold=1000, part_size=300)
    rig.write("large", bytes(range(256)) * 5)
    rig.run()
    assert store.data("large") == bytes(range(256)) * 5
    assert ("complete_upload", "large") in store.calls
    assert store.uploads == {}


def test_new_times_and_modes_alone_are_no_bytes(rig: MirrorRig, store: MemoryStore) -> None:
    path = rig.write("take", b"bytes")
    rig.run()
    os.utime(path, ns=(YEAR_2020_NS, YEAR_2020_NS))
    store.calls.clear()
    rig.run()
    assert [name for name, _ in store.calls] == ["list", "head", "copy"]
    assert store.metadata("take")["mtime"] == "1577836800.123456789"


def test_metadata_of_others_stay(rig: MirrorRig, store: MemoryStore) -> None:
    store.set("take", b"one", artist="somebody", md5chksum="of the old bytes")
    rig.run()
    rig.write("take", b"two")
    rig.run()
    assert store.metadata("take")["artist"] == "somebody"
    assert "md5chksum" not in store.metadata("take")


def test_equal_bytes_on_both_sides_are_in_step(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("same", b"bytes")
    store.set("same", b"bytes")
    rig.run()
    assert rig.contents() == store.contents() == {"same": b"bytes"}
    assert [name for name, _ in store.calls] == ["list", "head"]


# ------------------------------------------------------------------ one way
def test_down_and_up_again_byte_for_byte(tmp_path: Path, store: MemoryStore) -> None:
    """V20, R19: a bucket's tree as plain files, and these files as another bucket's tree."""
    made = {f"d{n % 3}/é {n}.bin": os.urandom(n * 37) for n in range(20)}
    made |= {"link.rclonelink": b"/etc/passwd", "empty": b""}
    for key, data in made.items():
        store.set(key, data, mtime="1577836800.5")
    rig = MirrorRig(tmp_path / "one", store)
    rig.write("only here", b"x")
    assert rig.run(Way.DOWN).fetched == len(made)
    assert rig.contents() == {**made, "only here": b"x"}
    assert store.contents() == made
    other = MemoryStore()
    back = MirrorRig(tmp_path / "two", other)
    (rig.dir / "only here").unlink()
    os.rmdir(back.dir)
    os.rename(rig.dir, back.dir)
    other.set("only there", b"y")
    assert back.run(Way.UP).sent == len(made)
    assert other.contents() == {**made, "only there": b"y"}
    assert back.contents() == made
    assert other.metadata("empty")["mtime"] == "1577836800.500000000"


def test_one_way_brings_back_what_was_removed(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("a", b"a")
    rig.write("b", b"b")
    rig.run()
    (rig.dir / "a").unlink()
    store.remove("b")
    rig.run()
    assert rig.contents() == {"b": b"b"}
    assert store.contents() == {"a": b"a"}
    rig.run(Way.DOWN)
    assert rig.contents() == {"a": b"a", "b": b"b"}
    rig.run(Way.UP)
    assert store.contents() == {"a": b"a", "b": b"b"}


# ------------------------------------------------------------------ removals
def test_removals_stay_on_their_side_unless_wished(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("d/a", b"a")
    rig.write("b", b"b")
    rig.run()
    (rig.dir / "d/a").unlink()
    store.remove("b")
    for _ in range(2):
        rig.run()
        assert rig.contents() == {"b": b"b"}
        assert store.contents() == {"d/a": b"a"}
    rig.write("b", b"new")
    store.set("d/a", b"new")
    rig.run()
    assert rig.contents() == store.contents() == {"b": b"new", "d/a": b"new"}


def test_removals_are_carried_over(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("a", b"a")
    rig.write("d/b", b"b")
    rig.run(delete=True)
    (rig.dir / "a").unlink()
    store.remove("d/b")
    counts = rig.run(delete=True)
    assert (counts.deleted, counts.removed) == (1, 1)
    assert rig.contents() == store.contents() == {}
    assert not (rig.dir / "d").exists()
    assert rig.on_their_way() == []


def test_a_change_wins_over_a_removal(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("a", b"a")
    rig.write("b", b"b")
    rig.run(delete=True)
    (rig.dir / "a").unlink()
    store.set("a", b"changed there")
    store.remove("b")
    rig.write("b", b"changed here")
    rig.run(delete=True)
    assert rig.contents() == store.contents() == {"a": b"changed there", "b": b"changed here"}


def test_an_object_changed_after_the_listing_is_not_deleted(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("a", b"a")
    rig.run(delete=True)
    (rig.dir / "a").unlink()

    def change(name: str, key: str) -> None:
        if name == "head":
            store.before = lambda name, key: None
            store.set("a", b"changed there")

    store.before = change
    rig.run(delete=True)
    assert rig.contents() == store.contents() == {"a": b"changed there"}


def test_an_object_stored_after_the_listing_is_not_gone(rig: MirrorRig, store: MemoryStore) -> None:
    """A file is removed here only if the bucket says so of this very object."""
    rig.write("a", b"a")
    rig.run(delete=True)
    object_ = store.objects.pop("a")

    def bring_back(name: str, key: str) -> None:
        if name == "head":
            store.objects["a"] = object_

    store.before = bring_back
    rig.run(delete=True)
    assert rig.contents() == {"a": b"a"}


def test_another_directory_in_its_place_empties_no_bucket(rig: MirrorRig, store: MemoryStore) -> None:
    """The disk of the directory is not mounted, or the directory was made anew."""
    rig.write("a", b"a")
    rig.write("b", b"b")
    rig.run(delete=True)
    os.rename(rig.dir, rig.dir.with_name("elsewhere"))
    rig.dir.mkdir()
    rig.run(delete=True)
    assert store.contents() == {"a": b"a", "b": b"b"}
    assert rig.contents() == {"a": b"a", "b": b"b"}


def test_a_directory_that_goes_while_it_is_mirrored(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("a", b"a")
    rig.run(delete=True)
    with rig.parts() as parts:
        os.rename(rig.dir, rig.dir.with_name("elsewhere"))
        with pytest.raises(LocalError, match="nothing is removed in the bucket"):
            parts.tree.require_id(parts.record.tree_id())
    assert store.contents() == {"a": b"a"}


# ------------------------------------------------------------------ conflicts
@pytest.mark.expect_warnings("another host wrote it first")
def test_changed_on_both_sides_both_are_kept(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("d/take.wav", b"one")
    rig.run()
    rig.write("d/take.wav", b"here")
    store.set("d/take.wav", b"there")
    counts = rig.run()
    assert counts.conflicts == 1
    (kept,) = conflicts(rig.contents())
    assert kept.startswith("d/take (conflict of here, ") and kept.endswith(").wav")
    assert rig.contents() == store.contents() == {"d/take.wav": b"there", kept: b"here"}


@pytest.mark.expect_warnings("another host wrote it first")
def test_two_mirrors_of_one_prefix_keep_both(tmp_path: Path, store: MemoryStore) -> None:
    one, two = MirrorRig(tmp_path / "one", store), MirrorRig(tmp_path / "two", store)
    one.write("take", b"first")
    one.run()
    two.run()
    for number in range(3):
        one.write("take", b"of one %d" % number)
        two.write("take", b"of two %d" % number)
        one.run()
        two.run()
        one.run()
        assert one.contents() == two.contents() == store.contents()
    assert set(store.contents().values()) == {b"of one 2"} | {b"of two %d" % n for n in range(3)}


@pytest.mark.expect_warnings("another host wrote it first")
def test_another_host_is_faster_than_the_upload(rig: MirrorRig, store: MemoryStore) -> None:
    """The condition of the PUT finds it."""
    rig.write("new", b"here")

    def first(name: str, key: str) -> None:
        if name == "put":
            store.before = lambda name, key: None
            store.set("new", b"there")

    store.before = first
    rig.run()
    (kept,) = conflicts(rig.contents())
    assert rig.contents() == store.contents() == {"new": b"there", kept: b"here"}


# ------------------------------------------------------------------ programs at work
def test_a_file_written_during_its_upload_is_never_published_half(rig: MirrorRig, store: MemoryStore) -> None:
    path = rig.write("take", b"a" * 1000)
    seen: list[bytes] = []

    def write(name: str, key: str) -> None:
        if name == "put":
            store.before = lambda name, key: None
            with path.open("r+b") as file:
                file.write(b"b" * 1000)

    store.before = write
    store.after = lambda name, key: seen.append(store.data(key))
    rig.run()
    assert seen == [b"b" * 1000]
    assert store.contents() == {"take": b"b" * 1000}


def test_a_file_open_for_writing_waits(rig: MirrorRig, store: MemoryStore) -> None:
    with (rig.dir / "take").open("wb") as file:
        file.write(b"half")
        file.flush()
        with pytest.raises(Later) as wait:
            rig.run()
        assert wait.value.is_open
        assert store.contents() == {}
        file.write(b" and half")
    rig.run()
    assert store.contents() == {"take": b"half and half"}


def test_a_file_that_was_just_written_waits(tmp_path: Path, store: MemoryStore) -> None:
    rig = MirrorRig(tmp_path, store, upload_delay_s=30.0)
    rig.write("take")
    with rig.parts() as parts:
        from r2fs.mirror.settle import Rules, Settler

        with pytest.raises(Later) as wait:
            Settler(parts, Rules(), lambda name: None).step("take", None, False)
    assert 20 < wait.value.seconds <= 30


def test_a_file_open_for_writing_is_not_replaced(rig: MirrorRig, store: MemoryStore) -> None:
    path = rig.write("take", b"one")
    rig.run()
    store.set("take", b"two")
    with path.open("r+b"), pytest.raises(Later):
        rig.run()
    assert rig.contents() == {"take": b"one"}
    rig.run()
    assert rig.contents() == {"take": b"two"}


@pytest.mark.expect_warnings("another host wrote it first")
def test_a_file_written_during_its_download_is_kept(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("take", b"one")
    rig.run()
    store.set("take", b"there")

    def write(name: str, key: str) -> None:
        if name == "get":
            store.before = lambda name, key: None
            rig.write("take", b"here")

    store.before = write
    rig.run()
    (kept,) = conflicts(rig.contents())
    assert rig.contents() == store.contents() == {"take": b"there", kept: b"here"}
    assert rig.on_their_way() == []


# ------------------------------------------------------------------ lost answers
def test_an_upload_whose_answer_was_lost_is_known_as_ours(rig: MirrorRig, store: MemoryStore) -> None:
    """The bytes have changed since: without its id, the object would be a conflict."""
    rig.write("take", b"one")
    rig.run()
    rig.write("take", b"two")

    def lose(name: str, key: str) -> None:
        store.after = lambda name, key: None
        raise Unavailable("no answer")

    store.after = lose
    with pytest.raises(Unavailable):
        rig.run()
    assert store.data("take") == b"two"
    rig.write("take", b"three")
    rig.run()
    assert rig.contents() == store.contents() == {"take": b"three"}


def test_parts_of_a_failed_upload_are_aborted_by_the_next_mirror(tmp_path: Path, store: MemoryStore) -> None:
    rig = MirrorRig(tmp_path, store, multipart_threshold=100, part_size=100)
    rig.write("large", b"x" * 250)

    def fail(name: str, key: str) -> None:
        if name in ("complete_upload", "abort_upload"):
            raise Unavailable("no answer")

    store.before = fail
    with pytest.raises(Unavailable):
        rig.run()
    assert len(store.uploads) == 1
    store.before = lambda name, key: None
    rig.run()
    assert store.uploads == {}
    assert store.contents() == {"large": b"x" * 250}


# ------------------------------------------------------------------ names that stay
@pytest.mark.expect_warnings("not mirrored")
def test_what_is_not_mirrored_is_named_and_left(rig: MirrorRig, store: MemoryStore, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret")
    os.symlink(tmp_path / "outside", rig.dir / "linkdir")
    os.symlink("a", rig.dir / "link")
    os.mkfifo(rig.dir / "pipe")
    (rig.dir / os.fsdecode(b"\xff.wav")).write_bytes(b"x")
    rig.write("a", b"a")
    store.set("linkdir/new", b"must not leave the directory")
    store.set("x//y", b"no path")
    store.set("../z", b"no path")
    store.set("dir/", b"bytes")
    store.set("both", b"file")
    store.set("both/below", b"and directory")
    store.set(f"{OWN}/id", b"the mirror's own")
    before = store.contents() | {"dir/": b"bytes"}
    rig.run(delete=True)
    rig.run(delete=True)
    assert rig.contents() == {"a": b"a", "both/below": b"and directory", os.fsdecode(b"\xff.wav"): b"x"}
    assert {key: one.data for key, one in store.objects.items()} == {**before, "a": b"a"}
    assert os.listdir(tmp_path / "outside") == ["secret"]
    named = {"linkdir", "link", "pipe", os.fsdecode(b"\xff.wav"), "x//y", "../z", "dir/", "both", f"{OWN}/id"}
    assert set(rig.skipped) == named


def test_local_patterns_stay_on_both_sides(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("db-wal", b"here")
    store.set("other-wal", b"there")
    rig.run(delete=True)
    assert rig.contents() == {"db-wal": b"here"}
    assert store.contents() == {"other-wal": b"there"}


def test_directories_without_files(rig: MirrorRig, store: MemoryStore) -> None:
    store.set("empty/", b"")
    (rig.dir / "mine").mkdir()
    rig.run()
    assert (rig.dir / "empty").is_dir()
    assert store.keys() == ["empty/"]


@pytest.mark.expect_warnings("not mirrored")
def test_an_unreadable_directory_is_no_removal(
    rig: MirrorRig, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.write("closed/a", b"a")
    rig.run(delete=True)
    scandir = os.scandir

    def refuse(path: object) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    rig.run(delete=True)
    assert store.contents() == {"closed/a": b"a"}


def test_names_in_another_normal_form(rig: MirrorRig, store: MemoryStore) -> None:
    apart = unicodedata.normalize("NFD", "é.wav")
    rig.write(apart, b"one")
    rig.run()
    assert store.contents() == {"é.wav": b"one"}
    store.set("é.wav", b"two")
    rig.run()
    assert rig.contents() == {apart: b"two"}


# ------------------------------------------------------------------ a lost record
def test_without_its_record_all_is_compared(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("a", b"a")
    store.set("b", b"b")
    rig.run(delete=True)
    for path in rig.settings.state_dir.iterdir():
        path.unlink()
    store.calls.clear()
    rig.run(delete=True)
    assert rig.contents() == store.contents() == {"a": b"a", "b": b"b"}
    assert {name for name, _ in store.calls} == {"list", "head"}


@pytest.mark.expect_warnings("is damaged")
def test_a_damaged_record_is_set_aside(rig: MirrorRig, store: MemoryStore) -> None:
    rig.write("a", b"a")
    rig.run(delete=True)
    (rig.settings.state_dir / "mirror.db").write_bytes(b"no database" * 1000)
    (rig.dir / "a").unlink()
    rig.run(delete=True)
    assert rig.contents() == store.contents() == {"a": b"a"}
    assert list(rig.settings.state_dir.glob("mirror.db.damaged-*"))
