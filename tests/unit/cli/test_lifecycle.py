"""Real mounts of a `file://` bucket by the command itself: start, ask, stop, kill, signals, systemd."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r2fs.daemon.handover import keeper
from tests.support.commands import run_r2fs

PATIENCE_S = 30.0


class Rig:
    """A bucket that is a directory, a mount point, and the command with a home of its own."""

    def __init__(self, root: Path, base: Path) -> None:
        self.root, self.base = root, base
        self.bucket, self.point = base / "bucket", base / "mnt"
        self.bucket.mkdir()
        self.point.mkdir()
        self.environ = {**os.environ, "HOME": str(base), "XDG_RUNTIME_DIR": str(base / "run")}
        self.children: list[subprocess.Popen[str]] = []

    @property
    def url(self) -> str:
        return f"file://{self.bucket}"

    def r2fs(self, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_r2fs({**self.environ, **variables}, *words)

    def mount(self, *words: object, **variables: str) -> int:
        """In the background; the daemon's pid."""
        done = self.r2fs("mount", "--background", self.url, self.point, *words, **variables)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        return self.pid()

    def foreground(self, *words: object, **variables: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-m", "r2fs", "mount", self.url, str(self.point), *map(str, words)],
            cwd=self.root,
            env={**self.environ, **variables},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.children.append(child)
        self.until(self.is_mounted)
        return child

    def pid(self) -> int:
        cards = list((self.base / "run" / "r2fs").glob("*.json"))
        return int(json.loads(cards[0].read_text())["pid"])

    def is_mounted(self) -> bool:
        try:
            return os.stat(self.point).st_dev != os.stat(self.base).st_dev
        except OSError:
            return False

    def until(self, true: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < deadline, "it did not come to that"
            time.sleep(0.02)

    def log(self) -> str:
        return "".join(path.read_text() for path in self.base.glob(".local/state/r2fs/*/r2fs.log"))

    def end(self) -> None:
        for path in (self.base / "run" / "r2fs").glob("*.holder"):  # else it starts what is killed
            if (holder := keeper.ask(path, {"op": "status"})) is not None:
                kill(holder["pid"])
        for card in (self.base / "run" / "r2fs").glob("*.json"):
            kill(json.loads(card.read_text())["pid"])
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.communicate()
        while os.path.realpath(self.point) in Path("/proc/self/mountinfo").read_text():
            subprocess.run(
                ["fusermount3", "-u", "-z", self.point], check=False, capture_output=True, timeout=20
            )


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def gone(pid: int) -> bool:
    """Ended; perhaps not waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def rig(tmp_path: Path, repo_root: Path) -> Iterator[Rig]:
    rig = Rig(repo_root, tmp_path)
    yield rig
    rig.end()


def test_mount_ask_flush_and_unmount(rig):
    (rig.bucket / "there.txt").write_text("there")
    pid = rig.mount("--upload-delay", "1h", "--upload-deadline", "1h")
    assert rig.is_mounted()
    assert (rig.point / "there.txt").read_text() == "there"
    (rig.point / "new.txt").write_text("new")
    status = json.loads(rig.r2fs("status", rig.point, "--json").stdout)
    assert status["mount"]["pid"] == pid
    assert status["mount"]["state"] == "running"
    assert status["queue"]["files"] == 1
    assert status["requests"]["total"] > 0
    assert status["mount"]["driver"] == "KernelDriver"
    assert status["kernel"]["requests"]["lookup"] > 0
    assert not (rig.bucket / "new.txt").exists()
    done = rig.r2fs("flush", "--wait", rig.point / "new.txt")
    assert (done.returncode, done.stderr) == (0, "")
    assert (rig.bucket / "new.txt").read_text() == "new"
    done = rig.r2fs("umount", rig.point)
    assert (done.returncode, done.stderr) == (0, "")
    assert not rig.is_mounted()
    assert list((rig.base / "run" / "r2fs").iterdir()) == []


def test_unmounting_sends_what_waits(rig):
    pid = rig.mount("--upload-delay", "1h", "--upload-deadline", "1h")
    (rig.point / "new.txt").write_text("new")
    subprocess.run(["fusermount3", "-u", rig.point], check=True, timeout=20)
    rig.until(lambda: gone(pid))
    assert (rig.bucket / "new.txt").read_text() == "new"
    assert "everything is in the bucket" in rig.log()


def test_a_second_mount_of_either_is_told_with_the_process(rig):
    pid = rig.mount()
    done = rig.r2fs("mount", "--background", rig.url, rig.point)
    assert done.returncode == 8
    assert f"is mounted already ({rig.url}, process {pid})" in done.stderr
    (rig.base / "other").mkdir()
    done = rig.r2fs("mount", "--background", rig.url, rig.base / "other")
    assert done.returncode == 7
    assert f"(pid {pid}), mounted on {rig.point}: " in done.stderr
    assert rig.is_mounted()


def test_mount_a_passes_over_what_is_mounted(rig):
    """mount(8) knows a mount by its source: with a NAME in fstab, -a calls the helper again."""
    pid = rig.mount()
    done = rig.r2fs("mount", "--background", "--unless-mounted", rig.url, rig.point)
    assert (done.returncode, done.stderr) == (0, f"r2fs: {rig.point} is mounted already\n")
    (rig.base / "elsewhere").mkdir()
    done = rig.r2fs("mount", "--background", "--unless-mounted", f"{rig.url}/elsewhere", rig.point)
    assert (done.returncode, f"is mounted already ({rig.url}, process {pid})" in done.stderr) == (8, True)


def test_a_killed_daemon_loses_nothing_and_is_replaced(rig):
    pid = rig.mount("--upload-delay", "1h", "--upload-deadline", "1h", "--take-over", "0")
    (rig.point / "new.txt").write_text("new")
    kill(pid)
    rig.until(lambda: gone(pid))
    done = rig.r2fs("status", rig.point)
    assert done.returncode == 9
    assert "the daemon of" in done.stderr
    rig.mount("--upload-delay", "0")
    assert (rig.point / "new.txt").read_text() == "new"
    rig.until(lambda: (rig.bucket / "new.txt").exists())


def test_a_killed_daemons_mount_is_taken_away_by_umount(rig):
    pid = rig.mount("--take-over", "0")
    kill(pid)
    rig.until(lambda: gone(pid))
    done = rig.r2fs("umount", rig.point)
    assert done.returncode == 0
    assert "a mount without a daemon was removed" in done.stderr
    assert os.listdir(rig.point) == []


def test_a_busy_mount_is_not_taken_away_by_umount(rig):
    rig.mount()
    (rig.point / "f").write_text("x")
    with open(rig.point / "f"):
        done = run_r2fs(rig.environ, "umount", rig.point, before=("env",))
        assert done.returncode == 8
        assert f"({os.getpid()})" in done.stderr
        assert rig.is_mounted()
    assert rig.r2fs("umount", rig.point).returncode == 0


def test_umount_from_within_names_the_shell_and_not_itself(rig):
    rig.mount()
    (rig.point / "a").mkdir()
    done = rig.r2fs("umount", rig.point / "a")
    assert (done.returncode, f": r2fs umount {rig.point}\n" in done.stderr) == (8, True), done.stderr
    script = 'cd "$1" && "$2" -m r2fs umount .; echo $?'
    said = subprocess.run(
        ["sh", "-c", script, "sh", rig.point, sys.executable],
        env={**rig.environ, "PYTHONPATH": str(rig.root)}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert said.stdout == "8\n"
    assert said.stderr.count("(") == 1, said.stderr  # one process
    done = rig.r2fs("umount", rig.point)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_busy_mount_is_detached_on_request(rig):
    pid = rig.mount()
    writing = os.open(rig.point / "f", os.O_WRONLY | os.O_CREAT)
    os.write(writing, b"x")
    done = rig.r2fs("umount", "--lazy", "--timeout", "0", rig.point)
    assert done.returncode == 75
    assert "not yet in the bucket: 1 file" in done.stderr
    assert not rig.is_mounted()
    rig.until(lambda: gone(pid))
    with pytest.raises(OSError, match=r"connection abort|not connected"):
        os.close(writing)
    rig.mount("--upload-delay", "0")
    rig.until(lambda: (rig.bucket / "f").exists())


def test_signals_in_the_foreground(rig):
    for number in (signal.SIGINT, signal.SIGTERM):
        child = rig.foreground("--upload-delay", "1h", "--upload-deadline", "1h")
        (rig.point / f"{number}").write_text("x")
        child.send_signal(number)
        _, said = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 0
        assert "everything is in the bucket" in said
        assert (rig.bucket / f"{number}").exists()
        assert not rig.is_mounted()


@pytest.mark.parametrize("driver", ["kernel", "libfuse", "libfuse2"])
def test_a_signal_stops_every_driver(rig, driver):
    child = rig.foreground("--driver", driver)
    (rig.point / "f").write_text("x")
    child.terminate()
    child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0
    assert (rig.bucket / "f").read_text() == "x"


def test_a_failed_start_leaves_nothing(rig):
    done = rig.r2fs("mount", "--background", "file:///nonexistent/bucket", rig.point)
    assert done.returncode == 5
    assert done.stderr.startswith("r2fs: file:///nonexistent/bucket")
    assert done.stderr.count("\n") == 1
    assert not rig.is_mounted()
    assert [path for path in (rig.base / "run").rglob("*") if not path.is_dir()] == []
    rig.mount()


def test_what_is_wrong_is_one_sentence_and_a_code(rig):
    (rig.base / "full").mkdir()
    (rig.base / "full" / "x").write_text("")
    (rig.base / "file").write_text("")
    wrong = [
        ((rig.url, rig.base / "none"), 8, "does not exist"),
        ((rig.url, rig.base / "full"), 8, "not empty"),
        ((rig.url, rig.base / "file"), 8, "not a directory"),
        ((rig.url, rig.point, "--cache-dir", rig.base / "file"), 7, "--cache-dir"),
        ((rig.url, rig.point, "--state-dir", rig.base / "file"), 7, "--state-dir"),
        ((rig.url, rig.point, "--run-dir", rig.base / "file"), 7, "--run-dir"),
        ((rig.url, rig.point, "--log-file", rig.base / "file" / "x"), 7, "--log-file"),
        ((rig.url, rig.point, "--cache-dir", rig.point / "c"), 2, "lies in the mount point"),
    ]
    for number, (words, code, said) in enumerate(wrong):
        done = rig.r2fs("mount", *(["--background"] if number % 2 else []), *words)
        assert done.returncode == code, done.stderr
        assert said in done.stderr
        assert done.stderr.splitlines()[-1].startswith("r2fs: ")
        assert "Traceback" not in done.stderr


def test_as_a_mount_helper(rig):
    done = rig.r2fs(rig.url, rig.point, "-o", "ro,_netdev,noexec,umask=077")
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(OSError, match="Read-only"):
        (rig.point / "x").write_text("")
    mounted = next(
        line for line in Path("/proc/self/mounts").read_text().splitlines() if str(rig.point) in line
    )
    options = mounted.split()[3].split(",")
    assert {"ro", "noexec", "nosuid", "nodev"} <= set(options)


def test_a_named_mount_in_its_own_place(rig):
    path = rig.base / ".config" / "r2fs" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f'[mount.takes]\nurl = "{rig.url}"\nmountpoint = "{rig.point}"\n')
    done = rig.r2fs("mount", "--background", "takes")
    assert (done.returncode, done.stderr) == (0, "")
    assert rig.is_mounted()
    assert json.loads(rig.r2fs("status", "--json").stdout)[0]["mount"]["name"] == "takes"


def test_a_changed_settings_file_is_taken_up(rig):
    """Limits, levels and patterns without a remount; a wrong file is refused with its reason."""
    path = rig.base / ".config" / "r2fs" / "config.toml"
    path.parent.mkdir(parents=True)
    head = f'[mount.takes]\nurl = "{rig.url}"\nmountpoint = "{rig.point}"\nupload_delay = "0"\n'
    path.write_text(head)
    assert rig.r2fs("mount", "--background", "takes").returncode == 0
    log = next((rig.base / ".local" / "state" / "r2fs").glob("*/r2fs.log"))

    def cache_limit() -> int:
        return int(json.loads(rig.r2fs("status", "--json").stdout)[0]["cache"]["limit"])

    path.write_text(head + 'cache_size = "123MiB"\nlocal_patterns = ["*.tmp"]\n')
    rig.until(lambda: "settings taken up" in log.read_text())
    assert cache_limit() == 123 << 20
    (rig.point / "a.tmp").write_text("stays")
    (rig.point / "b.wav").write_text("goes")
    assert rig.r2fs("flush", "--wait", rig.point).returncode == 0
    assert [entry.name for entry in rig.bucket.iterdir() if entry.is_file()] == ["b.wav"]
    path.write_text(head + 'cache_size = "much"\n')
    rig.until(lambda: "the settings stay as they are" in log.read_text())
    assert "config.toml:5" in log.read_text()
    assert cache_limit() == 123 << 20
    other = path.with_name("new")
    other.write_text(head + 'log_level = "debug"\npublic_url = "https://media.example.com"\n')
    other.replace(path)
    rig.until(lambda: log.read_text().count("settings taken up") == 2)
    assert cache_limit() == 10 << 30
    assert rig.r2fs("url", "--public", rig.point / "b.wav").stdout == "https://media.example.com/b.wav\n"
    assert rig.r2fs("flush", "--wait", rig.point).returncode == 0
    rig.until(lambda: (rig.bucket / "a.tmp").exists())  # no pattern keeps it here any more
    assert rig.r2fs("umount", rig.point).returncode == 0


def test_under_systemd(rig):
    """Directories by variables, ready only when the mount answers, watchdog, stopping told, time asked for."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(rig.base / "notify"))
        manager.settimeout(PATIENCE_S)

        def told(name: str) -> dict[str, str]:
            while True:
                message = dict(line.split("=", 1) for line in manager.recv(65536).decode().split("\n"))
                if name in message:
                    return message

        child = rig.foreground(
            NOTIFY_SOCKET=str(rig.base / "notify"),
            WATCHDOG_USEC="200000",
            CACHE_DIRECTORY=str(rig.base / "var-cache"),
            STATE_DIRECTORY=str(rig.base / "var-state"),
            RUNTIME_DIRECTORY=str(rig.base / "run" / "r2fs" / "takes"),
        )
        ready = told("READY")
        assert ready["STATUS"] == f"{rig.url} on {rig.point}"
        assert ready["MAINPID"] == str(child.pid)
        assert rig.is_mounted()
        assert told("WATCHDOG") == {"WATCHDOG": "1"}
        for name in ("var-cache", "var-state"):
            (own,) = (rig.base / name).iterdir()
            assert stat.S_IMODE(own.stat().st_mode) == 0o700
        found = run_r2fs(rig.environ, "status", "--json", before=("env",))  # below the run directory
        assert json.loads(found.stdout)[0]["mount"]["pid"] == child.pid
        (rig.point / "f").write_text("x")
        child.terminate()
        assert told("STOPPING")["STATUS"] == "unmounting"
        child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 0
