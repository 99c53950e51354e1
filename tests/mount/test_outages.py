"""What must not be lost: the server away, the daemon killed, the cache deleted."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time

import pytest

from tests.mount.daemons import BucketMount, until
from tests.support.faulty import FaultyProxy, drop, stall

pytestmark = pytest.mark.usefixtures("main_driver")
OF_THE_ENGINE = pytest.mark.usefixtures("engine_driver")


@pytest.fixture
def line(seaweed):
    """The way to the server, for this test alone: it can be cut. To be asked for before `mounts`, to end after."""
    with FaultyProxy(seaweed.endpoint.url) as proxy:
        yield proxy


def cut(line: FaultyProxy, *mounts: BucketMount) -> None:
    for serving in mounts:
        serving.allowed += [r" WARNING "]  # it may say that the server is away
    line.rule(drop(), times=None)


def objects(s3, seaweed, serving: BucketMount) -> dict[str, bytes]:
    """What another client finds below the mount's prefix, markers of directories apart."""
    bucket = seaweed.endpoint.bucket
    found = s3.list_objects_v2(Bucket=bucket, Prefix=serving.prefix).get("Contents", [])
    keys = [each["Key"] for each in found if not each["Key"].endswith("/")]
    return {key[len(serving.prefix) :]: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


# ------------------------------------------------------------------ the server is away
def test_closing_does_not_wait_for_the_server(line, mounts, s3, seaweed):
    serving = mounts("host", url=line.url)
    (serving.path / "before").write_bytes(b"cached")
    serving.flush()
    cut(line, serving)
    begin = time.monotonic()
    (serving.path / "take.wav").write_bytes(b"recorded" * 1000)
    assert time.monotonic() - begin < 30  # a request alone would take its minute
    assert (serving.path / "take.wav").read_bytes() == b"recorded" * 1000
    assert (serving.path / "before").read_bytes() == b"cached"
    serving.until_state("an owed file", lambda s: s["queue"]["files"] >= 1)
    assert "take.wav" not in objects(s3, seaweed, serving)
    line.clear()
    until("the upload", lambda: objects(s3, seaweed, serving).get("take.wav") == b"recorded" * 1000, 40)


@OF_THE_ENGINE
def test_a_listing_is_the_last_known_one(line, mounts):
    serving = mounts("host", url=line.url)
    os.mkdir(serving.path / "d")
    (serving.path / "d" / "file").write_text("x")
    serving.flush()
    assert os.listdir(serving.path / "d") == ["file"]
    cut(line, serving)

    def shown_though_it_cannot_be_asked_for() -> bool:
        assert os.listdir(serving.path / "d") == ["file"]
        return not serving.status()["health"]["answers"]

    until("no answer", shown_though_it_cannot_be_asked_for, 60)
    assert os.listdir(serving.path / "d") == ["file"]
    assert (serving.path / "d" / "file").read_text() == "x"
    line.clear()  # the end does not wait for it


@OF_THE_ENGINE
def test_reading_what_is_not_here_fails_in_time(line, mounts, s3, seaweed):
    serving = mounts("host", url=line.url, read_timeout="2s")
    s3.put_object(Bucket=seaweed.endpoint.bucket, Key=serving.prefix + "far", Body=b"x" * 1000)
    until("the file", (serving.path / "far").exists, 6)
    cut(line, serving)
    serving.allowed += [" ERROR "]
    begin = time.monotonic()
    with pytest.raises(OSError) as caught:
        (serving.path / "far").read_bytes()
    assert caught.value.errno == errno.EIO
    assert time.monotonic() - begin < 15
    assert "far" in serving.log()  # the reason
    line.clear()
    until("the file", lambda: readable(serving.path / "far"), 30)


def readable(path) -> bool:
    try:
        return path.read_bytes() == b"x" * 1000
    except OSError:
        return False


# ------------------------------------------------------------------ the daemon ends
@OF_THE_ENGINE
def test_killed_between_close_and_upload(mounts, s3, seaweed):
    """The cache is deleted as well: what is unsent is not in it."""
    serving = mounts("host", upload_delay="1h", upload_deadline="1h")
    os.mkdir(serving.path / "d")
    (serving.path / "d" / "take.wav").write_bytes(b"recorded")
    with (serving.path / "patched.wav").open("wb") as file:
        file.write(b"????" + bytes(10_000))
        file.seek(0)
        file.write(b"RIFF")
    os.rename(serving.path / "d" / "take.wav", serving.path / "d" / "final.wav")
    serving.kill()
    shutil.rmtree(serving.base / "cache")
    assert objects(s3, seaweed, serving) == {}
    again = mounts("host", upload_delay="0s")
    assert (again.path / "d" / "final.wav").read_bytes() == b"recorded"
    again.flush()
    assert objects(s3, seaweed, again) == {"d/final.wav": b"recorded", "patched.wav": b"RIFF" + bytes(10_000)}


def test_killed_while_a_file_is_open(mounts, s3, seaweed):
    serving = mounts("host", upload_delay="0s", take_over="0")
    file = (serving.path / "long take.wav").open("wb", buffering=0)
    file.write(b"first half ")
    os.fsync(file.fileno())
    serving.kill()
    with pytest.raises(OSError):
        file.write(b"lost")
        os.fsync(file.fileno())
    with pytest.raises(OSError):
        file.close()
    again = mounts("host", upload_delay="0s")
    again.allowed += [r" WARNING "]
    content = (again.path / "long take.wav").read_bytes()
    assert content in (b"first half ", b"first half lost")


def test_a_dead_mount_is_replaced(mounts):
    serving = mounts("host", take_over="0")
    (serving.path / "file").write_text("x")
    serving.flush()
    serving.child.kill()
    serving.child.wait()
    with pytest.raises(OSError) as caught:
        os.listdir(serving.path)
    assert caught.value.errno == errno.ENOTCONN
    again = mounts("host")
    assert (again.path / "file").read_text() == "x"


def test_stopping_sends_what_is_owed(mounts, s3, seaweed):
    serving = mounts("host", upload_delay="1h", upload_deadline="1h")
    for number in range(20):
        (serving.path / str(number)).write_text(str(number))
    assert serving.stop() == 0
    assert objects(s3, seaweed, serving) == {str(n): str(n).encode() for n in range(20)}
    assert os.listdir(serving.path) == []


@OF_THE_ENGINE
def test_stopping_says_what_is_left_and_sends_it_next_time(line, mounts, s3, seaweed):
    serving = mounts("host", url=line.url, stop_timeout="1s")
    os.listdir(serving.path)
    cut(line, serving)
    (serving.path / "left").write_text("over")
    assert serving.stop() == 75
    assert "not in the bucket" in serving.log()
    line.clear()
    again = mounts("host", url=line.url)
    again.flush()
    assert objects(s3, seaweed, again) == {"left": b"over"}


@OF_THE_ENGINE
def test_umount_with_a_timeout_does_not_wait_for_a_server_that_hangs(line, mounts, s3, seaweed):
    serving = mounts("host", url=line.url, upload_delay="0s")
    os.listdir(serving.path)
    serving.allowed += [r" WARNING "]
    line.rule(stall(), times=None)
    (serving.path / "left").write_text("over")
    until("the upload", lambda: any(seen.method == "PUT" for seen in line.seen))
    begun_s = time.monotonic()
    done = serving.r2fs("umount", "--timeout", "1s", str(serving.path))
    took_s = time.monotonic() - begun_s
    assert done.returncode == 75, done.stderr
    assert "1 file" in done.stderr
    assert took_s < 10, "the request's own timeouts are longer"
    assert serving.wait() == 75
    line.clear()
    again = mounts("host", url=line.url)
    again.flush()
    assert objects(s3, seaweed, again) == {"left": b"over"}


@OF_THE_ENGINE
def test_status_shows_what_waits_and_flush_and_umount_send_it(mounts, s3, seaweed):
    serving = mounts("host", upload_delay="1h", upload_deadline="1h")
    (serving.path / "waiting.wav").write_text("x")
    text = json.dumps(json.loads(serving.r2fs("status", "--json").stdout))
    assert str(serving.path) in text
    assert "waiting.wav" in text
    assert serving.r2fs("status").returncode == 0
    done = serving.r2fs("flush", "--wait", str(serving.path))
    assert done.returncode == 0, done.stderr
    assert objects(s3, seaweed, serving) == {"waiting.wav": b"x"}
    (serving.path / "second.wav").write_text("y")
    done = serving.r2fs("umount", str(serving.path))
    assert done.returncode == 0, done.stderr
    assert serving.wait() == 0
    assert objects(s3, seaweed, serving) == {"waiting.wav": b"x", "second.wav": b"y"}


# ------------------------------------------------------------------ the cache is not needed
@OF_THE_ENGINE
def test_deleting_the_cache_loses_nothing(mounts, s3, seaweed):
    serving = mounts("host")
    for number in range(10):
        (serving.path / str(number)).write_bytes(str(number).encode() * 1000)
    serving.flush()
    expected = {str(n): str(n).encode() * 1000 for n in range(10)}
    with (serving.path / "open").open("wb", buffering=0) as file:
        file.write(b"half ")
        reader = (serving.path / "5").open("rb", buffering=0)
        shutil.rmtree(serving.base / "cache")
        file.write(b"whole")
        assert reader.read() == expected["5"]
        reader.close()
    (serving.path / "later").write_bytes(b"later")
    expected |= {"open": b"half whole", "later": b"later"}
    serving.allowed += [r" WARNING .*cache"]
    assert {name: (serving.path / name).read_bytes() for name in expected} == expected
    serving.flush()
    assert objects(s3, seaweed, serving) == expected
    serving.stop()
    shutil.rmtree(serving.base / "cache", ignore_errors=True)
    again = mounts("host")
    assert {name: (again.path / name).read_bytes() for name in os.listdir(again.path)} == expected
