"""Read-ahead: how much is requested ahead of which reads. Nothing here is timed: requests and ranges are counted."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r2fs.disk import filecalls
from r2fs.disk.sparse_file import SparseFile
from r2fs.engine.content import windows
from r2fs.engine.content.source import SLOW_S, Hedges, Piece, Source
from r2fs.engine.content.windows import (
    AHEAD_S,
    FAR_GETS,
    FIRST,
    LARGEST_PIECE,
    MOST,
    NEAR,
    NEAR_GETS,
    PIECE,
    SAMPLE_S,
    SECOND,
    Rate,
    Sequence,
    Windows,
)
from r2fs.model.errors import LocalError, ReadFailed
from r2fs.model.flow import Flow
from r2fs.model.records import Version
from tests.support.clocks import SystemClock
from tests.support.engine import Engine, MakeEngine, do_at_once
from tests.support.memory_store import MemoryDownload, MemoryStore

KIB, MIB = 1 << 10, 1 << 20
READ = 128 * KIB
SIZE = 1 << 30


class Reads:
    """A program that reads, and what its windows request; all of it arrives at once."""

    def __init__(self, limit: int = MOST, size: int = SIZE, gets: int = FAR_GETS) -> None:
        self.windows = Windows()
        self.limit, self.size, self.gets = limit, size, gets
        self.requested: list[tuple[int, int]] = []
        self.pieces: list[int] = []
        self.sequence: Sequence | None = None

    def read(
        self, start: int, size: int = READ, lost: bool = False, opens: bool = False
    ) -> tuple[int, int] | None:
        stop = min(start + size, self.size)
        ahead = self.windows.read(start, stop, self.size, self.limit, lost, self.gets, opens)
        self.sequence = ahead.sequence
        begin, end = ahead.range
        assert stop <= begin <= end <= self.size
        if begin == end:
            return None
        self.requested.append((begin, end))
        self.pieces.append(ahead.piece)
        return begin, end

    def through(self, start: int, stop: int) -> None:
        for at in range(start, stop, READ):
            self.read(at)

    @property
    def window(self) -> int:
        assert self.sequence is not None
        return self.sequence.window

    def rates(self, bytes_per_s: float) -> None:
        """The last GETs measured this."""
        for _ in range(windows.SAMPLES):
            before = self.windows.rate.arrived
            self.windows.rate.add(int(bytes_per_s))
            self.windows.rate.sample(before, 1.0)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    content = SparseFile.hollow(tmp_path / "long.wav", SIZE)
    yield Source(Version("long.wav", "etag", SIZE), content, lambda info: None, lambda version: None)
    content.close()


# ---- windows, pure
def test_a_first_read_requests_little_and_the_second_a_window_of_four_pieces() -> None:
    reads = Reads(gets=NEAR_GETS)
    assert reads.read(0) == (READ, FIRST)
    assert reads.read(READ) == (FIRST, SECOND)
    assert reads.pieces[-1] == PIECE


def test_the_first_window_from_a_far_server_comes_over_as_many_connections_as_later_ones() -> None:
    reads = Reads(gets=FAR_GETS)
    reads.through(0, 2 * READ)
    assert reads.pieces[-1] * FAR_GETS == SECOND
    reads.through(2 * READ, 2 * PIECE)
    assert reads.pieces[-1] == PIECE


def test_a_first_read_may_open_a_window() -> None:
    reads = Reads()
    assert reads.read(0, MIB, opens=True) == (MIB, SECOND)
    reads = Reads(limit=0)
    assert reads.read(0, MIB, opens=True) is None, "the user wants none"


@pytest.mark.parametrize("size", [READ, READ - 4096, MIB, 3 * MIB + 1])
@pytest.mark.parametrize("gets", [NEAR_GETS, FAR_GETS])
def test_gets_end_at_multiples_of_their_size(size: int, gets: int) -> None:
    reads = Reads(gets=gets)
    reads.rates(60 * MIB)
    for at in range(0, 256 * MIB, size):
        reads.read(at, size)
    for (_, before), (begin, end) in itertools.pairwise(reads.requested):
        assert begin == max(before, begin), "no byte twice"
        assert end % PIECE == 0
    assert all(
        end % piece == 0 for (_, end), piece in zip(reads.requested[1:], reads.pieces[1:], strict=True)
    )


@pytest.mark.parametrize("limit", [0, FIRST, MIB, 3 * MIB, SECOND, 32 * MIB, MOST, 4 * MOST])
def test_no_more_is_ahead_than_the_limit(limit: int) -> None:
    reads = Reads(limit)
    for at in range(0, 512 * MIB, READ):
        reads.rates(2.0 ** (at >> 24) * MIB)
        reads.read(at)
        if reads.requested:
            assert reads.requested[-1][1] <= at + READ + min(MOST, max(FIRST, limit))
    if limit <= FIRST:
        assert len(reads.requested) == 1, "nothing is read ahead where the user wants none"
    else:
        assert reads.window == min(MOST, limit)
        assert reads.requested[-1][1] > 512 * MIB - READ + reads.window // 4


@pytest.mark.parametrize(
    ("bytes_per_s", "window"),
    [(0.0, SECOND), (MIB, SECOND), (20 * MIB, int(20 * AHEAD_S * MIB)), (400 * MIB, MOST)],
)
def test_a_window_of_a_long_reader_holds_what_arrives_in_two_seconds(bytes_per_s: float, window: int) -> None:
    reads = Reads()
    reads.rates(bytes_per_s)
    reads.through(0, PIECE)
    assert reads.window == SECOND, "it may still be the header alone"
    reads.through(PIECE, 64 * MIB)
    assert reads.window == window


@pytest.mark.parametrize(
    ("window", "gets", "piece"),
    [
        (MIB, FAR_GETS, MIB // 2),
        (SECOND, FAR_GETS, PIECE),
        (100 * MIB, FAR_GETS, PIECE),
        (MOST, FAR_GETS, 8 * MIB),
        (SECOND, NEAR_GETS, PIECE),
        (63 * MIB, NEAR_GETS, 8 * MIB),
        (MOST, NEAR_GETS, LARGEST_PIECE),
    ],
)
def test_a_window_comes_by_gets_of_powers_of_two(window: int, gets: int, piece: int) -> None:
    assert windows.piece_of(window, gets, PIECE) == piece


def test_a_near_server_gets_few_large_requests() -> None:
    reads = Reads(gets=NEAR_GETS)
    reads.rates(400 * MIB)
    reads.through(0, 256 * MIB)
    assert reads.window == NEAR_GETS * LARGEST_PIECE
    assert reads.pieces[-1] == LARGEST_PIECE


def test_reads_out_of_order_continue_a_sequence() -> None:
    reads = Reads()
    for at in (0, 2 * READ, READ, 3 * READ, 5 * READ, 4 * READ):  # as the kernel reads ahead
        reads.read(at)
    assert reads.window == SECOND
    assert len(reads.requested) == 2


def test_a_seek_elsewhere_begins_with_little_again() -> None:
    reads = Reads()
    reads.through(0, 32 * MIB)
    assert reads.read(500 * MIB) == (500 * MIB + READ, 500 * MIB + FIRST)


def test_a_reader_that_comes_back_finds_its_window() -> None:
    reads = Reads()
    reads.rates(400 * MIB)
    reads.through(0, 64 * MIB)
    window = reads.window
    assert window > SECOND
    reads.read(SIZE - READ)  # the index at its end
    reads.read(64 * MIB)
    assert reads.window == window


@pytest.mark.parametrize("back", [READ, MIB, 8 * MIB, -MIB, -8 * MIB])
def test_a_short_seek_keeps_the_window(back: int) -> None:
    reads = Reads()
    reads.through(0, 32 * MIB)
    window = reads.window
    reads.read(32 * MIB - back)
    assert reads.window == window


def test_several_readers_of_a_file_have_a_window_each() -> None:
    reads = Reads()
    for at in range(0, 32 * MIB, READ):
        for reader in range(windows.SEQUENCES):
            reads.read(reader * 200 * MIB + at)
    assert reads.window == SECOND
    assert len(reads.requested) <= windows.SEQUENCES * 12


def test_random_reads_request_little() -> None:
    reads = Reads()
    for number in range(200):
        reads.read((number * 7919 * 4099 * 512) % (SIZE - READ))
    assert sum(end - begin for begin, end in reads.requested) <= 200 * (FIRST + SECOND // 10)


def test_a_new_sequence_cancels_what_the_others_requested_ahead() -> None:
    reads = Reads()
    reads.through(0, 4 * MIB)
    first = reads.sequence
    assert first is not None and first.cancelled == 0
    reads.read(4 * MIB)
    assert first.cancelled == 0
    reads.read(500 * MIB)
    assert first.cancelled == 1


def test_what_was_lost_is_requested_again() -> None:
    reads = Reads()
    reads.through(0, 4 * MIB)
    assert reads.read(4 * MIB, lost=True) == (4 * MIB + READ, 4 * MIB + SECOND)
    assert reads.read(MIB, lost=True) == (MIB + READ, MIB + FIRST), "behind the reader only a little"


def test_no_request_reaches_past_the_end() -> None:
    for size in (READ, FIRST + 1, 5 * MIB + 1, 20 * MIB):
        reads = Reads(size=size)
        for at in range(0, size, READ):
            reads.read(at)
        assert reads.requested == [] or reads.requested[-1][1] == size


def test_the_memory_of_sequences_is_bounded() -> None:
    reads = Reads()
    held = {
        id(reads.windows.read(at, at + READ, SIZE, MOST, False, FAR_GETS, False).sequence)
        for at in range(0, SIZE, 4 * NEAR)
    }
    assert held  # each read began a sequence
    cancelled = reads.windows.read(0, READ, SIZE, MOST, False, FAR_GETS, False).sequence
    assert cancelled is not None and cancelled.expected == READ and cancelled.window == FIRST, (
        "the oldest are forgotten"
    )


# ---- rate
def test_a_rate_counts_what_all_downloads_brought_together() -> None:
    rate = Rate()
    assert rate.bytes_per_s == 0.0
    first, second = rate.arrived, rate.arrived
    rate.add(600)
    rate.sample(first, 2.0)
    assert rate.bytes_per_s == 300.0
    rate.add(1000)
    rate.sample(second, 4.0)
    assert rate.bytes_per_s == 400.0
    for _ in range(windows.SAMPLES):
        before = rate.arrived
        rate.add(10)
        rate.sample(before, 1.0)
    assert rate.bytes_per_s == 10.0, "old samples are forgotten"


@pytest.mark.parametrize(
    ("bytes_per_s", "gets"), [(1, 1), (MIB, 4), (2 * MIB, 8), (3 * MIB, 8), (4 * MIB, 16), (100 * MIB, 16)]
)
def test_a_slow_line_has_room_for_fewer_gets(bytes_per_s: int, gets: int) -> None:
    rate = Rate()
    assert rate.gets == FAR_GETS, "not known yet"
    rate.add(bytes_per_s)
    rate.sample(0, 1.0)
    assert rate.gets == gets


@pytest.mark.parametrize(("size", "seconds"), [(0, 1.0), (100, 0.0)])
def test_a_get_without_bytes_or_time_is_no_sample(size: int, seconds: float) -> None:
    rate = Rate()
    rate.add(size)
    rate.sample(0, seconds)
    assert rate.bytes_per_s == 0.0


@pytest.mark.parametrize(
    ("chunks_s", "bytes_per_s"),
    [
        ((0.01, 0.02), 4 / 0.03),  # a short GET is one sample
        ((SAMPLE_S, SAMPLE_S, 0.001), 2 / SAMPLE_S),  # the end of a long one is none
        ((SAMPLE_S, 2 * SAMPLE_S), 2 / SAMPLE_S),
    ],
)
def test_a_long_get_is_sampled_before_its_end(
    source: Source, monkeypatch: pytest.MonkeyPatch, chunks_s: tuple[float, ...], bytes_per_s: float
) -> None:
    clock, now_s = SystemClock(), 0.0
    monkeypatch.setattr(clock, "monotonic", lambda: now_s)
    with source.measured(clock, Hedges(), Piece(0, SIZE), 0, KIB) as measured:
        for each in chunks_s:
            now_s += each
            measured.arrived(2, KIB, False)
    assert source.windows.rate.bytes_per_s == pytest.approx(bytes_per_s)


# ---- GETs under way
def measured(source: Source, bytes_per_s: float) -> None:
    for _ in range(windows.SAMPLES):
        before = source.windows.rate.arrived
        source.windows.rate.add(int(bytes_per_s))
        source.windows.rate.sample(before, 1.0)


def test_no_more_gets_of_a_file_are_under_way_than_the_line_has_room_for(source: Source) -> None:
    measured(source, MIB)
    pieces = [Piece(at * MIB, (at + 1) * MIB, urgent=False) for at in range(12)]
    source.add(pieces)
    assert [source.begin(piece, Flow()) for piece in pieces] == [True] * 4 + [False] * 8
    assert pieces[5].promote() and source.begin(pieces[5], Flow()), "a reader waits for it"
    assert source.remove(pieces[5]) == [pieces[4]]
    assert not source.begin(pieces[4], Flow()), "others are under way still"
    assert source.remove(pieces[0]) == [pieces[6]]
    assert source.begin(pieces[6], Flow())
    assert pieces[7].promote() and source.begin(pieces[7], Flow())
    assert source.remove(pieces[1]) == [pieces[8]], "the one that has begun meanwhile is passed over"
    assert not source.begin(pieces[8], Flow()), "a reader's is one more"
    measured(source, 2 * MIB)
    assert source.remove(pieces[2]) == [pieces[9], pieces[10], pieces[11], pieces[4], pieces[8]]


def test_a_line_too_slow_for_many_gets_is_left_to_the_reader(source: Source) -> None:
    pieces = [Piece(at * MIB, (at + 1) * MIB, urgent=not at) for at in range(FAR_GETS)]
    source.add(pieces)
    source.wanted.append((MIB, MIB + READ))

    def heard(bytes_per_s: float, now_s: float) -> list[Piece]:
        """The pieces that are abandoned when these have come for so long."""
        for piece in source.pieces:
            piece.heard(0, now_s)
        measured(source, bytes_per_s)
        gone = []
        for piece in list(source.pieces):
            if source.is_abandoned(piece, piece.start + KIB):
                source.remove(piece)
                gone.append(piece)
        return gone

    for piece in pieces:
        assert source.begin(piece, Flow())
        piece.sent(piece.start, KIB, 100.0)
    assert heard(MIB, 100.0 + SLOW_S / 2) == [], "TCP may still start"
    assert heard(5 * MIB, 100.0 + SLOW_S) == [], "the line has room for all"
    assert heard(MIB, 100.0 + SLOW_S) == pieces[2 : FAR_GETS - 4 + 1], "a reader waits for two"
    assert len(source.pieces) == 4 + 1, "one for each 256 KiB a second, and the reader's"
    assert heard(MIB, 200.0) == []


# ---- wired
class Ranges(MemoryStore):
    """`gets`: the range of each GET, in the order in which they were sent. Those past `gate` wait until `go_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.gets: list[tuple[int, int]] = []
        self.gate: int | None = None
        self.waiting = threading.Semaphore(0)  # released for each GET that waits
        self.go_on = threading.Event()

    def get(self, key: str, *, start: int = 0, length: int | None = None, **named: Any) -> MemoryDownload:
        stop = len(self.data(key)) if length is None else start + length
        self.gets.append((start, stop))
        if self.gate is not None and start >= self.gate and not self.go_on.is_set():
            self.waiting.release()
            assert self.go_on.wait(30)
        return super().get(key, start=start, length=length, **named)


@pytest.fixture
def store() -> Iterator[Ranges]:
    made = Ranges()
    yield made
    made.go_on.set()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and pieces a sixteenth."""
    for name in ("FIRST", "OPENING", "GET_RATE", "PIECE", "LARGEST_PIECE", "SECOND", "MOST", "NEAR"):
        monkeypatch.setattr(windows, name, getattr(windows, name) // 16)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def read(engine: Engine, handle: int, start: int, size: int = 8 * KIB) -> bytes:
    return engine.fs.read(engine.caller, handle, start, size)


def test_gets_of_a_sequential_reader(make: MakeEngine, store: Ranges, small: None) -> None:
    data = bytes(range(256)) * (16 * KIB)  # 4 MiB
    store.set("long.wav", data)
    store.gate = 32 * KIB
    engine = make(small_file=KIB)
    opened = engine.open("long.wav")
    assert read(engine, opened.handle, 0) == data[: 8 * KIB]
    assert store.gets == [(0, 32 * KIB)]
    assert read(engine, opened.handle, 8 * KIB) == data[8 * KIB : 16 * KIB]
    for _ in range(4):
        assert store.waiting.acquire(timeout=30)
    ends = [32 * KIB, *range(256 * KIB, MIB + 1, 256 * KIB)]
    assert sorted(store.gets[1:]) == list(itertools.pairwise(ends)), "four pieces at once"
    store.go_on.set()
    for at in range(16 * KIB, len(data), 8 * KIB):
        assert read(engine, opened.handle, at) == data[at : at + 8 * KIB]
    engine.close(opened)
    covered = sorted(store.gets)
    assert covered[0][0] == 0 and covered[-1][1] == len(data)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(covered)), "each byte once"


def test_pieces_past_the_limit_of_gets_follow_by_themselves(
    make: MakeEngine, store: Ranges, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, tried = Source.begin, list[bool]()

    def counted(source: Source, piece: Piece, flow: Flow) -> bool:
        tried.append(begin(source, piece, flow))
        return tried[-1]

    monkeypatch.setattr(Source, "begin", counted)
    monkeypatch.setattr(windows, "FAR_GETS", 1)
    store.set("long.wav", bytes(4 * MIB))
    store.gate = 32 * KIB
    engine = make(small_file=KIB)
    opened = engine.open("long.wav")
    for at in (0, 8 * KIB):
        read(engine, opened.handle, at)
    until(lambda: tried.count(False) == 3)  # one of four is under way
    store.go_on.set()
    until(lambda: max(stop for _, stop in store.gets) == MIB)  # no read waits for them
    engine.close(opened)


def test_a_read_too_long_for_a_header_opens_a_window_unless_it_was_all_the_last_time(
    make: MakeEngine, store: Ranges, small: None
) -> None:
    size = 2 * MIB
    for name in ("first", "second", "third", "fourth"):
        store.set(name, bytes(size))
    engine = make(small_file=KIB)
    do_at_once(engine.downloads)

    def fetched(name: str, reads: int) -> int:
        """Bytes by which the file has been fetched once it was read so often."""
        store.gets.clear()
        opened = engine.open(name)
        for number in range(reads):
            read(engine, opened.handle, number * windows.FIRST, windows.FIRST)
        engine.close(opened)
        return max(stop for _, stop in store.gets)

    assert fetched("first", 1) > windows.FIRST
    assert fetched("second", 1) == windows.FIRST, "the first was not read on"
    assert fetched("third", 2) > 2 * windows.FIRST
    assert fetched("fourth", 1) > windows.FIRST, "the third was"


def test_the_first_window_of_the_next_file_has_as_many_gets_as_the_line_had_room_for(
    make: MakeEngine, store: Ranges, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "NEAR_S", 0.0)
    monkeypatch.setattr(windows, "GET_RATE", 1 << 60)  # any line is slow
    for name in ("first", "second"):
        store.set(name, bytes(2 * MIB))
    engine = make(small_file=KIB)
    do_at_once(engine.downloads)

    def gets_of(name: str) -> int:
        store.gets.clear()
        opened = engine.open(name)
        for number in range(3):
            read(engine, opened.handle, number * windows.FIRST, windows.FIRST)
        engine.close(opened)
        return len(store.gets)

    assert gets_of("first") == FAR_GETS, "nothing is known yet"
    assert gets_of("second") <= 3


def test_nothing_is_read_ahead_where_the_user_wants_none(
    make: MakeEngine, store: Ranges, small: None
) -> None:
    store.set("long.wav", bytes(4 * MIB))
    engine = make(small_file=KIB, read_ahead=0)
    opened = engine.open("long.wav")
    for at in range(0, 128 * KIB, 8 * KIB):
        read(engine, opened.handle, at)
    engine.close(opened)
    assert store.gets == [(at, at + 32 * KIB) for at in range(0, 128 * KIB, 32 * KIB)]


def test_a_last_close_cancels_what_nobody_waits_for(make: MakeEngine, store: Ranges, small: None) -> None:
    store.set("long.wav", bytes(4 * MIB))
    store.gate = 32 * KIB
    engine = make(small_file=KIB, download_threads=1)
    opened = engine.open("long.wav")
    read(engine, opened.handle, 0)
    read(engine, opened.handle, 8 * KIB)
    assert store.waiting.acquire(timeout=30), "one of four is on its way"
    engine.close(opened)
    store.go_on.set()
    store.set("other.wav", b"x" * 100)
    assert engine.read("other.wav") == b"x" * 100, "by the one thread, after whatever it had to do before"
    assert len(store.gets) == 3, f"three pieces of a closed file were not asked for: {store.gets}"


def test_a_seek_elsewhere_cancels_what_nobody_waits_for(make: MakeEngine, store: Ranges, small: None) -> None:
    data = bytes(range(256)) * (16 * KIB)
    store.set("long.wav", data)
    store.gate = 32 * KIB
    engine = make(small_file=KIB, download_threads=1)
    opened = engine.open("long.wav")
    read(engine, opened.handle, 0)
    read(engine, opened.handle, 8 * KIB)
    assert store.waiting.acquire(timeout=30)
    seeking = threading.Thread(target=read, args=(engine, opened.handle, 3 * MIB))
    seeking.start()
    while not any(3 * MIB - 1 in range(*wanted) or wanted[0] == 3 * MIB for wanted in engine.wanted_ranges()):
        pass
    store.go_on.set()
    seeking.join(30)
    assert not seeking.is_alive()
    assert [start for start, _ in store.gets] == [0, 32 * KIB, 3 * MIB], (
        "what was ahead of the old place is not"
    )
    assert read(engine, opened.handle, 512 * KIB) == data[512 * KIB : 520 * KIB], "it comes when it is read"
    engine.close(opened)


# ---- both ends
@pytest.mark.parametrize(
    ("key", "size", "begin"),
    [
        ("a/take.wav", 5 * MIB, 5 * MIB - windows.TAIL),
        ("a/TAKE.MOV", 5 * MIB, 5 * MIB - windows.TAIL),
        ("a/take.wav", windows.BOTH_ENDS, windows.BOTH_ENDS),
        ("a/notes.txt", 5 * MIB, 5 * MIB),
        ("a.mov/notes", 5 * MIB, 5 * MIB),
        ("wav", 5 * MIB, 5 * MIB),
    ],
)
def test_the_end_of_a_large_media_file_is_worth_a_get(key: str, size: int, begin: int) -> None:
    assert windows.tail(key, size) == (begin, size)


def test_a_players_first_read_brings_both_ends(make: MakeEngine, store: Ranges) -> None:
    data = bytes(range(256)) * (32 * KIB)  # 8 MiB
    store.set("take.mov", data)
    engine = make()
    opened = engine.open("take.mov")
    assert read(engine, opened.handle, 0) == data[: 8 * KIB]
    assert read(engine, opened.handle, len(data) - 8 * KIB) == data[-8 * KIB :]
    assert sorted(store.gets) == [(0, FIRST), (len(data) - windows.TAIL, len(data))]
    engine.close(opened)


@pytest.mark.parametrize(("name", "first"), [("notes.bin", 0), ("take.mov", MIB)])
def test_other_first_reads_bring_what_they_ask_for(
    make: MakeEngine, store: Ranges, name: str, first: int
) -> None:
    store.set(name, bytes(8 * MIB))
    engine = make()
    opened = engine.open(name)
    read(engine, opened.handle, first)
    read(engine, opened.handle, 5 * MIB)
    read(engine, opened.handle, 0)
    assert max(stop for _, stop in store.gets) < 8 * MIB
    engine.close(opened)


# ---- disk
def test_the_disk_of_a_get_is_allocated_once(
    make: MakeEngine, store: Ranges, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int, int]] = []

    def note(name: str, plain: Callable[..., Any]) -> None:
        def call(fd: int, start: int, stop: int, path: Any) -> Any:
            calls.append((name, start, stop))
            return plain(fd, start, stop, path)

        monkeypatch.setattr(filecalls, name, call)

    note("allocate", filecalls.allocate)
    note("free", filecalls.free)
    data = bytes(range(256)) * (32 * KIB)
    store.set("long.bin", data)
    engine = make(read_ahead=0)
    opened = engine.open("long.bin")
    assert read(engine, opened.handle, 0) == data[: 8 * KIB]
    engine.close(opened)
    engine.stop()
    assert calls == [("allocate", 0, FIRST)], "once for eight chunks"


@pytest.mark.expect_warnings
def test_the_disk_of_a_get_that_fails_is_given_back(
    make: MakeEngine, store: Ranges, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[tuple[int, int]] = []
    store.set("long.bin", bytes(8 * MIB))
    engine = make(read_ahead=0)
    opened = engine.open("long.bin")
    content = engine.node("long.bin").content
    assert content is not None
    monkeypatch.setattr(content, "trim", lambda start, stop: freed.append((start, stop)))
    fill = content.fill

    def cut(offset: int, data: bytes) -> None:
        if offset:
            raise LocalError("the disk fails")
        fill(offset, data)

    monkeypatch.setattr(content, "fill", cut)
    assert read(engine, opened.handle, 0) == bytes(8 * KIB)
    with pytest.raises(ReadFailed):
        read(engine, opened.handle, 128 * KIB)
    engine.close(opened)
    assert freed and freed[0] == (64 * KIB, FIRST)
