"""What an upload is said to have sent: not what lies in buffers."""

from __future__ import annotations

import pytest

from r2fs.engine.writeback.queue import MARK_S, STALLED_S, Throughput

MB = 1_000_000
RATE = 2 * MB  # a second, of the line
PIECE = 64 << 10


def sending(size: int, swallowed: int, until_s: float) -> Throughput:
    """`swallowed` bytes go at once, the rest as the line takes them; as it is at `until_s`."""
    transfer, sent = Throughput(), 0
    while sent < size:
        at = max(0.0, (sent - swallowed) / RATE)
        if at > until_s:
            break
        count = min(PIECE, size - sent)
        transfer.add(count, at)
        sent += count
    return transfer


@pytest.mark.parametrize("swallowed", [0, 3 * MB, 12 * MB])
@pytest.mark.parametrize("now", [5.0, 20.0, 40.0])
def test_what_has_left_and_how_fast(swallowed: int, now: float):
    size = 100 * MB
    transfer = sending(size, swallowed, now)
    assert transfer.rate(now, size) == pytest.approx(RATE, rel=0.1)
    assert transfer.gone(now, size) == pytest.approx(RATE * now, abs=2 * MB)


def test_it_moves_on_while_the_last_bytes_are_in_buffers_and_is_never_all():
    size, swallowed = 30 * MB, 12 * MB
    handed_over = (size - swallowed) / RATE
    transfer = sending(size, swallowed, 1e9)
    assert transfer.sent == size
    seen = [transfer.gone(handed_over + late, size) for late in (0.0, 2.0, 4.0)]
    assert seen == pytest.approx([18 * MB, 22 * MB, 26 * MB], abs=2 * MB)
    assert transfer.gone(handed_over + 1000.0, size) == size - 1


def test_nothing_is_said_before_it_is_known():
    transfer = Throughput()
    transfer.add(12 * MB, 0.0)
    transfer.add(MB, MARK_S / 2)
    assert (transfer.gone(MARK_S / 2, 100 * MB), transfer.rate(MARK_S / 2, 100 * MB)) == (0, 0.0)


def test_what_stands_still_has_no_rate():
    transfer = sending(100 * MB, 0, 10.0)
    assert transfer.rate(10.0 + STALLED_S, 100 * MB) == 0.0
    assert transfer.gone(10.0 + STALLED_S, 100 * MB) == pytest.approx(20 * MB, abs=MB)


def test_a_line_that_becomes_slow_is_followed():
    transfer = sending(10 * MB, 0, 1e9)
    for second in range(1, 9):
        transfer.add(MB, 5.0 + second)
    assert transfer.rate(13.0, 100 * MB) == pytest.approx(MB, rel=0.1)
