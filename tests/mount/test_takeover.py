"""A daemon that is killed, restarted or upgraded under its mount: programs go on as if nothing had been."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r2fs.daemon import client
from r2fs.daemon.handover import keeper
from r2fs.drivers import kmount
from tests.mount.daemons import END_S, REPO, until
from tests.support.commands import run_r2fs

pytestmark = pytest.mark.timeout(120)

LOST = 30.0  # seconds: until a program that waits in the mount counts as hung


class Held:
    """A `file://` bucket mounted by the kernel driver, whose daemon the test kills; and every end of it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.bucket, self.path = base / "bucket", base / "mnt"
        self.run_dir = base / "run"
        self.children: list[subprocess.Popen[bytes]] = []
        self.errors = (base / "errors").open("wb")
        for directory in (self.bucket, self.path):
            directory.mkdir()

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "r2fs", *words]

    def environ(self, **settings: object) -> dict[str, str]:
        values = {
            "driver": "kernel",
            "cache_dir": self.base / "cache",
            "state_dir": self.base / "state",
            "run_dir": self.run_dir,
            "log_file": self.base / "log",
            "upload_delay": "100ms",
            "freshness": "500ms",
            **settings,
        }
        named = {f"R2FS_{name.upper()}": str(value) for name, value in values.items()}
        return {**os.environ, "HOME": str(self.base), **named}

    def mount(
        self, *, background: bool = False, manager: Manager | None = None, **settings: object
    ) -> client.Daemon:
        """Mounts, or takes the mount over; the daemon that serves it then."""
        words = ["mount", f"file://{self.bucket}", str(self.path), *(["--background"] if background else [])]
        before = self.since()
        command, environ = self.command(*words), self.environ(**settings)
        if manager is not None:
            command, environ = manager.starting(command), {**environ, **manager.environ}
        child = subprocess.Popen(
            command,
            env=environ,
            pass_fds=manager.stored.values() if manager is not None else (),
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
        )
        self.children.append(child)
        return self.until_served(before, child)

    def until_served(self, before: int, child: subprocess.Popen[bytes] | None = None) -> client.Daemon:
        """The daemon that began after `before` and answers."""

        def served() -> client.Daemon | None:
            assert child is None or child.poll() in (None, 0), self.log()
            found = self.daemon()
            if found is None or found.since == before or self.state(found) != "running":
                return None
            return found

        daemon = until("a daemon", served, 60)
        assert isinstance(daemon, client.Daemon)
        return daemon

    def state(self, daemon: client.Daemon) -> str:
        try:
            return str(client.ask_once(daemon, "status")["mount"]["state"])
        except Exception:
            return "none"

    def since(self) -> int:
        found = self.daemon()
        return found.since if found is not None else 0

    def daemon(self) -> client.Daemon | None:
        return next(iter(client.daemons({"R2FS_RUN_DIR": str(self.run_dir)})), None)

    def status(self) -> dict[str, Any]:
        daemon = self.daemon()
        assert daemon is not None
        return client.ask_once(daemon, "status")

    def kill(self) -> int:
        """As a crash would end it; `since` of the one that was killed."""
        daemon = self.daemon()
        assert daemon is not None
        os.kill(daemon.pid, signal.SIGKILL)
        until("its end", lambda: not daemon.alive, END_S)
        return daemon.since

    def holders(self) -> list[dict[str, Any]]:
        found = [keeper.ask(path, {"op": "status"}) for path in self.run_dir.glob("*.holder")]
        return [status for status in found if status is not None]

    def r2fs(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run_r2fs(self.environ(), *words)

    def in_bucket(self, name: str, content: bytes) -> None:
        path = self.bucket / name
        until(f"{name} in the bucket", lambda: path.exists() and path.read_bytes() == content, 40)

    def log(self) -> str:
        path = self.base / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def complaints(self) -> list[str]:
        return [line for line in self.log().splitlines() if " WARNING " in line or " ERROR " in line]

    def end(self) -> None:
        """Nobody waits in the mount any more, whatever was left of it; then it goes, with every process."""
        for holder in self.holders():
            os.kill(holder["pid"], signal.SIGKILL)
        daemon = self.daemon()
        if daemon is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon.pid, signal.SIGKILL)
        while kmount.mounted_at(str(self.path)) is not None:
            kmount.abort(str(self.path))
            kmount.unmount(str(self.path), lazy=True)
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait(END_S)
        self.errors.close()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    if not kmount.privileged():
        pytest.skip("mounts by mount(2), for passthrough")
    one = Held(tmp_path)
    yield one
    one.end()


def within(seconds: float, work: Callable[[], object]) -> object:
    """The result of a child process that may be killed: a call that hangs in the mount fails the test."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(sending, json.dumps(work()).encode())
        except OSError as error:
            os.write(sending, json.dumps({"errno": error.errno}).encode())
        finally:
            os._exit(0)
    os.close(sending)
    deadline = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.close(receiving)
            raise AssertionError(f"it hangs: not within {seconds:.0f} s")
        time.sleep(0.01)
    with open(receiving, "rb") as pipe:
        return json.loads(pipe.read())


# A recorder: appends, patches its header as programs do, syncs; each line says what is safe by then.
RECORDER = """
import os, sys
path, count = sys.argv[1], int(sys.argv[2])
fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
for n in range(count):
    os.pwrite(fd, b"%07d\\n" % n, 16 + 8 * n)
    os.pwrite(fd, b"count=%09d\\n" % (n + 1), 0)
    if n % 5 == 0:
        os.fsync(fd)
    print(n, flush=True)
    if not sys.stdin.readline():
        break
os.close(fd)
print("closed", flush=True)
"""


def recorded(count: int) -> bytes:
    return b"count=%09d\n" % count + b"".join(b"%07d\n" % n for n in range(count))


class Recorder:
    def __init__(self, path: Path, count: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RECORDER, str(path), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def steps(self, count: int) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for _ in range(count):
            assert self.process.stdout.readline().strip().isdigit()
            self.process.stdin.write("\n")

    def finish(self) -> None:
        _, said = self.process.communicate("\n" * 10_000, timeout=60)
        assert (self.process.returncode, said) == (0, "")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def recorder() -> Iterator[Callable[[Path, int], Recorder]]:
    made: list[Recorder] = []

    def start(path: Path, count: int) -> Recorder:
        made.append(Recorder(path, count))
        return made[-1]

    yield start
    for one in made:
        one.kill()


class Program:
    """A process that runs the statements it is given. Files are open here and not in the test, which forks: a
    fork closes what the child does not inherit, and a close of a written file waits for a daemon."""

    SOURCE = """
import json, mmap, os, sys
names = {}
for line in sys.stdin:
    try:
        exec("import json, mmap, os\\n" + json.loads(line), names)
        answer = names.pop("answer", None)
    except OSError as error:
        answer = {"errno": error.errno}
    print(json.dumps(answer), flush=True)
"""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.SOURCE],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, *statements: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps("\n".join(statements)) + "\n")
        self.process.stdin.flush()

    def end(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def run(self, *statements: str) -> Any:
        """What the statements left in `answer`."""
        self.begin(*statements)
        return self.end()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def program() -> Iterator[Callable[[Path], Program]]:
    made: list[Program] = []

    def start(directory: Path) -> Program:
        made.append(Program(directory))
        return made[-1]

    yield start
    for one in made:
        one.kill()


# ------------------------------------------------------------------ kill -9
def test_a_recording_goes_on_and_is_whole_in_the_bucket(
    held: Held, recorder: Callable[[Path, int], Recorder]
) -> None:
    """kill -9 twice while a program records: no error, nothing lost, the mount at its place."""
    held.mount()
    recording = recorder(held.path / "take.wav", 60)
    recording.steps(11)  # it has synced what it did, and writes on
    for _ in range(2):
        held.kill()
        recording.steps(4)  # written by the kernel alone; then it syncs, and waits for a daemon
        held.mount()
        recording.steps(6)
        assert not (held.bucket / "take.wav").exists(), "sent while it is being recorded"
    assert within(LOST, lambda: os.listdir(held.path)) == ["take.wav"]
    held.kill()  # the next write asks for a set-id bit that the look at the file could have shown: it waits
    held.mount()
    recording.finish()
    assert (held.path / "take.wav").read_bytes() == recorded(60)
    held.in_bucket("take.wav", recorded(60))
    assert held.r2fs("umount", str(held.path)).returncode == 0
    until("no holder", lambda: not held.holders(), END_S)
    assert held.complaints() == []


def test_what_is_open_goes_on(held: Held, program: Callable[[Path], Program]) -> None:
    """Several files, readers and writers, a mapping, a working directory, a file without a name."""
    held.mount()
    os.mkdir(held.path / "dir")
    for name in ("a", "b", "dir/c"):
        (held.path / name).write_bytes(name.encode() * 1000)
    held.in_bucket("dir/c", b"dir/c" * 1000)
    using = program(held.path / "dir")
    using.run(
        "a = os.open('../a', os.O_RDONLY)",
        "b, c, new = (os.open(name, os.O_RDWR | os.O_CREAT) for name in ('../b', 'c', '../new'))",
        "log = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)",
        "os.ftruncate(new, 8192)",
        "mapping = mmap.mmap(new, 8192)",
        "gone = os.open('gone', os.O_RDWR | os.O_CREAT)",
        "os.write(gone, b'kept')",
        "os.unlink('gone')",
    )
    inodes = {name: os.stat(held.path / name).st_ino for name in ("a", "b", "dir", "dir/c", "new")}
    using.run("os.write(log, b'1')", "os.pwrite(b, b'B', 0)")
    held.kill()
    said = using.run(
        "os.write(log, b'2')",
        "os.pwrite(b, b'!', 1)",
        "mapping[0:6] = b'mapped'",
        "answer = os.pread(a, 2, 0).decode()",
    )
    assert said == "aa"
    using.begin("answer = [os.getcwd(), os.stat('c').st_size, sorted(os.listdir('.'))]")  # waits
    held.mount()
    assert using.end() == [f"{held.path}/dir", 5000, ["c", "log"]]
    assert held.status()["mount"]["held_by"].startswith("holder (process ")
    assert {name: os.stat(held.path / name).st_ino for name in inodes} == inodes
    shown = {file["path"]: file for file in held.status()["kernel"]["open_files"]}
    assert {shown[name]["mode"] for name in ("a", "b", "dir/c", "new", "dir/log")} == {"passthrough"}
    assert (shown["b"]["why"], shown["b"]["handles"]) == ("opened before r2fs restarted", 1)
    said = using.run(
        "os.write(log, b'3')",
        "mapping[6:8] = b'!!'",
        "mapping.flush()",
        "os.pwrite(c, b'C', 0)",
        "for fd in (b, c, new, gone): os.fsync(fd)",
        "answer = [os.pread(gone, 10, 0).decode(), os.fstat(gone).st_nlink]",
    )
    assert said == ["kept", 0]
    with open(held.path / "b", "r+b") as again:  # must be the file that is open already
        again.write(b"X")
    using.run("mapping.close()", "for fd in (a, b, c, new, log, gone): os.close(fd)")
    held.in_bucket("b", b"X!" + b"b" * 998)
    held.in_bucket("dir/c", b"Cir/c" + b"dir/c" * 999)
    held.in_bucket("new", b"mapped!!" + bytes(8184))
    held.in_bucket("dir/log", b"123")
    assert sorted(path.name for path in held.bucket.iterdir() if path.name[0] != ".") == [
        "a",
        "b",
        "dir",
        "new",
    ]
    until("nothing is open", lambda: not held.status()["kernel"]["open_files"])
    assert held.complaints() == []


def test_calls_in_flight_at_the_kill_complete(held: Held) -> None:
    """What a daemon was asked, and did not answer, its successor answers."""
    held.mount()
    (held.path / "there").write_bytes(b"x" * 100)
    daemon, mounted = held.daemon(), kmount.mounted_at(str(held.path))
    assert daemon is not None
    assert mounted is not None
    waiting = kmount.CONNECTIONS / mounted.device.partition(":")[2] / "waiting"
    os.kill(daemon.pid, signal.SIGSTOP)  # it reads nothing more
    work = [
        f"mkdir {held.path}/made",
        f"cat {held.path}/there | wc -c",
        f"echo new > {held.path}/written",
        f"test ! -e {held.path}/missing && echo missing",
        f"ls {held.path} > /dev/null && echo listed",
    ]
    calls = [subprocess.Popen(["sh", "-c", line], stdout=subprocess.PIPE, text=True) for line in work]
    until("most of them wait", lambda: int(waiting.read_text()) >= 3)
    held.kill()
    held.mount()
    said = [call.communicate(timeout=LOST)[0] for call in calls]
    assert [call.returncode for call in calls] == [0] * len(calls)
    assert said == ["", "100\n", "", "missing\n", "listed\n"]
    held.in_bucket("written", b"new\n")
    assert held.complaints() == []


def test_a_background_daemon_is_started_again_by_its_holder(
    held: Held, program: Callable[[Path], Program]
) -> None:
    held.mount(background=True)
    using = program(held.path)
    using.run("f = os.open('f', os.O_RDWR | os.O_CREAT)")
    for number in range(2):
        before = held.kill()
        using.run(f"os.pwrite(f, b'{number}', {number})")
        held.until_served(before)
        assert within(LOST, lambda: os.listdir(held.path)) == ["f"]
    using.run("os.close(f)", "os.chdir('/')")
    held.in_bucket("f", b"01")
    done = held.r2fs("umount", str(held.path))
    assert done.returncode == 0, done.stderr
    until("no holder", lambda: not held.holders(), END_S)
    assert list(held.run_dir.iterdir()) == []
    assert held.complaints() == []


# ------------------------------------------------------------------ nobody comes
def test_without_a_successor_calls_fail_and_do_not_hang(
    held: Held, program: Callable[[Path], Program]
) -> None:
    held.mount(take_over="1s")
    using = program(held.path)
    using.run("f = os.open('f', os.O_RDWR | os.O_CREAT)", "os.write(f, b'safe')")
    held.kill()
    assert using.run("os.fsync(f)") in ({"errno": errno.ENOTCONN}, {"errno": errno.ECONNABORTED})
    assert within(LOST, lambda: os.listdir(held.path)) == {"errno": errno.ENOTCONN}
    assert using.run("os.pread(f, 4, 0)", "answer = os.lseek(f, 0, os.SEEK_CUR)") == 4
    using.run("os.close(f)")
    until("no holder", lambda: not held.holders(), END_S)
    held.mount()  # in the dead one's place
    held.in_bucket("f", b"safe")


def test_commands_do_not_hang_while_nobody_serves(held: Held) -> None:
    held.mount()
    held.kill()
    at = str(held.path)
    done = held.r2fs("status", at)
    assert (done.returncode, "waits for another" in done.stderr) == (9, True), done.stderr
    shown = json.loads(held.r2fs("status", "--json").stdout)
    assert [mount["mount"]["state"] for mount in shown] == ["held"]
    assert held.r2fs("flush", f"{at}/x").returncode == 9
    done = held.r2fs("umount", at)
    assert (done.returncode, "a mount without a daemon was removed" in done.stderr) == (0, True), done.stderr
    assert kmount.mounted_at(at) is None
    until("no holder", lambda: not held.holders(), END_S)


def test_a_held_mount_in_use_is_not_taken_away(held: Held, program: Callable[[Path], Program]) -> None:
    held.mount()
    using = program(held.path)
    using.run("f = os.open('f', os.O_RDWR | os.O_CREAT)", "os.write(f, b'x')")
    held.kill()
    done = held.r2fs("umount", str(held.path))
    assert (done.returncode, f"({using.process.pid})" in done.stderr) == (8, True), done.stderr
    assert using.run("answer = os.write(f, b'y')") == 1
    assert held.r2fs("umount", "--lazy", str(held.path)).returncode == 0
    assert kmount.mounted_at(str(held.path)) is None
    using.run("os.close(f)")
    held.mount()
    held.in_bucket("f", b"xy")


def test_what_cannot_be_gone_on_with_begins_anew(held: Held) -> None:
    """mount(2)'s own options are those of the first mount: others need another mount."""
    held.mount()
    (held.path / "f").write_bytes(b"x")
    held.kill()
    held.mount(read_only="yes")
    assert within(LOST, lambda: os.listdir(held.path)) == ["f"]
    with pytest.raises(OSError, match="Read-only"):
        (held.path / "g").write_bytes(b"")
    assert len([m for m in kmount.mounts() if m.path == str(held.path)]) == 1
    assert len(held.holders()) == 1


# ------------------------------------------------------------------ orderly
def test_an_upgrade_keeps_the_mount(held: Held, recorder: Callable[[Path, int], Recorder]) -> None:
    """`r2fs restart`, and SIGUSR2: another program in the daemon's place, open files go on."""
    before = held.mount()
    recording = recorder(held.path / "take.wav", 40)
    recording.steps(12)
    done = held.r2fs("restart", "--json", str(held.path))
    assert done.returncode == 0, done.stderr
    after = held.daemon()
    assert after is not None
    assert (after.pid, after.since > before.since) == (before.pid, True)
    recording.steps(10)
    os.kill(after.pid, signal.SIGUSR2)
    held.until_served(after.since)
    recording.finish()
    held.in_bucket("take.wav", recorded(40))
    assert len(held.holders()) == 1
    os.kill(before.pid, signal.SIGTERM)
    assert held.children[0].wait(END_S) == 0
    until("no holder", lambda: not held.holders(), END_S)
    assert list(held.run_dir.iterdir()) == []
    assert kmount.mounted_at(str(held.path)) is None
    assert held.complaints() == []


# ------------------------------------------------------------------ systemd
class Manager:
    """What systemd does for a unit with FileDescriptorStoreMax=1: keeps what it is sent, hands it on at a start."""

    def __init__(self, base: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(base / "notify"))
        self.socket.settimeout(60)
        self.environ = {"NOTIFY_SOCKET": str(base / "notify"), "FDSTORE": "1"}
        self.stored: dict[str, int] = {}

    def until(self, name: str) -> dict[str, str]:
        """The next message with this field; what is to be stored meanwhile is."""
        while True:
            data, fds, _, _ = socket.recv_fds(self.socket, 65536, 4, socket.MSG_CMSG_CLOEXEC)
            message = dict(line.split("=", 1) for line in data.decode().split("\n"))
            if "FDSTORE" in message:
                assert message["FDPOLL"] == "0", "else the manager wakes at each request of the mount"
                (self.stored[message["FDNAME"]],) = fds
            if "FDSTOREREMOVE" in message:
                os.close(self.stored.pop(message["FDNAME"]))
            if name in message:
                return message

    def starting(self, command: list[str]) -> list[str]:
        """A command with the store's descriptors, as the manager starts it."""
        names = ":".join(self.stored)
        takes = "".join(f" {3 + n}<&{fd}" for n, fd in enumerate(self.stored.values()))
        setting = f"LISTEN_PID=$$ LISTEN_FDS={len(self.stored)} LISTEN_FDNAMES={names}"
        return ["bash", "-c", f'export {setting}; exec "$@"{takes}', "bash", *command]

    def close(self) -> None:
        for fd in self.stored.values():
            os.close(fd)
        self.socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(tmp_path)
    yield one
    one.close()


def test_under_systemd_its_store_keeps_the_mount(
    held: Held, manager: Manager, program: Callable[[Path], Program]
) -> None:
    """Killed and started again; reloaded (execve in place); stopped."""
    held.mount(manager=manager)
    manager.until("READY")
    assert (list(manager.stored), held.holders()) == (["r2fs-session"], [])
    assert held.status()["mount"]["held_by"] == "systemd"
    using = program(held.path)
    using.run("f = os.open('f', os.O_RDWR | os.O_CREAT)", "os.write(f, b'1')")
    held.kill()
    using.begin("os.write(f, b'2')", "os.fsync(f)")
    held.mount(manager=manager)
    manager.until("READY")
    assert using.end() is None
    daemon = held.daemon()
    assert daemon is not None
    os.kill(daemon.pid, signal.SIGUSR2)
    manager.until("READY")
    held.until_served(daemon.since)
    using.run("os.write(f, b'3')", "os.close(f)", "os.chdir('/')")
    held.in_bucket("f", b"123")
    os.kill(daemon.pid, signal.SIGTERM)
    manager.until("FDSTOREREMOVE")
    assert held.children[-1].wait(END_S) == 0
    assert manager.stored == {}
    assert kmount.mounted_at(str(held.path)) is None
    assert held.complaints() == []
