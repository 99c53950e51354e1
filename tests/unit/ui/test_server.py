"""The page's server: whose requests it answers, with which headers, and which bytes of a mount it gives out."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from pathlib import Path

import pytest

from r2fs.model.errors import InvalidArgument
from r2fs.ui import mounts
from r2fs.ui.beneath import path_of, ref_of
from r2fs.ui.mounts import Mounts
from r2fs.ui.server import CONNECTIONS, HEADERS, PAGE, PLAYERS, PageServer, Unsatisfiable, parse_range
from tests.unit.cli.test_asking import status

FOLDER = Path(mounts.__file__).parent / "page"


# ------------------------------------------------------------------ who is answered
@pytest.mark.parametrize(
    ("route", "method", "headers", "code"),
    [
        ("", "GET", {}, 200),
        ("", "HEAD", {}, 200),
        ("", "GET", {"Host": "localhost:1234"}, 200),  # a port forwarded by ssh
        ("", "GET", {"Host": "[::1]:8000"}, 200),
        ("", "GET", {"Host": "r2fs.example.com"}, 403),  # a name of somebody's that resolves to loopback
        ("", "GET", {"Host": "127.0.0.1.example.com"}, 403),
        ("", "GET", {"Host": "127.evil.example"}, 403),
        ("", "GET", {"Host": None}, 403),
        ("/", "GET", {}, 403),
        ("/mounts", "GET", {}, 403),
        ("/" + "A" * 43 + "/", "GET", {}, 403),
        ("/favicon.ico", "GET", {}, 403),
        ("mounts", "GET", {"Origin": "http://example.com"}, 403),
        ("mounts", "GET", {"Origin": "null"}, 403),
        ("mounts", "GET", {"Sec_Fetch_Site": "cross-site"}, 403),
        ("mounts", "GET", {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate"}, 403),
        ("mounts", "GET", {"Sec_Fetch_Site": "same-origin"}, 200),
        ("", "GET", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}, 200),  # as by a link
        ("", "GET", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}, 403),
        ("keep", "POST", {"Origin": None}, 403),
        ("keep", "POST", {"Origin": "http://localhost"}, 403),
        ("keep", "POST", {"Origin": "https://example.com"}, 403),
        ("keep", "GET", {}, 404),
        ("mounts", "POST", {}, 404),
        ("none", "GET", {}, 404),
        ("", "PUT", {}, 405),
        ("", "DELETE", {}, 405),
        ("", "OPTIONS", {}, 405),
        ("", "BREW", {}, 501),
    ],
)  # fmt: skip
def test_whose_requests_are_answered(page, route, method, headers, code):
    answer = page.ask(route, method, {} if method == "POST" else None, **headers)
    assert answer.status == code
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "Server" not in answer.headers or "Python" not in answer.headers["Server"]
    if code == 403:
        assert page.token.encode() not in answer.body


def test_no_page_may_frame_run_or_load_anything_else(page):
    policy = page.ask("").headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "*" not in policy
    for rule in (
        "default-src 'none'",
        "frame-ancestors 'none'",
        "form-action 'none'",
        "trusted-types 'none'",
    ):
        assert rule in policy


def test_the_token_is_long_new_and_in_no_log(page, caplog):
    other = PageServer(Mounts(list, list, lambda answer: []))
    other.server_close()
    assert len(page.token) >= 43
    assert other.guard.token != page.token
    with caplog.at_level(logging.DEBUG):
        page.ask("mounts")
        page.ask("file?mount=x&path=y")
    assert "GET answered" in caplog.text
    assert page.token not in caplog.text


def test_what_is_no_http_is_refused(page):
    with socket.create_connection(("127.0.0.1", page.port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n")
        said = connection.makefile("rb").read()
    assert said.startswith(b"HTTP/1.1 431 ")
    assert b"Content-Security-Policy: default-src 'none'" in said


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{}", {"Content_Type": "text/plain"}),  # what a foreign form could send
        (b"{}", {"Content_Type": "application/x-www-form-urlencoded"}),
        (b"no", {}),
        (b"[]", {}),
        (b'{"a": "' + b"x" * 70000 + b'"}', {}),
        (b"{}", {}),
        (b'{"mount": "takes", "original": "a", "kept": "a", "seen": [], "then": "aside"}', {}),
        (b'{"mount": "takes", "original": "a", "kept": "a", "seen": {}, "then": "other"}', {}),
        (b'{"mount": "takes", "original": "../a", "kept": "a", "seen": {}, "then": "aside"}', {}),
    ],
)
def test_a_request_that_is_none_is_refused(page, body, headers):
    answer = page.ask("keep", "POST", body, **headers)
    assert answer.status == 400
    assert answer.json["error"]


def test_a_port_that_is_taken_is_named(page):
    with pytest.raises(InvalidArgument, match=f"port {page.port} cannot be used .*--port"):
        PageServer(Mounts(list, list, lambda answer: []), page.port)


# ------------------------------------------------------------------ the page itself
def test_each_file_of_the_page_is_served_and_asks_for_nothing_else(page):
    assert {path.name for path in FOLDER.iterdir()} == set(PAGE.values())
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for route, name in PAGE.items():
        answer = page.ask(route)
        text = (FOLDER / name).read_text()
        assert (answer.status, answer.body) == (200, text.encode())
        assert answer.headers["Content-Type"].split(";")[0] == kinds[name.rpartition(".")[2]]
        assert not re.search(r"(https?:)?//[a-z]|\burl\(|@import|\binnerHTML\b|\beval\b", text.replace("http://www.w3.org/", ""))  # fmt: skip
        for used in re.findall(r'(?:from |src=|href=)"\.?/?([\w.]+)"', text):
            assert used in PAGE
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|<script(?![^>]*src=)|\son\w+=|\sstyle=", html)


# ------------------------------------------------------------------ files of a mount
@pytest.fixture
def files(daemon, ping) -> Path:
    point: Path = daemon("takes", ping=ping)
    (point / "a").mkdir()
    (point / "a" / "take.wav").write_bytes(bytes(range(100)))
    (point / "a" / "page.html").write_text("<script>alert(1)</script>")
    (point / "a" / "picture.svg").write_text("<svg onload='alert(1)'/>")
    (point / "a" / "empty.wav").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(point) + b"/a/\xff\xfe.wav")).write_bytes(b"raw")
    outside = point.parent / "outside"
    outside.mkdir()
    (outside / "secret.wav").write_bytes(b"classified")
    (point / "link.wav").symlink_to(outside / "secret.wav")
    (point / "inside.wav").symlink_to("a/take.wav")
    (point / "way").symlink_to(outside)
    os.mkfifo(point / "pipe.wav")
    return point


def of(path: str) -> str:
    return f"file?mount=takes&path={path}"


@pytest.mark.parametrize(
    ("asked", "code", "part", "length"),
    [
        (None, 200, None, 100),
        ("bytes=0-", 206, "bytes 0-99/100", 100),
        ("bytes=10-19", 206, "bytes 10-19/100", 10),
        ("bytes=-5", 206, "bytes 95-99/100", 5),
        ("bytes=90-500", 206, "bytes 90-99/100", 10),
        ("bytes=-500", 206, "bytes 0-99/100", 100),
        ("bytes=100-", 416, "bytes */100", 0),
        ("bytes=-0", 416, "bytes */100", 0),
        ("bytes=5-2", 200, None, 100),
        ("bytes=0-1,5-6", 200, None, 100),
        ("lines=0-1", 200, None, 100),
        ("bytes=-", 200, None, 100),
    ],
)
def test_a_player_gets_the_range_it_asks_for(page, files, asked, code, part, length):
    answer = page.ask(of("a/take.wav"), Range=asked)
    assert (answer.status, answer.headers.get("Content-Range"), len(answer.body)) == (code, part, length)
    assert answer.headers["Content-Type"] == "audio/wav"
    assert answer.headers["Accept-Ranges"] == "bytes"
    if code == 206:
        start = int(part.split(" ")[1].split("-")[0])
        assert answer.body == bytes(range(100))[start : start + length]
    head = page.ask(of("a/take.wav"), "HEAD", Range=asked)
    assert (head.status, head.body, head.headers["Content-Length"]) == (code, b"", str(length))


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("a/take.wav", 200),
        ("a/%25FF%25FE.wav", 200),  # the query decodes once, the ref once more
        ("a/empty.wav", 200),
        ("a/none.wav", 404),
        ("a", 403),
        ("", 502),
        ("../outside/secret.wav", 400),
        ("a/../../outside/secret.wav", 400),
        ("..%252Foutside%252Fsecret.wav", 400),
        ("%252e%252e/outside/secret.wav", 400),
        ("/etc/passwd", 400),
        ("a//take.wav", 400),
        ("./a/take.wav", 400),
        ("a/take.wav%2500", 400),
        ("caf%C3%A9.wav", 400),
        ("link.wav", 403),
        ("inside.wav", 403),
        ("way/secret.wav", 404),
        ("pipe.wav", 403),
        ("a/take.wav/more", 404),
    ],
)
def test_no_path_leads_out_of_the_mount(page, files, path, code):
    answer = page.ask(of(path))
    assert answer.status == code
    assert b"classified" not in answer.body
    if code != 200:
        assert answer.json["error"]


@pytest.mark.parametrize("name", ["page.html", "picture.svg"])
def test_no_file_of_a_mount_is_a_page(page, files, name):
    answer = page.ask(of(f"a/{name}"))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == "attachment"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_players_leave_connections_for_the_page(page, files):
    for _ in range(PLAYERS):
        assert page.server.players.acquire(blocking=False)
    assert page.ask(of("a/take.wav")).status == 503
    assert page.ask("mounts").status == 200
    for _ in range(PLAYERS):
        page.server.players.release()
    assert page.ask(of("a/take.wav")).status == 200


def test_a_file_on_another_file_system_is_none_of_the_mount(page, daemon, ping, monkeypatch):
    point = daemon("takes", ping=ping)
    (point / "a").mkdir()
    (point / "a" / "x.wav").write_bytes(b"x")
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        found = real(fd)
        if os.readlink(f"/proc/self/fd/{fd}") != str(point / "a"):
            return found
        return os.stat_result([*found[:2], found.st_dev + 1, *found[3:]])

    monkeypatch.setattr(os, "fstat", fstat)
    assert page.ask(of("a/x.wav")).status == 403


@pytest.mark.parametrize("path", ["a b/c.wav", "a/\udcff.wav", "ü/%.wav", 'q"<>&\n'])
def test_a_ref_is_ascii_and_leads_back(path):
    assert ref_of(path).isascii()
    assert path_of(ref_of(path)) == path


def test_a_range_of_a_file_without_bytes():
    assert parse_range(None, 0) is None
    with pytest.raises(Unsatisfiable):
        parse_range("bytes=0-", 0)


# ------------------------------------------------------------------ mounts, and daemons that do not answer
def file_of(path: str, **given: object) -> dict[str, object]:
    return {
        "path": path, "kind": "file", "state": "clean", "size": 10, "cached": 4, "pinned": False, "open": 0,
        "whole": False, **given,
    }  # fmt: skip


def test_a_status_is_text_and_bounded(page, daemon, ping):
    script = "<script>\x1b[31m\u202e\udcff"
    moving = {"path": script, "verb": "upload", "state": "uploading", "size": 9, "sent": 3, "rate": 1.0, "age_s": 1.0, "reason": None}  # fmt: skip
    waiting = [{**moving, "path": f"{n}", "state": "queued"} for n in range(150)]
    coming = {**moving, "path": "down.wav", "verb": "download", "state": "downloading", "age_s": 0.5}
    answer = status("/mnt", files=151, transfers=[*waiting, moving], conflicts=["c"])
    daemon("takes", ping=ping, status=lambda r: {**answer, "downloads": [coming]})
    (mount,) = page.ask("mounts").json["mounts"]
    assert mount["url"] == "r2://takes"
    found = page.ask(f"status?mount={mount['id']}").json
    first, second, *others = found["queue"]["transfers"]
    assert (second["path"], found["queue"]["sent"]) == ("down.wav", 151 * 3)
    assert first["path"] == "<script>\\x1b[31m\\u202e\\udcff"
    assert (len(others), found["queue"]["hidden_transfers"], found["queue"]["conflicts"]) == (98, 52, 1)
    assert found["troubles"] == [["warning", "<b>much</b>"]]
    assert found["daemon_version"] == "0.1.0"


def test_a_level_sums_directories_and_keeps_the_largest(page, daemon, monkeypatch):
    monkeypatch.setattr(mounts, "NAMES", 3)
    share = {"path": "d", "files": 7, "bytes": 700, "here_bytes": 70, "pending": 2, "listed": True}

    def files(request):
        if request.text("path") == "d":
            return {"files": [file_of("d/in.wav", size=700, cached=70)]}
        request.progress(files=[file_of("d", kind="directory", size=0, cached=0)])
        return {"files": [file_of("\udcff.wav", size=20, cached=50), *(file_of(f"{n}.wav") for n in range(4))]}  # fmt: skip

    daemon("takes", files=files, shares=lambda r: {"shares": [] if r.text("path") else [share]})
    level = page.ask("level?mount=takes&path=").json
    directory, odd, _ = level["tiles"]
    assert (directory["bytes"], directory["here_bytes"], directory["pending"]) == (700, 70, 2)
    assert [tile["ref"] for tile in directory["tiles"]] == ["d/in.wav"]
    assert (odd["name"], odd["ref"], odd["here_bytes"]) == ("\\udcff.wav", "%FF.wav", 20)
    assert level["more"] == {"names": 3, "files": 3, "bytes": 30, "here_bytes": 12}


def test_a_daemon_that_is_silent_gone_or_another_version_is_named_in_time(page, daemon, ping, monkeypatch):
    import threading

    monkeypatch.setattr(mounts, "ANSWER_S", 0.3)
    never = threading.Event()
    point = daemon("silent", status=lambda r: never.wait(20) and {}, ping=lambda r: never.wait(20) and {})
    (point / "a.wav").write_bytes(b"x")
    daemon("alien", status=lambda r: {"mount": {}, "queue": [1], "surprise": True}, ping=ping)
    daemon("older", ping=ping)
    daemon("gone", ping=ping)
    (point.parent / "run" / "r2fs" / "gone.sock").unlink()
    try:
        silent = page.ask("status?mount=silent")
        assert (silent.status, silent.json["kind"]) == (502, "DaemonUnreachable")
        assert "has been silent for 0 s" in silent.json["error"]
        assert page.ask("file?mount=silent&path=a.wav").status == 502, "no read waits for a silent daemon"
        assert page.ask("level?mount=silent&path=&look=1").status == 502
        assert "r2fs restart" in page.ask("status?mount=alien").json["error"]
        assert "older r2fs: r2fs restart" in page.ask("cost?mount=older").json["error"]
        assert "does not answer" in page.ask("status?mount=gone").json["error"]
        assert (page.ask("status?mount=none").status, page.ask("status").status) == (404, 400)
    finally:
        never.set()


@pytest.mark.expect_warnings("a request of the page failed")
def test_a_defect_ends_one_request_alone(page, monkeypatch):
    monkeypatch.setattr(Mounts, "all", lambda self: 1 / 0)
    answer = page.ask("mounts")
    assert (answer.status, answer.json["error"]) == (
        500,
        "unexpected error: ZeroDivisionError('division by zero')",
    )
    monkeypatch.undo()
    assert page.ask("mounts").json == {"mounts": []}


def test_a_host_without_threads_costs_the_page_no_connection(page, monkeypatch):
    def full(thread):
        raise RuntimeError("can't start new thread")

    for _ in range(CONNECTIONS):
        ours, theirs = socket.socketpair()
        with monkeypatch.context() as patch, ours, theirs:
            patch.setattr(threading.Thread, "start", full)
            with pytest.raises(RuntimeError):
                page.server.process_request(ours, None)
    assert page.ask("").status == 200
