"""The commands among other users: who is not believed, and whose daemon it is, in one sentence and with exit code 9."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from r2fs.cli import asking, show
from r2fs.drivers import kmount
from tests.support.users import NOBODY, ROOT, acting_as, neighbours, require_root
from tests.unit.cli.conftest import queue

ELSEWHERE = "192.0.2.7:9"  # nobody is there, and without a key nobody is asked


@pytest.fixture(autouse=True)
def warned_anew():
    asking._warn.cache_clear()


def mounted(monkeypatch, point, user):
    one = kmount.Mounted(str(point), "0:77", "fuse.r2fs", "r2://takes", user)
    monkeypatch.setattr(kmount, "mounts", lambda: [one])
    monkeypatch.setattr("r2fs.daemon.mountpoint.is_stale", lambda path: False)


@pytest.mark.parametrize("words", [["flush", "--wait"], ["umount"], ["status"], ["restart"]])
def test_another_users_answer_in_the_default_run_directory_is_no_answer(
    r2fs, home, daemon, monkeypatch, words
):
    require_root()
    asked = []

    def answer(request):
        asked.append(request.message)
        return {"sent": True, "queue": queue(), "exit_code": 0}

    point = daemon("takes", flush=answer, stop=answer, status=answer, restart=answer)
    os.chown(home / "run" / "r2fs", NOBODY, NOBODY)
    mounted(monkeypatch, point, os.getuid())
    said = r2fs(*words, point)
    os.chown(home / "run" / "r2fs", 0, 0)
    assert (said.code, asked) == (9, [])
    warning, sentence = said.err.splitlines()
    assert f"{home}/run/r2fs belongs to another user (uid {NOBODY})" in warning
    assert sentence.startswith(
        f"r2fs: the daemon of {point} is another user's, or its --run-dir is not known"
    )


@pytest.mark.parametrize("words", [["flush", "--wait"], ["umount"], ["status"], ["restart"]])
def test_a_mount_of_another_user_is_told_with_the_user(r2fs, home, monkeypatch, words):
    point = home / "takes"
    point.mkdir()
    mounted(monkeypatch, point, 4711)
    for path in (point, point / "a" / "b.wav") if words != ["umount"] else (point,):
        said = r2fs(*words, path)
        assert said.code == 9
        assert said.err == (
            f"r2fs: the daemon of {point} is another user's (uid 4711): "
            "ask as that user (sudo -u '#4711' r2fs …)\n"
        )


def test_status_with_a_home_that_may_not_be_entered(r2fs, monkeypatch):
    with neighbours(ROOT) as two:
        monkeypatch.setenv("HOME", str(two.home))
        with acting_as(two.attacker):
            said = r2fs("status")
        assert (said.code, said.out) == (0, "nothing is mounted\n")
        assert said.err.startswith(f"r2fs: not readable by this user: {two.home}/.local/state/r2fs")


def test_of_roots_home_nothing_is_said_where_it_cannot_be_seen(r2fs, monkeypatch):
    """Every other user's /root is closed: to say so at each `r2fs status` would tell nothing."""
    with neighbours(ROOT) as two:
        monkeypatch.setenv("HOME", "/nonexistent")
        monkeypatch.setattr(
            "r2fs.model.settings.places.ROOT_STATES", (two.home / ".local" / "state" / "r2fs",)
        )
        with acting_as(two.attacker):
            said = r2fs("status")
        assert (said.code, said.out, said.err) == (0, "nothing is mounted\n", "")


def test_a_warning_is_said_once(r2fs, home):
    (home / "run" / "r2fs").mkdir(parents=True)
    (home / "run" / "r2fs").chmod(0o777)
    assert r2fs("status").err.count("can be written by") == 1
    assert r2fs("status").err == ""


def test_json_moves_no_cursor_and_says_the_same(capsys):
    """JSON escapes the lower control characters alone; a terminal obeys U+009B as it does ESC [."""
    odd = {"path": "a\x9b31m\u202eb\x7f\u2028\n\x1b ä \U000e0001\ud800", "n": [1, None]}
    show.as_json(odd)
    out = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in out)
    assert "ä" in out
    assert json.loads(out) == odd


# ------------------------------------------------------------------ the command itself
def mount(repo_root, home, *words, **variables):
    """`r2fs mount`, which comes to nothing: in a process of its own, since a daemon blocks signals."""
    return subprocess.run(
        [sys.executable, "-m", "r2fs", "mount", *map(str, words), str(home)],
        cwd=repo_root,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_root_mounts_with_no_run_directory_of_another_user(repo_root, home):
    """As sudo and su leave it in XDG_RUNTIME_DIR."""
    with neighbours(ROOT) as two:
        session = two.directory("1000", two.attacker, 0o700)
        done = mount(repo_root, home, f"file://{home}", XDG_RUNTIME_DIR=str(session))
        assert done.returncode == 7
        assert f"{session} belongs to another user (uid {two.attacker}); choose another" in done.stderr
        assert not list(session.iterdir())


def test_plain_http_to_another_machine_is_told_who_mounts(repo_root, home):
    words = ("--log-file", home / "x.log", "--endpoint-url", f"http://{ELSEWHERE}")
    done = mount(repo_root, home, "s3://bucket", *words)
    warning, *_ = done.stderr.splitlines()
    assert warning.startswith(f"r2fs: warning: http://{ELSEWHERE} is not encrypted: the access key id")
    assert f"r2fs.cli.mount: http://{ELSEWHERE} is not encrypted" in (home / "x.log").read_text()
