"""status, flush and umount against daemons that answer from a script."""

from __future__ import annotations

import threading

import pytest

from r2fs.model.errors import MountError
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
    for word in ("r2://takes", "running", "2 files (5.0 MiB)", "1 refused, 1 conflict", "3.0 MiB of 1.0 GiB"):
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
            "3 keys that no file name can be",
        ):
            assert word in said.out
        assert "\x1b" not in said.out
        assert r"x\x1b[31m.wav" in said.out
    assert r2fs("status", point, "--json").json["queue"]["left"] == 2


def test_status_of_what_is_no_mount(r2fs, home):
    said = r2fs("status", home)
    assert said.code == 8
    assert said.err == f"r2fs: {home} is not in a mount of r2fs\n"


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
    assert "no answer for" in r2fs("status").out
    assert "the access key was refused" in r2fs("status", point).out


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
        f"r2fs: {point}: 2 parked: a/b.wav: not allowed; and 1 more (r2fs status tells); left: 2 files (9 B)\n"
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
        "2 parked: a.wav: refused: 403; and 1 more (r2fs status tells); it is kept, and sent at the next mount\n"
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
    assert said.err == f"r2fs: {home} is not a mount of r2fs\n"


def test_umount_of_a_stale_mount(r2fs, home, monkeypatch):
    gone: list[object] = []
    monkeypatch.setattr("r2fs.daemon.mountpoint.is_stale", lambda path: True)
    monkeypatch.setattr("r2fs.daemon.mountpoint.detach_stale", gone.append)
    said = r2fs("umount", home)
    assert said.code == 0
    assert gone == [home]
    assert "whose daemon had gone: it was taken away" in said.err


def test_progress_on_a_terminal(daemon, monkeypatch):
    """The bar is made of rich's parts; here only that it can be drawn from what daemons send."""
    from r2fs.cli import show

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with show.Progress(quiet=False) as progress:
        for number in (2, 1):
            progress.show(queue(files=number, bytes=2048 * number, transfers=[TRANSFER]))
        progress.show(queue())


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
