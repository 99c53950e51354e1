"""URLs, keys, paths and receipts: by the commands, on a mount, against a server that checks signatures."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mount.daemons import BucketMount, serve, until
from tests.support.faulty import FaultyProxy, answer
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "audiobooks/"


@pytest.fixture(scope="session")
def driver() -> str:
    """The commands ask the daemon: one driver is enough."""
    return "kernel"


@pytest.fixture(scope="module")
def books(seaweed: SeaweedFS, driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketMount]:
    base = tmp_path_factory.mktemp(f"{driver}-urls")
    mount = BucketMount(
        base,
        driver,
        seaweed.endpoint,
        PREFIX,
        public_url="https://media.example.com/x",
        upload_delay="1h",
    )
    yield from serve(mount)


def fetch(url: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.headers.items()}


def test_v10_r7_a_url_at_once_then_its_bytes(books: BucketMount) -> None:
    """V10, V13, R7, R26: before the upload too; ranges and a name for the browser."""
    path = books.path / "user 1" / "Ünï.mp3"
    path.parent.mkdir()
    path.write_bytes(b"0123456789" * 100)
    first = books.r2fs("url", path)
    assert (first.returncode, first.stderr) == (0, "")
    with pytest.raises(urllib.error.HTTPError) as early:
        fetch(first.stdout.strip())
    assert early.value.code == 404
    early.value.close()
    found = books.r2fs("url", path, "--wait", "--download", "Buch é.mp3", "--expires", "7d")
    status, body, headers = fetch(found.stdout.strip())
    assert (status, body) == (200, path.read_bytes())
    assert headers["content-disposition"].startswith("attachment")
    assert "Buch%20%C3%A9.mp3" in headers["content-disposition"]
    assert headers["content-type"] == "audio/mpeg"
    assert fetch(first.stdout.strip(), Range="bytes=10-19")[:2] == (206, b"0123456789")
    said = json.loads(books.r2fs("url", path, "--json").stdout)
    assert said["key"] == f"{PREFIX}user 1/Ünï.mp3"
    assert said["state"] == "clean"


def test_a_url_to_upload_to(books: BucketMount) -> None:
    found = books.r2fs("url", "--put", books.path / "sent.wav")
    upload = urllib.request.Request(found.stdout.strip(), data=b"sent", method="PUT")
    with urllib.request.urlopen(upload, timeout=20) as answer:
        assert answer.status == 200
    until("the upload", (books.path / "sent.wav").exists)  # another host's change: within `freshness`
    assert (books.path / "sent.wav").read_bytes() == b"sent"
    assert books.r2fs("url", books.path / "no.wav").returncode == 1
    assert "no such file" in books.r2fs("url", books.path / "no.wav").stderr


def test_r10_a_public_url_is_of_the_setting(books: BucketMount, mount: BucketMount) -> None:
    (books.path / "open.mp3").write_bytes(b"x")
    said = books.r2fs("url", "--public", books.path / "open.mp3")
    assert said.stdout == f"https://media.example.com/x/{PREFIX}open.mp3\n"
    (mount.path / "open.mp3").write_bytes(b"x")
    refused = mount.r2fs("url", "--public", mount.path / "open.mp3")
    assert refused.returncode == 2
    assert "public_url" in refused.stderr


def test_r2_s13_keys_and_paths_in_both_forms(books: BucketMount, seaweed: SeaweedFS, s3: S3Client) -> None:
    bucket = seaweed.endpoint.bucket
    path = books.path / "u" / "j" / "book (1).m4b"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    os.symlink("book (1).m4b", path.parent / "link")
    key = f"{PREFIX}u/j/book (1).m4b"
    assert books.r2fs("key", path).stdout == f"{key}\n"
    assert books.r2fs("key", path.parent / "link").stdout == f"{key}\n"
    assert books.r2fs("key", "--qualified", path).stdout == f"{bucket}/{key}\n"
    encoded = books.r2fs("key", "--encoded", path).stdout.strip()
    assert encoded == "audiobooks%2Fu%2Fj%2Fbook%20(1).m4b"
    shown = f"{os.path.realpath(books.path)}/u/j/book (1).m4b\n"
    for words in (
        [key],
        [f"{bucket}/{key}"],
        [f"r2://{bucket}/{key}"],
        ["--encoded", encoded],
        ["--mount", books.path, key],
    ):
        assert books.r2fs("path", *words).stdout == shown, words
    assert books.r2fs("path", f"r2://other/{key}").returncode == 1
    assert books.r2fs("path", f"{PREFIX}u/j/none").returncode == 1
    assert books.r2fs("path", f"{PREFIX}u/j/link.rclonelink").stdout.endswith("/u/j/link\n")


def test_r2_a_text_that_can_be_two_objects(seaweed: SeaweedFS, driver: str, tmp_path: Path) -> None:
    """A key may begin with the bucket's name: which object is meant is not guessed."""
    bucket, below = seaweed.endpoint.bucket, tmp_path.name
    mount = BucketMount(tmp_path, driver, seaweed.endpoint, "")
    try:
        mount.start()
        for directory in (mount.path / below, mount.path / bucket / below):
            directory.mkdir(parents=True)
            (directory / "two.wav").write_bytes(b"x")
        several = mount.r2fs("path", f"{bucket}/{below}/two.wav")
        assert several.returncode == 1
        assert several.stderr.count("two.wav") == 3
        one = mount.r2fs("path", f"r2://{bucket}/{below}/two.wav")
        assert one.stdout == f"{os.path.realpath(mount.path)}/{below}/two.wav\n"
        assert mount.r2fs("path", f"{below}/two.wav").stdout == one.stdout
    finally:
        mount.end()


def test_t7_m6_a_receipt(books: BucketMount, seaweed: SeaweedFS, s3: S3Client, tmp_path: Path) -> None:
    """T7, M6, V11: exit 0 only when the bucket holds exactly these bytes."""
    path = books.path / "take.wav"
    with path.open("wb") as file:
        file.write(b"still")
        file.flush()
        waiting = books.r2fs("wait", path, "--timeout", "1s")
        assert waiting.returncode == 75
        assert "open for writing" in waiting.stderr
    done = books.r2fs("wait", path, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)[0]["checked"] == 1
    stored = s3.get_object(Bucket=seaweed.endpoint.bucket, Key=f"{PREFIX}take.wav")
    assert stored["Body"].read() == b"still"
    assert books.r2fs("wait", books.path).returncode == 0
    assert books.r2fs("wait", books.path / "none").returncode == 1


def test_a_receipt_while_the_bucket_is_away(
    mounts: Callable[..., BucketMount], proxy: FaultyProxy, driver: str
) -> None:
    mount = mounts("away", url=proxy.url, upload_delay="1h")
    mount.allowed = ["the bucket cannot answer", "the bucket answers again"]
    (mount.path / "take.wav").write_bytes(b"a")
    proxy.rule(answer(503), method="PUT", times=None)
    assert mount.r2fs("wait", mount.path / "take.wav", "--timeout", "1s").returncode == 75
    proxy.clear()
    assert mount.r2fs("wait", mount.path / "take.wav").returncode == 0
