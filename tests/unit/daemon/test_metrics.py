"""Metrics: plain values, whatever the parts can tell."""

from __future__ import annotations

import json
from dataclasses import dataclass

from r2fs.daemon import metrics
from r2fs.model.settings import Bucket, Settings
from r2fs.model.views import CacheView, QueueView
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


def test_requests_by_verb_and_class():
    store = Store()
    store.counter.request("PutObject", 100)
    store.counter.request("GetObject")
    store.counter.retried()
    shown = json.loads(json.dumps(metrics.requests(store)))
    assert shown["by_verb"] == {"PutObject": 1, "GetObject": 1}
    assert (shown["class_a"], shown["class_b"], shown["retries"], shown["total"]) == (1, 1, 1, 2)
    assert shown["sent_bytes"] == 100
    assert metrics.requests(object()) == {}


def test_the_mount(tmp_path):
    settings = Settings(Bucket("s3", "studio", "takes/"), tmp_path / "c", tmp_path / "s", tmp_path / "r")
    shown = json.loads(json.dumps(metrics.mount(settings, "/mnt", 12, "running", Driver())))
    assert shown["url"] == "s3://studio/takes/"
    assert shown["driver"] == "Driver"
    assert shown["staging_dir"] == str(tmp_path / "s" / "staging")


def test_the_kernels_side():
    shown = metrics.kernel(Driver(), lambda ino: {7: "takes/07.wav"}[ino])
    opened = {"path": "takes/07.wav", "ino": 7, "mode": "passthrough"}
    assert shown == {"open_files": [opened], "requests": {"lookup": 3}}
    assert metrics.kernel(object(), lambda ino: None) == {"open_files": None, "requests": None}
