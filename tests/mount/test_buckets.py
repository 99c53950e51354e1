"""Several buckets under one mount, on a server that has them: R1, R2, R3, R10, R17."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from r2fs.client import Client
from r2fs.client.errors import InvalidTarget
from tests.mount.daemons import BucketMount, end_all, until
from tests.support.faulty import FaultyProxy, answer
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SETTINGS = """
[buckets.{books}]
public_url = "https://media.example.com/x"

[buckets.{shelf}]
read_only = true
"""
Mounts = Callable[..., BucketMount]


class SeveralMount(BucketMount):
    """`r2fs mount s3:// DIR --bucket A --bucket B`; all buckets of the account for none."""

    def __init__(self, base: Path, seaweed: SeaweedFS, buckets: Sequence[str], **settings: Any) -> None:
        super().__init__(base, "kernel", seaweed.endpoint, "", settings.pop("url", None), **settings)
        named = [word for bucket in buckets for word in ("--bucket", bucket)]
        self._command = [sys.executable, "-m", "r2fs", "mount", "s3://", str(self.path), *named]


@pytest.fixture
def names(s3: S3Client, tmp_path: Path) -> tuple[str, str]:
    """Two buckets of this test."""
    end = tmp_path.name.replace("_", "-").lower()[-30:].strip("-")
    made = (f"manuscripts-{end}", f"audiobooks-{end}")
    for name in made:
        s3.create_bucket(Bucket=name)
    return made


@pytest.fixture
def several(seaweed: SeaweedFS, names: tuple[str, str], tmp_path: Path) -> Iterator[Mounts]:
    """`several(name, *buckets, **settings)`: a started mount of these buckets, or of the test's two."""
    made: list[BucketMount] = []

    def make(name: str = "a", *buckets: str, start: bool = True, **settings: Any) -> BucketMount:
        base = tmp_path / name
        base.mkdir(exist_ok=True)
        mount = SeveralMount(base, seaweed, buckets or names, **settings)
        made.append(mount)
        if start:
            mount.start()
        return mount

    yield make
    end_all(made)


def keys(s3: S3Client, bucket: str) -> dict[str, bytes]:
    """What the bucket holds, but for the objects of directories."""
    found = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {
        one["Key"]: s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
        for one in found
        if not one["Key"].endswith("/")
    }


def error_of(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as caught:
        call()
    return caught.value.errno


def test_r1_r2_r3_the_path_is_the_key_of_the_database(
    several: Mounts, s3: S3Client, names: tuple[str, str]
) -> None:
    mount, (texts, books) = several(), names
    assert sorted(os.listdir(mount.path)) == sorted(names)
    (mount.path / texts / "user123").mkdir()
    (mount.path / texts / "user123" / "book.txt").write_bytes(b"words")
    (mount.path / books / "user123" / "job1").mkdir(parents=True)
    (mount.path / books / "user123" / "job1" / "final.mp3").write_bytes(b"sound")
    mount.flush()
    assert keys(s3, texts) == {"user123/book.txt": b"words"}
    assert keys(s3, books) == {"user123/job1/final.mp3": b"sound"}
    s3.put_object(Bucket=books, Key="user9/other.mp3", Body=b"of another client")
    until("another client's object", (mount.path / books / "user9" / "other.mp3").exists)
    assert (mount.path / books / "user9" / "other.mp3").read_bytes() == b"of another client"
    assert mount.stop() == 0
    shutil.rmtree(mount.base / "cache")
    again = several()  # with an empty cache
    assert (again.path / books / "user123" / "job1" / "final.mp3").read_bytes() == b"sound"
    assert (again.path / texts / "user123" / "book.txt").read_bytes() == b"words"
    assert again.complaints() == []


def test_a_bucket_is_neither_made_nor_changed_by_a_program(
    several: Mounts, s3: S3Client, names: tuple[str, str]
) -> None:
    mount, (texts, books) = several(), names
    root = mount.path
    (root / texts / "file").write_bytes(b"x")
    refused: list[Callable[[], object]] = [
        lambda: (root / "file").write_bytes(b"x"),
        lambda: (root / "new").mkdir(),
        lambda: (root / books).rmdir(),
        lambda: os.rename(root / books, root / "other"),
        lambda: os.rename(root / books, root / texts / "other"),
        lambda: os.rename(root / texts / "file", root / "file"),
        lambda: os.symlink("x", root / "link"),
        lambda: os.mkfifo(root / "fifo"),
        lambda: os.setxattr(root, "user.a", b"x"),
        lambda: os.setxattr(root / books, "user.a", b"x"),
    ]
    assert [error_of(call) for call in refused] == [errno.EPERM] * len(refused)
    assert error_of(lambda: (root / books).mkdir()) == errno.EEXIST
    os.chmod(root / books, 0o750)  # as of the root of any mount: until it ends
    os.utime(root / books)
    (root / books / "only").write_bytes(b"x")
    mount.flush()
    (root / books / "only").unlink()  # the last child: another directory would get an object now
    mount.flush()
    assert os.listdir(root / books) == []
    assert s3.list_objects_v2(Bucket=books).get("Contents", []) == []
    assert keys(s3, texts) == {"file": b"x"}


def test_r17_renames_and_removals(several: Mounts, s3: S3Client, names: tuple[str, str]) -> None:
    mount, (texts, books) = several(), names
    for bucket in names:
        (mount.path / bucket / "user123" / "j").mkdir(parents=True)
        (mount.path / bucket / "user123" / "j" / "a.bin").write_bytes(b"of " + bucket.encode())
        (mount.path / bucket / "user1234").mkdir()
        (mount.path / bucket / "user1234" / "stays").write_bytes(b"x")
    source, target = mount.path / texts / "user123" / "j" / "a.bin", mount.path / books / "moved.bin"
    assert error_of(lambda: os.rename(source, target)) == errno.EXDEV
    mount.flush()
    assert error_of(lambda: os.rename(source.parent, mount.path / books / "d")) == errno.EXDEV
    subprocess.run(["mv", source, target], check=True)
    subprocess.run(["mv", mount.path / texts / "user1234", mount.path / books / "dir"], check=True)
    os.rename(target, mount.path / books / "renamed.bin")  # inside a bucket: a copy there
    mount.flush()
    assert keys(s3, texts) == {}
    of_texts = b"of " + texts.encode()
    assert keys(s3, books)["renamed.bin"] == of_texts
    assert keys(s3, books)["dir/stays"] == b"x"
    for bucket in names:
        subprocess.run(["rm", "-rf", mount.path / bucket / "user123"], check=True)
    mount.flush()
    assert keys(s3, texts) == {}
    assert sorted(keys(s3, books)) == ["dir/stays", "renamed.bin", "user1234/stays"]
    assert mount.complaints() == []


def test_s7_a_bucket_is_emptied_only_with_a_word_more(
    several: Mounts, s3: S3Client, names: tuple[str, str]
) -> None:
    mount, (texts, books) = several(), names
    for bucket in names:
        (mount.path / bucket / "u").mkdir()
        (mount.path / bucket / "u/f.bin").write_bytes(b"12345")
    mount.flush()
    refused = mount.r2fs("rm", "-r", mount.path / texts)
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    done = mount.r2fs("rm", "-r", "--yes", mount.path / texts)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" (5 B); 0 failed\n")
    assert keys(s3, texts) == {}
    assert keys(s3, books) == {"u/f.bin": b"12345"}
    assert set(os.listdir(mount.path)) == set(names)
    assert mount.r2fs("rm", "-r", mount.path / books / "u").returncode == 0
    assert keys(s3, books) == {}


def test_killed_with_unsent_files_in_both(several: Mounts, s3: S3Client, names: tuple[str, str]) -> None:
    mount, (texts, books) = several(upload_delay="1h", take_over="0"), names
    for bucket in names:
        (mount.path / bucket / "u").mkdir()
        (mount.path / bucket / "u" / "f.bin").write_bytes(bucket.encode())
    mount.kill()
    assert keys(s3, books) == {}
    # the unsent file of one bucket has no place in it
    left_out = several("a", books, texts + "-other", start=False)
    left_out.allowed = ["cannot be used now"]
    left_out.launch()
    assert left_out.wait() == 2
    assert f"{texts}/u/f.bin" in left_out.log()
    assert f"--bucket {texts}" in left_out.log()
    again = several("a", books, texts)  # in another order it is the same mount
    again.flush()
    assert keys(s3, texts) == {"u/f.bin": texts.encode()}
    assert keys(s3, books) == {"u/f.bin": books.encode()}
    assert again.stop() == 0
    assert list((again.base / "state").iterdir()) == list((again.base / "state").glob("buckets-*"))
    alone = several("a", books, texts + "-other", start=False)
    alone.allowed = ["cannot be used now", "does not answer"]
    alone.start()  # nothing is left of the other: it may be left out
    assert sorted(os.listdir(alone.path)) == sorted([books, texts + "-other"])


def test_a_missing_bucket_and_a_read_only_one(
    several: Mounts, s3: S3Client, names: tuple[str, str], tmp_path: Path
) -> None:
    texts, books = names
    shelf = books.replace("audiobooks", "shelf")
    s3.create_bucket(Bucket=shelf)
    s3.put_object(Bucket=shelf, Key="kept", Body=b"x")
    (tmp_path / "settings.toml").write_text(SETTINGS.format(books=books, shelf=shelf))
    mount = several(
        "a", texts, books, shelf, "missing-" + books, start=False, config=tmp_path / "settings.toml"
    )
    mount.allowed = [
        "cannot be used now",
        "bucket missing-.* does not answer",
        "missing-.*: could not be listed",
    ]
    mount.start()
    assert "missing-" in "".join(mount.log())
    assert sorted(os.listdir(mount.path)) == sorted([texts, books, shelf, "missing-" + books])
    assert error_of(lambda: os.listdir(mount.path / ("missing-" + books))) in (errno.EIO, errno.EACCES)
    refused: list[Callable[[], object]] = [
        lambda: (mount.path / shelf / "new").write_bytes(b"x"),
        lambda: (mount.path / shelf / "kept").open("ab"),
        lambda: (mount.path / shelf / "kept").unlink(),
        lambda: (mount.path / shelf / "d").mkdir(),
        lambda: os.chmod(mount.path / shelf / "kept", 0o600),
        lambda: os.rename(mount.path / shelf / "kept", mount.path / shelf / "k"),
    ]
    assert [error_of(call) for call in refused] == [errno.EROFS] * len(refused)
    assert (mount.path / shelf / "kept").read_bytes() == b"x"
    (mount.path / books / "goes on").write_bytes(b"x")
    mount.flush()
    assert keys(s3, books) == {"goes on": b"x"}
    assert "unavailable" in mount.r2fs("status").stdout
    warmed = mount.r2fs("warm", mount.path)
    assert warmed.returncode == 14, warmed.stderr
    assert "2 files" in warmed.stdout
    assert "missing-" in warmed.stderr
    said = mount.r2fs("status", mount.path).stdout
    assert f"{shelf} (read-only)" in said
    findings = mount.r2fs("doctor", mount.path)
    assert findings.returncode == 5, findings.stdout
    assert f"{books}: " in findings.stdout
    assert "missing-" in findings.stdout
    none = several("b", "no-such-" + books, "neither-" + books, start=False)
    none.launch()
    assert none.wait() == 5


def test_r2_r10_keys_paths_and_urls(
    several: Mounts, seaweed: SeaweedFS, s3: S3Client, names: tuple[str, str], tmp_path: Path
) -> None:
    texts, books = names
    (tmp_path / "settings.toml").write_text(SETTINGS.format(books=books, shelf="shelf"))
    mount = several(config=tmp_path / "settings.toml")
    path = mount.path / books / "u" / "j" / "ü 1.mp3"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"sound")
    (mount.path / texts / "u").mkdir()
    (mount.path / texts / "u" / "t.txt").write_bytes(b"text")
    assert mount.r2fs("key", path).stdout == "u/j/ü 1.mp3\n"
    assert mount.r2fs("key", "--qualified", path).stdout == f"{books}/u/j/ü 1.mp3\n"
    answer_ = json.loads(mount.r2fs("key", "--json", path).stdout)[0]
    assert (answer_["bucket"], answer_["key"]) == (books, "u/j/ü 1.mp3")
    assert os.getxattr(path, "user.r2fs.key").decode() == "u/j/ü 1.mp3"
    assert os.getxattr(path, "user.r2fs.url").decode() == f"s3://{books}/u/j/ü 1.mp3"
    for words in (
        [f"{books}/u/j/ü 1.mp3"],
        [f"r2://{books}/u/j/ü 1.mp3"],
        ["u/j/ü 1.mp3"],
        ["--encoded", f"{books}%2Fu%2Fj%2F%C3%BC%201.mp3"],
    ):
        assert mount.r2fs("path", *words).stdout == f"{os.path.realpath(path)}\n", words
    assert mount.r2fs("path", f"r2://{texts}/u/j/ü 1.mp3").returncode == 1
    with Client(mount.path, environ={"R2FS_RUN_DIR": str(mount.run_dir)}) as client:
        key = client.upload(b"by the client", f"{books}/u/c.bin")
        assert key == f"{books}/u/c.bin"
        assert client.exists(f"r2://{books}/u/c.bin")
        client.wait(key, timeout_s=20)
        with pytest.raises(InvalidTarget):
            client.exists("elsewhere/u/c.bin")
    assert keys(s3, books)["u/c.bin"] == b"by the client"
    assert mount.r2fs("wait", path).returncode == 0
    url = mount.r2fs("url", path).stdout.strip()
    assert url.startswith(f"{seaweed.endpoint.url}/{books}/u/j/")
    with urllib.request.urlopen(url, timeout=20) as found:
        assert found.read() == b"sound"
    public = mount.r2fs("url", "--public", path)
    assert public.stdout == "https://media.example.com/x/u/j/%C3%BC%201.mp3\n"
    unset = mount.r2fs("url", "--public", mount.path / texts / "u" / "t.txt")
    assert unset.returncode == 2
    assert f"[buckets.{texts}]" in unset.stderr


def test_a_bucket_that_does_not_answer_delays_no_other(
    several: Mounts, seaweed: SeaweedFS, s3: S3Client, names: tuple[str, str], tmp_path: Path
) -> None:
    texts, books = names
    with FaultyProxy(seaweed.endpoint.url) as proxy:
        (tmp_path / "settings.toml").write_text(f'[buckets.{texts}]\nendpoint_url = "{proxy.url}"\n')
        mount = several(config=tmp_path / "settings.toml", upload_threads=4)
        mount.allowed = [f"the bucket {texts} (does not answer|answers again)"]
        assert os.listdir(mount.path / texts) == []
        proxy.rule(answer(503), times=None)
        for number in range(12):
            (mount.path / texts / f"{number}").write_bytes(b"waits")
        mount.until_state("the outage is noticed", lambda said: not said["health"]["answers"], 60)
        for number in range(12):
            (mount.path / books / f"{number}").write_bytes(b"goes")
        assert mount.r2fs("flush", "--wait", "--timeout", "20s", mount.path / books).returncode == 0
        assert len(keys(s3, books)) == 12
        assert os.listdir(mount.path / texts)  # as known
        said = mount.status()
        assert list(said["health"]["buckets"]) == [texts]
        proxy.clear()
        mount.flush()
    assert len(keys(s3, texts)) == 12


def test_all_buckets_of_the_account_and_an_orderly_umount(
    several: Mounts, s3: S3Client, names: tuple[str, str], tmp_path: Path
) -> None:
    mount = several("a", start=False, freshness="300ms")
    mount._command = [*mount._command[: mount._command.index("--bucket")], "--background"]
    mount.launch()
    assert mount.wait() == 0, mount.log()
    try:
        assert set(names) <= set(os.listdir(mount.path))
        s3.create_bucket(Bucket=f"later-{names[0]}")
        until("a new bucket", lambda: f"later-{names[0]}" in os.listdir(mount.path))
        (mount.path / f"later-{names[0]}" / "f").write_bytes(b"x")
        assert mount.r2fs("flush", "--wait", mount.path).returncode == 0
        assert keys(s3, f"later-{names[0]}") == {"f": b"x"}
        restarted = mount.r2fs("restart", mount.path)
        assert restarted.returncode == 0, restarted.stderr
        assert (mount.path / f"later-{names[0]}" / "f").read_bytes() == b"x"
        (log,) = (tmp_path / "a/state").rglob("r2fs.log")
        assert "restarting" in log.read_text()
        assert " ERROR " not in log.read_text(), "one successor, and no other"
    finally:
        done = mount.r2fs("umount", mount.path)
    assert done.returncode == 0, done.stderr


def test_a_mount_in_the_background_names_a_missing_bucket_on_the_terminal(
    several: Mounts, names: tuple[str, str]
) -> None:
    mount = several("a", names[0], f"missing-{names[0]}", start=False)
    mount._command = [*mount._command, "--background"]
    mount.launch()
    assert mount.wait() == 0, mount.log()
    try:
        said = mount.log()
    finally:
        done = mount.r2fs("umount", mount.path)
    assert done.returncode == 0, done.stderr
    assert f"r2fs: warning: missing-{names[0]} cannot be used now" in said
