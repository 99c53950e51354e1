"""Files are fetched in the order in which a program opens them, and no others."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

import pytest

from r2fs.engine.content import prefetch
from r2fs.engine.content.disk_space import Disk
from r2fs.engine.content.jobs import AHEAD
from r2fs.engine.content.siblings import (
    DIRECTORIES,
    FIRST,
    GAP,
    LARGEST,
    MANY,
    MOST,
    ORDERLY,
    SHARE,
    STEP,
    Chosen,
    Siblings,
)
from r2fs.engine.content.source import Hedges
from r2fs.model.errors import R2fsError, Unavailable
from r2fs.model.ports import NoKernelCache
from tests.support.engine import Engine, MakeEngine
from tests.support.memory_store import MemoryDownload, MemoryStore

NAMES = [f"{n:04}.wav" for n in range(1000)]
BEFORE = [f"!{n}.txt" for n in range(GAP)]  # the first names of a directory, which are not opened
LIMIT = 64 << 20


def choose(
    siblings: Siblings,
    ino: int,
    name: str,
    names: list[str],
    size: int = 1,
    limit: int = LIMIT,
    cold: bool = True,
    here: Collection[str] = (),
) -> list[Chosen]:
    """Open a file; return the choices. All files have `size` bytes, and those of `here` are here."""
    chooses = siblings.opened(ino, name, cold, names)
    return siblings.choose(ino, lambda name, reads: 0 if name in here else size, limit) if chooses else []


class Program:
    """Opens files of a directory; `chosen` are those fetched ahead, in order."""

    def __init__(self, siblings: Siblings | None = None, size: int = 4096, limit: int = LIMIT) -> None:
        self.siblings = siblings or Siblings()
        self.names = [*BEFORE, *NAMES]
        self.size = size
        self.limit = limit
        self.chosen: list[int] = []
        self.choices: list[Chosen] = []
        self.opened: set[int] = set()
        self.here: dict[int, set[str]] = {}

    def open(self, *numbers: int, ino: int = 1, cold: bool = True) -> list[int]:
        """The numbers chosen at the last of these opens."""
        new: list[int] = []
        for n in numbers:
            here = self.here.setdefault(ino, set(BEFORE))
            here.add(NAMES[n])
            chosen = choose(self.siblings, ino, NAMES[n], self.names, self.size, self.limit, cold, here)
            here |= {one.name for one in chosen}
            self.choices += chosen
            new = [NAMES.index(one.name) for one in chosen]
            self.chosen += new
            self.opened.add(n)
        return new


# ------------------------------------------------------------------ which are chosen
def test_a_run_begins_at_the_second_file() -> None:
    program = Program()
    assert program.open(10) == []
    assert program.open(11) == [12, 13][:FIRST]


@pytest.mark.parametrize("at", range(GAP + 1))
@pytest.mark.parametrize("count", [MANY - 1, MANY, 1000])
def test_one_of_the_first_names_of_many_begins_a_run(at: int, count: int) -> None:
    names = NAMES[:count]
    chosen = choose(Siblings(), 1, names[at], names)
    begins = at < GAP and count >= MANY
    assert [one.name for one in chosen] == (names[at + 1 : at + 1 + FIRST] if begins else [])


def test_the_first_name_opened_by_chance_costs_few_downloads() -> None:
    siblings = Siblings()
    assert len(choose(siblings, 1, NAMES[0], NAMES)) == FIRST
    assert not choose(siblings, 1, NAMES[500], NAMES)
    assert siblings.surplus == FIRST
    assert not choose(siblings, 1, NAMES[0], NAMES) and not choose(siblings, 1, NAMES[1], NAMES)


def test_the_first_read_of_a_run_chooses_names_once_it_shows_how_much() -> None:
    siblings = Siblings()

    def names() -> list[str]:
        return [one.name for one in siblings.choose(1, lambda name, reads: reads.head or 0, LIMIT)]

    assert siblings.opened(1, NAMES[0], True, NAMES) and names() == []
    assert siblings.read(1, NAMES[0], 1 << 20, 0, 65536) and names() == NAMES[1 : 1 + FIRST]
    assert not siblings.read(1, NAMES[0], 1 << 20, 65536, 131072), "once"
    assert not siblings.opened(2, NAMES[7], True, NAMES)
    assert not siblings.read(2, NAMES[7], 1 << 20, 0, 65536), "no run"


def test_the_window_grows_with_each_file_that_was_expected() -> None:
    program = Program()
    program.open(0, 1)
    ends = [max(program.open(n), default=0) - n for n in range(2, 7)]
    assert ends == [STEP, 2 * STEP, 4 * STEP, MOST, -6]  # then half of the window is read first
    assert sum(bool(program.open(n)) for n in range(7, 7 + 2 * MOST)) == 4


def test_each_is_chosen_once_and_never_more_than_the_window() -> None:
    program = Program()
    for n in range(len(NAMES)):
        program.open(n)
        assert len(set(program.chosen) - program.opened) <= MOST
        assert all(one <= n + MOST for one in program.chosen)
    assert sorted(program.chosen) == list(range(2, len(NAMES))) == program.chosen
    assert program.siblings.surplus == 0


def test_opening_one_again_changes_nothing() -> None:
    program = Program()
    program.open(0, 0, 0)
    assert program.open(1) == [2, 3]
    assert program.open(1) == []
    assert program.open(2)[-1] == 2 + STEP


@pytest.mark.parametrize("step", range(1, GAP + 1))
def test_some_may_be_passed_over(step: int) -> None:
    program = Program()
    assert program.open(0, step) != []


@pytest.mark.parametrize("numbers", [(0, GAP + 1), (20, 10), (999, 0)], ids=["far", "back", "round"])
def test_any_other_order_chooses_none(numbers: tuple[int, ...]) -> None:
    assert Program().open(*numbers) == []


def test_threads_may_overtake_each_other() -> None:
    program = Program()
    for n in [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]:
        program.open(n)
    assert program.siblings.surplus == 0
    assert {10, 11, 12, 13} <= set(program.chosen)


def test_a_jump_ends_the_run() -> None:
    program = Program()
    program.open(0, 1, 2, 3)
    left = set(program.chosen) - program.opened
    choices = [choice for choice in program.choices if NAMES.index(choice.name) in left]
    assert all(program.siblings.wants(choice) for choice in choices)
    assert program.open(500) == []
    assert not any(program.siblings.wants(choice) for choice in choices)
    assert program.siblings.surplus == len(left)


@pytest.mark.parametrize("seed", range(20))
def test_in_random_order_as_many_are_chosen_as_were_opened(seed: int) -> None:
    program, order = Program(), list(range(len(NAMES)))
    random.Random(seed).shuffle(order)
    cold = 0
    for n in order:
        cold += n not in program.chosen
        program.open(n, cold=n not in program.chosen)
        assert len(program.chosen) <= len(program.opened) + FIRST
        if len(program.opened) < len(NAMES) // SHARE:
            assert len(program.chosen) <= FIRST
    assert len(set(program.chosen)) == len(program.chosen)
    assert cold < len(NAMES) / 2
    assert program.siblings.surplus <= FIRST


@pytest.mark.parametrize("seed", range(20))
def test_in_random_order_few_are_chosen_where_these_are_not_opened(seed: int) -> None:
    program, order = Program(), list(range(600, len(NAMES)))
    random.Random(seed).shuffle(order)
    program.open(*order)
    assert len(program.chosen) < 200
    assert program.siblings.surplus > 0


def test_files_opened_again_and_again_choose_no_more() -> None:
    program, few = Program(), random.Random(3).sample(range(len(NAMES)), 40)
    for n in few * 20:
        program.open(n, cold=n not in program.opened)
    assert len(program.chosen) <= len(few)


def test_opens_in_order_end_the_choice_of_any() -> None:
    program, order = Program(), random.Random(5).sample(range(500), 100)
    program.open(*order)
    chosen = len(program.chosen)
    assert chosen > 50
    program.open(*range(900, 900 + ORDERLY + 1))
    assert program.chosen[-1] > 900
    assert not any(one.name < NAMES[900] and program.siblings.wants(one) for one in program.choices)
    assert program.siblings.surplus > 0


def test_in_random_order_the_bytes_are_bounded() -> None:
    program = Program(size=1000, limit=5000)
    for n in random.Random(4).sample(range(len(NAMES)), 300):
        program.open(n)
        assert sum(program.siblings.wants(one) for one in program.choices) <= 5
    assert len(program.chosen) >= 5


def test_too_much_surplus_asks_for_a_longer_run() -> None:
    program = Program()
    program.open(0, 1, 500)
    chosen = len(program.chosen)
    assert program.open(501, 502, 503) == []
    assert program.open(504, 505, 506, 507) == []
    assert len(program.chosen) == chosen
    assert program.open(508) == [509, 510]


def test_files_passed_over_are_surplus_and_end_the_run() -> None:
    program = Program()
    program.open(*range(0, 999, 3))
    assert len(program.chosen) <= 3 * 6  # of 333 opens: after the first six, needed are 8, 64 and 512
    assert program.siblings.surplus > 0


def test_what_needs_no_download_is_no_surplus() -> None:
    program = Program()
    program.open(0)
    for chosen in choose(program.siblings, 1, NAMES[1], NAMES):
        program.siblings.skipped(chosen)
        program.siblings.skipped(chosen)
    program.open(500)
    assert program.siblings.surplus == 0
    assert program.open(501) == [502, 503]


def test_a_failure_ends_the_run_without_surplus() -> None:
    program = Program()
    program.open(0)
    first, second = choose(program.siblings, 1, NAMES[1], NAMES)
    program.siblings.failed(first)
    program.siblings.failed(second)  # of the same run
    assert not program.siblings.wants(second)
    assert program.open(*range(2, 9)) == []
    assert program.open(9) == [10, 11]
    assert program.siblings.surplus == 0


def test_the_bytes_are_bounded() -> None:
    program = Program(size=1000, limit=5000)
    for n in range(100):
        program.open(n)
        assert len(set(program.chosen) - program.opened) <= 5
    assert program.chosen == list(range(2, 100 + 5))
    assert Program(size=1000, limit=999).open(0, 1, 2, 3) == []


def test_others_are_not_chosen() -> None:
    assert Program(size=0).open(0, 1, 2, 3, 4, 5) == []


def test_names_that_come_and_go() -> None:
    program = Program()
    program.names = [*BEFORE, *NAMES[::2]]
    program.open(0)
    program.names = [*BEFORE, *NAMES]
    assert program.open(3) == [4, 5]  # is new: the names are sorted again


def test_a_very_large_directory_is_not_sorted() -> None:
    names = [f"{n:07}" for n in range(LARGEST + 1)]
    siblings = Siblings()
    for name in names[:5]:
        assert choose(siblings, 1, name, names) == []


# ------------------------------------------------------------------ which directories
def test_directories_are_told_apart() -> None:
    program = Program()
    for n in range(2):
        for ino in range(1, DIRECTORIES + 1):
            assert program.open(n, ino=ino) == ([2, 3] if n else [])


def test_few_directories_are_remembered() -> None:
    program = Program()
    program.open(0, 1)
    for ino in range(2, DIRECTORIES + 2):
        program.open(0, ino=ino)
    assert program.siblings.surplus == FIRST
    assert program.open(2) == []


def test_a_directory_with_all_files_here_is_not_remembered() -> None:
    program = Program()
    assert program.open(0, 1, 2, 3, cold=False) == []
    assert program.open(4) == []  # as the first file of all
    assert program.open(5) == [6, 7]


# ------------------------------------------------------------------ in the engine
COUNT = 200
MIDDLE = 640 << 10  # bytes


class Gate(MemoryStore):
    """While `closed`, GETs wait; `most` is the largest number that waited at once. `refused`: GETs fail.

    `by_rounds`: each waits for the end of a round; `waiting` are the keys of these.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.arrived = threading.Semaphore(0)
        self.refused = False
        self.most = self._now = 0
        self._counting = threading.Lock()
        self.by_rounds, self.round = False, 0
        self.waiting: list[str] = []
        self._round_ends = threading.Condition()

    def get(self, key: str, **named: Any) -> MemoryDownload:
        if self.refused:
            self.calls.append(("get", key))
            raise Unavailable("no answer")
        download = super().get(key, **named)
        with self._counting:
            self._now += 1
            self.most = max(self.most, self._now)
        self.arrived.release()
        self.open_gate.wait(20)
        with self._counting:
            self._now -= 1
        with self._round_ends:
            number = self.round
            self.waiting.append(key)
            self._round_ends.wait_for(lambda: self.round > number or not self.by_rounds, 20)
            self.waiting.remove(key)
        return download

    def end_round(self) -> None:
        with self._round_ends:
            self.round += 1
            self._round_ends.notify_all()

    def gets(self) -> list[str]:
        return [key for name, key in list(self.calls) if name == "get"]


@pytest.fixture
def store() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open_gate.set()


def fill(store: MemoryStore, size: int = 4096, count: int = COUNT) -> list[str]:
    names = [f"kit/{n:03}.wav" for n in range(count)]
    for n, name in enumerate(names):
        store.set(name, bytes([n % 256]) * size)
    return names


def hold(store: Gate) -> None:
    """Hold each GET from now on; `arrived` counts them."""
    store.open_gate.clear()
    while store.arrived.acquire(blocking=False):
        pass


def settled(engine: Engine) -> None:
    """Wait until no download ahead is waiting or under way."""
    while any(engine.fetched_ahead()):
        done = threading.Event()
        engine.downloads.submit(done.set, AHEAD)  # after those submitted so far
        done.wait(10)


def wait_for_handle(engine: Engine, name: str) -> None:
    while not engine.node(name).handles:
        time.sleep(0.001)


@pytest.fixture
def engine(make: MakeEngine, store: Gate) -> Engine:
    return make(freshness_s=3600.0)


def test_in_order_each_is_fetched_once(engine: Engine, store: Gate) -> None:
    names = fill(store)
    for n, name in enumerate(names):
        assert engine.read(name) == bytes([n % 256]) * 4096
        settled(engine)
    assert sorted(store.gets()) == names


def test_after_the_second_file_no_reader_sends_a_request(engine: Engine, store: Gate) -> None:
    names = fill(store)
    for name in names[:2]:
        engine.read(name)
    for name in names[2:]:
        settled(engine)
        before = store.gets().count(name)
        engine.read(name)
        assert before == store.gets().count(name) == 1
    assert engine.prefetch.surplus == 0


def test_the_kernel_is_not_told_of_what_it_has_not_seen(engine: Engine, store: Gate) -> None:
    """A message for each file would delay the program that reads them, and keep answers out of the kernel's cache."""
    told: list[int] = []

    class Kernel(NoKernelCache):
        def forget_attributes(self, ino: int) -> None:
            told.append(ino)

    engine.fs.set_kernel_cache(Kernel())
    for name in fill(store)[:40]:
        engine.read(name)
        settled(engine)
    assert not told


def test_in_random_order_there_are_at_most_two_requests_for_a_file(engine: Engine, store: Gate) -> None:
    names = fill(store)
    order = random.Random(7).sample(names, 60)
    for name in order:
        engine.read(name)
        settled(engine)
    assert len(order) < len(store.gets()) <= 2 * len(order)
    assert len(set(store.gets())) == len(store.gets())


def test_a_jump_stops_it(engine: Engine, store: Gate) -> None:
    names = fill(store)
    for name in [*names[:6], names[150]]:
        engine.read(name)
        settled(engine)
    sent = len(store.gets())
    for name in [names[120], names[180]]:
        engine.read(name)
        settled(engine)
    assert len(store.gets()) == sent + 2
    assert engine.prefetch.surplus > 0


def test_waiting_ones_are_not_fetched_after_a_jump(make: MakeEngine, store: Gate) -> None:
    engine = make(freshness_s=3600.0, download_threads=prefetch.SPARED + 1)
    names = fill(store)
    for name in names[:3]:
        engine.read(name)
        settled(engine)
    store.open_gate.clear()
    before = len(store.gets())
    for name in names[3:5]:
        engine.read(name)  # is here
    store.open_gate.set()
    engine.read(names[150])
    settled(engine)
    assert len(store.gets()) - before < MOST // 2


def test_large_files_are_not_fetched_ahead(make: MakeEngine, store: Gate) -> None:
    engine = make(freshness_s=3600.0, small_file=1024)
    names = fill(store, count=10)
    for name in names:
        engine.read(name)
        settled(engine)
    assert sorted(store.gets()) == names


def test_a_small_cache_has_no_room_for_it(make: MakeEngine, store: Gate) -> None:
    engine = make(freshness_s=3600.0, cache_size=4096 * 8)
    names = fill(store, count=20)
    for name in names[:5]:
        engine.read(name)
        settled(engine)
    assert sorted(store.gets()) == names[:5]


@pytest.mark.expect_warnings("is full")
def test_a_full_disk_has_none_either(engine: Engine, store: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    names = fill(store)
    monkeypatch.setattr(prefetch.DiskSpace, "disk", lambda space: Disk(free=0, reserve=1))
    for name in names[:5]:
        engine.read(name)
        settled(engine)
    assert sorted(store.gets()) == names[:5]


def test_what_is_cached_is_not_fetched_again(make: MakeEngine, store: Gate) -> None:
    names = fill(store)
    first = make("a", freshness_s=3600.0)
    for name in names[10:40]:
        first.read(name)
    settled(first)
    first.stop()
    store.calls.clear()
    engine = make("a", freshness_s=3600.0)
    for name in names[:100]:
        engine.read(name)
        settled(engine)
    assert not set(store.gets()) & set(names[10:40])
    assert len(set(store.gets())) == len(store.gets())


def test_a_reader_waits_for_a_download_under_way(engine: Engine, store: Gate) -> None:
    names = fill(store)
    engine.read(names[0])
    engine.read(names[1])
    settled(engine)
    hold(store)
    engine.read(names[2])  # is here; the next eight are asked for
    assert store.arrived.acquire(timeout=10)
    under_way = store.gets()[-1]
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(engine.read(under_way)))
    reader.start()
    wait_for_handle(engine, under_way)
    store.open_gate.set()
    reader.join(10)
    settled(engine)
    assert [len(data) for data in read] == [4096]
    assert store.gets().count(under_way) == 1
    assert not engine.node(under_way).handles


@pytest.mark.parametrize(("round_trip_s", "at_once"), [(0.0005, prefetch.NEAR), (0.04, 21), (0.4, None)])
def test_slots_are_left_for_readers(
    engine: Engine, store: Gate, monkeypatch: pytest.MonkeyPatch, round_trip_s: float, at_once: int | None
) -> None:
    """A near server's answers come one after another; a far one has as many requests under way as it takes."""
    monkeypatch.setattr(Hedges, "soonest_s", lambda hedges: round_trip_s)
    names = fill(store)
    for name in names[:4]:
        engine.read(name)
        settled(engine)
    hold(store)
    store.most = 0
    for name in names[4:7]:
        engine.read(name)  # here; many more are asked for
    limit = at_once or engine.downloads.limit - prefetch.SPARED
    for _ in range(limit):
        assert store.arrived.acquire(timeout=10)
    assert engine.fetched_ahead()[0] == limit == store.most
    store.open_gate.set()
    settled(engine)


@pytest.mark.parametrize(
    ("round_trip_s", "count", "expected"),
    [(0.0005, COUNT, []), (0.04, COUNT, [22]), (0.04, 10, [10]), (0.0, COUNT, [22])],
    ids=["near", "far", "few names", "unknown"],
)
def test_a_far_servers_connections_are_opened_as_a_run_begins(
    make: MakeEngine,
    store: Gate,
    monkeypatch: pytest.MonkeyPatch,
    round_trip_s: float,
    count: int,
    expected: list[int],
) -> None:
    """As many as GETs may be under way ahead; before the answer to the first."""
    monkeypatch.setattr(Hedges, "soonest_s", lambda hedges: round_trip_s)
    engine = make(freshness_s=3600.0, download_threads=22 + prefetch.SPARED)
    names = fill(store, count=count)
    hold(store)
    reader = threading.Thread(target=lambda: engine.read(names[0]))
    reader.start()
    while len(store.gets()) < 3:
        store.arrived.acquire(timeout=10)
    engine.downloads.submit((done := threading.Event()).set, AHEAD)
    assert done.wait(10)
    assert [number for _, number in store.expected] == expected
    assert all(key in names for key, _ in store.expected)
    store.open_gate.set()
    reader.join(10)
    settled(engine)


# ------------------------------------------------------------------ beginnings of larger files
def read_parts(engine: Engine, store: Gate, names: list[str], parts: list[tuple[int, int]]) -> int:
    """Read these ranges of each file, one after another; return the number of round trips that this takes.

    A round ends once the reader waits and every job of the download queue waits for its answer: seen three times, since
    a job that a thread has just taken is counted nowhere.
    """
    at = [""]

    def read() -> None:
        for at[0] in names:
            opened = engine.open(at[0])
            for start, stop in parts:
                data = engine.fs.read(engine.caller, opened.handle, start, stop - start)
                assert data == store.data(at[0])[start:stop]
            engine.close(opened)

    reader = threading.Thread(target=read)
    store.by_rounds = True
    reader.start()
    looks = 0
    while reader.is_alive():
        time.sleep(0.001)
        is_over = at[0] in store.waiting and len(store.waiting) == engine.unfinished_downloads()
        looks = looks + 1 if is_over and engine.wanted_ranges() else 0
        if looks == 3:
            store.end_round()
            looks = 0
    store.by_rounds = False
    store.end_round()  # of those that no reader waits for
    return store.round - 1


HEADER, END = (0, 64 << 10), (MIDDLE - 4096, MIDDLE)


@pytest.mark.parametrize("small_file", [0, 4 << 20], ids=["large", "small"])
@pytest.mark.parametrize("parts", [[HEADER], [HEADER, END]], ids=["begin", "both ends"])
def test_beginnings_are_fetched_ahead_where_no_more_is_read(
    make: MakeEngine,
    store: Gate,
    monkeypatch: pytest.MonkeyPatch,
    small_file: int,
    parts: list[tuple[int, int]],
) -> None:
    monkeypatch.setattr(Hedges, "soonest_s", lambda hedges: 0.04)
    engine = make(freshness_s=3600.0, small_file=small_file)
    names = fill(store, size=MIDDLE, count=40)
    assert read_parts(engine, store, names, parts) <= 3 + 5 * (len(parts) - 1)
    settled(engine)
    assert len(store.gets()) <= len(names) * len(parts) + 2
    assert engine.prefetch.surplus == 0


def test_files_that_are_read_on_are_fetched_whole(make: MakeEngine, store: Gate) -> None:
    engine = make(freshness_s=3600.0)
    names = fill(store, size=MIDDLE, count=6)
    for name in names:
        opened = engine.open(name)
        for at in range(0, MIDDLE, MIDDLE // 8):
            assert len(engine.fs.read(engine.caller, opened.handle, at, MIDDLE // 8)) == MIDDLE // 8
        engine.close(opened)
        settled(engine)
    assert len(store.gets()) <= len(names) + 1  # of the second one, the first read shows how much it is


@pytest.mark.parametrize("threads", range(1, prefetch.SPARED + 1))
def test_with_few_threads_there_is_none(make: MakeEngine, store: Gate, threads: int) -> None:
    engine = make(freshness_s=3600.0, download_threads=threads)
    names = fill(store, count=10)
    for name in names[:5]:
        engine.read(name)
    assert sorted(store.gets()) == names[:5]


def test_an_outage_ends_the_run(engine: Engine, store: Gate) -> None:
    names = fill(store)
    for name in names[:3]:
        engine.read(name)
        settled(engine)
    store.refused = True
    here = set(store.gets())
    for name in names[3:6]:
        assert name in here
        engine.read(name)
        settled(engine)
    failed = len(store.gets()) - len(here)
    assert failed <= 2 * engine.downloads.limit
    store.refused = False
    left = [name for name in names if name not in here]
    for name in left:
        assert len(engine.read(name)) == 4096
    settled(engine)


def test_a_file_that_always_fails_is_requested_a_few_times(
    engine: Engine, store: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(store, count=60)
    bad = names[40]

    def refuse(name: str, key: str) -> None:
        if (name, key) == ("get", bad):
            raise Unavailable("no answer")

    monkeypatch.setattr(store, "before", refuse)
    for name in names[:40] + names[41:]:
        engine.read(name)
        settled(engine)
    assert 1 <= store.gets().count(bad) <= 3


def test_a_file_deleted_under_way_leaves_nothing(engine: Engine, store: Gate) -> None:
    names = fill(store)
    for name in names[:2]:
        engine.read(name)
        settled(engine)
    hold(store)
    engine.read(names[2])
    assert store.arrived.acquire(timeout=10)
    key = store.gets()[-1]
    engine.unlink(key)
    store.open_gate.set()
    settled(engine)
    engine.retire_idle()
    assert engine.open_files() == []
    assert key.rpartition("/")[2] not in engine.listdir("kit")


def test_a_file_written_under_way_keeps_what_was_written(engine: Engine, store: Gate) -> None:
    names = fill(store)
    for name in names[:2]:
        engine.read(name)
        settled(engine)
    hold(store)
    engine.read(names[2])
    assert store.arrived.acquire(timeout=10)
    key = store.gets()[-1]
    engine.write(key, b"new")
    store.open_gate.set()
    settled(engine)
    assert engine.read(key) == b"new"
    engine.drain()
    assert store.data(key) == b"new"


def test_files_fetched_ahead_are_closed(engine: Engine, store: Gate) -> None:
    names = fill(store)
    for name in names[:8]:
        engine.read(name)
    settled(engine)
    engine.retire_idle()
    assert engine.open_files() == []
    assert engine.reserved() == {}


def test_the_end_does_not_wait_for_the_rest(make: MakeEngine, store: Gate) -> None:
    engine = make(freshness_s=3600.0)
    names = fill(store)
    for name in names[:6]:
        engine.read(name)
    store.open_gate.clear()
    before = len(store.gets())
    with suppress(R2fsError):
        engine.read(names[6])
    threading.Timer(0.1, store.open_gate.set).start()
    engine.stop()
    assert len(store.gets()) - before <= engine.downloads.limit
