"""Close-to-open: what one host has closed and sent, the next open on another host sees, whatever its kernel knew."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.daemons import BucketMount, end_all, until
from tests.mount.visibility import make_pair, measure, percentile, signer
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture(scope="module")
def pair(
    seaweed: SeaweedFS, main_driver: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[BucketMount]]:
    base = tmp_path_factory.mktemp(f"{main_driver}-open")
    made = make_pair(base, seaweed, main_driver, f"{base.name}/")
    try:
        for mount in made:
            mount.start()
        yield made
        assert [mount.stop() for mount in made] == [0, 0]
    finally:
        end_all(made)


def place(pair: list[BucketMount], name: str) -> tuple[Path, Path]:
    """One directory, as both hosts have it."""
    here, there = (mount.path / name for mount in pair)
    here.mkdir()
    pair[0].flush()
    assert os.listdir(there) == []
    return here, there


def test_new_bytes_a_new_name_a_deletion(pair: list[BucketMount]) -> None:
    here, there = place(pair, "d")
    for content in (b"a" * 10, b"b" * 10, b"c" * (5 << 20)):  # a large one is fetched in ranges
        (here / "take.wav").write_bytes(content)
        pair[0].flush()
        assert (there / "take.wav").read_bytes() == content
    assert not (there / "later.wav").exists()
    (here / "later.wav").write_bytes(b"later")
    (here / "deep").mkdir()
    pair[0].flush()
    assert (there / "later.wav").read_bytes() == b"later"
    assert (there / "deep").is_dir()
    os.unlink(here / "later.wav")
    os.rename(here / "take.wav", here / "best.wav")
    pair[0].flush()
    for name in ("later.wav", "take.wav"):
        with pytest.raises(FileNotFoundError):
            (there / name).read_bytes()
    assert (there / "best.wav").read_bytes() == content


def test_who_has_it_open_keeps_the_old_version(pair: list[BucketMount]) -> None:
    here, there = place(pair, "held")
    (here / "take.wav").write_bytes(b"before")
    pair[0].flush()
    with open(there / "take.wav", "rb") as held:
        (here / "take.wav").write_bytes(b"after, and longer")
        pair[0].flush()
        assert (there / "take.wav").read_bytes() == b"after, and longer"
        assert held.read() == b"before"


def test_both_write_in_turn_without_a_conflict(pair: list[BucketMount]) -> None:
    here, there = place(pair, "turns")
    for number in range(4):
        writer, reader = (pair, (here, there)) if number % 2 == 0 else (pair[::-1], (there, here))
        with open(reader[0] / "log.txt", "ab") as log:
            log.write(b"%d" % number)
        writer[0].flush()
    assert (there / "log.txt").read_bytes() == b"0123"
    assert os.listdir(here) == ["log.txt"]


def test_it_takes_the_upload_and_little_more(pair: list[BucketMount], seaweed: SeaweedFS) -> None:
    times = measure(pair, signer(seaweed), rounds=3)
    assert [len(values) for values in times.values()] == [3, 3, 3, 3]
    for what, values in times.items():
        assert percentile(values, 0.5) < 2.0, (what, values)  # far below `freshness`, an hour here


def test_refresh_makes_the_kernel_look_again(
    seaweed: SeaweedFS, main_driver: str, s3: S3Client, tmp_path: Path
) -> None:
    """Without close-to-open: listings, sizes and absent names of an hour."""
    mount = BucketMount(tmp_path, main_driver, seaweed.endpoint, f"{tmp_path.name}/", freshness="1h")

    def put(name: str, content: bytes) -> None:
        s3.put_object(Bucket=seaweed.endpoint.bucket, Key=f"{mount.prefix}{name}", Body=content)

    def look() -> tuple[list[str], bytes, bool]:
        """What a program sees; with libfuse the kernel believes for a second."""
        take = mount.path / "d" / "take.wav"
        return sorted(os.listdir(take.parent)), take.read_bytes(), (take.parent / "later.wav").exists()

    put("d/take.wav", b"before")
    try:
        mount.start()
        assert look() == (["take.wav"], b"before", False)
        put("d/take.wav", b"after, and longer")
        put("d/later.wav", b"later")
        assert look() == (["take.wav"], b"before", False)
        done = mount.r2fs("refresh", mount.path / "d")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{mount.path}: forgotten: 1 directory, 1 file\n"
        until("the news", lambda: look() == (["later.wav", "take.wav"], b"after, and longer", True), 1.5)
        put("d/e/more.wav", b"more")
        done = mount.r2fs("refresh", "--wait", "-r", mount.path, "--json")
        assert json.loads(done.stdout)[0]["directories"] == 3
        until("the new directory", lambda: (mount.path / "d/e/more.wav").exists(), 1.5)
        assert mount.stop() == 0
    finally:
        end_all([mount])
