"""The time from close(2) on one host until another host opens the new bytes, and until a URL gives them.

`python -m tests.mount.visibility [ROUNDS]` prints percentiles: two mounts with `consistency = "close-to-open"` and
`upload_delay = "0s"`, one SeaweedFS on loopback, the kernel driver.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.mount.conftest import client_of
from tests.mount.daemons import BucketMount, end_all
from tests.support.servers import SeaweedFS

LIMIT_S = 30.0
PAUSE_S = 0.002
SIZE = 100_000  # bytes: a cut segment

Look = Callable[[], bytes]


def make_pair(base: Path, server: SeaweedFS, driver: str = "kernel", prefix: str = "") -> list[BucketMount]:
    """Two hosts, not started."""
    made = []
    for name in ("worker", "api"):
        (base / name).mkdir()
        settings = {"consistency": "close-to-open", "freshness": "1h", "upload_delay": "0s", "host": name}
        made.append(BucketMount(base / name, driver, server.endpoint, prefix, **settings))
    return made


def seen(look: Look, wanted: bytes, closed_s: float) -> float:
    """Return the seconds from `closed_s` until `look` returns `wanted`."""
    while time.monotonic() - closed_s < LIMIT_S:
        with suppress(FileNotFoundError, urllib.error.HTTPError):
            if look() == wanted:
                return time.monotonic() - closed_s
        time.sleep(PAUSE_S)
    raise AssertionError(f"not seen within {LIMIT_S:g} s")


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
        return bytes(answer.read())


def measure(pair: Sequence[BucketMount], sign: Callable[[str], str], rounds: int) -> dict[str, list[float]]:
    """Write new files, then rewrite them; return the seconds until seen, by what was done and looked at."""
    here, there = pair
    times: dict[str, list[float]] = {}
    for kind in ("new", "rewritten"):
        for number in range(rounds):
            path, other = here.path / f"{number}.wav", there.path / f"{number}.wav"
            url = sign(here.prefix + path.name)
            looks: dict[str, Look] = {"open": other.read_bytes, "URL": partial(get, url)}
            wanted = os.urandom(SIZE)
            path.write_bytes(wanted)
            closed_s = time.monotonic()
            with ThreadPoolExecutor() as threads:
                found = {what: threads.submit(seen, look, wanted, closed_s) for what, look in looks.items()}
            for what, answered in found.items():
                times.setdefault(f"{kind}, by {what}", []).append(answered.result())
    return times


def signer(server: SeaweedFS) -> Callable[[str], str]:
    """Return what makes presigned URLs of keys."""
    s3, bucket = client_of(server), server.endpoint.bucket
    return lambda key: s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as base:
        server = SeaweedFS(Path(base) / "server")
        pair = make_pair(Path(base), server)
        try:
            for mount in pair:
                mount.start()
            for what, values in measure(pair, signer(server), rounds).items():
                shares = ", ".join(
                    f"p{share:g} {percentile(values, share / 100) * 1000:.0f} ms" for share in (50, 90, 99)
                )
                print(f"{what}: {len(values)} times, {shares}")
        finally:
            end_all(pair)
            server.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 100)
