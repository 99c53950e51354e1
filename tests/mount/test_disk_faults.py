"""This host's disk full, read-only, failing, damaged; and a bucket that is away for long.

The disks are real ones, small, on loop devices: this needs root, and fails where it is not to be had.
SEMANTICS.md, "Faults", has a row for each of these tests.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path

import pytest

from tests.mount.daemons import END_S, REPO, BucketMount, until
from tests.mount.test_outages import objects
from tests.support.faulty import FaultyProxy, drop
from tests.support.loopdisk import MIB, LoopDisk
from tests.support.servers import SeaweedFS

KIB = 1024
Mounts = Callable[..., BucketMount]


@pytest.fixture(
    scope="session",
    params=["kernel", *(pytest.param(name, marks=pytest.mark.long) for name in ("libfuse", "libfuse2"))],
)
def driver(request: pytest.FixtureRequest) -> str:
    """What a disk does is the engine's affair: the other drivers only with --long."""
    return str(request.param)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    """To be asked for before `mounts`: it ends after them."""
    with LoopDisk(tmp_path) as disk:
        yield disk


@pytest.fixture
def line(seaweed: SeaweedFS) -> Iterator[FaultyProxy]:
    with FaultyProxy(seaweed.endpoint.url) as proxy:
        yield proxy


def on(disk: LoopDisk, *what: str) -> dict[str, Path]:
    return {f"{name}_dir": disk.path / "below" / name for name in what}


def write(path: Path, data: bytes) -> int:
    """As a program does that looks at every call; the bytes that were acknowledged, or its error."""
    with path.open("wb", buffering=0) as file:
        return sum(file.write(data[at : at + 64 * KIB]) or 0 for at in range(0, len(data), 64 * KIB))


def errno_of(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or 0
    return 0


def noise(size: int, seed: int) -> bytes:
    return bytes((seed * 131 + at * 7) & 0xFF for at in range(4096)) * (size // 4096)


# ------------------------------------------------------------------ the bucket is away for long
class Writer:
    """Writes one file after the other; remembers what was acknowledged, and how long it took."""

    def __init__(self, directory: Path, size: int) -> None:
        self.directory = directory
        self.size = size
        self.acknowledged: dict[str, bytes] = {}
        self.took: list[float] = []
        self.refused = 0

    def one(self) -> bool:
        """False: no space."""
        name = f"{len(self.acknowledged):05}.wav"
        data, begun = noise(self.size, len(self.acknowledged)), time.monotonic()
        try:
            file = (self.directory / name).open("xb", buffering=0)
        except OSError as error:
            return self.no_space(error)
        self.acknowledged[name] = b""
        with file:
            try:
                done = file.write(data)
            except OSError as error:
                return self.no_space(error)
        self.acknowledged[name] = data[:done]
        self.took.append(time.monotonic() - begun)
        return True

    def no_space(self, error: OSError) -> bool:
        if error.errno != errno.ENOSPC:
            raise error
        self.refused += 1
        return False


def stored(line: FaultyProxy, prefix: str) -> list[str]:
    """Keys of the PUTs that the server has answered with 200, below the prefix."""
    paths = [seen.path.partition("?")[0] for seen in line.seen if seen.method == "PUT" and seen.status == 200]
    return sorted(path.partition(prefix)[2] for path in paths if prefix in path)


def test_a_long_outage_slows_writers_then_stops_them_and_loses_nothing(
    line: FaultyProxy, mounts: Mounts, s3, seaweed
):
    serving = mounts("host", url=line.url, dirty_limit="1MiB", dirty_wait="300ms", stop_timeout="1s")
    serving.allowed += [r" WARNING ", r" ERROR "]
    (serving.path / "before").write_bytes(b"cached")
    serving.flush()
    line.rule(drop(), times=None)
    writer = Writer(serving.path, 64 * KIB)
    assert writer.one()
    with (serving.path / "00000.wav").open("r+b", buffering=0) as file:
        file.write(b"RIFF")  # sealed anew: the first version is none of those that are to be sent
    writer.acknowledged["00000.wav"] = b"RIFF" + writer.acknowledged["00000.wav"][4:]
    while writer.one():
        assert len(writer.acknowledged) < 100, "no end"
    written = sum(map(len, writer.acknowledged.values()))
    assert 0.8 * MIB <= written <= MIB, "writes go on until the limit"
    slow = [took for took in writer.took if took >= 0.5]
    assert 1 <= len(slow) < len(writer.took), f"first fast, then slow: {writer.took}"
    room = serving.status()["room"]
    assert room["writers"] in ("slowed", "waiting")
    assert 0.8 * MIB <= room["dirty"] <= room["dirty_limit"] == MIB
    assert "not yet sent" in serving.r2fs("status", str(serving.path)).stdout
    assert (serving.path / "before").read_bytes() == b"cached"
    for name, data in writer.acknowledged.items():
        assert (serving.path / name).read_bytes() == data
    line.clear()
    until("writers to go on by themselves", writer.one, 60)
    serving.flush(60)
    writer.acknowledged["before"] = b"cached"
    assert objects(s3, seaweed, serving) == writer.acknowledged
    del writer.acknowledged["before"]
    assert stored(line, serving.prefix) == sorted(writer.acknowledged), "one PUT for each sealed version"
    serving.until_state("free writers", lambda s: s["room"]["writers"] == "free")
    assert serving.status()["room"]["dirty"] == 0


OUTAGE_S = float(os.environ.get("R2FS_TEST_OUTAGE_S", "600"))


@pytest.mark.long
@pytest.mark.timeout(OUTAGE_S + 400)
def test_ten_minutes_without_a_server(mounts: Mounts, tmp_path: Path):
    """The server itself is stopped, and started again on its data."""
    server = SeaweedFS(tmp_path)
    try:
        with FaultyProxy(server.endpoint.url) as line:
            _ten_minutes(server, line, mounts)
    finally:
        server.stop()


def _ten_minutes(server: SeaweedFS, line: FaultyProxy, mounts: Mounts) -> None:
    from tests.mount.conftest import client_of

    serving = mounts("host", url=line.url, dirty_limit="48MiB", dirty_wait="2s", read_timeout="5s")
    serving.allowed += [r" WARNING ", r" ERROR "]
    os.listdir(serving.path)  # what was never listed cannot be known while the server is away
    server.stop()
    begun, writer, threads = time.monotonic(), Writer(serving.path, 512 * KIB), 0
    while time.monotonic() - begun < OUTAGE_S:
        writer.one()  # which waits for dirty_wait before it gets ENOSPC
        threads = max(threads, len(os.listdir(f"/proc/{serving.pid}/task")))
    written = sum(map(len, writer.acknowledged.values()))
    assert 0.8 * 48 * MIB <= written <= 48 * MIB
    assert writer.refused, "no ENOSPC at the limit"
    assert max(writer.took) >= 0.5, "nothing was slowed"
    assert threads < 200
    line.clear()
    server.restart()
    until("writers to go on by themselves", writer.one, 90)
    serving.flush(120)
    s3 = client_of(server)
    assert objects(s3, server, serving) == writer.acknowledged
    assert stored(line, serving.prefix) == sorted(writer.acknowledged), "one PUT for each sealed version"
    print(f"{len(writer.acknowledged)} files, {written} bytes, {writer.refused} times ENOSPC, "
          f"{len(stored(line, serving.prefix))} PUTs after {OUTAGE_S:.0f} s")  # fmt: skip


# ------------------------------------------------------------------ full
def write_on(file: FileIO, data: bytes, kept: dict[str, bytes]) -> None:
    while len(kept["part.wav"]) < len(data):
        rest = data[len(kept["part.wav"]) :][: 64 * KIB]
        kept["part.wav"] += rest[: file.write(rest)]


def test_the_disk_of_everything_is_full(disk: LoopDisk, mounts: Mounts, s3, seaweed, line: FaultyProxy):
    serving = mounts("host", url=line.url, dirty_wait="1s", stop_timeout="1s", **on(disk, "cache", "state"))
    serving.allowed += [r" WARNING ", r" ERROR "]
    kept = {"clean.wav": noise(4 * MIB, 1)}
    write(serving.path / "clean.wav", kept["clean.wav"])
    serving.flush()
    line.rule(drop(), times=None)
    kept["unsent.wav"] = noise(2 * MIB, 2)
    write(serving.path / "unsent.wav", kept["unsent.wav"])
    assert serving.status()["room"]["journal_reserve"] > 0
    disk.fill()

    # clean content goes for what is written; then there is no space
    kept["part.wav"], data = b"", noise(8 * MIB, 3)
    with (serving.path / "part.wav").open("wb", buffering=0) as file:
        assert errno_of(lambda: write_on(file, data, kept)) == errno.ENOSPC
    assert len(kept["part.wav"]) >= 3 * MIB, "clean content was to be evicted for it"
    disk.fill()

    # names and attributes need the journal alone: its reserve has room
    for number in range(150):
        os.rename(serving.path / "unsent.wav", serving.path / f"unsent {number}.wav")
        os.rename(serving.path / f"unsent {number}.wav", serving.path / "unsent.wav")
        os.chmod(serving.path / "unsent.wav", 0o600 if number % 2 else 0o640)
    assert errno_of(lambda: write(serving.path / "more.wav", data)) == errno.ENOSPC
    status = serving.status()
    assert status["room"]["writers"] == "disk full"
    assert status["room"]["journal_reserve"] == 0
    assert "kept in reserve for the journal are in use now" in serving.log()
    shown = serving.r2fs("status", str(serving.path)).stdout
    assert "full" in shown
    assert "no room" in shown or "room for the journal" in shown
    for name in ("unsent.wav", "part.wav"):
        assert (serving.path / name).read_bytes() == kept[name]

    # the daemon is killed and started on the full disk; then there is room again
    serving.kill()
    again = mounts("host", url=line.url, dirty_wait="1s", **on(disk, "cache", "state"), start=False)
    again.allowed += [r" WARNING ", r" ERROR "]
    line.clear()
    again.start()
    assert (again.path / "unsent.wav").read_bytes() == kept["unsent.wav"]
    (disk.path / "filler").unlink()
    again.until_state("the reserve made anew", lambda s: s["room"]["journal_reserve"] > 0, 60)
    kept["later.wav"] = noise(4 * MIB, 5)
    write(again.path / "later.wav", kept["later.wav"])
    again.flush(60)
    found = objects(s3, seaweed, again)
    found.pop("more.wav", None)  # made, and as long as there was room
    assert found == kept
    assert again.status()["room"]["writers"] == "free"


def test_the_cache_disk_is_full_and_the_state_elsewhere(disk: LoopDisk, mounts: Mounts, s3, seaweed):
    serving = mounts("host", dirty_wait="1s", read_timeout="5s", **on(disk, "cache"))
    serving.allowed += [r" WARNING ", r" ERROR "]
    here, there = noise(MIB // 2, 1), noise(2 * MIB, 2)
    write(serving.path / "here.wav", here)
    s3.put_object(Bucket=seaweed.endpoint.bucket, Key=serving.prefix + "there.wav", Body=there)
    serving.flush()
    until("the other client's file", (serving.path / "there.wav").exists)
    assert (serving.path / "here.wav").read_bytes() == here
    disk.fill()
    assert (serving.path / "here.wav").read_bytes() == here, (
        "for a reader nothing is evicted that does not help"
    )
    assert (serving.path / "there.wav").read_bytes() == there, "in memory"
    assert "there is no room on this disk" in serving.log()
    assert errno_of(lambda: write(serving.path / "new.wav", noise(2 * MIB, 3))) == errno.ENOSPC
    os.mkdir(serving.path / "made all the same")
    (disk.path / "filler").unlink()
    assert (serving.path / "there.wav").read_bytes() == there
    write(serving.path / "new.wav", there)
    serving.flush()
    assert objects(s3, seaweed, serving) == {"here.wav": here, "there.wav": there, "new.wav": there}


@pytest.mark.parametrize("driver", ["kernel", "libfuse"])
def test_an_object_larger_than_the_disk(driver: str, tmp_path: Path, mounts: Mounts, s3, seaweed):
    """It streams: what lies behind the reader is given back, and the kernel never reads the file past us."""
    data = os.urandom(MIB) * 40
    with LoopDisk(tmp_path, 24 * MIB) as disk:
        serving = mounts("host", **on(disk, "cache"))
        s3.put_object(Bucket=seaweed.endpoint.bucket, Key=serving.prefix + "long.wav", Body=data)
        until("the file", (serving.path / "long.wav").exists)
        with (serving.path / "long.wav").open("rb") as file:
            for at in range(0, len(data), MIB):
                assert file.read(MIB) == data[at : at + MIB]
            file.seek(0)
            assert file.read(4096) == data[:4096]
            opened = serving.status()["kernel"]["open_files"] or []  # libfuse passes nothing through
            assert all(one["mode"] == "cached" for one in opened)
        serving.allowed += [r" WARNING .* is full"]
        serving.stop()


# ------------------------------------------------------------------ read-only, failing
def test_the_disk_becomes_read_only(disk: LoopDisk, mounts: Mounts, s3, seaweed):
    serving = mounts(
        "host", upload_delay="1h", upload_deadline="1h", stop_timeout="1s", **on(disk, "cache", "state")
    )
    serving.allowed += [r" WARNING ", r" ERROR "]
    data = noise(MIB, 1)
    write(serving.path / "unsent.wav", data)
    disk.sync()
    disk.make_readonly()
    for call in (
        lambda: write(serving.path / "new.wav", b"x"),
        lambda: (serving.path / "unsent.wav").open("ab"),
        lambda: os.mkdir(serving.path / "d"),
        lambda: os.rename(serving.path / "unsent.wav", serving.path / "other.wav"),
    ):
        assert errno_of(call) == errno.EROFS
    assert (serving.path / "unsent.wav").read_bytes() == data
    assert "Read-only" in serving.status()["room"]["disk_error"]
    assert "Read-only" in serving.r2fs("status", str(serving.path)).stdout
    assert stopped(serving) == 75, "not all is in the bucket"
    assert "unexpected error" not in serving.log()
    disk.repair()
    again = mounts("host", **on(disk, "cache", "state"))
    assert (again.path / "unsent.wav").read_bytes() == data
    again.flush()
    assert objects(s3, seaweed, again) == {"unsent.wav": data}


def stopped(serving: BucketMount) -> int:
    """It ends within its time, however its disk is."""
    serving.child.send_signal(signal.SIGTERM)
    return serving.wait(END_S)


def test_the_disk_fails(disk: LoopDisk, mounts: Mounts, s3, seaweed):
    serving = mounts(
        "host", upload_delay="1h", upload_deadline="1h", stop_timeout="1s", **on(disk, "cache", "state")
    )
    serving.allowed += [r" WARNING ", r" ERROR ", r"^Traceback"]
    data = noise(MIB, 1)
    with (serving.path / "synced.wav").open("wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
    with (serving.path / "open.wav").open("wb", buffering=0) as file:
        file.write(data)
        disk.fail()
        assert errno_of(lambda: file.write(data)) == errno.EIO
        assert errno_of(lambda: os.fsync(file.fileno())) == errno.EIO
        assert errno_of(lambda: write(serving.path / "new.wav", b"x")) == errno.EIO
        assert errno_of(lambda: os.mkdir(serving.path / "d")) == errno.EIO
        with suppress(OSError):
            file.close()
    assert os.listdir(serving.path) == ["open.wav", "synced.wav"] or os.listdir(serving.path)
    assert serving.status()["room"]["disk_error"]
    assert stopped(serving) == 75
    assert "unexpected error" not in serving.log()
    disk.repair()
    again = mounts("host", **on(disk, "cache", "state"))
    again.allowed += [r" WARNING ", r" ERROR "]
    assert (again.path / "synced.wav").read_bytes() == data
    again.flush()
    found = objects(s3, seaweed, again)
    assert found.pop("synced.wav") == data
    assert set(found) <= {"open.wav"}
    assert data.startswith(found.get("open.wav", b"")) or not found, "torn, and published"


# ------------------------------------------------------------------ the cache
def test_the_cache_is_deleted_while_files_are_read_and_written(mounts: Mounts, s3, seaweed):
    serving = mounts("host")
    serving.allowed += [r" WARNING .*cache"]
    data = {f"{number}.wav": noise(256 * KIB, number) for number in range(8)}
    for name, content in data.items():
        write(serving.path / name, content)
    serving.flush()
    stop, wrong, rounds = threading.Event(), [], [0]
    written: dict[str, bytes] = {}

    def read() -> None:
        while not stop.is_set():
            for name, content in data.items():
                if (serving.path / name).read_bytes() != content:
                    wrong.append(name)
            rounds[0] += 1

    def keep_writing() -> None:
        number = 0
        while not stop.is_set():
            name = f"new {number % 10}.wav"
            content = noise(64 * KIB, number)
            write(serving.path / name, content)
            written[name] = content
            number += 1

    threads = [threading.Thread(target=work) for work in (read, keep_writing)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        before = rounds[0]
        shutil.rmtree(serving.base / "cache", ignore_errors=True)
        until("another round of reading", lambda: rounds[0] > before or wrong, 30)  # noqa: B023
    stop.set()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    serving.flush(60)
    assert objects(s3, seaweed, serving) == data | written


def until_nothing_is_open(serving: BucketMount) -> None:
    """The kernel tells of a close() a moment after it."""
    if serving.status()["kernel"]["open_files"] is None:
        time.sleep(2)  # libfuse's drivers cannot tell, and a file that rests looks as one that is open
    serving.until_state("nothing open", lambda s: not s["kernel"]["open_files"])


def damage_cached(serving: BucketMount) -> int:
    """Files of the cache, and those that rest beside staging; how many."""
    damaged = 0
    for pattern in ("cache/**/content/*/*", "state/**/open/*"):
        for path in serving.base.glob(pattern):
            with suppress(FileNotFoundError), path.open("r+b") as file:  # else put away meanwhile
                if os.fstat(file.fileno()).st_size == 3 * MIB:
                    file.truncate(1000)
                file.seek(100)
                file.write(b"damaged")
                damaged += 1
    return damaged


def test_damaged_cache_files_are_not_served(mounts: Mounts):
    serving = mounts("host")
    serving.allowed += [r" WARNING .*(cached file was changed|database)"]
    data = {"small.wav": noise(64 * KIB, 1), "large.wav": noise(2 * MIB, 2), "cut.wav": noise(3 * MIB, 3)}
    for name, content in data.items():
        write(serving.path / name, content)
    serving.flush()
    for name, content in data.items():
        assert (serving.path / name).read_bytes() == content
    until_nothing_is_open(serving)
    assert damage_cached(serving) >= 3
    for name, content in data.items():
        assert (serving.path / name).read_bytes() == content, name
    assert "the cached file was changed" in serving.log()
    serving.stop()
    assert damage_cached(serving) >= 3
    again = mounts("host")
    again.allowed += [r" WARNING .*(cached file was changed|database)"]
    for name, content in data.items():
        assert (again.path / name).read_bytes() == content, name
    assert "the cached file was changed" in again.log()


def test_a_damaged_cache_database_is_rebuilt(mounts: Mounts):
    serving = mounts("host")
    data = noise(2 * MIB, 1)
    write(serving.path / "a.wav", data)
    serving.flush()
    databases = list(serving.base.glob("cache/**/cache.db"))
    assert databases
    for database in databases:
        database.write_bytes(b"no database" * 5000)
    serving.allowed += [r" WARNING .*the cache begins anew"]
    assert (serving.path / "a.wav").read_bytes() == data
    write(serving.path / "b.wav", data)
    serving.flush()
    serving.stop()
    for database in databases:
        database.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 100)
    again = mounts("host")
    again.allowed += [r" WARNING .*the cache begins anew"]
    assert (again.path / "a.wav").read_bytes() == data
    assert (again.path / "b.wav").read_bytes() == data
    assert again.status()["cache"]["entries"] >= 1


# ------------------------------------------------------------------ the journal
def test_a_damaged_journal_is_set_aside_and_its_files_are_kept(mounts: Mounts, s3, seaweed):
    serving = mounts("host", upload_delay="1h", upload_deadline="1h")
    data = {f"take {number}.wav": noise(256 * KIB, number) for number in range(3)}
    for name, content in data.items():
        write(serving.path / name, content)
    serving.kill()
    (journal,) = serving.base.glob("state/**/journal.db")
    for path in (journal, Path(f"{journal}-wal")):
        size = path.stat().st_size
        if size > 8192:
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(b"\xa5" * 4096)
    journal.write_bytes(b"\xa5" * max(4096, journal.stat().st_size))
    again = mounts("host")
    again.allowed += [r" (WARNING|ERROR) .*set aside"]
    assert "is damaged" in again.log()
    status = again.status()
    assert len(status["aside"]["journals"]) == 1
    orphans = {Path(each["path"]).read_bytes() for each in status["aside"]["orphans"]}
    assert orphans == set(data.values()), "every staged file is kept, and listed"
    shown = again.r2fs("status", str(again.path)).stdout
    assert "damaged journal" in shown
    assert shown.count("set aside") == 3
    assert "journal was damaged" in again.r2fs("status").stdout
    for each in status["aside"]["orphans"]:  # as a person brings them back
        shutil.move(each["path"], again.path / f"back {Path(each['path']).name}")
    again.flush()
    assert set(objects(s3, seaweed, again).values()) == set(data.values())
    assert again.status()["aside"]["orphans"] == []


def test_two_daemons_on_one_state_directory(mounts: Mounts, s3, seaweed):
    serving = mounts("host")
    second = serving.base / "second"
    second.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "r2fs", *serving._command[3:-1], str(second)],
        env={**serving._environment, "R2FS_CACHE_DIR": str(serving.base / "cache2")},
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert f"in use by another r2fs (pid {serving.pid})" in done.stderr
    assert "Traceback" not in done.stderr
    assert not os.path.ismount(second)
    write(serving.path / "a.wav", b"the first goes on")
    serving.flush()
    assert objects(s3, seaweed, serving) == {"a.wav": b"the first goes on"}
