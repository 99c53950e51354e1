"""Rohimaya (R): manuscripts and audiobooks, large books, links for a click and for mail, a user's deletion.

Each bucket has a mount of its own, side by side in one directory, or both are under one mount: the path below is what
the database keeps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from mutagen.mp4 import MP4

from r2fs import client
from tests.mount.daemons import BucketMount, until
from tests.support.faulty import stall
from tests.systems.helpers import fetch, keys

BUCKETS = ("manuscripts", "audiobooks")
PARTS = {"multipart_threshold": "16MiB", "part_size": "8MiB"}
BOOK, LARGE_BOOK = 60 << 20, 500 << 20


@pytest.fixture(scope="module")
def module_library(seaweed, s3, tmp_path_factory):
    """The two mounts and the directory that has both."""
    root = tmp_path_factory.mktemp("rohimaya")
    made = []
    try:
        for name in BUCKETS:
            s3.create_bucket(Bucket=name)
            (root / f"of-{name}").mkdir()
            public = {"public_url": "https://media.example.com"} if name == "audiobooks" else {}
            mount = BucketMount(
                root / f"of-{name}",
                "kernel",
                replace(seaweed.endpoint, bucket=name),
                "",
                run_dir=root / "run",
                **PARTS,
                **public,
            )
            made.append(mount)
            mount.start()
            (root / name).symlink_to(mount.path)
        yield root, made
        for mount in made:
            assert mount.stop() == 0
    finally:
        for mount in made:
            mount.end()
    assert [line for mount in made for line in mount.complaints()] == []


@pytest.fixture
def root(module_library, monkeypatch) -> Path:
    monkeypatch.setenv("R2FS_RUN_DIR", str(module_library[0] / "run"))
    return module_library[0]


@pytest.fixture
def library(root, example):
    return example("rohimaya").Library(root)


def book(path: Path, size: int) -> Path:
    """An m4b of ffmpeg's with chapters' worth of padding: a `free` atom of random bytes behind its tones."""
    tone = path.with_suffix(".tone.m4b")
    subprocess.run(
        ["ffmpeg", "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac"]
        + ["-f", "mp4", "-movflags", "+faststart", str(tone)],
        check=True,
    )
    rest = size - tone.stat().st_size
    with path.open("wb") as file:
        file.write(tone.read_bytes() + rest.to_bytes(4, "big") + b"free")
        block = os.urandom(1 << 20)
        for at in range(0, rest - 8, len(block)):
            file.write(block[: min(len(block), rest - 8 - at)])
    tone.unlink()
    return path


def store_book(library, s3, tmp_path: Path, size: int, job: str) -> None:
    source = book(tmp_path / "Buch (Ünïcode) [1]_COMPLETE.m4b", size)
    kept = library.upload(source, "audiobooks", "user 1", job)
    assert kept == f"audiobooks/user 1/{job}/{source.name}"
    head = s3.head_object(Bucket="audiobooks", Key=kept.partition("/")[2])
    assert (head["ContentLength"], head["ContentType"]) == (size, "audio/mp4")
    assert "-" in head["ETag"], "several parts"
    assert MP4(library.root / kept).info.length > 0.9  # read in place, by an ordinary program
    status, data, headers = fetch(library.link(kept), Range=f"bytes={size - 4}-{size - 1}")
    assert (status, headers["content-type"]) == (206, "audio/mp4")
    with source.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        assert data == file.read()


def test_r2_r4_r27_a_book_of_many_parts(library, s3, tmp_path):
    """R2, R4, R15, R26, R27: the kept key is bucket and key; names are people's; a player seeks by ranges."""
    store_book(library, s3, tmp_path, BOOK, "job1")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_r27_a_book_of_500_mb(library, s3, tmp_path):
    store_book(library, s3, tmp_path, LARGE_BOOK, "job-large")


def test_r7_r8_r9_r24_links_for_a_click_and_for_mail(library, tmp_path):
    """R5, R7, R8, R9, R20, R24, R26: an hour or a week; a name for the browser; expired and unsigned are refused."""
    source = tmp_path / "my book.txt"
    source.write_text("Once upon a time")
    kept = library.upload(source, "manuscripts", "user2", "j")
    assert kept == "manuscripts/user2/j/my book.txt"
    assert "X-Amz-Expires=3600&" in library.link(kept)
    assert f"{BUCKETS[0]}/user2/j/my%20book.txt?" in library.link(kept), "the bucket is in the path"
    for part in ("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-SignedHeaders=host&"):
        assert part in library.link(kept)
    mailed = library.link(kept, 7 * 86400, save_as="Mein Büch.txt")
    assert "X-Amz-Expires=604800&" in mailed
    status, data, headers = fetch(mailed)
    assert (status, data, headers["content-type"]) == (200, b"Once upon a time", "text/plain")
    assert "attachment" in headers["content-disposition"]
    short = library.link(kept, 1)
    until("its end", lambda: fetch(short)[0] == 403, 10)
    assert fetch(mailed.partition("?")[0])[0] == 403
    with pytest.raises(client.InvalidTarget, match="7 days"):
        library.link(kept, 8 * 86400)


def test_r10_public_urls_are_of_the_bucket_that_has_an_address(library, tmp_path):
    source = tmp_path / "open.mp3"
    source.write_bytes(b"ID3")
    assert library.public_link(library.upload(source, "audiobooks", "u", "j")) == (
        "https://media.example.com/u/j/open.mp3"
    )
    with pytest.raises(client.Misconfigured, match="public_url"):
        library.public_link(library.upload(source, "manuscripts", "u", "j"))


def test_r16_r17_all_of_a_user_in_both_buckets(library, s3, tmp_path):
    """R16, R17, S5: user12 keeps what is user123's neighbour's."""
    source = tmp_path / "a.txt"
    source.write_text("a")
    for bucket in BUCKETS:
        for user, job in (("user12", "1"), ("user12", "2"), ("user123", "1")):
            library.upload(source, bucket, user, job)
    one = library.root / "audiobooks/user123/1/a.txt"
    client.delete(one)
    client.wait(one)
    assert not client.exists(one)
    assert "user123/1/a.txt" not in keys(s3, "audiobooks")
    library.delete_user("user12")
    for bucket in BUCKETS:
        assert [key for key in keys(s3, bucket) if key.startswith("user12/")] == []
    assert "user123/1/a.txt" in keys(s3, "manuscripts")


def test_r2_r3_both_buckets_under_one_mount(seaweed, s3, tmp_path, run_dir, example):
    """R1, R2, R3, R10: `r2://` with two buckets: what the database keeps is the path below one mount."""
    names = (f"texts-{os.getpid()}", f"books-{os.getpid()}")
    for name in names:
        s3.create_bucket(Bucket=name)
    mount = BucketMount(tmp_path, "kernel", seaweed.endpoint, "", run_dir=run_dir)
    mount._command = [sys.executable, "-m", "r2fs", "mount", "r2://", str(mount.path), "--bucket", names[0]]
    mount._command += ["--bucket", names[1]]
    source = tmp_path / "final.mp3"
    source.write_bytes(b"ID3 book")
    try:
        mount.start()
        library = example("rohimaya").Library(mount.path)
        kept = library.upload(source, names[1], "user123", "job1")
        assert kept == f"{names[1]}/user123/job1/final.mp3"
        assert keys(s3, names[1]) == {"user123/job1/final.mp3": 8}
        assert mount.r2fs("key", "--qualified", mount.path / kept).stdout.strip() == kept
        status, data, headers = fetch(library.link(kept))
        assert (status, data, headers["content-type"]) == (200, b"ID3 book", "audio/mpeg")
        with client.Client(mount.path) as both:
            assert both.exists(f"r2://{names[1]}/user123/job1/final.mp3")
            assert not both.exists(f"r2://{names[0]}/user123/job1/final.mp3")
        with pytest.raises(client.Misconfigured, match="public_url"):
            library.public_link(kept)
        assert mount.stop() == 0
        assert mount.complaints() == []
    finally:
        mount.end()


def test_r19_r30_s17_plain_files_in_plain_objects_out(mount_of, bucket, s3, tmp_path):
    """R19, R30, S17: cp brings another store's files; any S3 client reads the same bytes, and nothing of r2fs's own."""
    store, backup = tmp_path / "other-store", tmp_path / "backup"
    for name in ("user1/job 1/book.txt", "user1/job 2/Büch [1]_COMPLETE.mp3", "user2/j/empty.txt"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(b"" if "empty" in name else os.urandom(20_000))
    (store / "user1/job 1/book.txt").chmod(0o640)
    mount = mount_of(bucket)
    subprocess.run(["cp", "-a", f"{store}/.", mount.path], check=True)
    subprocess.run(["diff", "-r", store, mount.path], check=True)
    client.wait(mount.path, timeout_s=60)
    assert mount.stop() == 0  # the backup needs no mount
    mount.end()
    listed = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    for key in listed:
        (backup / key).parent.mkdir(parents=True, exist_ok=True)
        if not key.endswith("/"):
            s3.download_file(bucket, key, str(backup / key))
    subprocess.run(["diff", "-r", store, backup], check=True)
    of_programs = {str(path.relative_to(store)) for path in store.rglob("*")}
    assert {key.rstrip("/") for key in listed} <= of_programs


def test_r27_an_upload_goes_on_after_a_kill(mount_of, bucket, proxy, s3, tmp_path):
    """R27: killed in the middle of its parts; the parts that the bucket has are not sent again."""
    mount = mount_of(bucket, url=proxy.url, upload_delay="0s", take_over="0", part_threads="1", **PARTS)
    source = book(tmp_path / "b.m4b", 48 << 20)
    proxy.rule(stall(20), method="PUT", path="partNumber=4", times=None)
    client.upload(source, mount.path / "b.m4b")
    until("three parts", lambda: _parts(proxy) >= 3, 40)
    time.sleep(0.5)  # the journal has the third as well
    mount.kill()
    proxy.clear()
    again = mount_of(bucket, url=proxy.url, upload_delay="0s", part_threads="1", **PARTS)
    again.allowed = [" WARNING "]
    client.wait(again.path, timeout_s=60)
    assert keys(s3, bucket) == {"b.m4b": 48 << 20}
    assert _parts(proxy) <= 4
    assert client.download(again.path / "b.m4b") == source.read_bytes()


def _parts(proxy) -> int:
    return len([each for each in proxy.seen if "partNumber=" in each.path and each.method == "PUT"])
