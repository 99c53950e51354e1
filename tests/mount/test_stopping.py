"""Stopping, with real mounts: whoever asks for it, what is left is counted, kept, and sent at the next mount."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r2fs.daemon.stopping import SAME_S
from tests.mount.daemons import REPO, Mount, end_all, until

with_every_driver = pytest.mark.parametrize("mount", ["kernel", "libfuse"], indirect=True)
PATIENCE_S = 40.0


class FolderMount(Mount):
    """`r2fs mount` of a directory that plays the bucket, and that can go away."""

    def __init__(self, base: Path, driver: str, variables: dict[str, str]) -> None:
        self.bucket = base / "bucket"
        self.bucket.mkdir(exist_ok=True)
        variables = {"R2FS_DRIVER": driver, "R2FS_UPLOAD_DELAY": "100ms", **variables}
        environment = {**os.environ, "HOME": str(base), "XDG_RUNTIME_DIR": str(base / "run"), **variables}
        command = [sys.executable, "-m", "r2fs", "mount", f"file://{self.bucket}", str(base / "mnt")]
        super().__init__(base, command, environment)
        self.allowed += [
            " WARNING .*not in the bucket",
            " WARNING .*in use",
            " WARNING .*the bucket (does not answer|answers again)",
            " ERROR .*not uploaded",
        ]

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.child.send_signal(number)

    def stop(self) -> int:
        self.signal()
        return self.wait()

    def away(self) -> None:
        os.listdir(self.path)  # what is known of names now lets files be made meanwhile
        self.bucket.rename(self.base / "elsewhere")

    def back(self) -> None:
        (self.base / "elsewhere").rename(self.bucket)

    def said(self, text: str) -> None:
        until(text, lambda: text in self.log(), PATIENCE_S)

    def objects(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.bucket.iterdir() if path.is_file()}


@pytest.fixture
def mount(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., FolderMount]]:
    """`mount()`: the first, or the next on the same directories; settings as variables."""
    made: list[FolderMount] = []
    driver = getattr(request, "param", "kernel")

    def make(**variables: str) -> FolderMount:
        made.append(FolderMount(tmp_path, driver, variables))
        made[-1].start()
        return made[-1]

    yield make
    end_all(made)


def sent_next_time(mount: Callable[..., FolderMount], expected: dict[str, bytes]) -> None:
    again = mount()
    assert {name: (again.path / name).read_bytes() for name in os.listdir(again.path)} == expected
    until("the bucket has it", lambda: again.objects() == expected, PATIENCE_S)
    assert again.stop() == 0


@with_every_driver
def test_a_second_signal_does_not_wait(mount):
    serving = mount()
    serving.away()
    (serving.path / "take.wav").write_bytes(b"kept")
    serving.signal()
    serving.said("not yet in the bucket: 1 file")
    assert serving.child.poll() is None  # waits: stop_timeout is five minutes
    time.sleep(SAME_S)  # before that it would be the first one
    serving.signal()
    assert serving.wait() == 75
    serving.said("not in the bucket: 1 file (4 B); kept, and sent at the next mount")
    serving.back()
    sent_next_time(mount, {"take.wav": b"kept"})


def test_a_logout_is_no_second_signal(mount):
    """A session's end sends SIGTERM and SIGHUP together, a terminal's one SIGHUP or two."""
    serving = mount()
    serving.away()
    (serving.path / "take.wav").write_bytes(b"kept")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGHUP):
        serving.signal(number)
    serving.said("not yet in the bucket: 1 file")
    serving.back()
    assert serving.wait(PATIENCE_S) == 0
    assert serving.objects() == {"take.wav": b"kept"}


def test_umount_tells_what_is_left(mount):
    (serving := mount()).allowed += [" WARNING "]
    (serving.path / "old.wav").write_bytes(b"old")
    until("the upload", lambda: "old.wav" in serving.objects(), PATIENCE_S)
    serving.away()
    (serving.path / "one.wav").write_bytes(b"1" * 1000)
    (serving.path / "two.wav").write_bytes(b"2")
    (serving.path / "old.wav").unlink()
    done = serving.r2fs("umount", "--timeout", "500ms", serving.path)
    assert done.returncode == 75, done.stderr
    assert "not yet in the bucket: 2 files (1001 B), 1 deletion; it is kept" in done.stderr
    assert serving.wait() == 75
    serving.back()
    sent_next_time(mount, {"one.wav": b"1" * 1000, "two.wav": b"2"})


def test_umount_while_it_is_being_stopped_waits_with_it(mount):
    serving = mount(R2FS_STOP_TIMEOUT="3s")
    serving.away()
    (serving.path / "take.wav").write_bytes(b"kept")
    serving.signal()
    serving.said("not yet in the bucket: 1 file")
    done = serving.r2fs("umount", "--json", serving.path)
    (outcome,) = json.loads(done.stdout)
    assert (done.returncode, outcome["exit_code"], outcome["queue"]["left"]) == (75, 75, 1)
    assert serving.wait() == 75
    serving.back()


@with_every_driver
def test_a_program_that_is_at_work_is_waited_for(mount):
    serving = mount()
    with (serving.path / "take.wav").open("wb", buffering=0) as recording:
        recording.write(b"first ")
        serving.signal()
        serving.said(f"is in use by {Path('/proc/self/comm').read_text().strip()} ({os.getpid()})")
        recording.write(b"second")
    assert serving.wait(PATIENCE_S) == 0
    assert serving.objects() == {"take.wav": b"first second"}


@pytest.mark.long  # a program that may still leave is given some seconds
@with_every_driver
def test_a_program_that_does_not_leave_is_left_behind(mount):
    serving = mount(R2FS_STOP_TIMEOUT="1s")
    recording = os.open(serving.path / "take.wav", os.O_WRONLY | os.O_CREAT)
    os.write(recording, b"so far")
    serving.signal()
    assert serving.wait(PATIENCE_S) == 75
    serving.said("was still in use")
    serving.said("not in the bucket: 1 file")
    with pytest.raises(OSError) as caught:
        os.close(recording)
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    sent_next_time(mount, {"take.wav": b"so far"})


def test_a_service_manager_is_asked_for_time_and_may_lose_patience(mount, tmp_path):
    """EXTEND_TIMEOUT_USEC again and again while something is sent; what SIGKILL cuts off is kept."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        serving = mount(NOTIFY_SOCKET=str(tmp_path / "notify"))
        serving.away()
        (serving.path / "take.wav").write_bytes(b"kept")
        serving.signal()
        asked = 0
        while asked < 3:
            message = dict(line.split("=", 1) for line in manager.recv(65536).decode().split("\n"))
            if "EXTEND_TIMEOUT_USEC" in message:
                assert int(message["EXTEND_TIMEOUT_USEC"]) >= 10_000_000
                assert "1 file" in message["STATUS"]
                asked += 1
        serving.signal(signal.SIGKILL)
        assert serving.wait() == -signal.SIGKILL
    serving.back()
    sent_next_time(mount, {"take.wav": b"kept"})


def test_a_terminal_that_is_closed(mount, tmp_path):
    """In the foreground, its log on a terminal that is no more: all is sent, and nobody need read it."""
    first = mount()  # makes the directories; its settings serve the one that is in the terminal
    assert first.stop() == 0
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(REPO)
        os.execve(sys.executable, first._command, first._environment)
    try:
        until("the mount", lambda: os.stat(first.path).st_dev != os.stat(tmp_path).st_dev, PATIENCE_S)
        (first.path / "take.wav").write_bytes(b"sent")
    finally:
        os.close(master)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert first.objects() == {"take.wav": b"sent"}
