"""Gigabytes through a mount: in equal parts, and never in memory. Minutes: `--long`."""

from __future__ import annotations

import hashlib
import os
import subprocess

import pytest

MIB = 1 << 20
ROOM = 50 * MIB  # that resident memory may grow by

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


def resident(serving) -> int:
    with open(f"/proc/{serving.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_while_much_goes_through(mounts):
    """2 GB in each direction."""
    serving = mounts("memory", cache_size="512MiB", upload_delay="0s")
    block = os.urandom(MIB)
    (serving.path / "first").write_bytes(block * 64)
    serving.flush()
    before = resident(serving)
    for number in range(8):
        with (serving.path / f"f{number}").open("wb", buffering=0) as file:
            for _ in range(256):
                file.write(block)
        serving.flush(300)
    for number in range(8):
        subprocess.run(
            ["cmp", "-n", str(MIB), serving.path / f"f{number}", serving.path / "first"], check=True
        )
        with (serving.path / f"f{number}").open("rb", buffering=0) as file:
            assert sum(map(len, iter(lambda: file.read(MIB), b""))) == 256 * MIB
    assert resident(serving) - before < ROOM


def test_five_gigabytes_in_equal_parts(mounts, proxy, s3, seaweed):
    serving = mounts("five", url=proxy.url, upload_delay="0s")
    (serving.path / "first").write_bytes(os.urandom(64 * MIB))
    serving.flush(120)
    before, written = resident(serving), hashlib.sha256()
    proxy.clear()
    with (serving.path / "five.w64").open("wb", buffering=0) as file:
        for _ in range(5 * 1024):
            block = os.urandom(MIB)
            written.update(block)
            file.write(block)
        file.write(b"and a little more")
        written.update(b"and a little more")
    serving.flush(1200)
    assert resident(serving) - before < ROOM
    parts = [seen for seen in proxy.seen if seen.method == "PUT" and "partNumber=" in seen.path]
    sizes = sorted((int(seen.headers["content-length"]) for seen in parts), reverse=True)
    assert sum(sizes) == 5 * 1024 * MIB + 17
    assert len(set(sizes[:-1])) == 1, "R2 wants all parts but the last of one size"
    read = hashlib.sha256()
    body = s3.get_object(Bucket=seaweed.endpoint.bucket, Key=serving.prefix + "five.w64")["Body"]
    for chunk in body.iter_chunks(MIB):
        read.update(chunk)
    assert read.digest() == written.digest()
