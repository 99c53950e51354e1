"""A bare client: the same objects by parallel GETs of http.client, and the bytes thrown away.

    python -m scripts.lib.bench.bare < JOBS.json      prints {"count", "seconds"} as JSON

Owns:  the ceiling that a file system in Python can be held to on this server, this line and these cores:
       no FUSE, no cache on the disk, no order. URLs are signed before, outside the clock.
Never: keeps what it gets. Its connections are opened within the clock, as a fresh mount's are.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

BUFFER = 256 << 10


class Failed(Exception):
    """The server answered something else than bytes."""


def pieces(urls: list[str], size: int, piece: int) -> list[tuple[str, int, int]]:
    """(URL, first byte, last byte) of every GET that is needed for files of `size` bytes."""
    return [(url, start, min(start + piece, size) - 1) for url in urls for start in range(0, size, piece)]


def fetch_all(jobs: list[tuple[str, int, int]], connections: int, ca_file: str | None) -> dict[str, float]:
    """All jobs, by `connections` threads with a connection each. Bytes and seconds."""
    waiting = iter(jobs)
    lock = threading.Lock()
    counts = [0] * connections
    failures: list[Exception] = []
    context = ssl.create_default_context(cafile=ca_file) if ca_file else None

    def next_job() -> Iterator[tuple[str, int, int]]:
        while not failures:
            with lock:
                job = next(waiting, None)
            if job is None:
                return
            yield job

    def work(number: int) -> None:
        try:
            parts = urllib.parse.urlsplit(jobs[0][0])
            assert parts.hostname is not None
            connection = (
                http.client.HTTPSConnection(parts.hostname, parts.port, context=context, timeout=60)
                if context
                else http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
            )
            buffer = bytearray(BUFFER)
            for url, first, last in next_job():
                connection.request(
                    "GET", url.split(parts.netloc, 1)[1], headers={"Range": f"bytes={first}-{last}"}
                )
                answer = connection.getresponse()
                if answer.status not in (200, 206):
                    raise Failed(f"{answer.status} for {url}")
                while size := answer.readinto(buffer):
                    counts[number] += size
            connection.close()
        except (OSError, http.client.HTTPException, Failed) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    if failures:
        raise failures[0]
    expected = sum(last + 1 - first for _, first, last in jobs)
    if sum(counts) != expected:
        raise Failed(f"{sum(counts)} bytes of {expected}")
    return {"count": sum(counts), "seconds": seconds}


def main() -> None:
    given: dict[str, Any] = json.load(sys.stdin)
    jobs = pieces(given["urls"], given["size"], given["piece"])
    print(json.dumps(fetch_all(jobs, given["connections"], given["ca_file"])))


if __name__ == "__main__":
    main()
