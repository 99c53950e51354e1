"""Metrics: plain values, whatever the parts can tell."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest

from r2fs.daemon import metrics
from r2fs.daemon.cost_operations import by_directory, cost
from r2fs.model.errors import PermissionRefused
from r2fs.model.ports import Limits
from r2fs.model.prices import MONTH_S
from r2fs.model.settings import Bucket, Settings
from r2fs.model.views import CacheView, QueueView, TransferView
from r2fs.store import counting
from r2fs.store.counting import RequestCounter


class Store:
    def __init__(self) -> None:
        self.counter = RequestCounter()

    def requests(self):
        return self.counter.view()


@dataclass
class Mode:
    ino: int
    mode: str


class Driver:
    def mode_of_open_files(self):
        return (Mode(7, "passthrough"),)

    def requests(self):
        return {"lookup": 3}


def test_a_refusal_is_told_in_the_words_for_the_named_file():
    """The last file that the bucket refused may be another."""
    transfers = tuple(
        TransferView(path, "upload", "dirty", 1, 0, 0.0, 1.0, reason)
        for path, reason in (
            ("r.txt.bak", "r.txt.bak: x"),
            ("d/r.txt", "d/r.txt: signature refused"),
            ("s", None),
        )
    )
    view = QueueView(
        files=3, directories=0, bytes=3, deletes=0, watched=0, active=0, parked=0, conflicts=(), hidden=0, oldest_s=1.5,
        transfers=transfers, uploaded=0, uploaded_bytes=0, failed=0, last_error=None, last_error_at_s=None,
    )  # fmt: skip
    refusal = PermissionRefused("new.wav: not allowed")

    def told(*paths: str) -> str:
        return metrics.flushed(view, (), refusal, paths)["refusal"]

    assert told("d/r.txt") == told("d") == "d/r.txt: signature refused"
    assert told("r.txt") == told("s") == told() == "new.wav: not allowed"
    assert metrics.flushed(view, (), None, ["d"])["refusal"] is None


def test_the_queue_counts_what_is_left():
    view = QueueView(
        files=2, directories=1, bytes=10, deletes=1, watched=0, active=1, parked=0, conflicts=("a",), hidden=0, oldest_s=1.5, transfers=(),
        uploaded=4, uploaded_bytes=40, failed=0, last_error=None, last_error_at_s=None,
    )  # fmt: skip
    shown = metrics.queue(view)
    assert shown["left"] == 4
    assert json.loads(json.dumps(shown))["conflicts"] == ["a"]


def test_the_hit_rate():
    def rate(hits, misses):
        return metrics.cache(CacheView(0, 0, 10, hits, misses, 0, 0))["hit_rate"]

    assert rate(3, 1) == 0.75
    assert rate(0, 0) is None


def test_the_rate_and_the_time_left_leave_parked_files_out():
    sending = TransferView("a", "upload", "uploading", 100, 40, 20.0, 1.0, None)
    view = QueueView(
        files=2, directories=0, bytes=1100, deletes=0, watched=0, active=1, parked=1, conflicts=(), hidden=0, oldest_s=1.5, transfers=(sending,),
        uploaded=0, uploaded_bytes=0, failed=0, last_error=None, last_error_at_s=None, parked_bytes=1000,
    )  # fmt: skip
    assert (metrics.queue(view)["rate"], metrics.queue(view)["left_s"]) == (20.0, 3.0)


def test_warnings_past_the_limits_of_the_settings(tmp_path):
    view = QueueView(
        files=99, directories=1, bytes=0, deletes=1, watched=0, active=0, parked=0, conflicts=(), hidden=0, oldest_s=0.0, transfers=(),
        uploaded=0, uploaded_bytes=0, failed=0, last_error=None, last_error_at_s=None,
    )  # fmt: skip
    cache = CacheView(3, 6 << 30, 10 << 30, hits=49, misses=51, evicted=0, expired=0)
    settings = Settings(Bucket("s3", "studio"), tmp_path, tmp_path, tmp_path)
    assert metrics.warnings(settings, view, cache) == []  # off by default
    limited = replace(settings, warn_cache_size=5 << 30, warn_queue=100, warn_hit_rate=50)
    assert metrics.warnings(limited, view, cache) == [
        "the cache holds 6.0 GiB, more than 5.0 GiB (warn_cache_size)",
        "101 changes are pending, more than 100 (warn_queue)",
        "the cache serves 49% of 100 opens, less than 50 % (warn_hit_rate)",
    ]
    assert metrics.warnings(limited, replace(view, files=98), replace(cache, bytes=1, hits=51)) == []
    assert (
        metrics.warnings(limited, replace(view, files=98), replace(cache, bytes=1, hits=0, misses=99)) == []
    )


def test_r14_the_cost_of_the_seed(tmp_path):
    """R14: 100 books of 1 GB, and 1,000 downloads a month: about 1.50 dollars."""
    settings = Settings(Bucket("s3", "studio"), tmp_path, tmp_path, tmp_path)
    stored = {"objects": 100, "bytes": 100 * 10**9, "listed": True}
    requests = {"class_a": 100, "class_b": 1000, "free": 5000}
    said = cost(settings, requests, stored, MONTH_S)
    assert said["storage"]["dollars_per_month"] == pytest.approx(1.50)
    assert said["requests"]["per_month"]["dollars"] == pytest.approx(0.00045 + 0.00036)
    assert said["dollars_per_month"] == pytest.approx(1.50081)
    assert said["requests"]["per_day"]["class_a"] == pytest.approx(100 / 30)
    assert cost(settings, {}, stored, 0.0)["requests"]["per_month"]["dollars"] == 0.0
    dear = replace(settings, price_storage=0.03, price_class_a=9.0, price_class_b=0.0)
    assert cost(dear, requests, stored, MONTH_S)["dollars_per_month"] == pytest.approx(3.0009)


def test_r13_deletes_are_free_and_a_listing_is_of_class_a():
    counter = RequestCounter()
    for verb in ("DeleteObject", "DeleteObjects", "AbortMultipartUpload"):
        counter.request(verb)
    assert (counter.view().class_a, counter.view().class_b, counter.view().free) == (0, 0, 3)
    counter.request("ListObjectsV2")
    assert counter.view().class_a == 1


def test_r14_a_book_of_a_gibibyte_is_66_requests_of_class_a(tmp_path):
    settings = Settings(Bucket("s3", "studio"), tmp_path, tmp_path, tmp_path)
    part = Limits().part_size(1 << 30, settings.part_size)
    assert 1 + -(-(1 << 30) // part) + 1 == 66  # create, parts, complete


def test_requests_by_verb_and_class():
    store = Store()
    store.counter.request("PutObject", "a", 100)
    store.counter.request("GetObject")
    store.counter.retried()
    shown = json.loads(json.dumps(metrics.requests(store)))
    assert shown["by_verb"] == {"PutObject": 1, "GetObject": 1}
    assert (shown["class_a"], shown["class_b"], shown["retries"], shown["total"]) == (1, 1, 1, 2)
    assert shown["sent_bytes"] == 100


def test_the_kernels_side():
    shown = metrics.kernel(Driver(), lambda inos: {7: "takes/07.wav"})
    opened = {"path": "takes/07.wav", "ino": 7, "mode": "passthrough"}
    assert shown == {"open_files": [opened], "requests": {"lookup": 3}}
    assert metrics.kernel(object(), lambda inos: {}) == {"open_files": None, "requests": None}


def test_requests_by_directory_are_those_of_all_below_it(tmp_path):
    settings = Settings(Bucket("s3", "studio", prefix="anna/"), tmp_path, tmp_path, tmp_path)
    counter = RequestCounter()
    keys = [
        "anna/a.wav",
        "anna/kits/808/kick.wav",
        "anna/kits/808/",
        "anna/kits/909.wav",
        "anna/kits2/x",
        "ben/b.wav",
    ]
    for key in keys:
        counter.request("PutObject", key)
    counter.request("GetObject", "anna/kits2/x")
    counter.request("DeleteObject", "anna/a.wav")

    def counts(path: str) -> dict[str | None, tuple[int, int, int]]:
        found = by_directory(settings, counter, path)
        return {one["directory"]: (one["class_a"], one["class_b"], one["free"]) for one in found}

    assert counts("") == {"kits": (3, 0, 0), "kits2": (1, 1, 0), "": (1, 0, 1)}
    assert list(counts("")) == ["kits", "kits2", ""], "the dearest first"
    assert counts("kits") == {"808": (2, 0, 0), "": (1, 0, 0)}
    assert counts("none") == {}


def test_directories_beyond_the_limit_are_counted_together(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "DIRECTORIES", 2)
    settings = Settings(Bucket("s3", "studio"), tmp_path, tmp_path, tmp_path)
    counter = RequestCounter()
    for number in range(5):
        counter.request("PutObject", f"{number}/a.wav")
    found = by_directory(settings, counter, "")
    assert [(one["directory"], one["class_a"]) for one in found] == [("0", 1), ("1", 1), (None, 3)]
    assert by_directory(settings, counter, "1")[0]["class_a"] == 1
