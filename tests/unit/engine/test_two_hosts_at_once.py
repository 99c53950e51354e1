"""Two hosts store the same name at the same moment: the metadata of both are kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from r2fs.model.errors import PreconditionFailed, Unavailable
from r2fs.model.metadata import attributes_from
from r2fs.model.records import AttributeChange, ObjectInfo
from tests.support.clocks import ManualClock
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryStore
from tests.support.power import pass_time

LATER_S = 3600.0  # until the test drains: the other host comes first

DIRECTORY, FILE, TAKE = "d", "take.wav", b"one take"


def make_directory(engine: Engine) -> int:
    engine.mkdir(DIRECTORY)
    return engine.entry(DIRECTORY).ino


def make_file(engine: Engine) -> int:
    engine.write(FILE, b"the same bytes")
    return engine.entry(FILE).ino


def attribute(engine: Engine, path: str, name: str) -> bytes:
    return engine.fs.getxattr(engine.caller, engine.entry(path).ino, f"user.{name}")


@pytest.mark.parametrize(
    ("path", "key", "create"),
    [(DIRECTORY, "d/", make_directory), (FILE, FILE, make_file)],
    ids=["directory", "file"],
)
class TestBothMakeIt:
    def test_each_sets_an_attribute(
        self, make: MakeEngine, store: MemoryStore, path: str, key: str, create: Callable[[Engine], int]
    ):
        here, there = make("a", upload_delay_s=LATER_S), make("b", upload_delay_s=LATER_S)
        here.fs.setxattr(here.caller, create(here), "user.here", b"1", 0)
        ino = create(there)
        there.fs.setxattr(there.caller, ino, "user.there", b"2", 0)
        there.fs.setattr(there.caller, ino, AttributeChange(mode=0o700))
        there.drain()
        here.drain()
        kept = store.metadata(key)
        assert (kept["here"], kept["there"], attributes_from(store.head(key)).mode) == ("1", "2", 0o700)
        assert (attribute(here, path, "here"), attribute(here, path, "there")) == (b"1", b"2")
        assert here.entry(path).attributes.mode == 0o700

    def test_only_the_other_sets_something(
        self, make: MakeEngine, store: MemoryStore, path: str, key: str, create: Callable[[Engine], int]
    ):
        here, there = make("a", upload_delay_s=LATER_S), make("b", upload_delay_s=LATER_S)
        create(here)
        ino = create(there)
        there.fs.setxattr(there.caller, ino, "user.there", b"2", 0)
        there.fs.setattr(there.caller, ino, AttributeChange(mode=0o700))
        there.drain()
        here.drain()
        assert (store.metadata(key)["there"], attributes_from(store.head(key)).mode) == ("2", 0o700)
        assert attribute(here, path, "there") == b"2"
        assert here.entry(path).attributes.mode == 0o700

    def test_both_set_the_same(
        self, make: MakeEngine, store: MemoryStore, path: str, key: str, create: Callable[[Engine], int]
    ):
        """What was set here comes second."""
        here, there = make("a", upload_delay_s=LATER_S), make("b", upload_delay_s=LATER_S)
        for engine, mode in ((here, 0o750), (there, 0o700)):
            engine.fs.setattr(engine.caller, create(engine), AttributeChange(mode=mode))
        there.drain()
        here.drain()
        assert attributes_from(store.head(key)).mode == 0o750
        assert here.entry(path).attributes.mode == 0o750


def test_an_attribute_removed_since_an_own_attempt_whose_answer_was_lost_stays_removed(
    make: MakeEngine, store: MemoryStore
):
    """Its marker is this host's own: nothing of it is merged."""
    engine = make("a", upload_delay_s=LATER_S)
    ino = make_directory(engine)
    engine.fs.setxattr(engine.caller, ino, "user.gone", b"1", 0)
    lost: list[str] = []

    def after(name: str, key: str) -> None:
        if name == "put" and not lost:
            lost.append(key)
            engine.fs.removexattr(engine.caller, ino, "user.gone")
            raise Unavailable(f"{key}: no answer")

    store.after = after
    engine.drain()
    assert lost and "gone" not in store.metadata("d/")


@pytest.mark.parametrize("seen", ["read", "not read"])
def test_both_write_the_same_bytes_over_a_file(make: MakeEngine, store: MemoryStore, seen: str):
    store.set(FILE, b"before", colour="red", artist="Anna")
    here, there = make("a", upload_delay_s=LATER_S), make("b", upload_delay_s=LATER_S)
    if seen == "read":
        assert attribute(here, FILE, "colour") == b"red"
    make_file(here)
    here.fs.setxattr(here.caller, here.entry(FILE).ino, "user.here", b"1", 0)
    ino = make_file(there)
    there.fs.setxattr(there.caller, ino, "user.there", b"2", 0)
    there.fs.setxattr(there.caller, ino, "user.colour", b"blue", 0)
    there.drain()
    here.drain()
    kept = store.metadata(FILE)
    assert (kept["here"], kept["there"], kept["artist"]) == ("1", "2", "Anna")
    assert kept["colour"] == "blue"
    assert here.listdir() == [FILE]


def test_another_hosts_directory_stays_where_this_host_has_renamed_its_own_meanwhile(
    make: MakeEngine, store: MemoryStore
):
    engine = make("a", upload_delay_s=LATER_S)
    make_directory(engine)

    def before(name: str, key: str) -> None:
        if (name, key) == ("put", "d/") and "d/" not in store.objects:
            store.set("d/", b"", there="2")
            engine.rename("d", "renamed")

    store.before = before
    engine.drain()
    assert store.keys() == ["d/", "renamed/"]
    assert "there" not in store.metadata("renamed/")


@pytest.mark.parametrize("mode", [None, 0o750])
def test_a_directory_of_which_the_server_fulfils_no_condition_is_not_sent_for_ever(
    make: MakeEngine, store: MemoryStore, caplog: pytest.LogCaptureFixture, mode: int | None
):
    """SeaweedFS refuses If-Match with the ETag that it shows of a directory which a file below it has made."""
    engine = make("a", upload_delay_s=LATER_S)
    ino = make_directory(engine)
    if mode is not None:
        engine.fs.setattr(engine.caller, ino, AttributeChange(mode=mode))
    store.set("d/", b"")

    def before(name: str, key: str) -> None:
        if (name, key) == ("put", "d/"):
            raise PreconditionFailed(key)

    store.before = before
    engine.drain()
    assert store.count("put") == 2
    assert engine.listdir() == [DIRECTORY]
    told = [record.message for record in caplog.records if "takes no metadata" in record.message]
    assert told == ([] if mode is None else ["d/: this server takes no metadata of it from here"])


# ---- an upload that arrived, and whose answer did not
def lose_an_answer(store: MemoryStore) -> None:
    """The next PUT is stored, and the bucket says nothing."""

    def lose(name: str, key: str) -> None:
        if name == "put":
            store.after = lambda name, key: None
            raise Unavailable(f"{key}: no answer")

    store.after = lose


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("change", ["none", "times", "rename", "unlink"])
def test_what_has_arrived_is_not_sent_again(make: MakeEngine, store: MemoryStore, there: bool, change: str):
    """The next attempt finds it by the attempt's id and the bytes: one HEAD, and no further body."""
    if there:
        store.set(FILE, b"before")
    engine = make("a", threads=False, clock=(clock := ManualClock()))
    engine.write(FILE, TAKE)
    lose_an_answer(store)
    engine.run_due()
    name = FILE
    if change == "times":
        engine.fs.setattr(engine.caller, engine.entry(FILE).ino, AttributeChange(mtime_ns=10**18))
    elif change == "rename":
        engine.rename(FILE, name := "renamed.wav")
    elif change == "unlink":
        engine.unlink(FILE)
    store.calls.clear()
    pass_time(engine, clock)
    assert store.contents() == ({} if change == "unlink" else {name: TAKE})
    puts = sum(verb == "put" for verb, _ in store.calls)
    assert puts == {"none": 1, "times": 2, "rename": 1, "unlink": 0}[change], "the one that was refused"
    if change == "times":
        assert store.metadata(FILE)["mtime"].startswith("1000000000.")


def test_another_hosts_delete_of_what_was_seen_there_is_not_undone(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
):
    engine = make("a", threads=False, clock=(clock := ManualClock()))
    engine.write(FILE, TAKE)
    lose_an_answer(store)
    engine.run_due()
    plain = store.head

    def head_and_remove(key: str) -> ObjectInfo:
        info = plain(key)
        store.remove(key)
        return info

    monkeypatch.setattr(store, "head", head_and_remove)
    pass_time(engine, clock)
    assert store.contents() == {}
    assert engine.listdir() == []


def test_another_hosts_delete_of_what_nobody_here_has_seen_there(make: MakeEngine, store: MemoryStore):
    """Nothing says that the bytes ever arrived: they are unsent, and unsent bytes are never dropped."""
    engine = make("a", threads=False, clock=(clock := ManualClock()))
    engine.write(FILE, TAKE)
    lose_an_answer(store)
    engine.run_due()
    store.remove(FILE)
    pass_time(engine, clock)
    assert store.contents() == {FILE: TAKE}
