"""Limits of bandwidth on real requests: the tokens of a clock that tests read are counted, and no time passes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest

from r2fs.model.ports import SystemClock
from r2fs.model.records import ObjectMeta
from r2fs.model.settings.timetable import OFF, BandwidthLimit
from r2fs.store import open_store
from r2fs.store.retry import RetryingStore
from r2fs.store.token_bucket import PIECES, Bandwidth
from tests.support.bodies import BytesBody
from tests.support.clocks import SharedClock
from tests.support.strict import StrictR2

MIB = 1 << 20
META = ObjectMeta("audio/wav", {})
limit = BandwidthLimit().parse


@pytest.fixture(params=["auto", "boto3"])
def store(request: pytest.FixtureRequest) -> Iterator[RetryingStore]:
    with StrictR2(min_part=MIB, write_interval_s=0.0) as server:
        opened = open_store(replace(server.endpoint.settings(), transport=request.param), SystemClock())
        yield opened
        opened.close()
    assert server.faults == []


def took_s(store: RetryingStore, up: str, down: str, *works: Callable[[], object]) -> float:
    """Seconds that these transfers take together, by the limits alone."""
    clock = SharedClock()
    bandwidth = Bandwidth(clock)
    bandwidth.change(limit(up), limit(down))
    store.share(bandwidth)
    clock.run_together(works)
    return clock.monotonic()


def test_puts_and_parts_of_all_sizes_together(store: RetryingStore) -> None:
    """Four connections: a part of 16 MiB, two of 1 MiB, and fifty objects of 2 KiB."""
    upload = store.create_upload("large", META)
    small = 50 * 2048

    def objects() -> None:
        for number in range(50):
            store.put(f"small/{number}", BytesBody(bytes(2048)), META)

    seconds = took_s(
        store,
        "4M",
        "off",
        partial(store.put_part, "large", upload, 1, BytesBody(os.urandom(16 * MIB))),
        partial(store.put_part, "large", upload, 2, BytesBody(os.urandom(MIB))),
        partial(store.put_part, "large", upload, 3, BytesBody(os.urandom(MIB))),
        objects,
    )
    assert seconds == pytest.approx((18 * MIB + small) / (4 * MIB), rel=0.03)


def test_downloads_together(store: RetryingStore) -> None:
    data = os.urandom(3 * MIB)
    store.put("a", BytesBody(data), META)
    found: dict[int, bytes] = {}

    def read(start: int) -> None:
        with store.get("a", start=start, length=MIB) as download:
            found[start] = b"".join(download.chunks(MIB))

    seconds = took_s(store, "off", "1M", *(partial(read, start) for start in (0, MIB, 2 * MIB)))
    assert seconds == pytest.approx(3.0, abs=3 / PIECES)
    assert b"".join(found[start] for start in sorted(found)) == data


def test_what_is_put_is_what_is_there(store: RetryingStore) -> None:
    """A body that is held is sent in pieces, whole, and compared as any."""
    data = os.urandom(MIB + 17)
    assert took_s(store, "64k", "off", lambda: store.put("a", BytesBody(data), META)) > 15
    store.bandwidth.change(OFF, OFF)
    with store.get("a") as download:
        assert b"".join(download.chunks()) == data
