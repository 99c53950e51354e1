from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from r2fs.drivers.kernel import wire
from r2fs.drivers.kernel.codec import FOREVER_S
from r2fs.drivers.kernel.notify import KernelNotifier
from r2fs.drivers.kernel.wire import Notify
from tests.unit.drivers.conftest import FakeKernel


@pytest.fixture
def notifier(kernel: FakeKernel) -> Iterator[KernelNotifier]:
    made = KernelNotifier()
    made.start(kernel.daemon.fileno())
    yield made
    assert made.stop()


def received(kernel: FakeKernel, count: int) -> set[tuple[Notify, bytes]]:
    found = [kernel.receive() for _ in range(count)]
    assert {one.unique for one in found} == {0}
    return {(Notify(-one.errno), one.body) for one in found}


def dropped(ino: int, offset: int) -> tuple[Notify, bytes]:
    return Notify.INVAL_INODE, wire.INVAL_INODE_OUT.pack(ino, offset, 0)


def test_a_name_and_the_listing_that_shows_it(kernel: FakeKernel, notifier: KernelNotifier) -> None:
    notifier.with_cached_names.add(9)
    notifier.forget_name(9, "é")
    raw = "é".encode()
    entry = wire.INVAL_ENTRY_OUT.pack(9, len(raw), wire.EXPIRE_ONLY) + raw + b"\0"
    assert received(kernel, 2) == {(Notify.INVAL_ENTRY, entry), dropped(9, 0)}


def test_a_name_that_is_gone_is_dropped(kernel: FakeKernel, notifier: KernelNotifier) -> None:
    notifier.with_cached_names.add(9)
    notifier.forget_name(9, "a", gone=True)
    entry = wire.INVAL_ENTRY_OUT.pack(9, 1, 0) + b"a\0"
    assert received(kernel, 2) == {(Notify.INVAL_ENTRY, entry), dropped(9, 0)}


def test_attributes_and_content(kernel: FakeKernel, notifier: KernelNotifier) -> None:
    notifier.forget_attributes(5)
    notifier.forget_content(6)
    assert received(kernel, 2) == {dropped(5, -1), dropped(6, 0)}


def test_a_directory_of_which_nothing_was_told_needs_nothing(
    kernel: FakeKernel, notifier: KernelNotifier
) -> None:
    """A first listing of ten thousand files sends no ten thousand notifications."""
    notifier.forget_name(9, "new")
    assert kernel.silent()
    notifier.with_cached_names.add(9)
    notifier.forgotten(9)
    notifier.forget_name(9, "new")
    assert kernel.silent()


def test_an_epoch_ends_with_a_change_that_another_thread_tells_of(notifier: KernelNotifier) -> None:
    before = notifier.epoch()
    notifier.forget_attributes(5)
    assert notifier.epoch() == before, "what a handler changes itself is in its answer"
    other = threading.Thread(target=notifier.forget_attributes, args=(6,))
    other.start()
    other.join()
    assert notifier.epoch() != before


def test_the_same_notice_is_sent_once(kernel: FakeKernel) -> None:
    notifier = KernelNotifier()
    for _ in range(1000):
        notifier.forget_content(7)
        notifier.forget_attributes(7)
    notifier.start(kernel.daemon.fileno())
    assert received(kernel, 2) == {dropped(7, 0), dropped(7, -1)}
    assert kernel.silent()
    assert notifier.stop()


def test_a_listing_is_dropped_when_it_is_no_longer_fresh(
    kernel: FakeKernel, notifier: KernelNotifier
) -> None:
    began = time.monotonic()
    notifier.listing_shown(3, 0.3)
    notifier.listing_shown(2, 0.1)
    notifier.listing_shown(4, FOREVER_S)
    assert received(kernel, 1) == {dropped(2, 0)}
    assert time.monotonic() - began >= 0.1
    assert received(kernel, 1) == {dropped(3, 0)}
    assert time.monotonic() - began >= 0.3
    assert kernel.silent()


def test_a_listing_that_is_shown_again_stays(kernel: FakeKernel, notifier: KernelNotifier) -> None:
    began = time.monotonic()
    notifier.listing_shown(3, 0.1)
    notifier.listing_shown(3, 0.3)
    assert received(kernel, 1) == {dropped(3, 0)}
    assert time.monotonic() - began >= 0.3
    notifier.listing_shown(3, 9.0)
    notifier.listing_shown(3, 0.1)
    assert received(kernel, 1) == {dropped(3, 0)}
    assert kernel.silent()


def test_resend(kernel: FakeKernel, notifier: KernelNotifier) -> None:
    notifier.resend()
    assert received(kernel, 1) == {(Notify.RESEND, b"")}


def test_a_notifier_that_never_started_stops() -> None:
    notifier = KernelNotifier()
    notifier.forget_content(1)
    assert notifier.stop()
