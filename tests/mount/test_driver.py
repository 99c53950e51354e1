"""What a driver adds to the verbs: the kernel's caches, references, waiting, and the mount itself.

Over MirrorVerbs: what another host does to the bucket is done here to the directory that is
mirrored. Files whose name begins with `stream` are read through the verbs.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from r2fs.drivers import choose, kmount
from tests.mount.daemons import MirrorMount, until
from tests.support.engine import settings_for

MIB = 1 << 20
TTL_S = 1.2  # a little more than the longest time for which a driver lets the kernel believe something


@pytest.fixture(scope="module")
def serving(mirror):
    return mirror


@pytest.fixture
def other(place, serving) -> Path:
    """The test's directory as another host sees it."""
    return Path(serving.root) / place.name


def drop_pages(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


# ------------------------------------------------------------------ pages
ATTEMPTS = 6  # the kernel may drop pages at any time; not in every attempt


def test_pages_are_kept_from_one_open_to_the_next(place, other, serving):
    data = os.urandom(MIB)
    (other / "stream").write_bytes(data)
    assert (place / "stream").read_bytes() == data

    def no_reads() -> bool:
        before = serving.calls("read")
        assert (place / "stream").read_bytes() == data
        return serving.calls("read") == before

    assert any(no_reads() for _ in range(ATTEMPTS))


def test_what_was_written_here_is_read_from_the_pages(place, serving):
    data = os.urandom(256 << 10)

    def no_reads(number: int) -> bool:
        path = place / f"stream{number}"
        path.write_bytes(data)
        before = serving.calls("read")
        assert path.read_bytes() == data
        time.sleep(TTL_S)  # the new mtime is seen, and is no reason to read again
        assert path.stat().st_size == len(data)
        assert path.read_bytes() == data
        return serving.calls("read") == before

    assert any(no_reads(number) for number in range(ATTEMPTS))


@pytest.mark.parametrize("name", ["stream", "local"])
def test_pages_of_an_old_version_are_not_shown(place, other, name):
    """Same size, same name, and a new inode or the same one: what is opened later is the new content."""
    (other / name).write_bytes(b"1" * MIB)
    assert (place / name).read_bytes() == b"1" * MIB
    (other / "new").write_bytes(b"2" * MIB)
    os.rename(other / "new", other / name)
    until("the new version", lambda: (place / name).read_bytes()[:1] == b"2", 5)
    assert (place / name).read_bytes() == b"2" * MIB
    with (other / name).open("r+b") as file:
        file.write(b"3" * MIB)
    assert (place / name).read_bytes() == b"3" * MIB


def test_an_open_file_is_never_a_mixture(place, other):
    """Who has the old version open keeps it; who opens after the change reads the new one; both whole."""
    path = place / "stream"
    (other / "stream").write_bytes(b"1" * (4 * MIB))
    with path.open("rb", buffering=0) as old:
        assert old.read(4096) == b"1" * 4096
        (other / "new").write_bytes(b"2" * (4 * MIB))
        os.rename(other / "new", other / "stream")
        until("the new version", lambda: path.read_bytes()[:1] == b"2", 5)
        assert path.read_bytes() == b"2" * (4 * MIB)
        os.posix_fadvise(old.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        rest = b"".join(iter(lambda: old.read(MIB), b""))
        assert rest == b"1" * (4 * MIB - 4096)
        assert path.read_bytes() == b"2" * (4 * MIB)
    assert path.read_bytes() == b"2" * (4 * MIB)


def test_changes_by_others_are_seen(place, other):
    assert not (place / "late").exists()
    (other / "late").write_text("x")
    until("the new name", (place / "late").exists, 5)
    (other / "late").write_text("longer")
    until("the new size", lambda: (place / "late").stat().st_size == 6, 5)
    os.unlink(other / "late")
    until("the name gone", lambda: not (place / "late").exists(), 5)
    os.mkdir(other / "d")
    until("the new directory", lambda: os.listdir(place) == ["d"], 5)
    os.rename(other / "d", other / "e")
    until("the renamed directory", lambda: (place / "e").is_dir() and not (place / "d").exists(), 5)


def test_a_directory_that_was_replaced(place, other):
    os.mkdir(other / "d")
    (other / "d" / "old").touch()
    assert os.listdir(place / "d") == ["old"]
    os.rename(other / "d", other / "away")
    os.mkdir(other / "d")
    (other / "d" / "new").touch()
    until("the new directory", lambda: os.listdir(place / "d") == ["new"], 5)
    (place / "d" / "made").touch()
    assert (other / "d" / "made").exists()


# ------------------------------------------------------------------ waiting
STUCK = 40


def test_stuck_reads_do_not_starve_others(place, other, serving):
    """In processes that can be killed: whoever waits for FUSE waits uninterruptibly otherwise."""
    for number in range(STUCK):
        os.mkdir(other / str(number))
        (other / str(number) / "stream-stuck").write_bytes(b"s" * MIB)
    (other / "local").write_bytes(b"l" * MIB)
    (other / "stream").write_bytes(b"f" * MIB)
    until("the files", lambda: len(os.listdir(place)) == STUCK + 2, 5)
    serving.ask("stick", "stream-stuck")
    before = serving.calls("read")
    readers = [
        subprocess.Popen(["cat", str(place / str(number) / "stream-stuck")], stdout=subprocess.DEVNULL)
        for number in range(STUCK)
    ]
    try:
        # Not all need have arrived: a driver with fewer threads for reads keeps the rest waiting.
        until("stuck reads", lambda: serving.calls("read") - before >= STUCK / 2, 20)
        subprocess.run([sys.executable, "-c", OTHERS], check=True, timeout=15, cwd=place)
        assert not any(reader.poll() is not None for reader in readers)
    finally:
        serving.ask("unstick", "stream-stuck")
        codes = [reader.wait(30) for reader in readers]
    assert codes == [0] * STUCK


OTHERS = """
import os
assert open("local", "rb").read() == b"l" * (1 << 20)
open("new", "wb").write(b"n")
os.rename("new", "renamed")
assert "renamed" in os.listdir()
assert not os.path.exists("nothing")
os.truncate("renamed", 0)
"""


def test_a_reader_that_waits_can_be_killed(place, other, serving):
    (other / "stream-wait").write_bytes(b"x" * 10)
    until("the file", (place / "stream-wait").exists, 5)
    serving.ask("stick", "stream-wait")
    before = serving.calls("read")
    reader = subprocess.Popen(["cat", place / "stream-wait"], stdout=subprocess.DEVNULL)
    try:
        until("the read", lambda: serving.calls("read") > before, 5)
        reader.send_signal(signal.SIGKILL)
        assert reader.wait(5) == -signal.SIGKILL
    finally:
        serving.ask("unstick", "stream-wait")
        reader.kill()
        reader.wait()


# ------------------------------------------------------------------ references and handles
def test_everything_is_given_back(place, serving):
    before = len(serving.ask("known"))
    for number in range(200):
        (place / str(number)).write_text("x")
    list(os.scandir(place))
    os.mkdir(place / "d")
    os.rename(place / "0", place / "d" / "0")
    with (place / "1").open("rb"):
        os.unlink(place / "1")
    subprocess.run(["rm", "-rf", place], check=True, timeout=60)
    until("closed handles", lambda: serving.ask("handles") == 0)
    until("references given back", lambda: len(serving.ask("known")) <= before)
    os.mkdir(place)


def test_a_lookup_storm_keeps_the_counts_right(place, other, serving):
    """MirrorVerbs asserts that no more references are given back than were counted."""
    for number in range(50):
        (other / str(number)).touch()

    def storm() -> None:
        for turn in range(100):
            try:
                os.stat(place / str(turn % 50))
                os.rename(place / str(turn % 50), place / str((turn + 7) % 50))
            except FileNotFoundError:
                continue

    threads = [threading.Thread(target=storm) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown = {entry.name: entry.inode() for entry in os.scandir(place)}
    assert shown == {entry.name: entry.inode() for entry in os.scandir(other)}


# ------------------------------------------------------------------ errors
def test_a_defect_is_an_io_error_and_is_logged(place, serving):
    (place / "file").touch()
    serving.allowed += ["getxattr failed", "GETXATTR failed", "^Traceback"]
    with pytest.raises(OSError) as caught:
        os.getxattr(place / "file", "user.explode")
    assert caught.value.errno == errno.EIO
    assert "ZeroDivisionError: a defect" in serving.log()
    assert (place / "file").exists()


# ------------------------------------------------------------------ the mount
@pytest.fixture
def own(driver, tmp_path):
    """`own(**settings)`: a mount of this test alone."""
    made = []

    def make(**settings) -> MirrorMount:
        made.append(MirrorMount(tmp_path, driver, **settings))
        made[-1].start()
        return made[-1]

    yield make
    for serving in made:
        serving.end()
        assert serving.complaints() == []


def test_how_it_shows_in_the_table_of_mounts(mirror):
    mounted = kmount.mounted_at(os.path.realpath(mirror.path))
    assert mounted is not None
    assert mounted.fstype == "fuse.r2fs"
    assert mounted.source == "s3://mirror/with a space,and comma/"
    options = next(
        line.split()[3].split(",")
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[1] == os.path.realpath(mirror.path)
    )
    assert {"nosuid", "nodev", "default_permissions"} <= set(options)
    assert "allow_other" not in options


def test_large_requests(mirror, driver, place, other):
    """The kernel reads and writes in pieces as large as the protocol allows."""
    size = 128 << 10 if driver == "libfuse2" or os.geteuid() else MIB  # only root may set the read-ahead
    before = mirror.calls("read")
    (place / "stream").write_bytes(os.urandom(8 * MIB))
    with (place / "stream").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert len(file.read(8 * MIB)) == 8 * MIB
    assert mirror.calls("read") - before <= 2 * 8 * MIB // size


def test_unmounted_from_outside(own):
    serving = own()
    (serving.path / "file").touch()
    unmount_by_hand(serving.path)
    assert serving.wait() == 0
    assert os.listdir(serving.path) == []


def unmount_by_hand(path: Path) -> None:
    command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    subprocess.run([*command, str(path)], check=True, timeout=60)


def test_unmounting_what_is_in_use(own):
    serving = own()
    path = serving.path / "file"
    with path.open("wb", buffering=0) as file:
        file.write(b"1")
        assert serving.ask("unmount", False).startswith("Busy: ")
        assert serving.ask("unmount", True) is None
        assert kmount.mounted_at(os.path.realpath(serving.path.parent) + "/mnt") is None
        file.write(b"2")  # it lives on for whoever has it open
    assert serving.wait() == 0
    assert (serving.root / "file").read_bytes() == b"12"


def test_unmounting_twice(own):
    serving = own()
    assert serving.ask("unmount", False) is None
    assert serving.wait() == 0


def test_read_only(own):
    serving = own(read_only=True)
    (serving.root / "file").write_text("x")
    assert (serving.path / "file").read_text() == "x"
    for attempt in (
        lambda: (serving.path / "file").open("ab"),
        lambda: (serving.path / "new").touch(),
        lambda: os.unlink(serving.path / "file"),
        lambda: os.chmod(serving.path / "file", 0o600),
    ):
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.EROFS


def test_noexec(own):
    serving = own(noexec=True)
    program = serving.root / "program"
    program.write_text("#!/bin/sh\n")
    os.chmod(program, 0o755)
    with pytest.raises(PermissionError):
        subprocess.run([serving.path / "program"], check=False, timeout=60)


def test_no_time_to_live_at_all(own):
    """freshness = 0: every answer is asked for."""
    serving = own(freshness_s=0.0)
    (serving.root / "file").write_text("1")
    for number in range(2, 20):
        assert (serving.path / "file").stat().st_size == number - 1
        (serving.root / "file").write_text("1" * number)
        assert not (serving.path / str(number)).exists()
        (serving.root / str(number)).touch()
        assert (serving.path / str(number)).exists()


def test_the_process_that_asks(own, driver):
    """Who creates owns, where root serves others."""
    if os.geteuid() != 0:
        pytest.skip("only root can ask as somebody else")
    serving = own(allow_other=True)
    os.chmod(serving.root, 0o777)
    os.chmod(serving.path.parent, 0o755)
    code = "import os, sys; os.setgid(65534); os.setuid(65534); open(sys.argv[1], 'w').close()"
    subprocess.run(
        [sys.executable, "-c", code, "by nobody"],
        cwd=serving.path,  # no way down to it for nobody
        check=True,
        timeout=60,
    )
    info = (serving.root / "by nobody").stat()
    assert (info.st_uid, info.st_gid) == (65534, 65534)


def test_choosing(tmp_path):
    names = {
        name: choose(settings_for(tmp_path, driver=name)).__name__
        for name in ("libfuse", "libfuse2", "kernel")
    }
    assert names == {"libfuse": "LibfuseDriver", "libfuse2": "Libfuse2Driver", "kernel": "KernelDriver"}
    assert choose(settings_for(tmp_path, driver="auto")).__name__ in ("KernelDriver", "LibfuseDriver")
