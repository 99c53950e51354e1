"""Metadata that another host changed beside the same bytes: seen here, and not removed by what is stored here."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from r2fs.model.errors import Unavailable
from r2fs.model.metadata import attributes_from, same_moment
from r2fs.model.records import AttributeChange, Attributes
from tests.support.engine import MakeEngine
from tests.support.kernel import FRESH_S, Mount
from tests.support.memory_store import MemoryStore

BEFORE = {"mode": "33188", "mtime": "1600000000.5", "colour": "red"}
AFTER = {"mode": "33152", "mtime": "1500000000.25", "colour": "blue", "take": "7"}


def attribute(mount: Mount, path: str, name: str) -> bytes:
    return mount.engine.fs.getxattr(mount.engine.caller, mount.kernel.stat(path).ino, f"user.{name}")


def stored_mode(mount: Mount, key: str) -> int | None:
    """However it is written."""
    return attributes_from(mount.store.head(key)).mode


def learned(mount: Mount) -> None:
    """By another host, and asked for here."""
    mount.store.set("d/take.wav", b"same", **BEFORE)
    assert attribute(mount, "d/take.wav", "colour") == b"red"


def read(mount: Mount) -> None:
    mount.store.set("d/take.wav", b"same", **BEFORE)
    assert mount.kernel.read("d/take.wav") == b"same"


def written(mount: Mount) -> None:
    mount.store.set("d/other.wav", b"another")
    mount.kernel.create("d/take.wav", b"same")
    mount.send()
    mount.clock.advance(FRESH_S)
    assert "take.wav" in mount.kernel.listdir("d")


def listed(mount: Mount) -> None:
    mount.store.set("d/take.wav", b"same", **BEFORE)
    mount.kernel.listdir("d")


KNOWN = [learned, read, written]


@pytest.mark.parametrize("way_in", KNOWN, ids=lambda one: one.__name__)
def test_a_touch_chmod_and_attribute_of_another_host_are_seen(mount: Mount, way_in: Callable[[Mount], None]):
    way_in(mount)
    ino = mount.kernel.stat("d/take.wav").ino
    mount.clock.advance(FRESH_S / 2)
    mount.kernel.stat("d/take.wav")
    mount.store.set_metadata("d/take.wav", **AFTER)
    mount.clock.advance(FRESH_S)
    seen = mount.kernel.stat("d/take.wav")
    assert (seen.mode, seen.mtime_ns, seen.ino) == (0o600, 1_500_000_000_250_000_000, ino)
    assert (attribute(mount, "d/take.wav", "colour"), attribute(mount, "d/take.wav", "take")) == (
        b"blue",
        b"7",
    )
    asked = mount.store.count("head")
    for _ in range(5):
        mount.clock.advance(FRESH_S)
        mount.kernel.stat("d/take.wav")
    assert mount.store.count("head") == asked, "one HEAD for the change, and no more"


@pytest.mark.parametrize("way_in", [written, listed, read], ids=lambda one: one.__name__)
def test_they_are_seen_after_a_take_over(mount: Mount, way_in: Callable[[Mount], None]):
    """Of what the log does not hold all of, stat shows LastModified, as of what only a listing told of."""
    way_in(mount)
    before = mount.kernel.stat("d/take.wav")
    mount.take_over()
    mount.store.set_metadata("d/take.wav", **AFTER)
    mount.clock.advance(FRESH_S)
    seen = mount.kernel.stat("d/take.wav")
    assert seen.ino == before.ino and seen.mtime_ns != before.mtime_ns
    if way_in is written:
        assert (seen.mode, seen.mtime_ns) == (0o600, 1_500_000_000_250_000_000)
    assert (attribute(mount, "d/take.wav", "colour"), attribute(mount, "d/take.wav", "take")) == (
        b"blue",
        b"7",
    )


def test_they_are_seen_while_the_bucket_is_away_for_a_moment(mount: Mount):
    """HEAD does not answer: what was known is shown, and never the mount's defaults in its place."""
    mount.store.set("d/take.wav", b"same", mode="33152")
    mount.engine.fs.listxattr(mount.engine.caller, mount.kernel.stat("d/take.wav").ino)
    mount.store.set_metadata("d/take.wav", mode="33216")
    before = mount.kernel.stat("d/take.wav").mode

    def away(name: str, key: str) -> None:
        if name == "head":
            raise Unavailable(f"{key}: no answer")

    mount.store.before = away
    mount.clock.advance(FRESH_S)
    assert mount.kernel.stat("d/take.wav").mode == before
    mount.store.before = lambda name, key: None
    mount.clock.advance(FRESH_S)
    assert mount.kernel.stat("d/take.wav").mode == 0o700


def test_a_touch_of_what_only_a_listing_told_of_is_seen_by_the_listing(mount: Mount):
    listed(mount)
    before = mount.kernel.stat("d/take.wav").mtime_ns
    mount.store.set_metadata("d/take.wav", **AFTER)
    mount.clock.advance(FRESH_S)
    assert mount.kernel.stat("d/take.wav").mtime_ns > before
    assert mount.store.count("head") == 0


def test_what_this_host_sent_itself_is_not_another_hosts_change(mount: Mount):
    written(mount)
    mount.engine.fs.setxattr(mount.engine.caller, mount.kernel.stat("d/take.wav").ino, "user.ours", b"1", 0)
    mount.send()
    asked = mount.store.count("head")
    for _ in range(3):
        mount.clock.advance(FRESH_S)
        mount.kernel.stat("d/take.wav")
        mount.kernel.listdir("d")
    assert mount.store.count("head") == asked
    assert attribute(mount, "d/take.wav", "ours") == b"1"


def set_attribute(mount: Mount) -> None:
    fs, caller = mount.engine.fs, mount.engine.caller
    fs.setxattr(caller, mount.kernel.stat("d/take.wav").ino, "user.ours", b"1", 0)


def remove_attribute(mount: Mount) -> None:
    fs, caller = mount.engine.fs, mount.engine.caller
    fs.removexattr(caller, mount.kernel.stat("d/take.wav").ino, "user.gone")


def append(mount: Mount) -> None:
    opened = mount.kernel.open("d/take.wav", os.O_WRONLY | os.O_APPEND)
    mount.engine.fs.write(mount.engine.caller, opened.handle, 4, b" and more")
    mount.engine.close(opened)


def overwrite(mount: Mount) -> None:
    mount.kernel.create("d/take.wav", b"other bytes", exclusive=False)


def rename(mount: Mount) -> None:
    mount.kernel.rename("d/take.wav", "d/renamed.wav")


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "not seen yet"])
@pytest.mark.parametrize("way_in", [learned, read, written], ids=lambda one: one.__name__)
@pytest.mark.parametrize(
    "change", [set_attribute, remove_attribute, append, overwrite, rename], ids=lambda one: one.__name__
)
def test_what_is_stored_here_keeps_another_hosts_metadata(
    mount: Mount, way_in: Callable[[Mount], None], change: Callable[[Mount], None], seen: bool
):
    way_in(mount)
    ino = mount.kernel.stat("d/take.wav").ino
    mount.engine.fs.setxattr(mount.engine.caller, ino, "user.gone", b"soon", 0)
    mount.send()
    mount.clock.advance(FRESH_S)
    mount.kernel.stat("d/take.wav")
    mount.store.set_metadata("d/take.wav", **AFTER, gone="soon")
    if seen:
        mount.clock.advance(FRESH_S)
        mount.kernel.stat("d/take.wav")
    change(mount)
    mount.send()
    key = "d/renamed.wav" if change is rename else "d/take.wav"
    stored = mount.store.metadata(key)
    assert (stored_mode(mount, key), stored["colour"], stored["take"]) == (0o600, "blue", "7")
    if change in (set_attribute, remove_attribute, rename):
        assert stored["mtime"].startswith("1500000000.25")
    assert stored.get("ours") == ("1" if change is set_attribute else None)
    assert stored.get("gone") == (None if change is remove_attribute else "soon")
    shown = mount.kernel.stat(key)
    mount.clock.advance(FRESH_S)
    again = mount.kernel.stat(key)
    assert attribute(mount, key, "colour") == b"blue"
    assert again.mode == 0o600
    assert (shown.size, shown.ino) == (again.size, again.ino)


def test_both_changed_the_same_and_this_host_comes_second(mount: Mount):
    learned(mount)
    mount.store.set_metadata("d/take.wav", **AFTER)
    ino = mount.kernel.stat("d/take.wav").ino
    mount.engine.fs.setxattr(mount.engine.caller, ino, "user.colour", b"green", 0)
    mount.send()
    stored = mount.store.metadata("d/take.wav")
    assert (stored["colour"], stored["take"], stored_mode(mount, "d/take.wav")) == ("green", "7", 0o600)


def test_a_large_file_that_was_begun_is_sent_with_another_hosts_metadata(mount: Mount):
    """The upload's metadata are fixed when it is created."""
    learned(mount)
    object.__setattr__(mount.engine.settings, "multipart_threshold", 8)
    object.__setattr__(mount.engine.settings, "part_size", 8)
    overwrite(mount)
    mount.store.set_metadata("d/take.wav", **AFTER)
    mount.send()
    assert "-" in mount.store.objects["d/take.wav"].etag
    assert mount.store.metadata("d/take.wav")["take"] == "7"


# ------------------------------------------------------------------ directories
def test_another_hosts_chmod_of_a_directory_is_seen_and_kept(mount: Mount):
    mount.store.set("d/", b"", mode="16877", colour="red")
    mount.store.set("d/take.wav", b"x")
    assert attribute(mount, "d", "colour") == b"red"
    mount.kernel.listdir("d")
    mount.store.set_metadata("d/", mode="16832", colour="blue")
    mount.clock.advance(FRESH_S)
    mount.kernel.listdir("d")
    mount.clock.advance(FRESH_S)
    assert mount.kernel.stat("d").mode == 0o700
    assert attribute(mount, "d", "colour") == b"blue"
    mount.store.set_metadata("d/", mode="16893", colour="blue")  # not seen yet
    ino = mount.kernel.stat("d").ino
    mount.engine.fs.setxattr(mount.engine.caller, ino, "user.ours", b"1", 0)
    mount.send()
    stored = mount.store.metadata("d/")
    assert (stored_mode(mount, "d/"), stored["colour"], stored["ours"]) == (0o775, "blue", "1")


# ------------------------------------------------------------------ looking changes nothing
def what_stat_says(one: Attributes) -> tuple[object, ...]:
    return (one.ino, one.mode, one.uid, one.gid, one.size, one.mtime_ns, one.ctime_ns)


LOOKS: dict[str, Callable[[Mount], object]] = {
    "cat": lambda mount: mount.kernel.read("d/take.wav"),
    "getfattr": lambda mount: attribute(mount, "d/take.wav", "colour"),
    "ls": lambda mount: mount.kernel.listdir("d"),
    "open for writing": lambda mount: mount.engine.close(mount.kernel.open("d/take.wav", os.O_RDWR)),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("path", ["d/take.wav", "d"])
def test_looking_changes_nothing_of_what_stat_says(mount: Mount, look: str, path: str):
    mount.store.set("d/", b"", mode="16832", uid="4711", mtime="1400000000", colour="red")
    mount.store.set("d/take.wav", b"same", **BEFORE, uid="4711", gid="4712")
    mount.kernel.listdir("d")
    before = what_stat_says(mount.kernel.stat(path))
    LOOKS[look](mount)
    if path == "d":
        attribute(mount, "d", "colour")
    mount.send()
    assert what_stat_says(
        mount.engine.fs.getattr(mount.engine.caller, mount.kernel.stat(path).ino).attributes
    ) == (before)
    for _ in range(2):
        mount.clock.advance(FRESH_S)
        assert what_stat_says(mount.kernel.stat(path)) == before
    mount.take_over()
    assert what_stat_says(
        mount.engine.fs.getattr(mount.engine.caller, mount.kernel.stat(path).ino).attributes
    ) == (before)
    LOOKS[look](mount)
    assert what_stat_says(mount.kernel.stat(path)) == before


@pytest.mark.parametrize("change", [append, rename, set_attribute], ids=lambda one: one.__name__)
def test_what_was_learned_by_looking_is_stored_again(mount: Mount, change: Callable[[Mount], None]):
    mount.store.set("d/take.wav", b"same", **BEFORE, uid="4711", gid="4712")
    shown = mount.kernel.stat("d/take.wav")
    mount.kernel.read("d/take.wav")
    change(mount)
    mount.send()
    key = "d/renamed.wav" if change is rename else "d/take.wav"
    stored = mount.store.metadata(key)
    assert (stored["uid"], stored["gid"], stored["colour"]) == ("4711", "4712", "red")
    assert stored_mode(mount, key) == 0o644
    mount.clock.advance(FRESH_S)
    now = mount.kernel.stat(key)
    assert (now.mode, now.uid, now.gid) == (shown.mode, shown.uid, shown.gid)
    if change is append:
        assert now.mtime_ns > shown.mtime_ns
    else:
        assert stored["mtime"].startswith("1600000000.5")
        assert now.mtime_ns == shown.mtime_ns


def test_a_change_made_here_is_shown_beside_what_was_shown(mount: Mount):
    mount.store.set("d/take.wav", b"same", **BEFORE, uid="4711")
    before = mount.kernel.stat("d/take.wav")
    mount.kernel.read("d/take.wav")
    change = AttributeChange(mode=0o640)
    entry = mount.engine.fs.setattr(mount.engine.caller, before.ino, change)
    shown = entry.attributes
    assert (shown.mode, shown.uid, shown.mtime_ns) == (0o640, before.uid, before.mtime_ns)
    mount.send()
    stored = mount.store.metadata("d/take.wav")
    assert (stored_mode(mount, "d/take.wav"), stored["uid"], stored["colour"]) == (0o640, "4711", "red")
    assert mount.kernel.stat("d/take.wav").uid == before.uid


class TestExact:
    """`mtime = "exact"` asks before it shows anything: then what is stored is what is shown."""

    @pytest.fixture
    def engine_settings(self) -> dict[str, object]:
        return {"mtime": "exact"}

    def test_what_is_stored_is_shown(self, mount: Mount):
        mount.store.set("d/take.wav", b"same", **BEFORE, uid="4711")
        shown = mount.kernel.stat("d/take.wav")
        assert (shown.mode, shown.uid, shown.mtime_ns) == (0o644, 4711, 1_600_000_000_500_000_000)
        mount.kernel.read("d/take.wav")
        mount.store.set_metadata("d/take.wav", **AFTER)
        mount.clock.advance(FRESH_S)
        shown = mount.kernel.stat("d/take.wav")
        assert (shown.mode, shown.mtime_ns) == (0o600, 1_500_000_000_250_000_000)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(1_500_000_000, 1_000_000_000, True), (1_500_000_000, 1_600_000_000, False),
     (1_500_000_000, 2_000_000_000, False), (1_000_000_000, 1_000_000_000, True)],
)  # fmt: skip
def test_whole_seconds_are_compared_as_such(one: int, other: int, same: bool):
    assert same_moment(one, other) is same
    assert same_moment(other, one) is same


@pytest.mark.parametrize("carried", ["copy", "put"])
def test_what_is_set_here_while_both_changes_are_on_their_way_keeps_the_other_hosts_too(
    make: MakeEngine, store: MemoryStore, carried: str
):
    store.set("take.wav", b"same", **BEFORE)
    engine = make()
    ino = engine.entry("take.wav").ino

    def mark(name: str) -> None:
        engine.fs.setxattr(engine.caller, ino, f"user.{name}", b"here", 0)

    def before(name: str, key: str) -> None:
        if name == carried and left:
            mark(left.pop())

    assert engine.fs.getxattr(engine.caller, ino, "user.colour") == b"red"
    store.set_metadata("take.wav", **AFTER)
    left = ["second"]
    store.before = before
    if carried == "put":
        engine.write("take.wav", b"other", os.O_WRONLY)
    else:
        mark("first")
    engine.drain()
    kept = dict(store.metadata("take.wav"))
    assert not left and kept["second"] == "here"
    assert (kept["colour"], kept["take"]) == ("blue", "7")
    assert engine.fs.getxattr(engine.caller, ino, "user.take") == b"7"


def test_a_checksum_that_another_host_adds_does_not_outlive_the_bytes(make: MakeEngine, store: MemoryStore):
    store.set("take.wav", b"same", **BEFORE)
    engine = make(upload_delay_s=60.0)
    assert engine.fs.getxattr(engine.caller, engine.entry("take.wav").ino, "user.colour") == b"red"
    engine.write("take.wav", b"other", os.O_WRONLY)
    store.set_metadata("take.wav", **AFTER, md5chksum="of-the-same")
    engine.drain()
    assert store.data("take.wav") == b"other"
    kept = store.metadata("take.wav")
    assert kept["colour"] == "blue" and "md5chksum" not in kept


def test_metadata_read_just_before_their_object_was_replaced_go_with_the_renamed_file(
    make: MakeEngine, store: MemoryStore
) -> None:
    """Both files are claimed together: the renamed one does not know its metadata then."""
    store.set("take.wav", b"first")
    store.set_metadata("take.wav", tagged="2")
    engine = make(threads=False, upload_delay_s=0.0)
    engine.write("take.wav", b"second")
    engine.rename("take.wav", "kept.wav")
    engine.write("take.wav", b"third")
    engine.fs.setattr(engine.caller, engine.entry("kept.wav").ino, AttributeChange(mode=0o600))  # due last
    engine.run_due()
    assert (store.data("kept.wav"), store.data("take.wav")) == (b"second", b"third")
    assert store.metadata("kept.wav")["tagged"] == "2"
    assert store.metadata("kept.wav")["mode"] == "0100600"
    assert "tagged" not in store.metadata("take.wav")


@pytest.mark.parametrize("change", ["attribute", "append"])
def test_another_hosts_metadata_are_merged_after_a_kill_before_the_upload(
    make: MakeEngine, store: MemoryStore, change: str
) -> None:
    """What they were when this host last saw them is in the journal, else ours would take theirs for removed."""
    store.set("take.wav", b"a take", artist="Anna", mode="0100640")
    engine = make(mtime="exact", upload_delay_s=3600.0)
    ino = engine.entry("take.wav").ino
    if change == "attribute":
        engine.fs.setxattr(engine.caller, ino, "user.take", b"7", 0)
    else:
        engine.fs.setxattr(engine.caller, ino, "user.take", b"7", 0)
        engine.write("take.wav", b"+", os.O_WRONLY, at=6)
    engine.kill()
    store.set_metadata("take.wav", artist="Berta", colour="blue", mode="0100600")
    make().drain()
    there = store.head("take.wav").metadata
    assert there is not None
    assert (there["artist"], there["colour"], there["take"], there["mode"]) == (
        "Berta",
        "blue",
        "7",
        "0100600",
    )
    assert store.data("take.wav") == (b"a take" if change == "attribute" else b"a take+")
