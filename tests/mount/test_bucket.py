"""A mounted bucket and other S3 clients: what each sees of the other, and what it costs."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import wave

import pytest
from botocore.exceptions import ClientError

from tests.mount.daemons import until

MIB = 1 << 20
SEEN_S = 6.0  # freshness is half a second in these tests; the rest is for a busy machine

pytestmark = pytest.mark.usefixtures("main_driver")


@pytest.fixture(scope="module")
def serving(mount):
    return mount


@pytest.fixture
def prefix(place, mount) -> str:
    """Of the keys of the test's directory."""
    return f"{mount.prefix}{place.name}/"


@pytest.fixture
def bucket(s3, seaweed, prefix):
    """Another client's view of the test's directory."""
    return Other(s3, seaweed.endpoint.bucket, prefix)


class Other:
    def __init__(self, client, bucket: str, prefix: str) -> None:
        self.client, self.bucket, self.prefix = client, bucket, prefix

    def put(self, name: str, content: bytes, **more) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=content, **more)

    def get(self, name: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read()

    def head(self, name: str) -> dict:
        return self.client.head_object(Bucket=self.bucket, Key=self.prefix + name)

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def names(self) -> set[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        return {each["Key"][len(self.prefix) :] for page in pages for each in page.get("Contents", ())} - {""}


def gets(proxy, name: str) -> int:
    return sum(seen.method == "GET" and f"{name}" in seen.path.split("?")[0] for seen in proxy.seen)


# ------------------------------------------------------------------ from there to here
def test_what_another_client_writes_appears(place, bucket):
    assert os.listdir(place) == []
    bucket.put("new.txt", b"from elsewhere")
    until("the file", lambda: os.listdir(place) == ["new.txt"], SEEN_S)
    assert (place / "new.txt").read_bytes() == b"from elsewhere"


def test_a_name_that_was_looked_for_appears(place, bucket):
    assert not (place / "late").exists()
    bucket.put("late", b"x")
    until("the file", (place / "late").exists, SEEN_S)


def test_v26_what_another_client_changes_is_seen(place, bucket):
    bucket.put("file", b"old content")
    until("the file", (place / "file").exists, SEEN_S)
    assert (place / "file").read_bytes() == b"old content"
    bucket.put("file", b"new content")  # of the same size
    until("the change", lambda: (place / "file").read_bytes() == b"new content", SEEN_S)
    bucket.put("file", b"longer than it was")
    until("the size", lambda: (place / "file").stat().st_size == 18, SEEN_S)


def test_what_was_written_here_is_seen_when_another_client_changes_it(place, bucket, mount):
    """However the kernel came to know a name, it believes it for `freshness` and no longer."""
    replaced, deleted, renamed = (place / name for name in ("replaced", "deleted", "renamed"))
    for path in (replaced, deleted, place / "before"):
        path.write_bytes(b"ours")
    (place / "before").rename(renamed)
    assert [path.stat().st_size for path in (replaced, deleted, renamed)] == [4, 4, 4]
    mount.flush()
    for path in (replaced, renamed):
        bucket.put(path.name, b"theirs, longer")
    bucket.delete("deleted")
    until("the new sizes", lambda: {p.stat().st_size for p in (replaced, renamed)} == {14}, SEEN_S)
    until("the name gone", lambda: not deleted.exists(), SEEN_S)
    assert [path.read_bytes() for path in (replaced, renamed)] == [b"theirs, longer"] * 2
    assert set(os.listdir(place)) == {"replaced", "renamed"}
    with pytest.raises(FileExistsError):
        os.open(replaced, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.close(os.open(deleted, os.O_WRONLY | os.O_CREAT | os.O_EXCL))


def test_who_has_it_open_keeps_the_old_version(place, bucket):
    bucket.put("file", b"1" * (2 * MIB))
    until("the file", (place / "file").exists, SEEN_S)
    with (place / "file").open("rb", buffering=0) as old:
        assert old.read(100) == b"1" * 100
        bucket.put("file", b"2" * (2 * MIB))
        until("the change", lambda: (place / "file").read_bytes()[:1] == b"2", SEEN_S)
        old.seek(0)
        assert set(old.read(2 * MIB)) == set(b"1")
    assert (place / "file").read_bytes() == b"2" * (2 * MIB)


def test_what_another_client_deletes_goes(place, bucket):
    bucket.put("file", b"x")
    until("the file", (place / "file").exists, SEEN_S)
    bucket.delete("file")
    until("the file gone", lambda: not (place / "file").exists(), SEEN_S)
    until("an empty listing", lambda: os.listdir(place) == [], SEEN_S)


def test_prefixes_are_directories(place, bucket):
    for key in ("a/b/one.wav", "a/two.wav", "a/b/c/three.wav"):
        bucket.put(key, b"x")
    until("the directories", lambda: (place / "a/b/c/three.wav").exists(), SEEN_S)
    found = {
        os.path.relpath(os.path.join(base, name), place)
        for base, _, names in os.walk(place)
        for name in names
    }
    assert found == {"a/b/one.wav", "a/two.wav", "a/b/c/three.wav"}


def test_keys_that_cannot_be_names(place, bucket):
    """They are hidden, and take nothing else down."""
    bucket.put("good", b"x")
    for key in ("a//b", "d/../e", "x" * 256):
        try:
            bucket.put(key, b"x")
        except ClientError:
            continue  # this server refuses such a key; others do not
    until("the good one", (place / "good").exists, SEEN_S)
    assert "good" in os.listdir(place)
    for base, directories, names in os.walk(place):
        assert not {"", ".", ".."} & {*directories, *names}, base


# ------------------------------------------------------------------ from here to there
def test_the_names_of_links_are_for_links(place):
    """An object of such a name would be a link, and a file of that name gone with the next mount."""
    (place / "take.wav").write_bytes(b"a take")
    with pytest.raises(OSError, match=os.strerror(errno.EILSEQ)):
        (place / "take.rclonelink").touch()
    with pytest.raises(OSError, match=os.strerror(errno.EILSEQ)):
        (place / "take.wav").rename(place / "take.rclonelink")
    (place / "dir.rclonelink").mkdir()
    (place / "link.rclonelink").symlink_to("take.wav")
    assert (place / "link.rclonelink").read_bytes() == b"a take"
    assert sorted(os.listdir(place)) == ["dir.rclonelink", "link.rclonelink", "take.wav"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.wav", "audio/wav"), ("a.mp3", "audio/mpeg"), ("a.flac", "audio/flac"), ("a.m4a", "audio/mp4"),
        ("a.txt", "text/plain"), ("a.json", "application/json"), ("a", "application/octet-stream"),
    ],
)  # fmt: skip
def test_what_is_written_here_is_an_object(place, bucket, mount, name, kind):
    content = b"\0\x01\x02" + os.urandom(1000)
    (place / name).write_bytes(content)
    mount.flush()
    assert bucket.get(name) == content
    assert bucket.head(name)["ContentType"] == kind


def test_large_files_go_up_in_parts(place, bucket, mount):
    content = os.urandom(70 * MIB)
    (place / "large.wav").write_bytes(content)
    mount.flush(90)
    assert bucket.get("large.wav") == content


def test_a_wave_header_that_is_patched_at_the_end(place, bucket, mount):
    path = place / "take.wav"
    with path.open("wb") as file:
        file.write(
            b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + b"data\0\0\0\0"
        )
        file.write(bytes(16000))
        size = file.tell()
        file.seek(4)
        file.write(struct.pack("<I", size - 8))
        file.seek(40)
        file.write(struct.pack("<I", size - 44))
    mount.flush()
    (place / "copy.wav").write_bytes(bucket.get("take.wav"))
    with wave.open(str(place / "copy.wav")) as heard:
        assert (heard.getnframes(), heard.getframerate()) == (8000, 8000)


def test_times_and_modes_come_back(place, bucket, mount):
    path = place / "file"
    path.write_bytes(b"x")
    os.chmod(path, 0o640)
    os.utime(path, ns=(1_600_000_000_000_000_000, 1_600_000_000_000_000_000))
    mount.flush()
    metadata = bucket.head("file")["Metadata"]
    assert float(metadata["mtime"]) == 1_600_000_000
    assert int(metadata["mode"], 8 if metadata["mode"].startswith("0") else 10) & 0o777 == 0o640


def test_changes_of_names_reach_the_bucket(place, bucket, mount):
    os.makedirs(place / "d" / "sub")
    for name in ("d/one", "d/sub/two", "three"):
        (place / name).write_text(name)
    mount.flush()
    assert {"d/one", "d/sub/two", "three"} <= bucket.names()
    os.rename(place / "d", place / "e")
    os.rename(place / "three", place / "e" / "three")
    os.unlink(place / "e" / "one")
    mount.flush()
    files = {name for name in bucket.names() if not name.endswith("/")}
    assert files == {"e/sub/two", "e/three"}
    assert bucket.get("e/sub/two") == b"d/sub/two"
    shutil.rmtree(place / "e")
    mount.flush()
    assert bucket.names() == set()


def test_an_empty_directory_is_an_object(place, bucket, mount):
    os.mkdir(place / "empty")
    mount.flush()
    assert bucket.names() == {"empty/"}
    os.rmdir(place / "empty")
    mount.flush()
    assert bucket.names() == set()


def test_a_temporary_file_costs_nothing(place, mount, proxy):
    proxy.clear()
    (place / "scratch.tmp").write_text("x")
    os.unlink(place / "scratch.tmp")
    mount.flush()
    assert not [seen for seen in proxy.seen if "scratch.tmp" in seen.path and seen.method in ("PUT", "POST")]


def test_write_tag_rename_is_one_upload(place, bucket, mount, proxy):
    proxy.clear()
    (place / "part.tmp").write_bytes(b"audio")
    with (place / "part.tmp").open("r+b") as file:
        file.write(b"AUDIO")
    os.rename(place / "part.tmp", place / "final.mp3")
    mount.flush()
    assert bucket.names() == {"final.mp3"}
    assert bucket.get("final.mp3") == b"AUDIO"
    # and the directory
    assert sum(seen.method == "PUT" and place.name in seen.path for seen in proxy.seen) <= 2


# ------------------------------------------------------------------ the cache
def test_a_second_read_asks_nobody(place, bucket, mount, proxy):
    content = os.urandom(3 * MIB)
    bucket.put("cached.wav", content)
    until("the file", (place / "cached.wav").exists, SEEN_S)
    before = mount.status()["cache"]
    proxy.clear()
    assert (place / "cached.wav").read_bytes() == content
    assert gets(proxy, "cached.wav") >= 1
    proxy.clear()
    for _ in range(3):
        with (place / "cached.wav").open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert file.read() == content

    def is_a_hit() -> bool:  # not while the close before is still on its way from the kernel
        assert (place / "cached.wav").read_bytes() == content
        return bool(mount.status()["cache"]["hits"] > before["hits"])

    until("a hit", is_a_hit)
    assert gets(proxy, "cached.wav") == 0


def test_what_was_written_here_need_not_be_fetched(place, mount, proxy):
    content = os.urandom(MIB)
    (place / "own.wav").write_bytes(content)
    mount.flush()
    proxy.clear()
    with (place / "own.wav").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == content
    assert gets(proxy, "own.wav") == 0


def test_a_part_of_a_large_file_is_read_alone(place, bucket, proxy):
    content = os.urandom(64 * MIB)
    bucket.put("long.wav", content)
    until("the file", (place / "long.wav").exists, SEEN_S)
    proxy.clear()
    with (place / "long.wav").open("rb", buffering=0) as file:
        file.seek(40 * MIB)
        assert file.read(4096) == content[40 * MIB : 40 * MIB + 4096]
        file.seek(-4096, os.SEEK_END)
        assert file.read() == content[-4096:]
    assert all(
        "range" in seen.headers for seen in proxy.seen if seen.method == "GET" and "long.wav" in seen.path
    )


def test_the_cache_stays_under_its_limit(mounts, s3, seaweed):
    serving = mounts("small", cache_size="8MiB", upload_delay="0s")
    contents = {f"f{number}": os.urandom(2 * MIB) for number in range(12)}
    for name, content in contents.items():
        s3.put_object(Bucket=seaweed.endpoint.bucket, Key=serving.prefix + name, Body=content)
    until("the files", lambda: len(os.listdir(serving.path)) == 12, SEEN_S)
    for name, content in contents.items():
        assert (serving.path / name).read_bytes() == content
        assert serving.status()["cache"]["bytes"] <= 8 * MIB
    used = sum(e.stat().st_blocks * 512 for e in (serving.base / "cache").rglob("*") if e.is_file())
    assert used <= 8 * MIB + 2 * MIB  # and the database
    for name, content in contents.items():
        assert (serving.path / name).read_bytes() == content
    assert serving.status()["cache"]["evicted"] > 0


def test_what_is_past_its_time_to_live_is_fetched_again(proxy, mounts, s3, seaweed):
    serving = mounts("ttl", url=proxy.url, cache_ttl="2s")
    s3.put_object(Bucket=seaweed.endpoint.bucket, Key=serving.prefix + "aging", Body=b"x" * 1000)
    until("the file", (serving.path / "aging").exists, SEEN_S)
    proxy.clear()
    assert (serving.path / "aging").read_bytes() == b"x" * 1000

    def read_again() -> bool:
        with (serving.path / "aging").open("rb") as file:
            assert file.read() == b"x" * 1000
        return gets(proxy, "aging") >= 2

    assert not read_again()
    until("a second GET", read_again, 30)


# ------------------------------------------------------------------ settings of the mount
def test_read_only(mounts, s3, seaweed):
    serving = mounts("ro", read_only="true")
    s3.put_object(Bucket=seaweed.endpoint.bucket, Key=serving.prefix + "file", Body=b"x")
    until("the file", (serving.path / "file").exists, SEEN_S)
    assert (serving.path / "file").read_bytes() == b"x"
    with pytest.raises(OSError) as caught:
        (serving.path / "new").touch()
    assert caught.value.errno == errno.EROFS


def test_owner_and_umask(mounts, s3, seaweed):
    serving = mounts("owned", uid=os.getuid(), gid=os.getgid(), umask="027")
    s3.put_object(Bucket=seaweed.endpoint.bucket, Key=serving.prefix + "d/file", Body=b"x")
    until("the file", (serving.path / "d/file").exists, SEEN_S)
    info = (serving.path / "d/file").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (os.getuid(), os.getgid(), 0o640)
    assert (serving.path / "d").stat().st_mode & 0o777 == 0o750


def test_a_directory_that_only_its_file_keeps_stays_without_it(place, bucket, mount):
    os.mkdir(place / "d")
    (place / "d" / "file").write_bytes(b"x")
    mount.flush()
    assert "d/file" in bucket.names()
    os.unlink(place / "d" / "file")
    mount.flush()
    assert bucket.names() == {"d/"}
    assert os.listdir(place) == ["d"]
