"""`min_free`: clean content gives way to others on the cache's disk."""

from __future__ import annotations

import time

import pytest

from r2fs.engine.content.disk_space import Disk, DiskSpace
from tests.support.engine import MakeEngine
from tests.support.memory_store import MemoryStore

MIB = 1 << 20
MIN_FREE = 100 * MIB


def on_a_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> list[int]:
    """Make the disk have `free` bytes and what has been evicted since; return the bytes of each eviction."""
    evicted: list[int] = []
    make_now = DiskSpace.make_now

    def make(space: DiskSpace, size: int = 0) -> bool:
        evicted.append(size)
        return make_now(space, size)

    def disk(space: DiskSpace) -> Disk:
        return Disk(free + sum(evicted), 1, MIN_FREE)

    monkeypatch.setattr(DiskSpace, "make_now", make)
    monkeypatch.setattr(DiskSpace, "disk", disk)
    return evicted


def test_content_goes_until_so_much_is_free_though_no_program_writes(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(min_free=MIN_FREE)
    for n in range(8):
        store.set(f"{n}.wav", bytes(MIB))
        engine.read(f"{n}.wav")
    engine.retire_idle()
    evicted = on_a_disk(monkeypatch, 98 * MIB)
    deadline = time.monotonic() + 10
    while engine.cache.view().evicted < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(1.5)  # another look
    assert evicted == [2 * MIB]
    assert engine.cache.view().entries == 6


@pytest.mark.expect_warnings("no clean content is left")
def test_with_nothing_left_it_says_so_once(
    make: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make(min_free=MIN_FREE)
    monkeypatch.setattr(DiskSpace, "disk", lambda space: Disk(1, 0, MIN_FREE))
    time.sleep(2.5)
    assert caplog.text.count("1 bytes are free, and min_free is 104857600") == 1
