"""status, flush and umount against daemons that answer from a script."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import termios
import threading

import pytest

from r2fs.cli import screen
from r2fs.cli.progress import UploadProgress
from r2fs.model.errors import DaemonUnreachable, MountError
from tests.unit.cli.conftest import flushed, queue

CACHE = {
    "entries": 2,
    "bytes": 3 << 20,
    "limit": 1 << 30,
    "hits": 3,
    "misses": 1,
    "evicted": 0,
    "expired": 0,
    "hit_rate": 0.75,
}
REQUESTS = {"by_verb": {"PutObject": 2}, "class_a": 2, "class_b": 1, "free": 0, "retries": 1, "total": 3}
TRANSFER = {
    "path": "a/b.wav",
    "verb": "upload",
    "state": "uploading",
    "size": 2048,
    "sent": 1024,
    "rate": 512.0,
    "age_s": 2.0,
    "reason": None,
}
UGLY = {**TRANSFER, "path": "x\x1b[31m.wav", "state": "parked", "reason": "refused: 403"}


def status(point, **given):
    mount = {
        "mountpoint": str(point),
        "url": "r2://takes",
        "name": "takes",
        "pid": 4711,
        "state": "running",
        "driver": "KernelDriver",
    }
    return {"mount": mount, "queue": queue(**given), "cache": CACHE, "requests": REQUESTS}


# ------------------------------------------------------------------ status
def test_nothing_is_mounted(r2fs):
    said = r2fs("status")
    assert (said.code, said.out, said.err) == (0, "nothing is mounted\n", "")
    assert r2fs("status", "--json").json == []


def test_all_mounts(r2fs, daemon):
    a = daemon(
        "takes",
        status=lambda request: status("/mnt/takes", files=2, bytes=5 << 20, parked=1, conflicts=["c"]),
    )
    daemon("more", status=lambda request: status("/mnt/more"))
    said = r2fs("status")
    assert said.code == 0
    line = next(line for line in said.out.splitlines() if line.startswith("/mnt/takes"))
    for word in ("r2://takes", "running", "2 files (5.0 MiB)", "1 parked, 1 conflict", "3.0 MiB of 1.0 GiB"):
        assert word in line
    data = r2fs("status", "--json").json
    assert {answer["mount"]["mountpoint"] for answer in data} == {"/mnt/takes", "/mnt/more"}
    assert a.exists()


def test_one_mount_in_detail_by_any_path_in_it(r2fs, daemon):
    point = daemon(
        "takes",
        status=lambda request: status(
            "/mnt/t", files=2, bytes=4096, transfers=[TRANSFER, UGLY], last_error="503", hidden=3
        ),
    )
    for path in (point, point / "some" / "file"):
        said = r2fs("status", path)
        assert said.code == 0
        for word in (
            "process 4711",
            "75% hits",
            "3 (class A 2, class B 1, free 0; 1 repeated)",
            "503",
            "50 %",
            "512 B/s",
            "3 keys that cannot be shown as files",
        ):
            assert word in said.out
        assert "\x1b" not in said.out
        assert r"x\x1b[31m.wav" in said.out
    assert r2fs("status", point, "--json").json["queue"]["left"] == 2


def test_status_of_what_is_no_mount(r2fs, home):
    said = r2fs("status", home)
    assert said.code == 8
    assert said.err == f"r2fs: {home} is not in a mount of r2fs (r2fs status lists them)\n"


def test_one_that_does_not_answer_does_not_hide_the_others(r2fs, daemon):
    daemon("good", status=lambda request: status("/mnt/good"))
    point = daemon("bad", status=lambda request: status("/mnt/bad"))
    (point.parent / "run" / "r2fs" / "bad.sock").unlink()
    said = r2fs("status")
    assert said.code == 9
    assert "/mnt/good" in said.out
    assert "no answer" in said.out
    assert said.err.count("\n") == 1


# ------------------------------------------------------------------ flush
@pytest.mark.parametrize("words", [("cost",), ("cache", "clear"), ("queue", "list")])
def test_a_daemon_of_an_older_version_is_named_with_the_remedy(r2fs, daemon, words):
    point = daemon("takes", status=lambda request: status("/mnt/t"))
    said = r2fs(*words, point)
    assert said.code == 9
    assert f"is of an older r2fs: r2fs restart {point}" in said.err


def test_flush_waits_for_paths(r2fs, daemon):
    asked = {}

    def flush(request):
        asked.update(request.message)
        request.progress(queue=queue(files=1))
        return flushed(True)

    point = daemon("takes", flush=flush)
    assert r2fs("flush", "--wait", "--timeout", "1m", point / "a" / "b.wav", point / "c").code == 0
    assert asked["paths"] == ["a/b.wav", "c"]
    assert 59 < asked["timeout_s"] <= 60


def test_flush_without_wait_returns_at_once(r2fs, daemon):
    asked = {}

    def flush(request):
        asked.update(request.message)
        return flushed(False, files=1)

    daemon("takes", flush=flush)
    assert r2fs("flush").code == 0
    assert (asked["paths"], asked["timeout_s"]) == ([], 0.0)


def test_flush_tries_parked_files_only_when_told(r2fs, daemon):
    asked = []

    def flush(request):
        asked.append(request.message["retry"])
        return flushed(True)

    daemon("takes", flush=flush)
    assert r2fs("flush", "--wait").code == 0
    assert r2fs("flush", "--wait", "--retry").code == 0
    assert asked == [False, True]


def test_status_tells_of_a_bucket_that_is_away(r2fs, daemon):
    health = {"answers": False, "for_s": 75.0, "reason": "the access key was refused"}
    point = daemon("takes", status=lambda request: {**status("/mnt/takes"), "health": health})
    assert "unavailable for 1 min 15 s" in r2fs("status").out
    assert "for 1 min 15 s: the access key was refused" in r2fs("status", point).out


def test_flush_that_runs_out_of_time(r2fs, daemon):
    point = daemon("takes", flush=lambda request: flushed(False, files=2, bytes=1 << 20))
    said = r2fs("flush", "--wait", "--timeout", "0")
    assert said.code == 75
    assert said.err == f"r2fs: {point}: time is up; left: 2 files (1.0 MiB)\n"
    assert r2fs("flush", "--wait", "--json").json[0]["sent"] is False


def test_flush_says_what_the_bucket_refuses(r2fs, daemon):
    refused = [{**UGLY, "path": "a/b.wav", "reason": "a/b.wav: not allowed"}, UGLY]
    point = daemon("takes", flush=lambda request: flushed(True, refused, files=2, bytes=9))
    said = r2fs("flush", "--wait", point / "a")
    assert said.code == 10
    assert said.err == (
        f"r2fs: {point}: 2 parked: a/b.wav: not allowed; and 1 more (see r2fs status); left: 2 files (9 B)\n"
    )
    assert r2fs("flush", point / "a").code == 0
    assert r2fs("flush", "--wait", "--json").json[0]["parked"][0]["path"] == "a/b.wav"


def test_flush_says_that_everything_is_refused(r2fs, daemon):
    point = daemon(
        "takes", flush=lambda request: flushed(False, refusal="a: the key was\x1b[0m refused", files=1)
    )
    said = r2fs("flush", "--wait")
    assert said.code == 10
    assert said.err == (
        f"r2fs: {point}: the bucket refuses everything: a: the key was\\x1b[0m refused; left: 1 file (0 B)\n"
    )


def test_what_is_refused_is_worse_than_what_is_late(r2fs, daemon):
    daemon("a", flush=lambda request: flushed(True, [UGLY], files=1))
    daemon("b", flush=lambda request: flushed(False, files=1))
    daemon("c", flush=lambda request: flushed(True))
    assert r2fs("flush", "--wait").code == 10


def test_what_is_late_is_worse_than_what_is_sent(r2fs, daemon):
    daemon("a", flush=lambda request: flushed(False, files=1))
    daemon("b", flush=lambda request: flushed(True))
    assert r2fs("flush", "--wait").code == 75


def test_the_protocols_own_field_is_not_shown(r2fs, daemon):
    point = daemon(
        "takes",
        status=lambda request: status("/mnt/t"),
        flush=lambda request: flushed(True),
        stop=lambda request: {"queue": queue(), "exit_code": 0},
    )
    for words in (["status"], ["status", point], ["flush"], ["umount", point]):
        assert "done" not in r2fs(*words, "--json").out


def test_flush_outside_of_any_mount(r2fs, home):
    assert r2fs("flush", home / "x").code == 8


def test_a_wrong_time_is_one_sentence(r2fs, daemon):
    said = r2fs("flush", "--timeout", "soon")
    assert said.code == 2
    assert "--timeout" in said.err
    assert 'such as "90s"' in said.err
    assert said.err.count("\n") == 1


# ------------------------------------------------------------------ umount
def test_umount_waits_and_hands_on_timeout_and_lazy(r2fs, daemon):
    asked = {}

    def stop(request):
        asked.update(request.message)
        request.progress(queue=queue(files=1))
        return {"queue": queue(), "exit_code": 0}

    point = daemon("takes", stop=stop)
    said = r2fs("umount", "--lazy", "--timeout", "5s", point)
    assert (said.code, said.out, said.err) == (0, "", "")
    assert (asked["lazy"], asked["timeout_s"]) == (True, 5.0)


def test_umount_says_what_is_left(r2fs, daemon):
    left = queue(files=3, bytes=3 << 20, deletes=1, parked=2, transfers=[{**UGLY, "path": "a.wav"}])
    point = daemon("takes", stop=lambda request: {"queue": left, "exit_code": 75})
    said = r2fs("umount", point)
    assert said.code == 75
    assert said.err == (
        f"r2fs: {point} is unmounted; not yet in the bucket: 3 files (3.0 MiB), 1 deletion; "
        "2 parked: a.wav: refused: 403; and 1 more (see r2fs status); it is kept, and sent at the next mount\n"
    )
    assert r2fs("umount", "--json", point).json[0]["exit_code"] == 75


def test_umount_of_a_busy_mount(r2fs, daemon):
    def stop(request):
        raise MountError("/mnt is in use by bash (12)")

    said = r2fs("umount", daemon("takes", stop=stop))
    assert said.code == 8
    assert said.err == "r2fs: /mnt is in use by bash (12)\n"


def test_umount_of_what_is_no_mount(r2fs, home):
    said = r2fs("umount", home)
    assert said.code == 8
    assert said.err == f"r2fs: {home} is not a mount of r2fs (r2fs status lists them)\n"


def test_umount_of_a_stale_mount(r2fs, home, monkeypatch):
    gone: list[object] = []
    monkeypatch.setattr("r2fs.daemon.mountpoint.is_stale", lambda path: True)
    monkeypatch.setattr("r2fs.daemon.mountpoint.detach_stale", gone.append)
    said = r2fs("umount", home)
    assert said.code == 0
    assert gone == [home]
    assert "a mount without a daemon was removed" in said.err


# ------------------------------------------------------------------ on a terminal
@pytest.fixture
def terminal(monkeypatch):
    """terminal(80): so wide is the terminal that standard output goes to."""

    def _terminal(columns):
        monkeypatch.setattr("r2fs.cli.show.on_terminal", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))

    return _terminal


LONG = "/home/anna/studio/archive/takes"
OUTAGE = 'HOST cannot be reached: check the endpoint (EndpointConnectionError: no connection to "http://127.0.0.1/b/{}")'


def crowded(point):
    """Much to say: an outage, and files that wait for its end."""
    waiting = [
        {**TRANSFER, "path": f"{n}/take.wav", "state": "queued", "sent": 0, "rate": 0.0,
         "reason": f"{n}/take.wav: {OUTAGE.format(n)}"} for n in range(4)
    ]  # fmt: skip
    parked = [
        {
            **UGLY,
            "path": f"odd/{n}.wav",
            "reason": f"odd/{n}.wav: it is locked (403 AccessDenied: Forbidden.)",
        }
        for n in (1, 2)
    ]
    answer = status(
        point, files=5, directories=2, bytes=5 << 20, deletes=1, parked=2, transfers=[*parked, *waiting],
        last_error=f"3/take.wav: {OUTAGE.format(3)}", last_error_at_s=1.0, watched=1,
    )  # fmt: skip
    answer["health"] = {"answers": False, "for_s": 75.0, "reason": f"0/take.wav: {OUTAGE.format(0)}"}
    answer["mount"]["url"] = "r2://a-bucket-of-a-studio/takes"
    return answer


@pytest.mark.parametrize("columns", [70, 80])
@pytest.mark.parametrize("named", [False, True])
def test_no_word_is_cut_in_a_narrow_terminal(r2fs, daemon, terminal, columns, named):
    terminal(columns)
    point = daemon("takes", status=lambda request: crowded(LONG))
    said = r2fs("status", *([point] if named else [])).out
    assert max(map(len, said.splitlines())) <= columns
    words = [
        "r2://a-bucket-of-a-studio/takes",
        LONG,
        "5.0 MiB",
        "3.0 MiB of 1.0 GiB",
        "1 deletion",
        "2 directories",
    ]
    for word in words:
        assert word in " ".join(said.split()), word


def test_what_is_empty_takes_no_room(r2fs, daemon, terminal):
    terminal(100)
    daemon("takes", status=lambda request: status("/mnt/takes"))
    said = r2fs("status").out
    assert "troubles" not in said
    assert "cache" in said


def test_a_reason_is_said_once_and_short(r2fs, daemon):
    point = daemon("takes", status=lambda request: crowded("/mnt/t"))
    said = r2fs("status", point).out
    assert said.startswith("bucket ")
    assert said.count("HOST cannot be reached") == 1
    assert said.count("it is locked (403 AccessDenied)") == 1
    assert "odd/1.wav and 1 more" in said
    assert "EndpointConnectionError:" not in said and "127.0.0.1" not in said
    assert "no answer" not in said
    assert "1 key, for a late upload" in said
    assert "last error" not in said, "it is said of the bucket already"


def test_the_last_error_says_when(r2fs, daemon, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1000.0)
    point = daemon(
        "takes", status=lambda request: status("/mnt/t", last_error="a: refused", last_error_at_s=880.0)
    )
    assert "2 min 0 s ago: a: refused" in r2fs("status", point).out


def test_how_long_it_will_take(r2fs, daemon):
    transfers = [
        {**TRANSFER, "size": 10 << 20, "sent": 4 << 20, "rate": float(1 << 20)},
        {**UGLY, "size": 5 << 20},
    ]
    transfers[1] |= {"sent": 0, "rate": 0.0}
    view = {"files": 2, "bytes": 15 << 20, "transfers": transfers, "rate": float(1 << 20), "left_s": 6.0}
    point = daemon("takes", status=lambda request: status("/mnt/t", **view))
    assert "about 6 s to go" in r2fs("status", point).out


def test_what_a_stopping_daemon_says_of_its_end(r2fs, daemon):
    answer = status("/mnt/t")
    answer["mount"] |= {"state": "stopping", "held_by": None, "why_not": "its log could not be written"}
    said = r2fs("status", daemon("takes", status=lambda request: answer)).out
    assert "could not" not in said
    assert "unsent changes are kept, and sent at the next mount" in said


def test_status_is_shown_again_and_again(r2fs, daemon, terminal, monkeypatch):
    looks: list[object] = []

    def answer(request):
        looks.append(request)
        return watched("/mnt/t")

    point = daemon("takes", status=answer)
    terminal(100)
    sleeps(monkeypatch)
    assert r2fs("status", "-w", point).code == 0
    assert len(looks) == 3


@pytest.mark.parametrize("columns", [60, 100])
def test_the_screen_of_a_watch(columns):
    from rich.console import Console

    console = Console(width=columns, height=40, force_terminal=True, highlight=False)
    coming = {**TRANSFER, "path": "kits/down.wav", "verb": "download", "state": "downloading"}
    gone = {"mount": {"mountpoint": "/mnt/gone", "url": "r2://b", "error": "the daemon has gone"}}
    with console.capture() as shown:
        console.print(
            screen.rendered(
                ([{**watched("/mnt/t"), "downloads": [coming]}, gone], "not sent: /mnt/x"), console
            )
        )
    text = re.sub(r"\x1b\[[\d;]*m", "", shown.get())
    words = " ".join(text.replace("│", " ").split())  # folded between words
    for word in (
        "/mnt/t", "r2://takes", "↑ a/b.wav", "↓ kits/down.wav", "512 B/s", "2 files (5.0 MiB)", "5 s to go", "75% hits", r"parked: x\x1b[31m.wav: refused: 403",
        "warning: much", "conflict kept: c", "the daemon has gone", "not sent: /mnt/x", "q or Ctrl-C ends",
    ):  # fmt: skip
        assert word in words, word
    assert max(map(len, text.splitlines())) <= columns


def test_q_ends_a_watch_and_the_terminal_is_as_before(r2fs, daemon, terminal, monkeypatch):
    ours, theirs = pty.openpty()

    def answer(request):
        os.write(ours, b"xq")  # once the watch has begun: keys typed before are dropped
        return watched("/mnt/t")

    point = daemon("takes", status=answer)
    terminal(100)
    high = fcntl.fcntl(theirs, fcntl.F_DUPFD, 1024)  # select() refuses it
    os.close(theirs)
    theirs = high
    with open(theirs, "rb", buffering=0) as keyboard:
        monkeypatch.setattr("sys.stdin", keyboard)
        before = termios.tcgetattr(theirs)
        assert r2fs("status", "-w", point).code == 0
        assert termios.tcgetattr(theirs) == before
    os.close(ours)


def test_without_a_terminal_a_watch_prints_lines(r2fs, daemon, monkeypatch):
    point = daemon("takes", status=lambda request: watched("/mnt/t"))
    sleeps(monkeypatch)
    lines = r2fs("status", "-w", point).out.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d /mnt/t: 2 files \(5\.0 MiB\) left, 1\.0 MiB/s, 5 s to go; cache 3\.0 MiB of 1\.0 GiB; "
        r"1 warning, 1 parked, 1 conflict",
        lines[0],
    )
    slept = sleeps(monkeypatch)
    answers = [json.loads(line) for line in r2fs("status", "--watch", "--json").out.splitlines()]
    assert [answer[0]["queue"]["left"] for answer in answers] == [2, 2, 2]
    assert len(slept) == 3


def test_a_watch_outlives_a_restart_of_the_daemon(r2fs, daemon, monkeypatch):
    answers = iter([watched("/mnt/t"), DaemonUnreachable("it is being started again"), watched("/mnt/t")])

    def answer(request):
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    point = daemon("takes", status=answer)
    sleeps(monkeypatch)
    lines = r2fs("status", "-w", point).out.splitlines()
    assert ["started again" in line for line in lines] == [False, True, False]


def watched(point):
    """A mount with something of each kind to show."""
    answer = status(
        point, files=2, bytes=5 << 20, parked=1, transfers=[TRANSFER, UGLY], conflicts=["c"], rate=float(1 << 20), left_s=5.0
    )  # fmt: skip
    return {**answer, "warnings": ["much"]}


def sleeps(monkeypatch):
    """Ctrl-C in the third pause of a watch; returns the pauses."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    return slept


def bar(monkeypatch, columns=80):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")


def test_progress_on_a_terminal(monkeypatch, capsys):
    """Bytes move with what has left, not with whole files; a closing line stays."""
    bar(monkeypatch)
    now = iter([0.0, 55.0])
    sending = {
        **TRANSFER,
        "path": "takes/a-rather-long-name-of-a-take.wav",
        "size": 50 << 20,
        "sent": 10 << 20,
    }
    with UploadProgress(quiet=False, clock=lambda: next(now)) as progress:
        progress.show(queue(files=4, bytes=101 << 20, deletes=2, uploaded=7, uploaded_bytes=5))
        progress.show(
            queue(files=4, bytes=101 << 20, deletes=2, transfers=[sending], uploaded=7, uploaded_bytes=5)
        )
        task = progress._bar.tasks[0]
        assert (task.completed, task.total) == (10 << 20, 101 << 20)
        assert task.description == "6 left: …-name-of-a-take.wav"
        progress.show(queue(uploaded=11, uploaded_bytes=5 + (101 << 20)))
        assert task.completed == task.total == 101 << 20
    assert capsys.readouterr().err.endswith("sent 4 files (101.0 MiB), 2 deletions, in 55 s\n")


@pytest.mark.parametrize("columns", [60, 80])
def test_the_bar_is_one_line(monkeypatch, columns):
    from rich.console import Console

    bar(monkeypatch, columns)
    with UploadProgress(quiet=False) as progress:
        progress.show(
            queue(files=40, bytes=3 << 30, transfers=[{**TRANSFER, "path": "a" * 200, "sent": 2 << 30}])
        )
        with (console := Console(width=columns, force_terminal=True)).capture() as shown:
            console.print(progress._bar.get_renderable())
    assert shown.get().count("\n") == 1
    assert "2.0/3.0 GiB" in shown.get()


def test_progress_is_silent_elsewhere(capsys):
    with UploadProgress(quiet=False) as progress:
        progress.show(queue(files=1))
        progress.show(queue(uploaded=1))
    assert capsys.readouterr() == ("", "")


# ------------------------------------------------------------------ a daemon elsewhere
def test_a_run_directory_named_in_the_settings_is_looked_into(r2fs, home):
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    from r2fs.daemon.control import ControlServer

    def spawn(name, work):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    server = ControlServer(elsewhere, "x", {"status": lambda request: status("/mnt/x")}, spawn)
    server.open({"pid": 1, "mountpoint": "/mnt/x", "url": "", "name": ""})
    thread = spawn("control", server.run)
    (home / ".config" / "r2fs").mkdir(parents=True)
    (home / ".config" / "r2fs" / "config.toml").write_text(f'run_dir = "{elsewhere}"')
    try:
        assert "/mnt/x" in r2fs("status").out
    finally:
        server.stop()
        thread.join(20)
        server.close()


@pytest.mark.parametrize("text", ["run_dir = 3", "not toml"])
def test_wrong_settings_keep_nobody_from_asking(r2fs, home, text):
    (home / ".config" / "r2fs").mkdir(parents=True)
    (home / ".config" / "r2fs" / "config.toml").write_text(text)
    assert r2fs("status").code == 0
