"""What is not mounted and not yet in the bucket stays in sight, with the command that sends it."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2fs.cli import status, unsent
from r2fs.cli.remount import record_of
from r2fs.daemon import state_directories
from r2fs.daemon.client import Held
from r2fs.disk.journal.summary import PendingSummary
from r2fs.model import mount_record
from r2fs.model.settings.loading import settings_of
from r2fs.model.settings.sources import gather
from tests.unit.cli.test_lifecycle import Rig


@pytest.fixture
def rig(tmp_path: Path, repo_root: Path) -> Iterator[Rig]:
    rig = Rig(repo_root, tmp_path)
    yield rig
    rig.end()


def listing(base: Path) -> set[Path]:
    """All below but the run directory: one start leaves it to others."""
    return {path for path in base.rglob("*") if path.relative_to(base).parts[0] != "run"}


def test_what_an_unmount_left_is_shown_and_sent_by_the_command_that_is_named(rig):
    rig.mount("--upload-delay", "1h", "--upload-deadline", "1h", "--state-dir", rig.base / "disk" / "state")
    (rig.point / "precious.txt").write_text("precious")
    assert rig.r2fs("umount", "--timeout", "0", rig.point).returncode == 75
    shown = rig.r2fs("status")
    assert shown.returncode == 0
    for word in (
        "nothing is mounted",
        rig.url,
        "1 file (8 B)",
        "since 20",
        str(rig.base / "disk" / "state"),
    ):
        assert word in shown.stdout
    (entry,) = json.loads(rig.r2fs("status", "--json").stdout)
    assert entry["pending"]["files"] == 1
    assert abs(time.time() - entry["pending"]["oldest_at_s"]) < 3600  # a time, no duration
    assert entry["mount"]["state"] == "not mounted"
    assert entry["mount"]["mountpoint"] == str(rig.point)
    assert entry["command"] in shown.stdout
    assert entry["keys"] == ""  # a directory needs none
    for command in ("status", "umount"):
        said = rig.r2fs(command, rig.point)
        assert said.returncode == 75
        assert entry["command"] in said.stdout + said.stderr
    flushed = rig.r2fs("flush", "--wait").stderr
    assert "nothing is mounted" in flushed
    assert entry["command"] in flushed
    program, *words = shlex.split(entry["command"])
    assert program == "r2fs"
    assert rig.r2fs(*words).returncode == 0
    assert rig.r2fs("umount", rig.point).returncode == 0
    assert (rig.bucket / "precious.txt").read_text() == "precious"
    assert rig.r2fs("status").stdout == "nothing is mounted\n"
    for command in ("status", "umount"):
        said = rig.r2fs(command, rig.point)
        assert said.returncode == 8


def test_a_mount_by_another_spelling_sends_what_the_first_left(rig):
    (rig.base / "link").symlink_to("bucket")
    rig.mount("--upload-delay", "1h", "--upload-deadline", "1h")
    (rig.point / "precious.txt").write_text("precious")
    assert rig.r2fs("umount", "--timeout", "0", rig.point).returncode == 75
    done = rig.r2fs("mount", "--background", f"file://{rig.base}/link", rig.point)
    assert (done.returncode, done.stderr) == (0, "")
    assert (rig.point / "precious.txt").read_text() == "precious"
    assert rig.r2fs("umount", rig.point).returncode == 0
    assert (rig.bucket / "precious.txt").read_text() == "precious"


def test_a_mount_that_fails_leaves_nothing_on_this_host(rig):
    (rig.base / "full").mkdir()
    (rig.base / "full" / "x").touch()
    before = listing(rig.base)
    for words in (
        ("mount", "file:///nonexistent/bucket", rig.point),
        ("mount", "--background", "file:///nonexistent/bucket", rig.point),
        ("mount", "--background", rig.url, rig.base / "full"),
        ("mount", "--background", rig.url, rig.base / "nowhere"),
    ):
        assert rig.r2fs(*words).returncode in (5, 8)
        assert listing(rig.base) == before, words


def test_a_mount_that_fails_late_leaves_nothing_either(rig, monkeypatch):
    """The last that can go wrong: mount(2) itself, after journal and cache were made."""
    before = listing(rig.base)
    code = (
        "import sys; from r2fs.drivers import kmount; from r2fs.model.errors import MountError\n"
        "def fail(*a, **k): raise MountError('no')\n"
        "kmount.mount = fail\n"
        "from r2fs.cli.main import run; sys.exit(run('r2fs', sys.argv[1:]))"
    )
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code, "mount", "--driver", "kernel", rig.url, rig.point],
        cwd=rig.root, env=rig.environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 8, done.stderr
    left = {path for path in listing(rig.base) - before if ".cache" not in path.parts}
    assert left == set(), left


@pytest.mark.parametrize("starts_it", [True, False])
def test_what_a_daemon_sends_that_is_being_started_needs_no_command(monkeypatch, starts_it):
    record = mount_record.MountRecord(
        "file", "b", "", None, "", "file:///b", "/mnt/t", ("r2fs", "mount", "file:///b", "/mnt/t")
    )
    left = state_directories.StateDirectory(Path("/state/b"), record, PendingSummary(files=1))
    monkeypatch.setattr(
        state_directories, "find", lambda *places: state_directories.FoundStates((left,), (), ())
    )
    waiting = Held("/mnt/t", "file:///b", 1, 60.0, starts_it, Path("/run/t.holder"))
    monkeypatch.setattr(unsent, "held_mounts", lambda: [waiting])
    assert unsent.with_pending(unsent.unmounted()) == ([] if starts_it else [left])


def test_watching_shows_what_is_owed_too(r2fs, monkeypatch):
    record = mount_record.MountRecord(
        "file", "b", "", None, "", "file:///b", "/mnt/t", ("r2fs", "mount", "file:///b", "/mnt/t")
    )
    left = state_directories.StateDirectory(Path("/state/b"), record, PendingSummary(files=1))
    monkeypatch.setattr(
        state_directories, "find", lambda *places: state_directories.FoundStates((left,), (), ())
    )
    seen = status._answers_of(None)
    assert "to send  r2fs mount file:///b /mnt/t" in seen[1]
    text = r2fs("status").out
    assert "nothing is mounted\n\nnot yet in the bucket, and no mount sends it:\n" in text
    assert "to send  r2fs mount file:///b /mnt/t" in text
    assert "nothing is mounted" in text


# ------------------------------------------------------------------ the record
def test_the_record_names_everything_but_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("R2_ACCOUNT_ID", "acc")
    monkeypatch.setenv("R2_ACCESS_KEY_ID", "key-of-mine")
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "geheim-geheim")
    monkeypatch.setenv("R2_SESSION_TOKEN", "token-token")
    values = gather("r2://takes/a b")
    record = record_of(values, settings_of(values), Path("/mnt/t"), {})
    text = record.to_json()
    for secret in ("geheim", "token-token", "key-of-mine"):
        assert secret not in text
    assert record.url == "r2://takes/a b"
    assert (record.bucket, record.prefix, record.endpoint) == (
        "takes", "a b/", "https://acc.r2.cloudflarestorage.com",
    )  # fmt: skip
    assert "variable R2_SECRET_ACCESS_KEY" in record.keys
    assert mount_record.parse(text) == record
    words = list(record.command)
    assert words[:3] == ["r2fs", "mount", "--background"]
    assert words[words.index("--account-id") + 1] == "acc"
    assert words[-2:] == ["r2://takes/a b", "/mnt/t"]


def test_the_command_of_a_unit_is_the_units(monkeypatch, tmp_path):
    cgroup = tmp_path / "cgroup"
    monkeypatch.setattr("r2fs.cli.remount.CGROUP", cgroup)
    values = gather("file:///srv/bucket")
    of_unit = {"NOTIFY_SOCKET": "/run/n", "INVOCATION_ID": "1"}

    def command(line: str, environ: dict[str, str]) -> str:
        cgroup.write_text(line)
        return record_of(values, settings_of(values), Path("/mnt/t"), environ).command_text

    system = "0::/system.slice/system-r2fs.slice/r2fs@takes.service\n"
    assert command(system, of_unit) == "systemctl start r2fs@takes.service"
    user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-r2fs.slice/r2fs@takes.service\n"
    assert command(user, of_unit) == "systemctl --user start r2fs@takes.service"
    assert command(system, {}).startswith("r2fs mount --background")
    assert command("0::/user.slice/session-3.scope\n", of_unit).startswith("r2fs mount --background")


def test_flags_come_back_as_they_were_given(tmp_path):
    from r2fs.cli.setting_flags import flags_from

    given = {
        "cache_size": "50G",
        "local_patterns": "*.a,*.b",
        "umask": "077",
        "read_only": True,
        "state_dir": "/s p/x",
    }
    values = gather("file:///srv/bucket", flags=flags_from(given, ()))
    again = list(record_of(values, settings_of(values), Path("/mnt/t"), {}).command)
    for pair in (
        ["--cache-size", "50GiB"],
        ["--local-patterns", "*.a,*.b"],
        ["--umask", "077"],
        ["--state-dir", "/s p/x"],
    ):
        at = again.index(pair[0])
        assert again[at : at + 2] == pair
    assert "--read-only" in again


def test_a_place_that_may_not_be_read_is_said(r2fs, home, monkeypatch):
    from r2fs.daemon import state_directories

    monkeypatch.setattr(
        state_directories,
        "find",
        lambda environ, further: state_directories.FoundStates(
            (), (Path("/root/x"),), ((Path("/usb"), Path("/link")),)
        ),
    )
    said = r2fs("status")
    assert said.code == 0
    assert "r2fs: not readable by this user: /root/x" in said.err
    assert "/usb does not exist" in said.err
    assert "rm /link" in said.err
    assert r2fs("status", "--json").json == []


# ------------------------------------------------------------------ a server that says nothing
@pytest.mark.parametrize("background", [False, True])
def test_ctrl_c_while_the_server_is_silent_is_heeded_at_once(rig, background):
    import os
    import signal
    import socket
    import subprocess
    import sys
    import time

    with socket.create_server(("127.0.0.1", 0)) as silent:
        before = listing(rig.base)
        environ = {**rig.environ, "R2FS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        environ |= {"R2FS_ACCESS_KEY_ID": "id", "R2FS_SECRET_ACCESS_KEY": "geheim-geheim"}
        words = ["mount", *(["--background"] if background else []), "s3://bucket", str(rig.point)]
        child = subprocess.Popen(
            [sys.executable, "-m", "r2fs", *words],
            cwd=rig.root,
            env=environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        silent.settimeout(30)
        connection, _ = silent.accept()  # it has asked, and gets no answer
        with connection:
            begun = time.monotonic()
            os.kill(child.pid, signal.SIGINT)
            _, said = child.communicate(timeout=30)
        assert time.monotonic() - begun < 3.5  # less than one of the timeouts
    assert child.returncode == 130
    assert said.splitlines()[-1] == "r2fs: interrupted"
    rig.until(lambda: listing(rig.base) == before)
