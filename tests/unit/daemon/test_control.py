"""Control socket: answers, progress, errors as their own class, who may ask, and what is left behind."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time

import pytest

from r2fs.daemon import client, control
from r2fs.daemon.client import Daemon
from r2fs.daemon.control import ControlServer
from r2fs.daemon.protocol import short_address
from r2fs.model.errors import DaemonUnreachable, DirectoryUnusable, InvalidArgument, NotPermitted, StateLocked

PATIENCE_S = 20.0


def spawn(name, work):
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def serve(tmp_path):
    """serve(op=function, …) → the daemon to ask. Everything is closed at the end."""
    servers = []

    def _serve(slug="takes", run_dir=tmp_path, **operations):
        server = ControlServer(run_dir, slug, operations, spawn)
        server.open({"pid": os.getpid(), "mountpoint": f"/mnt/{slug}", "url": f"r2://{slug}", "name": ""})
        servers.append((server, spawn("control", server.run)))
        return Daemon(os.getpid(), f"/mnt/{slug}", f"r2://{slug}", "", server.path)

    yield _serve
    for server, thread in servers:
        server.stop()
        thread.join(PATIENCE_S)
        server.close()


def raw(daemon: Daemon, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        with short_address(daemon.socket) as address:
            connection.connect(address)
        connection.sendall(data)
        return connection.makefile("rb").readline()


def test_one_answer(serve):
    daemon = serve(echo=lambda request: {"heard": request.message["word"]})
    assert client.ask_once(daemon, "echo", word="ä") == {"heard": "ä"}


def test_progress_then_the_answer(serve):
    def count(request):
        for number in range(3):
            request.progress(number=number)
        return {"number": 3}

    lines = list(client.ask(serve(count=count), "count"))
    assert [line["number"] for line in lines] == [0, 1, 2, 3]
    assert all("done" not in line for line in lines)


def test_an_error_comes_back_as_its_own_class(serve):
    def fail(request):
        raise StateLocked("process 12 has it")

    with pytest.raises(StateLocked, match="process 12 has it"):
        client.ask_once(serve(fail=fail), "fail")


def test_an_unknown_operation(serve):
    with pytest.raises(DaemonUnreachable, match="is of an older r2fs: r2fs restart"):
        client.ask_once(serve(), "dance")


@pytest.mark.expect_warnings("the control request failed")
def test_a_defect_is_answered_and_logged(serve):
    with pytest.raises(Exception, match="ZeroDivisionError"):
        client.ask_once(serve(fail=lambda request: 1 / 0), "fail")


@pytest.mark.parametrize("data", [b"hello\n", b"[1]\n", b"\xff\n", b'{"op":\n'])
def test_what_is_no_request(serve, data):
    answer = json.loads(raw(serve(), data))
    assert answer["done"] is True
    assert answer["kind"] == "InvalidArgument"


@pytest.mark.parametrize(
    ("name", "value"), [("timeout_s", "x"), ("timeout_s", -1), ("timeout_s", True), ("paths", "a")]
)
def test_arguments_are_checked(serve, name, value):
    daemon = serve(op=lambda request: {"n": request.number("timeout_s"), "t": request.paths()})
    with pytest.raises(InvalidArgument):
        client.ask_once(daemon, "op", **{name: value})
    assert client.ask_once(daemon, "op", timeout_s=1.5, paths=["a"]) == {"n": 1.5, "t": ["a"]}


def test_requests_do_not_wait_for_each_other(serve):
    release = threading.Event()
    daemon = serve(wait=lambda request: {"released": release.wait(PATIENCE_S)}, ping=lambda request: {})
    answers = client.ask(daemon, "wait")
    slow = spawn("slow", lambda: list(answers))
    assert client.ask_once(daemon, "ping") == {}
    release.set()
    slow.join(PATIENCE_S)
    assert not slow.is_alive()


def test_a_client_that_leaves_is_noticed(serve):
    left = threading.Event()
    started = threading.Event()

    def wait(request):
        started.set()
        if request.gone.wait(PATIENCE_S):
            left.set()
        request.progress(still="here")  # nobody reads it, and that is no error
        return {}

    daemon = serve(wait=wait)
    with socket.socket(socket.AF_UNIX) as connection:
        with short_address(daemon.socket) as address:
            connection.connect(address)
        connection.sendall(b'{"op":"wait"}\n')
        assert started.wait(PATIENCE_S)
    assert left.wait(PATIENCE_S)


def test_only_the_owner_and_root_may_ask(serve, monkeypatch):
    daemon = serve(ping=lambda request: {})
    monkeypatch.setattr(control, "is_believed", lambda connection: False)
    with pytest.raises(NotPermitted, match="only the user of the mount"):
        client.ask_once(daemon, "ping")


def test_the_socket_is_for_its_owner_alone_whatever_the_umask(serve, tmp_path):
    before = os.umask(0)
    try:
        daemon = serve()
    finally:
        os.umask(before)
    for path in (daemon.socket, daemon.socket.with_suffix(".json")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["takes.json", "takes.sock"]


def test_a_path_longer_than_a_socket_address(serve, tmp_path):
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    daemon = serve(run_dir=deep, ping=lambda request: {})
    assert client.ask_once(daemon, "ping") == {}


def test_what_a_dead_daemon_left_is_replaced(serve, tmp_path):
    (tmp_path / "takes.json").write_text("{}")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "takes.sock"))
    assert client.ask_once(serve(ping=lambda request: {}), "ping") == {}


def test_closing_takes_the_files_away(tmp_path):
    server = ControlServer(tmp_path, "takes", {}, spawn)
    server.open({"pid": 1})
    thread = spawn("control", server.run)
    server.stop()
    thread.join(PATIENCE_S)
    server.close()
    assert list(tmp_path.iterdir()) == []


def test_files_of_the_next_daemon_are_left_alone(tmp_path):
    """It may start once the state's lock is free, while the last answer of this one is on its way."""
    old = ControlServer(tmp_path, "takes", {}, spawn)
    old.open({"pid": 1})
    thread = spawn("control", old.run)
    old.withdraw()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "takes.json").write_text("the next one's")
    old.stop()
    thread.join(PATIENCE_S)
    old.close()
    assert (tmp_path / "takes.json").exists()


def test_a_directory_that_is_not_there(tmp_path):
    server = ControlServer(tmp_path / "none", "takes", {}, spawn)
    with pytest.raises(DirectoryUnusable, match="--run-dir"):
        server.open({})
    server.close()


def test_a_daemon_that_ended_before_it_answered(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "x.sock"))
        listener.listen()
        spawn("accept", lambda: listener.accept()[0].close())
        with pytest.raises(DaemonUnreachable):
            client.ask_once(Daemon(1, "/mnt", "", "", tmp_path / "x.sock"), "ping")


# ------------------------------------------------------------------ finding daemons
def environ(tmp_path) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}


def ours(tmp_path):
    found = client.daemons(environ(tmp_path))
    return [d for d in found if str(d.socket).startswith(str(tmp_path))]


def test_daemons_are_found_in_the_run_directory_and_below(serve, tmp_path):
    run = tmp_path / "r2fs"
    (run / "unit").mkdir(parents=True)
    serve("a", run)
    serve("b", run / "unit")
    assert [daemon.mountpoint for daemon in ours(tmp_path)] == ["/mnt/a", "/mnt/b"]


def test_cards_of_the_dead_and_of_others_are_passed_over(tmp_path):
    run = tmp_path / "r2fs"
    run.mkdir()
    child = os.fork()
    if child == 0:
        os._exit(0)
    deadline = time.monotonic() + PATIENCE_S
    while Daemon(child, "", "", "", run).alive and time.monotonic() < deadline:
        time.sleep(0.01)  # until it is a zombie, which still has its number
    (run / "dead.json").write_text(json.dumps({"pid": child, "mountpoint": "/mnt/dead"}))
    (run / "torn.json").write_text('{"pid": 1')
    (run / "other.json").write_text("[]")
    assert ours(tmp_path) == []
    os.waitpid(child, 0)


def test_which_daemon_a_path_belongs_to(tmp_path):
    outer = Daemon(1, "/mnt/a", "", "", tmp_path)
    inner = Daemon(2, "/mnt/a/b", "", "", tmp_path)
    found = [outer, inner]
    assert client.owner_of("/mnt/a/x", found) is outer
    assert client.owner_of("/mnt/a/b", found) is inner
    assert client.owner_of("/mnt/a/b/c/../d", found) is inner
    assert client.owner_of("/mnt/ab", found) is None
    assert client.within_mount("/mnt/a/x/y/", outer) == "x/y"
    assert client.within_mount("/mnt/a", outer) == ""


def test_a_path_through_a_link(tmp_path):
    (tmp_path / "mnt").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "mnt")
    daemon = Daemon(1, str(tmp_path / "mnt"), "", "", tmp_path)
    assert client.owner_of(str(tmp_path / "link" / "x"), [daemon]) is daemon
    assert client.within_mount(str(tmp_path / "link" / "x"), daemon) == "x"
