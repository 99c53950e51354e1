"""Exposition: the daemon's state in the text format of Prometheus, by prometheus-client.

Each metric has the labels `mount` (the directory) and `bucket` (the URL); no metric names a file or a key. Values are
from the views of engine, cache and store: no request is sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from r2fs import __version__
from r2fs.daemon.exporter import Exporter
from r2fs.daemon.parts import Parts
from r2fs.daemon.spending import prices_of
from r2fs.daemon.starting import socket_name
from r2fs.store.counting import CLASSES, LIMITS_S, LatencyView, kind_of

PREFIX: Final = "r2fs_"
LABELS: Final = ("mount", "bucket")

Family = GaugeMetricFamily | CounterMetricFamily
Values = Mapping[Any, float]  # by the tuple of values of the labels besides LABELS


class MountCollector(Collector):
    """Metric families of one mount, made anew from the views at each call."""

    def __init__(self, parts: Parts) -> None:
        # constant
        self._parts = parts
        self._labels = (parts.target, parts.settings.bucket.url)

    def collect(self) -> Iterator[Metric]:
        yield from self._daemon()
        yield from self._cache()
        yield from self._queue()
        yield from self._room()
        yield from self._requests()
        yield from self._kernel()

    # ------------------------------------------------------------------ families
    def _gauge(self, name: str, about: str, value: float) -> Metric:
        return self._family(GaugeMetricFamily, name, about, {(): value})

    def _counter(self, name: str, about: str, value: float) -> Metric:
        return self._family(CounterMetricFamily, name, about, {(): value})

    def _family(self, kind: type[Family], name: str, about: str, values: Values, *labels: str) -> Metric:
        """A family with a value for each tuple of values of `labels`."""
        family = kind(PREFIX + name, about, labels=(*LABELS, *labels))
        for of_labels, value in values.items():
            family.add_metric((*self._labels, *of_labels), value)
        return family

    def _daemon(self) -> Iterator[Metric]:
        settings, driver = self._parts.settings, type(self._parts.driver).__name__
        info: Values = {(__version__, driver): 1}
        yield self._family(GaugeMetricFamily, "info", "The daemon of a mount.", info, "version", "driver")
        health = self._parts.store.health.view()
        yield self._gauge("bucket_available", "1 if the bucket answers.", health.answers)
        yield self._gauge("bucket_unavailable_seconds", "Time without an answer.", health.for_s)
        yield self._gauge("read_only", "1 for a mount that refuses changes.", settings.read_only)
        limits = self._parts.store.bandwidth.view()
        rates = {(way,): limit.rate for way, limit in limits.items() if limit.rate is not None}
        held = {(way,): limit.waiting for way, limit in limits.items()}
        yield self._family(GaugeMetricFamily, "bandwidth_limit_bytes", "Limit of now, bytes a second; none: no limit.", rates, "direction")  # fmt: skip
        yield self._family(GaugeMetricFamily, "held_transfers", "Transfers that wait for their turn.", held, "direction")  # fmt: skip

    def _cache(self) -> Iterator[Metric]:
        view = self._parts.engine.cache_view()
        yield self._gauge("cache_bytes", "Clean content on this host's disk.", view.bytes)
        yield self._gauge("cache_limit_bytes", "cache_size.", view.limit)
        yield self._gauge("cache_entries", "Files in the cache.", view.entries)
        yield self._counter("cache_hits", "Opened files that the cache had.", view.hits)
        yield self._counter("cache_misses", "Opened files that the cache had not.", view.misses)
        yield self._counter("cache_evicted", "Files removed for the size limit.", view.evicted)
        yield self._counter("cache_expired", "Files removed for their age.", view.expired)

    def _queue(self) -> Iterator[Metric]:
        view = self._parts.engine.queue_view()
        yield self._gauge("queue_files", "Files with changes that the bucket lacks.", view.files)
        yield self._gauge("queue_directories", "Directory objects that the bucket lacks.", view.directories)
        yield self._gauge("queue_deletes", "Deletions that the bucket lacks.", view.deletes)
        yield self._gauge("queue_bytes", "Bytes of these files.", view.bytes)
        yield self._gauge("queue_active", "Uploads in flight.", view.active)
        yield self._gauge("queue_oldest_seconds", "Age of the oldest change.", view.oldest_s)
        yield self._gauge("queue_parked", "Changes that the bucket refuses, kept here.", view.parked)
        yield self._gauge("conflicts", "Conflict copies in known directories.", len(view.conflicts))
        yield self._gauge("hidden_objects", "Objects in known directories that cannot be shown.", view.hidden)
        yield self._counter("uploaded_files", "Files stored in the bucket.", view.uploaded)
        yield self._counter("uploaded_bytes", "Bytes of these files.", view.uploaded_bytes)
        yield self._counter("upload_failures", "Attempts that failed.", view.failed)

    def _room(self) -> Iterator[Metric]:
        view = self._parts.engine.room_view()
        aside = self._parts.engine.aside_view()
        yield self._gauge("dirty_bytes", "Bytes not in the bucket, open files included.", view.dirty)
        yield self._gauge("dirty_limit_bytes", "dirty_limit.", view.dirty_limit)
        yield self._gauge("disk_free_bytes", "Free bytes on the disk of cache and staging.", view.disk_free)
        yield self._gauge("disk_error", "1 if that disk gives errors.", view.disk_error is not None)
        yield self._gauge("writers_waiting", "1 if writers wait for uploads or the disk.", view.writers not in ("free", "slowed"))  # fmt: skip
        yield self._gauge("journal_reserve_bytes", "Reserve of the journal; 0: in use.", view.journal_reserve)
        yield self._gauge("quarantined_files", "Files and journals set aside.", len(aside.orphans) + len(aside.journals))  # fmt: skip
        yield self._gauge("damaged_objects", "Objects with other bytes than their ETags say.", len(self._parts.engine.damaged_view()))  # fmt: skip

    def _requests(self) -> Iterator[Metric]:
        view, prices = self._parts.store.requests(), prices_of(self._parts.engine.settings)
        verbs = {(verb, CLASSES[kind_of(verb)]): count for verb, count in view.by_verb.items()}
        yield self._family(CounterMetricFamily, "requests", "Requests to the bucket, by S3's operation and R2's class.", verbs, "operation", "class")  # fmt: skip
        cost = {("A",): prices.of_requests(view.class_a, 0), ("B",): prices.of_requests(0, view.class_b), ("free",): 0.0}  # fmt: skip
        yield self._family(CounterMetricFamily, "request_cost_dollars", "These requests at the prices of the settings, without the free tier.", cost, "class")  # fmt: skip
        statuses = {(status,): count for status, count in view.by_status.items()}
        yield self._family(CounterMetricFamily, "answers", "Answers by HTTP status; none: no answer came.", statuses, "status")  # fmt: skip
        yield self._counter("request_retries", "Requests sent again.", view.retries)
        yield self._counter("sent_bytes", "Bytes of request bodies.", view.sent_bytes)
        yield self._counter("received_bytes", "Bytes of downloads.", view.received_bytes)
        times = HistogramMetricFamily(
            PREFIX + "request_seconds", "Time from a request to the head of its answer.", labels=(*LABELS, "operation")
        )  # fmt: skip
        for verb, latency in self._parts.store.counter.latencies().items():
            times.add_metric((*self._labels, verb), buckets=_buckets(latency), sum_value=latency.sum_s)
        yield times

    def _kernel(self) -> Iterator[Metric]:
        """Requests of the kernel; none for drivers through libfuse."""
        driver: Any = self._parts.driver
        if hasattr(driver, "requests"):
            counts = {(opcode,): count for opcode, count in driver.requests().items()}
            yield self._family(CounterMetricFamily, "kernel_requests", "Requests of the kernel, by opcode.", counts, "opcode")  # fmt: skip
        if hasattr(driver, "mode_of_open_files"):
            found = Counter(each.mode for each in driver.mode_of_open_files())
            modes = {(mode,): found[mode] for mode in sorted({"passthrough", "cached", *found})}
            yield self._family(GaugeMetricFamily, "open_files", "Open files, by mode.", modes, "mode")


def _buckets(latency: LatencyView) -> list[tuple[str, float]]:
    """Counts up to each limit, as Prometheus has them: cumulative, the last without a limit."""
    total, found = 0, []
    for limit, count in zip((*map(str, LIMITS_S), "+Inf"), latency.counts, strict=True):
        total += count
        found.append((limit, float(total)))
    return found


def text_of(parts: Parts) -> Callable[[], bytes]:
    """Return a function for the text of all metrics of a mount and of this process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MountCollector(parts))
    ProcessCollector(registry=registry)
    return lambda: generate_latest(registry)


def exporter_of(place: str, parts: Parts) -> Exporter:
    """The exporter of a mount's metrics at the place that the setting `metrics` names."""
    return Exporter(place, socket_name(parts.settings), text_of(parts))
