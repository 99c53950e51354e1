"""`r2fs mirror` in a namespace without /dev/fuse, over a real S3 server: programs, kills, faults and other clients."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.mount.daemons import REPO, until
from tests.support.faulty import FaultyProxy, answer
from tests.support.namespaces import WITHOUT_OTHER_MOUNTS
from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1 << 20
OWN = ".r2fs-mirror"
READY_S, END_S = 40.0, 30.0
_numbers = itertools.count(1)

# A /dev of its own without /dev/fuse; "$@" is what runs in it.
WITHOUT_FUSE = f"""
set -e
{WITHOUT_OTHER_MOUNTS}
mount -t tmpfs none "$R2FS_TEST_DEV"
for node in null zero random urandom; do
    touch "$R2FS_TEST_DEV/$node"
    mount --bind "/dev/$node" "$R2FS_TEST_DEV/$node"
done
mount --move "$R2FS_TEST_DEV" /dev
test ! -e /dev/fuse
exec "$@"
"""


class Bucket:
    """Another client's view of one prefix."""

    def __init__(self, client: S3Client, name: str, prefix: str) -> None:
        self.client, self.name, self.prefix = client, name, prefix

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=self.prefix + key, Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=self.prefix + key)

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=self.prefix + key)["Body"].read()

    def keys(self) -> set[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix)
        return {each["Key"][len(self.prefix) :] for page in pages for each in page.get("Contents", ())}

    def has(self, key: str) -> bool:
        return key in self.keys()

    def contents(self) -> dict[str, bytes]:
        return {key: self.get(key) for key in self.keys()}


class Mirror:
    """A directory, and the processes of its mirror: one at a time."""

    def __init__(
        self, base: Path, server: SeaweedFS, prefix: str, url: str | None = None, **settings: Any
    ) -> None:
        self.dir = base / "dir"
        self.dir.mkdir(parents=True)
        (base / "dev").mkdir()
        endpoint = server.endpoint
        self.url = f"s3://{endpoint.bucket}/{prefix}"
        values = {
            "endpoint_url": url or endpoint.url,
            "region": endpoint.region,
            "cache_dir": base / "cache",
            "state_dir": base / "state",
            "run_dir": base / "run",
            "upload_delay": "200ms",
            "host": "studio",
            **settings,
        }
        self.environment = {
            **os.environ,
            **{f"R2FS_{name.upper()}": str(value) for name, value in values.items()},
            "AWS_ACCESS_KEY_ID": endpoint.access_key,
            "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
            "HOME": str(base),
            "R2FS_TEST_DEV": str(base / "dev"),
        }
        self.log = base / "log"
        self._child: subprocess.Popen[bytes] | None = None

    # ---- the process
    def start(self, *words: str, every: str = "1s") -> None:
        before = self.read_log().count("are kept in step")
        self.launch(*words, every=every)
        until("the first pass", lambda: self._is_ready(before), READY_S)

    def launch(self, *words: str, every: str = "1s") -> None:
        namespace = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-r", "-m"]
        command = [sys.executable, "-m", "r2fs", "mirror", str(self.dir), self.url, "--every", every, *words]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*namespace, "sh", "-c", WITHOUT_FUSE, "sh", *command],
                env=self.environment,
                cwd=REPO,
                stderr=log,
            )

    def _is_ready(self, before: int) -> bool:
        assert self.child.poll() is None, self.read_log()
        return self.read_log().count("are kept in step") > before

    @property
    def child(self) -> subprocess.Popen[bytes]:
        assert self._child is not None
        return self._child

    def read_log(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.child.send_signal(number)
        return self.child.wait(END_S)

    def end(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait(END_S)

    # ---- commands
    def r2fs(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "r2fs", *map(str, words)],
            env=self.environment,
            cwd=REPO,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def once(self, *words: str) -> dict[str, Any]:
        run = self.r2fs("mirror", self.dir, self.url, "--once", "--json", *words)
        assert run.returncode == 0, run.stderr
        return dict(json.loads(run.stdout))

    # ---- files
    def write(self, name: str, data: bytes) -> Path:
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def contents(self) -> dict[str, bytes]:
        files = [path for path in self.dir.rglob("*") if path.is_file()]
        named = {path.relative_to(self.dir).as_posix(): path for path in files}
        return {name: path.read_bytes() for name, path in named.items() if not name.startswith(OWN)}


@pytest.fixture
def bucket(s3: S3Client, seaweed: SeaweedFS, tmp_path: Path) -> Bucket:
    return Bucket(s3, seaweed.endpoint.bucket, f"mirror{next(_numbers)}-{tmp_path.name}/")


@pytest.fixture
def mirrors(seaweed: SeaweedFS, bucket: Bucket, tmp_path: Path) -> Iterator[Callable[..., Mirror]]:
    """`mirrors(name, **settings)`: a mirror of the test's prefix, not yet started."""
    made: list[Mirror] = []

    def make(name: str, **settings: Any) -> Mirror:
        made.append(Mirror(tmp_path / name, seaweed, bucket.prefix, **settings))
        return made[-1]

    yield make
    for one in made:
        one.end()


# ------------------------------------------------------------------ kills
def test_files_and_kills(mirrors: Callable[..., Mirror], bucket: Bucket) -> None:
    kill_and_compare(mirrors("one"), bucket, files=200, kills=4)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_thousand_files_and_ten_kills(mirrors: Callable[..., Mirror], bucket: Bucket) -> None:
    kill_and_compare(mirrors("one"), bucket, files=1000, kills=10)


def kill_and_compare(mirror: Mirror, bucket: Bucket, files: int, kills: int) -> None:
    """Programs here and another client there write, while the mirror is killed again and again; a third of the files
    is written more than once."""
    chance = random.Random(7)
    expected: dict[str, bytes] = {}
    names = [f"d{n % 7}/{'here' if n % 4 else 'there'} {n}.bin" for n in range(files - files // 3)]
    each = -(-files // kills)
    for first in range(0, files, each):
        mirror.start()
        for number in range(first, min(first + each, files)):
            name = names[number % len(names)]
            data = chance.randbytes(chance.randrange(20_000)) + str(number).encode()
            if "there " in name:
                bucket.put(name, data)
            elif number % 3:
                mirror.write(name, data)
            else:  # as many programs save
                os.replace(mirror.write(f"{name}.part", data), mirror.dir / name)
            expected[name] = data
            time.sleep(chance.uniform(0.0, 0.02))
        mirror.stop(signal.SIGKILL)
        here, there = mirror.contents(), bucket.keys()
        assert here != expected or there != set(expected)  # it was killed at work
    mirror.start()
    until("both sides in step", lambda: set(mirror.contents()) == bucket.keys() == set(expected), 60)
    waited = mirror.r2fs("wait", mirror.dir, "--timeout", "60s")
    assert waited.returncode == 0, waited.stderr
    assert mirror.contents() == expected
    assert bucket.contents() == expected
    assert mirror.stop() == 0
    assert " ERROR " not in mirror.read_log()


# ------------------------------------------------------------------ once
def test_a_tree_to_plain_files_and_back(mirrors: Callable[..., Mirror], bucket: Bucket) -> None:
    """V20, R19: byte for byte, a file in parts as well."""
    made = {f"users/{n % 3}/é {n}.wav": os.urandom(n * 1000) for n in range(12)}
    made["book.m4b"] = os.urandom(6 * MIB)
    for key, data in made.items():
        bucket.put(key, data)
    mirror = mirrors("down", multipart_threshold="5M", part_size="5M")
    report = mirror.once("--down")
    assert (report["fetched"], report["sent"], report["failed_count"]) == (len(made), 0, 0)
    assert mirror.contents() == made
    assert mirror.once("--down")["fetched"] == 0
    for key in made:
        bucket.delete(key)
    assert mirror.once()["sent"] == 0  # removed in the bucket: it stays so, and the files stay here
    assert mirror.contents() == made
    assert mirror.once("--up")["sent"] == len(made)
    assert bucket.contents() == made
    assert mirror.contents() == made


# ------------------------------------------------------------------ while it runs
def test_files_appear_change_and_go(mirrors: Callable[..., Mirror], bucket: Bucket) -> None:
    mirror = mirrors("one")
    bucket.put("there.wav", b"one")
    mirror.start("--delete")
    until("a download", lambda: mirror.contents() == {"there.wav": b"one"})
    mirror.write("deep/er/here.wav", b"one")
    until("an upload", lambda: bucket.has("deep/er/here.wav"))
    waited = mirror.r2fs("wait", mirror.dir / "deep/er/here.wav")
    assert waited.returncode == 0, waited.stderr
    assert mirror.r2fs("key", mirror.dir / "deep/er/here.wav").stdout == f"{bucket.prefix}deep/er/here.wav\n"
    assert "X-Amz-Signature" in mirror.r2fs("url", mirror.dir / "deep/er/here.wav").stdout
    bucket.put("there.wav", b"two")
    until("a download", lambda: mirror.contents()["there.wav"] == b"two")
    shown = mirror.r2fs("status", mirror.dir).stdout
    assert re.search(r"^directory +.*/dir$", shown, re.MULTILINE)
    assert re.search(r"^not yet sent +nothing$", shown, re.MULTILINE)
    assert re.search(r"^to fetch +nothing$", shown, re.MULTILINE)
    os.rename(mirror.dir / "deep", mirror.dir / "other")
    bucket.delete("there.wav")
    until("the rename", lambda: bucket.keys() == {"other/er/here.wav"})
    until("the removal", lambda: set(mirror.contents()) == {"other/er/here.wav"})
    ended = mirror.r2fs("umount", mirror.dir)
    assert ended.returncode == 0, ended.stderr
    assert mirror.child.wait(END_S) == 0


def test_a_file_written_slowly_is_not_sent_half(mirrors: Callable[..., Mirror], bucket: Bucket) -> None:
    mirror = mirrors("one")
    mirror.start()
    with (mirror.dir / "take.wav").open("wb") as file:
        for number in range(5):
            file.write(b"%d" % number * 1000)
            file.flush()
            time.sleep(0.5)  # longer than the delay after a close
            assert bucket.keys() == set()
    until("the upload", lambda: bucket.keys() == {"take.wav"})
    assert bucket.get("take.wav") == b"".join(b"%d" % number * 1000 for number in range(5))


def test_a_conflict_of_two_mirrors(mirrors: Callable[..., Mirror], bucket: Bucket) -> None:
    one, two = mirrors("one", host="one"), mirrors("two", host="two")
    bucket.put("take.wav", b"first")
    one.start(every="1h")
    two.start(every="1h")
    until("the downloads", lambda: one.contents() == two.contents() == {"take.wav": b"first"})
    assert one.r2fs("wait", one.dir).returncode == two.r2fs("wait", two.dir).returncode == 0
    one.write("take.wav", b"of one")
    until("the upload", lambda: bucket.get("take.wav") == b"of one")
    two.write("take.wav", b"of two")
    until("both in the bucket", lambda: len(bucket.keys()) == 2)
    (kept,) = bucket.keys() - {"take.wav"}
    assert kept.startswith("take (conflict of two, ")
    assert bucket.contents() == {"take.wav": b"of one", kept: b"of two"}
    until("both here", lambda: two.contents() == bucket.contents())
    assert re.search(rf"^conflict kept +{re.escape(kept)}$", two.r2fs("status", two.dir).stdout, re.MULTILINE)


# ------------------------------------------------------------------ faults and stops
@pytest.fixture
def broken(seaweed: SeaweedFS) -> Iterator[FaultyProxy]:
    with FaultyProxy(seaweed.endpoint.url) as proxy:
        yield proxy


def test_the_server_is_away_for_a_while(
    mirrors: Callable[..., Mirror], bucket: Bucket, broken: FaultyProxy
) -> None:
    """M2: what is written meanwhile is sent when it answers again; other ends lose nothing either."""
    mirror = mirrors("one", url=broken.url, stop_timeout="1s")
    mirror.write("a", b"one")
    mirror.start()
    until("the upload", lambda: bucket.keys() == {"a"})
    broken.rule(answer(503), times=None)
    mirror.write("a", b"two")
    mirror.write("b", b"one")
    until("the outage", lambda: "the bucket does not answer" in mirror.read_log())
    assert "unavailable" in mirror.r2fs("status").stdout
    assert mirror.r2fs("wait", mirror.dir, "--timeout", "1s").returncode == 75
    assert mirror.stop() == 75
    assert "sent by the next mirror" in mirror.read_log()
    mirror.launch()  # it waits for the bucket
    until("the next mirror", lambda: "changes are sent later" in mirror.read_log())
    bucket.put("c", b"other client")
    broken.clear()
    until(
        "all",
        lambda: mirror.contents() == bucket.contents() == {"a": b"two", "b": b"one", "c": b"other client"},
        40,
    )


def test_a_stop_sends_what_was_just_written(mirrors: Callable[..., Mirror], bucket: Bucket) -> None:
    mirror = mirrors("one", upload_delay="1h")
    mirror.start(every="1h")
    mirror.write("d/last words", b"bye")
    assert mirror.stop() == 0
    assert bucket.contents() == {"d/last words": b"bye"}


def test_what_is_refused(mirrors: Callable[..., Mirror]) -> None:
    """A second mirror of a directory and prefix, the restart of a mirror, and places in one another."""
    mirror = mirrors("one")
    mirror.start()
    again = mirror.r2fs("mirror", mirror.dir, mirror.url)
    assert again.returncode == 8
    assert "is mirrored already" in again.stderr
    refused = mirror.r2fs("restart", mirror.dir)
    assert refused.returncode == 8
    assert "is a mirror" in refused.stderr
    inside = mirror.r2fs("mirror", "--once", mirror.dir, f"file://{mirror.dir}/bucket")
    assert inside.returncode == 7
    assert "lie in one another" in inside.stderr
