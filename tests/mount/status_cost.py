"""What looking at a mount costs while 500 uploads run: the time of a status, requests to the bucket, CPU of a scrape.

`python -m tests.mount.status_cost` prints percentiles: one mount by the kernel driver, metrics at a unix socket, and a
SeaweedFS on loopback behind a proxy that is slow, so that the uploads last.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from r2fs.daemon import client
from tests.mount.daemons import BucketMount, end_all, until
from tests.support.faulty import FaultyProxy
from tests.support.servers import SeaweedFS

FILES, SIZE = 1500, 100_000
LATENCY_S = 2.0  # of each request: the uploads last for a minute
STATUSES, COMMANDS, SCRAPES = 300, 10, 60
SCRAPE_EVERY_S = 15.0  # Prometheus's usual interval


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def scrape(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def percentiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.9, 0.99)]
    return "  ".join(
        f"{name} {1000 * value:.1f} ms" for name, value in zip(("p50", "p90", "p99"), at, strict=True)
    )


def timed(work: object, times: int) -> list[float]:
    assert callable(work)
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return found


def measure(mount: BucketMount, proxy: FaultyProxy, metrics: Path) -> None:
    for number in range(FILES):
        (mount.path / f"{number:03}.wav").write_bytes(os.urandom(SIZE))
    daemon = mount.daemon()
    proxy.latency_s = LATENCY_S

    def left() -> str:
        queue = client.ask_once(daemon, "status")["queue"]
        return f"{queue['left']} left, {queue['active']} under way"

    flushing = mount.start_r2fs("flush", "--wait", mount.path)
    until("uploads", lambda: client.ask_once(daemon, "status")["queue"]["active"])
    print(f"queue                {left()}")
    before = len(proxy.seen)
    print(f"status, by socket    {percentiles(timed(lambda: client.ask_once(daemon, 'status'), STATUSES))}")
    command = [sys.executable, "-m", "r2fs", "status", str(mount.path)]
    run = lambda: subprocess.run(command, env=mount._environment, check=True, stdout=subprocess.DEVNULL)  # noqa: E731
    print(f"r2fs status, whole   {percentiles(timed(run, COMMANDS))}")
    print(f"scrape, uploading    {percentiles(timed(lambda: scrape(metrics), SCRAPES))}")
    print(f"queue                {left()}")
    print(f"requests meanwhile   {dict(Counter(seen.method for seen in proxy.seen[before:]))}")
    flushing.wait(300)
    time.sleep(3)
    idle = cpu_s(mount.pid)
    time.sleep(5)
    idle = (cpu_s(mount.pid) - idle) / 5
    begun, used = time.perf_counter(), cpu_s(mount.pid)
    for _ in range(SCRAPES * 10):
        scrape(metrics)
    each = (cpu_s(mount.pid) - used - idle * (time.perf_counter() - begun)) / (SCRAPES * 10)
    print(f"CPU, idle            {100 * idle:.2f} %")
    print(
        f"CPU of a scrape      {1000 * each:.2f} ms: {100 * each / SCRAPE_EVERY_S:.3f} % at one in {SCRAPE_EVERY_S:.0f} s"
    )


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        server = SeaweedFS(base / "server")
        mount = None
        try:
            with FaultyProxy(server.endpoint.url) as proxy:
                settings = {
                    "upload_limit": "20M",
                    "upload_delay": "0s",
                    "metrics": f"unix:{base / 'metrics'}",
                }
                mount = BucketMount(base, "kernel", server.endpoint, "", url=proxy.url, **settings)
                mount.start()
                measure(mount, proxy, base / "metrics")
        finally:
            if mount is not None:
                end_all([mount])
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
