"""Health: when the bucket counts as away, who is told, and that any answer about an object ends it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from r2fs.model.errors import (
    BadCredentials,
    BodyDamaged,
    BucketMissing,
    ClockSkewed,
    ObjectMissing,
    PermissionRefused,
    PreconditionFailed,
    Refused,
    StoreError,
    Throttled,
    Unavailable,
)
from r2fs.model.records import Condition, ObjectMeta
from r2fs.store.health import IN_A_ROW, SILENT_S, Health, HealthView
from r2fs.store.local.store import LocalDirStore
from r2fs.store.retry import RetryingStore
from tests.support.bodies import BytesBody
from tests.support.clocks import ManualClock
from tests.support.faulty import FaultyStore

META = ObjectMeta("audio/wav", {})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def told() -> list[HealthView]:
    return []


@pytest.fixture
def health(clock: ManualClock, told: list[HealthView]) -> Health:
    health = Health(clock)
    health.tell = told.append
    return health


def test_one_or_two_failures_are_nothing(health: Health, told: list[HealthView]):
    for _ in range(10):
        for _ in range(IN_A_ROW - 1):
            health.failed(Unavailable("no"))
        assert health.view() == HealthView(True, 0.0, None)
        health.answered()
    assert told == []


def test_an_outage_is_told_at_its_beginning_and_at_its_end(
    health: Health, clock: ManualClock, told: list[HealthView]
):
    for number in range(20):
        health.failed(Unavailable(f"no {number}"))
        clock.advance(2)
    assert told == [HealthView(False, 4.0, "no 2")]
    assert health.view() == HealthView(False, 40.0, "no 19")
    health.answered()
    health.answered()
    assert told[1:] == [HealthView(True, 40.0, None)]
    assert health.view().answers


@pytest.mark.parametrize("error", [BadCredentials, PermissionRefused, BucketMissing, ClockSkewed, Throttled])
def test_what_refuses_everything_is_no_answer(health: Health, error: type[StoreError]):
    for _ in range(IN_A_ROW):
        health.failed(error("no"))
    assert not health.view().answers


@pytest.mark.parametrize("error", [BodyDamaged, ObjectMissing, PreconditionFailed, Refused])
def test_what_is_said_of_one_object_is_an_answer(health: Health, error: type[StoreError]):
    for _ in range(IN_A_ROW):
        health.failed(Unavailable("no"))
    health.failed(error("no"))
    assert health.view().answers


def test_a_server_that_answers_nothing_is_seen_before_its_requests_fail(health: Health, clock: ManualClock):
    health.answered()
    clock.advance(100)
    health.requested()
    clock.advance(SILENT_S - 1)
    assert health.view().answers
    clock.advance(1)
    view = health.view()
    assert (view.answers, view.for_s) == (False, SILENT_S)
    assert view.reason is not None and "nothing has been answered" in view.reason
    health.failed(Unavailable("timed out"))  # one failure is no outage, and the request waits no more
    assert health.view().answers


def test_a_slow_answer_beside_others_is_no_outage(health: Health, clock: ManualClock):
    health.requested()
    clock.advance(SILENT_S)
    other = Thread(target=lambda: (health.requested(), health.answered()))
    other.start()
    other.join()
    assert health.view().answers


def test_requests_without_a_body_are_watched_while_they_wait(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    inner = LocalDirStore(tmp_path)
    store = RetryingStore(inner, clock)
    store.put("a", BytesBody(b"data"), META)
    seen: list[bool] = []

    def slow(answer: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        clock.advance(SILENT_S)
        seen.append(store.health.view().answers)
        return answer(*arguments, **named)

    for name in ("head", "list_page", "get"):
        monkeypatch.setattr(inner, name, partial(slow, getattr(inner, name)))
    for call in (lambda: store.head("a"), lambda: store.list_page("")):
        call()
        assert store.health.view().answers
    with store.get("a"):
        assert store.health.view().answers
    assert seen == [False] * 3


def test_every_request_counts(tmp_path: Path, clock: ManualClock):
    faulty = FaultyStore(LocalDirStore(tmp_path))
    store = RetryingStore(faulty, clock)
    put = store.put("a", BytesBody(b"data"), META)
    source = store.head("a").version
    upload = store.create_upload("big", META)
    part = store.put_part("big", upload, 1, BytesBody(b"data"))
    calls = {
        "put": lambda: store.put("a", BytesBody(b"data"), META),
        "head": lambda: store.head("a"),
        "get": lambda: store.get("a").__exit__(None, None, None),
        "copy": lambda: store.copy(source, "b"),
        "complete_upload": lambda: store.complete_upload("big", upload, [part]),
        "list_page": lambda: store.list_page(""),
    }
    assert put
    for name, call in calls.items():
        for _ in range(IN_A_ROW):
            store.health.failed(Unavailable("no"))
        assert not store.health.view().answers, name
        call()
        assert store.health.view().answers, name
    for name in ("put", "copy", "complete_upload"):  # 412 is an answer too
        for _ in range(IN_A_ROW):
            store.health.failed(Unavailable("no"))
        with pytest.raises(StoreError):
            if name == "put":
                store.put("a", BytesBody(b"data"), META, condition=Condition.absent())
            elif name == "copy":
                store.copy(source, "b", condition=Condition.absent())
            else:
                store.complete_upload("big", upload, [part])
        assert store.health.view().answers, name
