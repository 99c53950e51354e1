"""A rename or an exchange in the engine: which orders hold, and what is left unchanged where it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from r2fs.model.errors import Busy, NameTooLong, Refused
from r2fs.model.pending import Pending
from r2fs.model.records import PendingDelete
from r2fs.model.verbs import RENAME_EXCHANGE
from tests.support.engine import Engine, MakeEngine, do_at_once
from tests.support.memory_store import MemoryStore
from tests.support.power import LATER, ONE, OTHER

LONG = "n" * 240  # `top` and four of them fit in a key of 1,024 bytes; LONGER and four of them do not
LONGER = "m" * 100
BYTES = b"a rendered short"


def state(engine: Engine) -> tuple[dict[str, Pending | None], list[PendingDelete], list[str]]:
    """What the mount shows, and what is pending."""
    pending = {engine.inodes.key(node): node.pending for node in engine.pending_nodes()}
    return pending, engine.deletes(), sorted(engine.tree())


def objects(store: MemoryStore) -> dict[str, bytes]:
    """Those of directories, too."""
    return {key: store.data(key) for key in store.objects}


def upload_beside(engine: Engine, store: MemoryStore, act: Callable[[], object]) -> list[str]:
    """Upload what is due and `act` while the body is on its way; the keys whose PUT was answered."""
    sent: list[str] = []
    once = iter([True])

    def before(name: str, key: str) -> None:
        if name == "put" and next(once, False):
            act()

    store.before = before
    store.after = lambda name, key: sent.append(key) if name == "put" else None
    engine.run_one_due()
    return sent


# ------------------------------------------------------------------ refused
def deep(store: MemoryStore) -> str:
    """A directory and a file whose key becomes too long once the directory has a long name."""
    key = "/".join(["top", *[LONG] * 4])
    store.set(key, ONE)
    return key


def test_a_name_that_becomes_too_long_below_changes_nothing(make: MakeEngine, store: MemoryStore) -> None:
    """Nor does one below the other side of an exchange, found after those of the first side."""
    deep(store)
    store.set("top/a.wav", ONE)
    store.set(f"{LONGER}/x.wav", ONE)
    engine = make(**LATER)
    engine.write("top/b.wav", OTHER)
    engine.write(f"{LONGER}/y.wav", OTHER)
    before = state(engine)
    with pytest.raises(NameTooLong):
        engine.rename("top", LONGER + "r")
    for names in (("top", LONGER), (LONGER, "top")):
        with pytest.raises(NameTooLong):
            engine.rename(*names, RENAME_EXCHANGE)
    assert state(engine) == before
    engine.kill()
    assert state(make(**LATER))[2] == before[2]


def test_a_refused_rename_stops_no_upload(make: MakeEngine, store: MemoryStore) -> None:
    """Names that fit come first: nothing of them may have been touched when one that does not fit is found."""
    engine = make(threads=False)
    engine.mkdir("top")
    engine.write("top/a.wav", ONE)
    deep(store)

    def rename() -> None:
        with pytest.raises(NameTooLong):
            engine.rename("top", LONGER)

    assert upload_beside(engine, store, rename) == ["top/a.wav"]
    engine.run_due()
    assert not engine.pending_nodes() and not engine.deletes()


@pytest.mark.expect_warnings("at the key of a directory")
@pytest.mark.parametrize("exchange", [False, True])
def test_a_busy_rename_changes_nothing(make: MakeEngine, store: MemoryStore, exchange: bool) -> None:
    store.set("one/", BYTES)
    store.set("two/", BYTES + BYTES)
    store.set("two/a.wav", ONE)
    engine = make(**LATER)
    if not exchange:
        engine.rename("one", "moved")
    before = state(engine)
    with pytest.raises(Busy):
        engine.rename("two", "one", RENAME_EXCHANGE if exchange else 0)
    assert state(engine) == before
    engine.drain()
    first = "one/" if exchange else "moved/"
    assert objects(store) == {first: BYTES, "two/": BYTES + BYTES, "two/a.wav": ONE}


@pytest.mark.expect_warnings("at the key of a directory")
@pytest.mark.parametrize("below", ["", "sub/"])
def test_an_exchange_of_directories_that_both_hold_bytes_is_busy(
    make: MakeEngine, store: MemoryStore, below: str
) -> None:
    """Neither copy could go first. One of the two alone is no obstacle, whichever is named first."""
    store.set(f"one/{below}", BYTES)
    store.set(f"two/{below}", BYTES + BYTES)
    store.set("three/a.wav", ONE)
    engine = make(**LATER)
    for names in (("one", "two"), ("two", "one")):
        with pytest.raises(Busy):
            engine.rename(*names, RENAME_EXCHANGE)
    assert not engine.pending_nodes() and not engine.deletes()
    engine.rename("three", "one", RENAME_EXCHANGE)
    engine.drain()
    assert objects(store) == {f"three/{below}": BYTES, f"two/{below}": BYTES + BYTES, "one/a.wav": ONE}


# ------------------------------------------------------------------ the order of an exchange
def test_an_exchange_replaces_and_never_deletes_what_both_have(make: MakeEngine, store: MemoryStore) -> None:
    for name, data in (("a", ONE), ("b", OTHER)):
        store.set(f"{name}/both.wav", data)
        store.set(f"{name}/sub/both.wav", data)
        store.set(f"{name}/{name}.wav", data)
    engine = make()
    both = {"a/both.wav", "a/sub/both.wav", "b/both.wav", "b/sub/both.wav"}
    missing: set[str] = set()
    store.before = lambda name, key: missing.update(both - store.objects.keys())
    engine.rename("a", "b", RENAME_EXCHANGE)
    engine.drain()
    assert not missing
    assert store.contents() == {
        "a/both.wav": OTHER,
        "a/sub/both.wav": OTHER,
        "a/b.wav": OTHER,
        "b/both.wav": ONE,
        "b/sub/both.wav": ONE,
        "b/a.wav": ONE,
    }


def test_a_replaced_files_delete_is_taken_over(make: MakeEngine, store: MemoryStore) -> None:
    """The rename expects the replaced version at its key: one request, and no moment without the name."""
    store.set("a.wav", ONE)
    store.set("b.wav", OTHER)
    engine = make(threads=False, **LATER)
    engine.rename("a.wav", "b.wav")
    (node,) = engine.pending_nodes()
    assert node.pending is not None and node.pending.expected_etag == store.head("b.wav").etag
    assert [row.key for row in engine.deletes()] == ["a.wav"]


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_removed_does_not_come_back_by_an_upload_of_the_name_before_it(
    make: MakeEngine, store: MemoryStore, restarted: bool
) -> None:
    """The answer to that upload is heard last: a new file of the name still replaces what was removed last."""
    engine = make(threads=False, freshness_s=0.0)
    engine.write("a.wav", ONE)

    def replaced(name: str, key: str) -> None:
        if name == "put":
            engine.rename("a.wav", "b.wav")
            store.set("a.wav", OTHER)
            engine.unlink("a.wav")

    store.after = replaced
    engine.run_one_due()
    store.after = lambda name, key: None
    if restarted:
        engine.kill()
        engine = make(threads=False, freshness_s=0.0)
    engine.write("a.wav", BYTES)
    engine.run_due()
    assert store.contents() == {"a.wav": BYTES, "b.wav": ONE}


# ------------------------------------------------------------------ directories that lose their last object
@pytest.mark.expect_warnings
@pytest.mark.parametrize("other", ["b/other/x.wav", "b/other.rclonelink"], ids=["a directory", "a link"])
@pytest.mark.parametrize("swapped", [False, True], ids=["file first", "file second"])
def test_an_exchange_keeps_a_directory_that_loses_its_last_object(
    make: MakeEngine, store: MemoryStore, other: str, swapped: bool
) -> None:
    """What comes to `a` cannot be sent; what leaves it can, and was all that the bucket had there."""
    store.set("a/f.wav", ONE)
    store.set(other, b"target")
    engine = make(threads=False)
    do_at_once(engine.downloads)

    def fail(name: str, key: str) -> None:
        if name in ("put", "copy") and key.startswith("a/f.wav"):
            raise Refused("no")

    store.before = fail
    first, second = ("b/other", "a/f.wav") if swapped else ("a/f.wav", "b/other")
    engine.rename(first, second, RENAME_EXCHANGE)
    for _ in range(5):
        engine.hasten()
        engine.run_due()
    assert store.data("b/other") == ONE
    assert "a/f.wav" not in store.objects
    assert "a" in make("b").listdir()


def test_an_exchange_of_files_makes_no_object_of_their_directories(
    make: MakeEngine, store: MemoryStore
) -> None:
    """Each one's object is replaced: neither directory is without one."""
    store.set("a/f.wav", ONE)
    store.set("b/g.wav", OTHER)
    engine = make()
    engine.rename("a/f.wav", "b/g.wav", RENAME_EXCHANGE)
    engine.drain()
    assert store.contents() == {"a/f.wav": OTHER, "b/g.wav": ONE}
