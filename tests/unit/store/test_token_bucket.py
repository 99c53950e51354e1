"""Token bucket: the rate of all transfers together, their order, and that nothing is paid without a limit."""

from __future__ import annotations

import time
from functools import partial

import pytest

from r2fs.disk.body import MemoryBody
from r2fs.model.errors import Unavailable
from r2fs.model.flow import Flow, current, flowing, spent_s
from r2fs.model.records import ObjectMeta
from r2fs.model.settings.timetable import OFF, BandwidthLimit
from r2fs.store.retry import RetryingStore
from r2fs.store.token_bucket import BURST_S, LEAST_PIECE, PIECES, SHARE, SOON_S, Bandwidth, TokenBucket
from tests.support.clocks import ManualClock, SharedClock
from tests.support.memory_store import MemoryStore

KIB, MIB = 1 << 10, 1 << 20
META = ObjectMeta("audio/wav", {})
limit = BandwidthLimit().parse


def bucket_of(clock: ManualClock | SharedClock, text: str) -> TokenBucket:
    bucket = TokenBucket(clock)
    bucket.change(limit(text))
    return bucket


def test_without_a_limit_nothing_is_locked_or_waited_for() -> None:
    clock = ManualClock()
    bucket = TokenBucket(clock)
    body = MemoryBody(b"x")
    with bucket._lock:  # would hang
        bucket.take(1 << 40)
        assert bucket.sending(body) is body
    assert clock.waited == []


def test_a_body_without_a_limit_is_read_as_it_is() -> None:
    store = MemoryStore()
    store.put("a", MemoryBody(b"x" * 100), META)
    down = TokenBucket(ManualClock())
    with store.get("a") as download:
        assert [len(data) for data in down.receiving(download, 64, 100)] == [64, 36]


@pytest.mark.parametrize("size", [1, 300, 64 * KIB, MIB, 16 * MIB])
def test_one_flow_has_the_rate(size: int) -> None:
    clock = ManualClock()
    bucket, moved, begun_s = bucket_of(clock, "1M"), 0, clock.monotonic()
    while moved < 64 * MIB and (size > KIB or moved < 64 * KIB):
        bucket.take(size)
        moved += size
    took_s = clock.monotonic() - begun_s
    assert moved - size <= MIB * (took_s + BURST_S)
    assert moved >= MIB * (took_s - 2 * SOON_S)


def test_many_flows_share_it_alike() -> None:
    """Eight of different pieces for ten seconds: right within a percent, and as much for each of the same pieces."""
    clock, moved = SharedClock(), [0] * 8
    bucket, end_s = bucket_of(clock, "1M"), clock.monotonic() + 10

    def flow(number: int, size: int) -> None:
        while clock.monotonic() < end_s:
            bucket.take(size)
            moved[number] += size

    clock.run_together([*(partial(flow, n, 64 * KIB) for n in range(7)), partial(flow, 7, 200)])
    # one piece of each is under way at the end
    assert 10 * MIB <= sum(moved) <= 10 * MIB + MIB * BURST_S + 8 * 64 * KIB
    assert max(moved[:7]) - min(moved[:7]) <= 2 * 64 * KIB


def test_what_programs_wait_for_goes_first() -> None:
    clock, order = SharedClock(), list[bool]()
    bucket, end_s = bucket_of(clock, "1M"), clock.monotonic() + 10

    def transfer(urgent: bool) -> None:
        with flowing(Flow(urgent=urgent)):
            while clock.monotonic() < end_s:
                bucket.take(64 * KIB)
                order.append(urgent)

    clock.run_together([partial(transfer, urgent) for urgent in (True, False, True, False)])
    steady = order[8:-8]
    assert 1 / (2 * SHARE) <= steady.count(False) / len(steady) <= 2 / SHARE  # alive, and no more


def test_one_that_becomes_urgent_meanwhile_goes_first() -> None:
    clock = SharedClock()
    bucket, done = bucket_of(clock, "16k"), list[str]()
    bucket.take(16 * KIB)  # in debt for a second
    flows = {name: Flow(urgent=name != "a") for name in ("a", "b", "late")}

    def transfer(name: str) -> None:
        if name == "late":  # comes when the others wait
            while sum(flow.held_since_s is not None for flow in flows.values()) < 2:
                time.sleep(0.001)
            flows["a"].urgent = True
        with flowing(flows[name]):
            bucket.take(KIB)
        done.append(name)

    clock.run_together([partial(transfer, name) for name in flows])
    assert done.index("a") < done.index("late")


def test_one_that_becomes_urgent_is_woken_up_by_the_first() -> None:
    clock = SharedClock()
    bucket, flows = bucket_of(clock, "16k"), [Flow(urgent=False), Flow(urgent=False)]
    bucket.take(16 * KIB)

    def transfer(flow: Flow) -> None:
        with flowing(flow):
            bucket.take(KIB)

    def promote() -> None:
        while any(flow.held_since_s is None for flow in flows):
            time.sleep(0.001)
        flows[1].urgent = True

    clock.run_together([promote, *(partial(transfer, flow) for flow in flows)])
    assert clock.monotonic() < 2


def test_a_piece_is_a_part_of_a_second() -> None:
    clock = ManualClock()
    assert bucket_of(clock, "16M").piece() == 16 * MIB // PIECES
    assert bucket_of(clock, "16k").piece() == LEAST_PIECE
    assert TokenBucket(clock).piece() > 1 << 40


def test_the_hour_changes_while_a_flow_waits() -> None:
    clock = ManualClock(now_s=1_800_000_000.0)
    now = time.localtime(clock.time())
    minute = now.tm_hour * 60 + now.tm_min + 2
    hour = f"{minute // 60 % 24:02d}:{minute % 60:02d}"
    bucket, begun_s = (
        bucket_of(clock, f"{hour}-{(minute // 60 + 1) % 24:02d}:{minute % 60:02d} = off, else 16k"),
        clock.time(),
    )
    bucket.take(100 * MIB)
    bucket.take(1)  # after more than an hour, by the limit that held
    assert clock.time() - begun_s <= 121.0
    view = bucket.view()
    assert (view.rate, view.then, view.waiting) == (None, 16 * KIB, 0)


def test_a_change_or_the_end_frees_those_that_wait() -> None:
    clock = SharedClock()
    bucket = bucket_of(clock, "16k")
    bucket.take(1 << 40)
    flow = Flow()

    def wait() -> None:
        with flowing(flow):
            bucket.take(1)

    def lift() -> None:
        while flow.held_since_s is None:
            time.sleep(0.001)
        bucket.change(OFF)

    begun_s = clock.monotonic()
    clock.run_together([wait, lift])
    assert clock.monotonic() - begun_s < 3600


def test_a_clock_that_is_set_back_does_not_keep_the_hour() -> None:
    clock = ManualClock(now_s=time.mktime((2026, 11, 27, 12, 0, 0, 0, 0, -1)))
    bucket = bucket_of(clock, "11:00-13:00 = 16k, else off")
    bucket.take(KIB)
    clock.set_back(2 * 3600)
    bucket.take(100 * MIB)
    bucket.take(1)
    assert clock.waited == []


def test_the_time_held_is_noted_and_no_attempt_counts_it() -> None:
    """A body that fails after ten minutes by our own limit is sent again at once."""
    clock = ManualClock()

    class Breaking(MemoryStore):
        tries = 0

        def put(self, key, body, meta, *, condition=None):
            body.seek(0)
            while body.read(64 * KIB):
                pass
            self.tries += 1
            if self.tries == 1:
                raise Unavailable("cut")
            return super().put(key, body, meta, condition=condition)

    inner = Breaking()
    store = RetryingStore(inner, clock)
    store.bandwidth.change(limit("16k"), OFF)
    with flowing(Flow()):
        store.put("a", MemoryBody(bytes(10 * MIB)), META)
        assert current().held_s(clock.monotonic()) > 600
    assert inner.tries == 2


def test_a_request_s_latency_is_without_the_time_held() -> None:
    held = Flow()
    with flowing(held):
        begun_s = spent_s(time.monotonic())
        held.hold(time.monotonic() - 60)
        held.go_on(time.monotonic())
        assert spent_s(time.monotonic()) - begun_s < 0, "a minute of it is no latency"


def test_bytes_of_bodies_in_both_directions_are_paid_once() -> None:
    clock = ManualClock()
    store = RetryingStore(MemoryStore(), clock)
    store.bandwidth.change(limit("64k"), limit("32k"))
    begun_s = clock.monotonic()
    store.put("a", MemoryBody(bytes(640 * KIB)), META)
    sent_s = clock.monotonic() - begun_s
    assert sent_s == pytest.approx(10.0, rel=0.02)
    with store.get("a") as download:
        assert sum(map(len, download.chunks(MIB))) == 640 * KIB
    assert clock.monotonic() - begun_s - sent_s == pytest.approx(20.0, rel=0.02)


def test_both_directions_are_shown() -> None:
    bandwidth = Bandwidth(ManualClock())
    bandwidth.change(limit("5M"), OFF)
    view = bandwidth.view()
    assert (view["up"].setting, view["up"].rate, view["up"].until_s) == ("5MiB", 5 * MIB, None)
    assert (view["down"].setting, view["down"].rate) == ("off", None)
