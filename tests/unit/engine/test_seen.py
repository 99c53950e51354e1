"""What another host does is seen within `freshness`, however the kernel came to know the name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from r2fs.model.errors import Exists, NotFound
from tests.support.clocks import ManualClock
from tests.support.engine import Engine, do_at_once
from tests.support.kernel import Kernel
from tests.support.memory_store import MemoryStore
from tests.support.session import Session

FRESH_S = 10.0


@dataclass
class Mount:
    session: Session
    kernel: Kernel
    clock: ManualClock
    store: MemoryStore

    @property
    def engine(self) -> Engine:
        return self.session.engine

    def send(self) -> None:
        """Everything that is due."""
        for _ in range(100):
            task = self.engine.fs._writeback.take_due()
            if task is None:
                return
            task()
        raise AssertionError(f"sends without end: {self.engine.fs.queue_view()}")

    def take_over(self) -> None:
        self.session.kill()
        _without_threads(self.engine)
        self.kernel.connect()


def _without_threads(engine: Engine) -> None:
    for queue in (engine.fs._downloads, engine.fs._parts, engine.fs._background, engine.fs._listings):
        do_at_once(queue)


@pytest.fixture
def mount(session: Callable[..., Session], store: MemoryStore) -> Mount:
    clock = ManualClock()
    one = session(clock=clock, threads=False, freshness_s=FRESH_S)
    _without_threads(one.engine)
    return Mount(one, Kernel(one, clock), clock, store)


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
