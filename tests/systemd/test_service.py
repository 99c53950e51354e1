"""The units of r2fs on a real systemd: start, kill, reload, watchdog, fstab, users' units, shutdown.

One machine is booted for all. The buckets are directories in /srv/shared, which outlives it. Only root can boot one:
for an ordinary user these are skipped (scripts/test as root, and CI, run them).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.lib import deb
from tests.support.users import require_root
from tests.systemd.machine import Machine, require

UNIT = "r2fs@takes.service"
BUCKETS = ("takes", "slow", "stuck", "books", "auto")
CONFIG = """
[mount.takes]
url = "file:///srv/shared/takes"
mountpoint = "/mnt/takes"
upload_delay = "0"

[mount.slow]
url = "file:///srv/shared/slow"
mountpoint = "/mnt/slow"
upload_delay = "1h"
upload_deadline = "1h"

[mount.stuck]
url = "file:///srv/shared/stuck"
mountpoint = "/mnt/stuck"

[mount.books]
url = "file:///srv/shared/books"
mountpoint = "/mnt/books"

[mount.auto]
url = "file:///srv/shared/auto"
"""
OF_ANNA = """
[mount.hers]
url = "file:///home/anna/bucket"
mountpoint = "/home/anna/hers"
upload_delay = "0"
"""
WATCHDOG = "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\n"
FSTAB = "auto /mnt/auto r2fs _netdev,noauto,nofail,x-systemd.automount 0 0\n"

HOLDER = """
import sys
file = open("/mnt/takes/long.wav", "w+b", buffering=0)
file.write(b"before ")
print("open", flush=True)
for line in sys.stdin:
    file.write(line.strip().encode())
    file.seek(0)
    print(file.read().decode(), flush=True)
    file.seek(0, 2)
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("systemd") / "shared"


@pytest.fixture(scope="module")
def machine(shared: Path) -> Iterator[Machine]:
    require_root()
    require()
    files = {
        "etc/r2fs/config.toml": CONFIG,
        "etc/systemd/system/r2fs@stuck.service.d/watchdog.conf": WATCHDOG,
        "etc/fstab": FSTAB,
        "usr/sbin/mount.r2fs": "#!/bin/sh\nexec r2fs mount --background \"$@\"\n",
        "srv/anna/config.toml": OF_ANNA,
    }  # fmt: skip
    for name in BUCKETS:
        (shared / name).mkdir(parents=True)
    machine = Machine(shared.parent, shared, files)
    try:
        machine.do("mkdir", "-p", "/mnt/takes", "/mnt/slow", "/mnt/stuck")
        machine.do("r2fs", "service", "install", "--no-start", "takes")
        machine.do("systemctl", "daemon-reload")
        yield machine
    finally:
        machine.stop()


@pytest.fixture
def takes(machine: Machine) -> Machine:
    """The mount `takes`, started."""
    machine.start(UNIT)
    return machine


def pid(machine: Machine, unit: str = UNIT) -> int:
    return int(machine.show(unit, "MainPID")["MainPID"])


def test_start_returns_when_the_mount_answers(takes: Machine, shared: Path):
    shown = takes.show(UNIT, "ActiveState", "SubState", "StatusText", "NFileDescriptorStore")
    assert (shown["ActiveState"], shown["SubState"]) == ("active", "running")
    assert "/mnt/takes" in shown["StatusText"]
    assert shown["NFileDescriptorStore"] == "1"
    takes.do("sh", "-c", "echo hello > /mnt/takes/a.txt")
    takes.until(lambda: (shared / "takes" / "a.txt").exists())
    assert (shared / "takes" / "a.txt").read_text() == "hello\n"
    status = json.loads(takes.do("r2fs", "status", "/mnt/takes", "--json"))
    assert status["mount"]["state_dir"].startswith("/var/lib/r2fs/takes/")
    assert "0.0" not in takes.do("systemd-analyze", "verify", "/etc/systemd/system/r2fs@.service")


def test_kill_9_leaves_open_files_open(takes: Machine, shared: Path):
    before = pid(takes)
    restarts = int(takes.show(UNIT, "NRestarts")["NRestarts"])
    program = takes.begin("python3", "-u", "-c", HOLDER)
    assert program.stdin is not None
    assert program.stdout is not None
    assert program.stdout.readline() == "open\n"
    takes.do("systemctl", "kill", "--signal=SIGKILL", "--kill-who=main", UNIT)
    program.stdin.write("after\n")
    program.stdin.flush()
    assert program.stdout.readline() == "before after\n"
    program.communicate("", timeout=30)
    assert program.returncode == 0
    takes.until(lambda: pid(takes) not in (0, before))
    assert int(takes.show(UNIT, "NRestarts")["NRestarts"]) == restarts + 1
    takes.until(lambda: (shared / "takes" / "long.wav").exists())
    assert (shared / "takes" / "long.wav").read_text() == "before after"
    assert "continues with /mnt/takes" in takes.journal(UNIT)


def test_reload_is_a_new_daemon_under_the_same_mount(takes: Machine):
    program = takes.begin("python3", "-u", "-c", HOLDER.replace("long", "reloaded"))
    assert program.stdin is not None
    assert program.stdout is not None
    assert program.stdout.readline() == "open\n"

    before = ""

    def since() -> str:
        card = takes.ask("sh", "-c", "cat /run/r2fs/takes/*.json").stdout
        return str(json.loads(card)["since"]) if card else before  # there is none for a moment

    before, number = since(), pid(takes)
    takes.do("systemctl", "reload", UNIT)
    takes.until(lambda: since() != before)
    assert pid(takes) == number
    program.stdin.write("after\n")
    program.stdin.flush()
    assert program.stdout.readline() == "before after\n"
    program.communicate("", timeout=30)
    assert takes.show(UNIT, "ActiveState")["ActiveState"] == "active"


def test_stop_sends_what_is_pending(takes: Machine, shared: Path):
    takes.start("r2fs@slow")
    takes.do("sh", "-c", "echo pending > /mnt/slow/stopped.txt")
    assert not (shared / "slow" / "stopped.txt").exists()
    takes.do("systemctl", "stop", "r2fs@slow")
    assert (shared / "slow" / "stopped.txt").read_text() == "pending\n"
    shown = takes.show("r2fs@slow", "ActiveState", "Result", "NFileDescriptorStore")
    assert shown == {"ActiveState": "inactive", "Result": "success", "NFileDescriptorStore": "0"}
    assert "fuse.r2fs" not in takes.ask("findmnt", "/mnt/slow").stdout


def test_a_service_is_installed_with_its_key_and_removed(machine: Machine, shared: Path):
    secret = "the-s3cret-of-books"
    machine.do(
        "env", "R2_ACCESS_KEY_ID=id-of-books", f"R2_SECRET_ACCESS_KEY={secret}", "R2FS_CACHE_SIZE=1G",
        "r2fs", "service", "install", "books",
    )  # fmt: skip
    assert machine.show("r2fs@books", "ActiveState", "UnitFileState") == {
        "ActiveState": "active",
        "UnitFileState": "enabled",
    }
    machine.do("sh", "-c", "echo page > /mnt/books/one.txt")
    modes = machine.do(
        "stat", "-c", "%a %n", "/etc/credstore/r2fs.books.secret_access_key", "/etc/r2fs/books.env"
    )
    assert modes == "600 /etc/credstore/r2fs.books.secret_access_key\n600 /etc/r2fs/books.env\n"
    number = pid(machine, "r2fs@books")
    for file in ("environ", "cmdline"):
        assert secret not in machine.do("cat", f"/proc/{number}/{file}")
    status = json.loads(machine.do("r2fs", "status", "/mnt/books", "--json"))
    assert status["cache"]["limit"] == 1 << 30  # of a variable of the shell
    removed = machine.do("r2fs", "service", "remove", "books")
    assert "/etc/credstore/r2fs.books.secret_access_key: removed\n" in removed
    assert "/etc/r2fs/books.env: removed\n" in removed
    assert "r2fs@.service" not in removed  # others need it
    assert (shared / "books" / "one.txt").read_text() == "page\n"
    assert machine.show("r2fs@books", "ActiveState")["ActiveState"] == "inactive"
    assert machine.ask("sh", "-c", f"grep -rl {secret} /etc /var/lib/r2fs").stdout == ""


def test_wrong_settings_are_not_tried_for_ever(machine: Machine):
    done = machine.ask("systemctl", "start", "r2fs@nosuch")
    assert done.returncode == 1
    shown = machine.show("r2fs@nosuch", "ActiveState", "ExecMainStatus")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "2"}
    assert "has no [mount.nosuch]" in machine.journal("r2fs@nosuch")


def test_the_watchdog_replaces_a_daemon_that_hangs(machine: Machine):
    machine.start("r2fs@stuck")
    before = pid(machine, "r2fs@stuck")
    machine.do("systemctl", "kill", "--signal=SIGSTOP", "--kill-who=main", "r2fs@stuck")
    machine.until(lambda: pid(machine, "r2fs@stuck") not in (0, before))
    assert "Watchdog timeout" in machine.journal("r2fs@stuck")
    machine.do("sh", "-c", "echo alive > /mnt/stuck/a.txt")
    machine.do("systemctl", "stop", "r2fs@stuck")


def test_fstab_mounts_at_the_first_use(machine: Machine, shared: Path):
    (shared / "auto" / "there.txt").write_text("there")
    machine.start("mnt-auto.automount")
    shown = machine.show("mnt-auto.mount", "ActiveState", "After")
    assert shown["ActiveState"] == "inactive"
    assert "network-online.target" in shown["After"]  # by _netdev
    assert machine.do("cat", "/mnt/auto/there.txt") == "there"
    assert machine.show("mnt-auto.mount", "ActiveState")["ActiveState"] == "active"
    machine.do("sh", "-c", "echo sent > /mnt/auto/sent.txt")
    machine.do("systemctl", "stop", "mnt-auto.automount", "mnt-auto.mount")
    machine.until(lambda: "fuse.r2fs" not in machine.ask("findmnt", "/mnt/auto").stdout)
    machine.until(lambda: (shared / "auto" / "sent.txt").exists())  # the daemon outlives umount(8) for it


def test_a_users_unit_runs_without_a_login(machine: Machine):
    machine.do("useradd", "--create-home", "--shell", "/bin/sh", "anna")
    machine.do(
        "runuser", "-u", "anna", "--", "sh", "-ec",
        "umask 077; cd; mkdir -p .config/r2fs bucket; cp /srv/anna/config.toml .config/r2fs/",
    )  # fmt: skip
    uid = machine.do("id", "-u", "anna").strip()

    def as_anna(*words: str) -> str:
        return machine.do("runuser", "-u", "anna", "--", "env", "HOME=/home/anna", f"XDG_RUNTIME_DIR=/run/user/{uid}", *words)  # fmt: skip

    machine.do("loginctl", "enable-linger", "anna")  # by root: without polkit nobody else may
    machine.until(lambda: machine.ask("test", "-S", f"/run/user/{uid}/systemd/private").returncode == 0)
    said = as_anna("r2fs", "service", "install", "hers")
    assert "r2fs@hers: enabled, and mounted on /home/anna/hers" in said
    as_anna("sh", "-c", "echo hers > /home/anna/hers/a.txt")
    machine.until(lambda: machine.ask("test", "-e", "/home/anna/bucket/a.txt").returncode == 0)
    assert "/home/anna/hers" in as_anna("r2fs", "status")
    as_anna("systemctl", "--user", "kill", "--signal=SIGKILL", "--kill-who=main", "r2fs@hers")
    assert as_anna("cat", "/home/anna/hers/a.txt") == "hers\n"
    removed = as_anna("r2fs", "service", "remove", "hers")
    assert removed == "/home/anna/.config/systemd/user/r2fs@.service: removed\n"
    assert as_anna("cat", "/home/anna/bucket/a.txt") == "hers\n"
    assert as_anna("ls", "/home/anna/hers") == ""


@pytest.mark.long
def test_the_debian_package_is_installed_used_and_removed(machine: Machine, shared: Path):
    package = deb.build(shared, fast=True)
    machine.do("dpkg", "--install", f"/srv/shared/{package.name}")
    packaged = ("env", "PATH=/usr/bin:/bin:/usr/sbin:/sbin")
    assert machine.do(*packaged, "r2fs", "--version").startswith("r2fs ")
    assert machine.do(*packaged, "man", "-w", "r2fs-doctor").endswith("/r2fs-doctor.1.gz\n")
    said = machine.do(*packaged, "r2fs", "service", "install", "books")
    assert "/usr/lib/systemd/system/r2fs@.service: used as it is" in said
    machine.do("sh", "-c", "echo packaged > /mnt/books/packaged.txt")
    assert "/usr/bin/r2fs" in machine.do("cat", f"/proc/{pid(machine, 'r2fs@books')}/cmdline")
    machine.do(*packaged, "r2fs", "service", "remove", "books")
    assert (shared / "books" / "packaged.txt").read_text() == "packaged\n"
    machine.do("mount", "-t", "r2fs", "file:///srv/shared/books", "/mnt/books")
    assert machine.do("cat", "/mnt/books/packaged.txt") == "packaged\n"
    machine.do(*packaged, "r2fs", "umount", "/mnt/books")
    machine.do("dpkg", "--remove", "r2fs")
    assert machine.ask("ls", "/usr/lib/r2fs").returncode != 0
    machine.do("r2fs", "service", "install", "--no-start", "takes")  # the package's unit has gone
    machine.do("systemctl", "daemon-reload")


def test_shutdown_sends_before_the_network_ends(takes: Machine, shared: Path):
    """The last: it ends the machine."""
    takes.start("r2fs@slow")
    takes.do("sh", "-c", "for n in 1 2 3 4 5; do echo $n > /mnt/slow/shutdown-$n.txt; done")
    assert not list((shared / "slow").glob("shutdown-*"))
    begun = time.monotonic()
    takes.power_off()
    assert time.monotonic() - begun < 25
    sent = sorted((shared / "slow").glob("shutdown-*"))
    assert [path.read_text().strip() for path in sent] == ["1", "2", "3", "4", "5"]
    ended = float((shared / "network-ended").read_text())
    assert all(path.stat().st_ctime < ended for path in sent)
    assert not re.search("fuse.r2fs.*systemd", Path("/proc/self/mountinfo").read_text())
