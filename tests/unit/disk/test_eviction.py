"""The order of eviction, on traces: a scan evicts itself, and not what is in daily use."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from r2fs.disk.cache import eviction
from r2fs.disk.cache.cache import CleanCache
from r2fs.model.records import Version
from tests.unit.disk.conftest import SetClock

LIMIT = 80  # files


class Host:
    """Reads files of a block each through a cache, ten minutes apart; counts the hits."""

    def __init__(self, directory: Path, clock: SetClock) -> None:
        self.clock = clock
        self.cache = CleanCache(directory / "cache", limit_bytes=LIMIT * 4096, ttl_s=0, clock=clock)
        self.path, self.out = directory / "download", directory / "out"

    def read(self, name: str, use: bool = True) -> bool:
        self.clock.now_s += 600.0
        version = Version(name, "e", 1)
        if self.cache.take(version, self.out, use) is not None:
            self.out.unlink()
            return True
        self.path.write_bytes(b"x")
        assert self.cache.admit(version, self.path, size=1, present=None)
        self.path.unlink()
        return False

    def hits(self, names: Iterable[str]) -> int:
        return sum([self.read(name) for name in names])


@pytest.fixture
def host(tmp_path: Path, clock: SetClock) -> Iterable[Host]:
    one = Host(tmp_path, clock)
    yield one
    one.cache.close()


def lru_hits(trace: Iterable[str]) -> Callable[[Iterable[str]], int]:
    """The hits of a plain LRU of the same size, after `trace`."""
    kept: OrderedDict[str, None] = OrderedDict()

    def read(name: str) -> bool:
        hit = name in kept
        kept[name] = None
        kept.move_to_end(name)
        while len(kept) > LIMIT:
            kept.popitem(last=False)
        return hit

    for name in trace:
        read(name)
    return lambda names: sum([read(name) for name in names])


DAILY = [f"daily/{n}" for n in range(50)]
SCAN = [f"archive/{n}" for n in range(300)]


def test_a_scan_leaves_what_is_in_daily_use(host: Host) -> None:
    trace = [*DAILY, *DAILY, *SCAN]
    host.hits(trace)
    assert host.cache.view().entries == LIMIT
    assert (host.hits(DAILY), lru_hits(trace)(DAILY)) == (50, 0)


@pytest.mark.parametrize("use", [True, False])
def test_an_indexer_s_read_of_what_is_here_is_no_use(host: Host, use: bool) -> None:
    host.hits([*DAILY, *DAILY, *SCAN[:10]])
    assert all(host.read(name, use) for name in SCAN[:10])
    host.hits(SCAN[10:110])
    assert host.hits(DAILY) >= 49
    hits = host.hits(SCAN[:10])
    assert hits >= 9 if use else not hits


def test_a_new_working_set_takes_the_place_of_the_old_one(host: Host) -> None:
    """Larger than the first queue: each file is remembered after its eviction, and stays at its second download."""
    host.hits([*DAILY, *DAILY])
    new = [f"new/{n}" for n in range(70)]
    assert [host.hits(new) for _ in range(4)][2:] == [70, 70]


def test_on_a_mixed_trace_it_is_no_worse_than_lru(host: Host) -> None:
    """A working set by popularity (Zipf), with a scan after every 200 reads."""
    rng = random.Random(7)
    names = [f"z/{n}" for n in range(200)]
    weights = [1 / (n + 1) for n in range(200)]
    trace = []
    for n in range(5):
        trace += rng.choices(names, weights, k=200) + [f"scan{n}/{m}" for m in range(100)]
    popular = rng.choices(names, weights, k=200)
    host.hits(trace)
    ours, lru = host.hits(popular), lru_hits(trace)(popular)
    assert ours >= lru + 20, f"{ours} hits of 200, an LRU has {lru}"


def test_two_uses_at_once_are_one(host: Host) -> None:
    """A program that probes a file and then reads it does not put it into the queue of daily use."""
    host.hits([*DAILY, *DAILY])
    for name in SCAN:
        host.read(name)
        host.clock.now_s -= 600.0 - eviction.AGAIN_S / 2  # 30 s after the download
        assert host.read(name)
    assert host.hits(DAILY) == 50


def test_the_queues_outlast_a_restart(tmp_path: Path, clock: SetClock) -> None:
    host = Host(tmp_path, clock)
    host.hits([*DAILY, *DAILY])
    host.cache.close()
    host = Host(tmp_path, clock)
    host.hits(SCAN)
    assert host.hits(DAILY) == 50
    host.cache.close()
