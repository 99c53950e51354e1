"""Where a mount's key must not be: arguments, logs, status, files, metrics, page, core dumps.

The bundle has its own test: tests/contract/test_doctor.py.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.mount.daemons import BucketMount, serve, until
from tests.mount.test_ui import page_of
from tests.support.servers import Endpoint
from tests.support.strict import StrictR2

# The server looks at the key's id alone; this secret is found nowhere by chance.
SECRET = "s3cret-that-no-file-may-hold"
CORE_OF = """
import os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
if sys.argv[1:]:
    from r2fs.daemon import core_dumps
    core_dumps.forbid()
os.abort()
"""


@pytest.fixture
def mount(r2: StrictR2, tmp_path: Path):
    (tmp_path / "metrics").mkdir()
    endpoint = Endpoint(r2.url, r2.endpoint.bucket, r2.endpoint.region, r2.endpoint.access_key, SECRET)
    mount = BucketMount(
        tmp_path,
        "kernel",
        endpoint,
        "secrets/",
        log_level="debug",
        metrics=tmp_path / "metrics",
    )
    yield from serve(mount)


def holders(secret: bytes, *places: Path) -> list[str]:
    """Files at and below `places` that hold it."""
    found = [path for place in places for path in (place.rglob("*") if place.is_dir() else [place])]
    assert found
    return [str(path) for path in found if path.is_file() and secret in path.read_bytes()]


def test_the_key_is_in_no_file_and_no_answer(mount: BucketMount, r2: StrictR2, tmp_path: Path):
    (mount.path / "a.wav").write_bytes(b"a" * 1000)
    mount.flush()
    r2.bucket.set("secrets/b.wav", b"b")
    until("the other's file", lambda: (mount.path / "b.wav").exists())
    shown = [
        mount.r2fs(*words)
        for words in (
            ("status", mount.path, "--json"), ("status",), ("info", mount.path / "a.wav", "--json"), ("cost", mount.path),
            ("queue", "list", mount.path, "--json"), ("config", "show", "--json"), ("url", mount.path / "a.wav"),
        )
    ]  # fmt: skip
    for done in shown:
        assert done.returncode == 0, done
        assert SECRET not in done.stdout + done.stderr
    metrics = tmp_path / "metrics"
    until("metrics", lambda: list(metrics.glob("*.prom")))
    assert "PUT" in mount.log()  # debug: each request
    places = [
        mount.log_path,
        metrics,
        mount.run_dir,
        *(tmp_path / name for name in ("cache", "state")),
    ]
    assert holders(SECRET.encode(), *places) == []
    own = [mount.pid, *map(int, Path(f"/proc/{mount.pid}/task/{mount.pid}/children").read_text().split())]
    assert len(own) > 1
    for pid in own:
        assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_the_key_is_on_no_page(mount: BucketMount):
    (mount.path / "a.wav").write_bytes(b"a" * 1000)
    with page_of(mount) as (url, child):

        def of_page(route: str) -> bytes:
            with urllib.request.urlopen(url + route, timeout=60) as answer:
                data: bytes = answer.read()
                return data

        (shown,) = json.loads(of_page("mounts"))["mounts"]
        answers = [of_page(""), of_page("page.js")]
        for route in ("status?", "cost?", "takes?", "level?path=&"):
            answers.append(of_page(f"{route}mount={shown['id']}"))
        assert b"a.wav" in answers[-1]
        assert [data for data in answers if SECRET.encode() in data] == []
        assert SECRET.encode() not in Path(f"/proc/{child.pid}/cmdline").read_bytes()


def test_a_daemon_leaves_no_core(mount: BucketMount):
    limits = Path(f"/proc/{mount.pid}/limits").read_text()
    (line,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert line.split()[4] == "0"
    # another process of the same user may not look into it: its files in /proc are root's
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            Path(f"/proc/{mount.pid}/environ").read_bytes()


def test_a_crash_leaves_no_core(tmp_path: Path):
    if Path("/proc/sys/kernel/core_pattern").read_text().startswith("|"):
        pytest.skip("this machine gives core dumps to a program, and keeps none in the directory")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("this machine forbids core files anyway")
    repo = Path(__file__).resolve().parents[2]
    for words, expected in (((), True), (("forbid",), False)):
        directory = tmp_path / f"{expected}"
        directory.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", CORE_OF, *words],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(repo)},
        )
        _, status = os.waitpid(process.pid, 0)
        process.returncode = -signal.SIGABRT
        assert os.WTERMSIG(status) == signal.SIGABRT
        assert os.WCOREDUMP(status) is expected
        assert bool(list(directory.iterdir())) is expected
