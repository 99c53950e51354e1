"""Metrics for Prometheus: their text, the places where they are offered, and the files in contrib that use them."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own
from prometheus_client.parser import text_string_to_metric_families

from r2fs.daemon.exporter import Exporter
from r2fs.daemon.exposition import text_of
from r2fs.model.ports import SystemClock
from r2fs.model.prices import CLASS_A, CLASS_B, MILLION
from r2fs.model.records import ObjectMeta
from r2fs.model.settings.loading import load
from r2fs.model.settings.timetable import OFF, BandwidthLimit
from r2fs.store.retry import RetryingStore
from tests.support.bodies import BytesBody
from tests.support.engine import Engine
from tests.support.memory_store import MemoryStore
from tests.unit.cli.test_lifecycle import Rig

ROOT = Path(__file__).resolve().parents[3]
Text = Callable[[], bytes]
NAME = re.compile(r"\b(?:r2fs|process)_[a-z0-9_]+\b")


class Driver:
    def requests(self) -> dict[str, int]:
        return {"lookup": 3}

    def mode_of_open_files(self) -> tuple[SimpleNamespace, ...]:
        return (SimpleNamespace(mode="passthrough"),)


@pytest.fixture
def exposition(tmp_path: Path) -> Iterator[Text]:
    """Of an engine that has stored and read a file; the counter of requests has seen some."""
    bucket = MemoryStore()
    bucket.put("there.wav", BytesBody(b"x" * 100), ObjectMeta())
    engine = Engine(tmp_path, bucket)
    engine.write("new.wav", b"y" * 50)
    engine.drain()
    engine.read("there.wav")
    store = RetryingStore(bucket, SystemClock())
    for took_s, status in ((0.003, 200), (0.2, 200), (99.0, None)):
        store.counter.answered(store.counter.request("GetObject"), took_s, status)
    store.counter.answered(store.counter.request("PutObject", "new.wav", 1000), 0.03, 412)
    store.bandwidth.change(BandwidthLimit().parse("5M"), OFF)
    parts: Any = SimpleNamespace(
        settings=engine.settings, target='/mnt/take"s', engine=engine.fs, store=store, driver=Driver()
    )
    yield text_of(parts)
    engine.end()


def samples(text: bytes) -> dict[tuple[str, str], float]:
    """Values by name, and the labels besides those of the mount."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("mount", "bucket")}
            found[sample.name, ",".join(f"{k}={v}" for k, v in sorted(labels.items()))] = sample.value
            if sample.name.startswith("r2fs_"):
                assert sample.labels["mount"] == '/mnt/take"s'
                assert sample.labels["bucket"] == "s3://bucket/"
    return found


def test_values_are_those_of_the_views(exposition: Text):
    found = samples(exposition())
    assert found["r2fs_queue_files", ""] == 0
    assert found["r2fs_uploaded_files_total", ""] == 1
    assert found["r2fs_uploaded_bytes_total", ""] == 50
    assert found["r2fs_cache_misses_total", ""] >= 1
    assert found["r2fs_bucket_available", ""] == 1
    assert found["r2fs_bandwidth_limit_bytes", "direction=up"] == 5 << 20
    assert ("r2fs_bandwidth_limit_bytes", "direction=down") not in found
    assert found["r2fs_held_transfers", "direction=up"] == 0
    assert found["r2fs_requests_total", "class=B,operation=GetObject"] == 3
    assert found["r2fs_requests_total", "class=A,operation=PutObject"] == 1
    assert found["r2fs_request_cost_dollars_total", "class=A"] == pytest.approx(CLASS_A / MILLION)
    assert found["r2fs_request_cost_dollars_total", "class=B"] == pytest.approx(3 * CLASS_B / MILLION)
    assert found["r2fs_answers_total", "status=200"] == 2
    assert found["r2fs_answers_total", "status=412"] == 1
    assert found["r2fs_answers_total", "status=none"] == 1
    assert found["r2fs_kernel_requests_total", "opcode=lookup"] == 3
    assert found["r2fs_open_files", "mode=passthrough"] == 1
    assert found["r2fs_open_files", "mode=cached"] == 0
    assert found["process_resident_memory_bytes", ""] > 1e6


def test_the_latency_is_a_histogram(exposition: Text):
    found = samples(exposition())

    def upto(limit: str) -> float:
        return found["r2fs_request_seconds_bucket", f"le={limit},operation=GetObject"]

    assert [upto(limit) for limit in ("0.005", "0.1", "0.25", "60.0", "+Inf")] == [1, 1, 2, 2, 3]
    assert found["r2fs_request_seconds_count", "operation=GetObject"] == 3
    assert found["r2fs_request_seconds_sum", "operation=GetObject"] == pytest.approx(99.203)


def test_metrics_name_no_file(exposition: Text):
    assert b".wav" not in exposition()


def test_metrics_are_cheap(exposition: Text):
    """Under 1 % of a processor at Prometheus' usual interval of 15 s."""
    begun = time.process_time()
    for _ in range(10):
        exposition()
    assert (time.process_time() - begun) / 10 < 0.15


# ------------------------------------------------------------------ contrib
def expressions(value: Any) -> Iterator[str]:
    """Every expression of rules or of a dashboard."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("expr", "query") and isinstance(inner, str):
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


@pytest.mark.parametrize("name", ["r2fs.rules.yml", "r2fs-dashboard.json"])
def test_contrib_uses_metrics_that_there_are(exposition: Text, name: str):
    text = (ROOT / "contrib" / name).read_text()
    document = json.loads(text) if name.endswith("json") else yaml.safe_load(text)
    real = {name for name, _ in samples(exposition())}
    found = list(expressions(document))
    assert len(found) > 10
    for expression in found:
        assert expression.count("(") == expression.count(")"), expression
        assert expression.count("{") == expression.count("}"), expression
        assert set(NAME.findall(expression)) <= real, expression
    assert NAME.search(text)


def test_each_alert_says_what_is_wrong():
    document = yaml.safe_load((ROOT / "contrib" / "r2fs.rules.yml").read_text())
    rules = [rule for group in document["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[mhd]", rule.get("for", "1m"))


# ------------------------------------------------------------------ places
class Running:
    def __init__(self, place: str) -> None:
        self.ended = threading.Event()
        exporter = Exporter(place, "takes-1f", lambda: b"r2fs_info 1\n")
        self.thread = threading.Thread(target=exporter.run, args=(self.ended,))
        self.thread.start()

    def stop(self) -> None:
        self.ended.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def offer() -> Iterator[Callable[[str], Running]]:
    made: list[Running] = []

    def _offer(place: str) -> Running:
        made.append(Running(place))
        return made[-1]

    yield _offer
    for running in made:
        running.stop()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def get(number: int, path: str = "/metrics", host: str = "localhost") -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", number, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def listens(number: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", number), 5).close()
    except OSError:
        return False
    return True


def test_a_loopback_address(offer: Callable[[str], Running]):
    number = port()
    offer(f"127.0.0.1:{number}")
    until(lambda: listens(number))
    assert get(number) == (200, b"r2fs_info 1\n")
    assert get(number, "/etc/passwd")[0] == 404
    # a web page whose name has become 127.0.0.1 is another origin
    assert get(number, host=f"evil.example.com:{number}")[0] == 403
    assert get(number, host=f"127.0.0.1:{number}")[0] == 200
    assert get(number, host=f"[::1]:{number}")[0] == 200


@pytest.mark.expect_warnings("metrics cannot be offered at")
def test_an_address_in_use_is_told_once_and_tried_again(
    offer: Callable[[str], Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("r2fs.daemon.exporter.AGAIN_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = int(listener.getsockname()[1])
        offer(f"127.0.0.1:{number}")
        time.sleep(0.3)
    until(lambda: listens(number))
    assert get(number)[0] == 200
    assert caplog.text.count("cannot be offered") == 1


def test_a_unix_socket_is_its_users_own(tmp_path: Path, offer: Callable[[str], Running]):
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as left:  # by a killed daemon
        left.bind(str(path))
    running = offer(f"unix:{path}")
    until(lambda: path.exists() and stat.S_IMODE(path.lstat().st_mode) == 0o600)

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            try:
                connection.connect(str(path))
            except OSError:
                return b""
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return connection.makefile("rb").read()

    until(ask)
    assert ask().endswith(b"r2fs_info 1\n")
    running.stop()
    assert not path.exists()


def test_a_textfile_is_whole_readable_and_gone_at_the_end(
    tmp_path: Path, offer: Callable[[str], Running], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("r2fs.daemon.exporter.TEXTFILE_S", 0.05)
    running = offer(str(tmp_path))
    path = tmp_path / "r2fs-takes-1f.prom"
    until(path.exists)
    first = path.stat().st_ino
    until(lambda: path.stat().st_ino != first)
    assert path.read_text() == "r2fs_info 1\n"
    until(lambda: stat.S_IMODE(path.stat().st_mode) == 0o644)
    running.stop()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("place", ["0.0.0.0:9464", "192.0.2.7:9464", "9464", "example.com:1", "metrics.prom"])
def test_an_address_that_others_can_reach_is_refused(place: str):
    from r2fs.model.errors import SettingsError

    with pytest.raises(SettingsError, match="loopback"):
        load("file:///b", environ={"R2FS_METRICS": place})


# ------------------------------------------------------------------ a mount
def of_socket(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return connection.makefile("rb").read().decode()
        except OSError:
            return ""


def test_a_mount_offers_them_also_after_a_restart_and_logs_misses_once_it_is_told_to(tmp_path: Path):
    rig = Rig(ROOT, tmp_path)
    config, path = tmp_path / "config.toml", tmp_path / "metrics.sock"
    config.write_text(f'metrics = "unix:{path}"\nlog_format = "json"\n')
    (rig.bucket / "there.wav").write_bytes(b"RIFF")
    try:
        rig.mount("--config", config)
        until(lambda: "r2fs_info" in of_socket(path))
        assert f'mount="{rig.point}"' in of_socket(path)
        rig.r2fs("restart", rig.point)
        until(lambda: "r2fs_cache_misses_total" in of_socket(path))
        config.write_text(config.read_text() + "log_misses = true\n")
        until(lambda: "log_misses = true" in rig.log())
        assert (rig.point / "there.wav").read_bytes() == b"RIFF"
        lines = [json.loads(line) for line in rig.log().splitlines()]
        assert [line["key"] for line in lines if line.get("event") == "cache_miss"] == ["there.wav"]
        until(lambda: re.search(r"r2fs_cache_misses_total.* [1-9]", of_socket(path)))
        assert rig.r2fs("umount", rig.point).returncode == 0
        until(lambda: not path.exists())
    finally:
        rig.end()
