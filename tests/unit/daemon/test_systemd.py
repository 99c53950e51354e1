"""systemd: the notify protocol on a socket of our own, the watchdog, the journal's prefixes, the units."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import uuid
from threading import Event

import pytest

from r2fs.daemon.systemd import JournalFormatter, ServiceManager, handed_over, run_watchdog, stderr_is_journal

UNITS = ("r2fs/daemon/units/r2fs@.service", "r2fs/daemon/units/user/r2fs@.service")


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """(socket, NOTIFY_SOCKET)."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@r2fs-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if name.startswith("@") else name)
        listener.settimeout(10)
        yield listener, name


def told(listener) -> dict[str, str]:
    lines = listener.recv(65536).decode().split("\n")
    return dict(line.split("=", 1) for line in lines)


def test_every_message(manager):
    listener, name = manager
    manager = ServiceManager({"NOTIFY_SOCKET": name})
    manager.ready("mounted\non /mnt")
    assert told(listener) == {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "mounted on /mnt"}
    manager.stopping("unmounting")
    assert told(listener) == {"STOPPING": "1", "STATUS": "unmounting"}
    manager.extend(1.5, "sending 2 files")
    assert told(listener) == {"EXTEND_TIMEOUT_USEC": "1500000", "STATUS": "sending 2 files"}
    manager.watchdog()
    assert told(listener) == {"WATCHDOG": "1"}


def test_without_a_manager_nothing_happens():
    ServiceManager({}).ready("x")


@pytest.mark.expect_warnings("the service manager gets no message")
def test_a_manager_that_has_gone_is_no_failure(tmp_path):
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("x")


# ------------------------------------------------------------------ descriptors
def test_a_descriptor_is_stored_and_taken_back(manager):
    listener, name = manager
    manager = ServiceManager({"NOTIFY_SOCKET": name, "FDSTORE": "1"})
    assert manager.stores
    with open(os.devnull) as file:
        manager.store(file.fileno(), "session")
        data, fds, _, _ = socket.recv_fds(listener, 65536, 4)
        assert dict(line.split("=") for line in data.decode().split("\n")) == {
            "FDSTORE": "1",
            "FDNAME": "session",
            "FDPOLL": "0",
        }
        (stored,) = fds
        assert os.path.sameopenfile(stored, file.fileno())
        os.close(stored)
    manager.unstore("session")
    assert told(listener) == {"FDSTOREREMOVE": "1", "FDNAME": "session"}


@pytest.mark.parametrize(
    "variables", [{}, {"FDSTORE": "1"}, {"NOTIFY_SOCKET": "/x"}, {"NOTIFY_SOCKET": "/x", "FDSTORE": "0"}]
)
def test_who_stores_nothing(variables):
    assert not ServiceManager(variables).stores


HANDED = """
import os, sys
from r2fs.daemon.systemd import hand_over, handed_over
if "LISTEN_FDS" not in os.environ:
    fd = os.open(os.devnull, os.O_RDONLY)
    hand_over(os.environ, "session", fd)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ)
fd = handed_over(os.environ, "session")
assert fd == 3 and not os.get_inheritable(fd) and os.readlink("/proc/self/fd/3") == os.devnull
assert not [name for name in os.environ if name.startswith("LISTEN_")]
assert handed_over(os.environ, "session") is None
"""


def test_what_is_handed_over_at_a_start(repo_root):
    done = subprocess.run(
        [sys.executable, "-c", HANDED], cwd=repo_root, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_meant_for_others_is_not_taken():
    assert handed_over({"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "session"}, "session") is None


# ------------------------------------------------------------------ watchdog
@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_when_a_watchdog_is_wanted(variables, seconds):
    assert ServiceManager(variables).watchdog_s == seconds


class CountedClock:
    """wait() returns at once, `rounds` times; then the event is set."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return 0.0

    def time(self) -> float:
        return 0.0

    def wait(self, event: Event, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) > self.rounds


@pytest.mark.expect_warnings("the mount does not answer")
def test_a_ping_only_while_the_mount_answers(manager):
    listener, name = manager
    answers = iter([True, False, True])
    clock = CountedClock(3)
    manager = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000"})
    run_watchdog(manager, lambda: next(answers), Event(), clock)
    assert clock.waits == [5.0] * 4
    assert [told(listener), told(listener)] == [{"WATCHDOG": "1"}] * 2
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.recv(1)


def test_no_watchdog_no_thread_time():
    run_watchdog(ServiceManager({}), lambda: pytest.fail("asked"), Event(), CountedClock(1))


# ------------------------------------------------------------------ journal
def test_the_journal_gets_priorities_on_every_line():
    failure = (ValueError, ValueError("two"), None)
    record = logging.LogRecord("r2fs.x", logging.ERROR, "", 1, "one %s", ("three",), failure)
    assert (
        JournalFormatter("%(name)s: %(message)s").format(record)
        == "<3>r2fs.x: one three\n<3>    ValueError: two"
    )


def test_whether_standard_error_is_the_journal():
    status = os.fstat(2)
    assert stderr_is_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    assert not stderr_is_journal({"JOURNAL_STREAM": "1:1"})
    assert not stderr_is_journal({})


# ------------------------------------------------------------------ units
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_unit(repo_root, unit, tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (package systemd)")
    instance = tmp_path / "r2fs@takes.service"
    shutil.copy(repo_root / unit, instance)
    manager = ["--user"] if "/user/" in unit else []
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run(
        [analyze, "verify", "--man=no", *manager, str(instance)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [line for line in done.stderr.splitlines() if instance.name in line]  # not of others' units
    assert (done.returncode, said) == (0, [])


def settings(repo_root, unit) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (repo_root / unit).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


# What gives a unit a mount namespace of its own: the mount would be seen by nobody else.
HIDING = {
    "ProtectSystem", "ProtectHome", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs",
    "ProtectControlGroups", "ProtectProc", "ProcSubset", "PrivateTmp", "PrivateDevices", "PrivateMounts",
    "MountFlags", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths", "BindPaths",
    "BindReadOnlyPaths", "TemporaryFileSystem", "RootDirectory", "RootImage", "DynamicUser", "LogNamespace",
}  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_the_mount_appears_in_the_host(repo_root, unit):
    assert HIDING.isdisjoint(settings(repo_root, unit))


@pytest.mark.parametrize("unit", UNITS)
def test_start_and_stop_are_told_by_the_daemon(repo_root, unit):
    found = settings(repo_root, unit)
    assert found["Type"] == ["notify"]
    assert found["KillMode"] == ["mixed"]
    assert found["SuccessExitStatus"] == ["75"]
    assert found["Restart"] == ["on-failure"]
    assert found["RuntimeDirectoryPreserve"] == ["restart"]
    assert "TimeoutStopSec" in found
    assert "WatchdogSec" in found


def test_a_users_unit_keeps_the_way_to_fusermount_open(repo_root):
    found = settings(repo_root, UNITS[1])
    implying = {"NoNewPrivileges", "SystemCallFilter", "LockPersonality", "MemoryDenyWriteExecute"}
    assert implying.isdisjoint(found)
    assert not [name for name in found if name.startswith("Restrict")]


def test_the_system_unit_reaches_fuse_and_its_capabilities(repo_root):
    found = settings(repo_root, UNITS[0])
    assert found["DeviceAllow"] == ["/dev/fuse rw"]
    assert "CAP_SYS_ADMIN" in " ".join(found["CapabilityBoundingSet"])
    assert {"mount", "umount2"} <= set(found["SystemCallFilter"][0].split())


@pytest.mark.parametrize("count", ["99999999999", "9" * 5000, "64000", "-1", "x"])
def test_a_number_of_descriptors_that_is_none(count, repo_root):
    """The first that is not there ends the list."""
    code = f"""
import os
from r2fs.daemon.systemd import handed_over
environ = {{"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": {count!r}, "LISTEN_FDNAMES": "x"}}
print(handed_over(environ, "session"), environ)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, timeout=20
    )
    assert done.stdout == "None {}\n"
