"""Another user of this machine was at the paths first: run, state and cache directories, sockets, cards, logs."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from r2fs.daemon import client, control, directories, state_directories
from r2fs.daemon.client import Daemon
from r2fs.daemon.control import ControlServer
from r2fs.daemon.handover import keeper
from r2fs.disk import sessionlog
from r2fs.disk.cache.cache import CleanCache
from r2fs.disk.journal.journal import Journal
from r2fs.disk.sessionlog import SessionLog
from r2fs.model import owned_paths
from r2fs.model.errors import DaemonUnreachable, DirectoryUnusable
from r2fs.model.ports import SystemClock
from r2fs.model.settings import Bucket, Settings, places
from tests.support.users import NOBODY, ROOT, acting_as, neighbours

pytestmark = pytest.mark.timeout(20)

CARD = {"pid": os.getpid(), "mountpoint": "/mnt/takes", "url": "r2://takes", "name": ""}


@pytest.fixture(params=[ROOT, NOBODY], ids=["root", "user"])
def two(request):
    with neighbours(request.param) as found:
        yield found


def settings(two, **given) -> Settings:
    base = {f"{what}_dir": two.home / what / "b-1" for what in ("cache", "state", "run")}
    return Settings(bucket=Bucket("file", "/srv/b"), **{**base, **given})


def environ(two, run_dir: Path) -> dict[str, str]:
    return {"R2FS_RUN_DIR": str(run_dir), "XDG_RUNTIME_DIR": str(two.home / "none")}


@pytest.fixture
def listening():
    """listening(path, as uid) → a socket of that user's, at a path that root made."""
    sockets = []

    def _listening(path: Path, uid: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        server = socket.socket(socket.AF_UNIX, kind)
        server.bind(str(path))
        path.chmod(0o666)
        with acting_as(uid):  # whose process calls listen() is what SO_PEERCRED tells
            server.listen(8)
        sockets.append(server)
        return server

    yield _listening
    for server in sockets:
        server.close()


# ------------------------------------------------------------------ the run directory
def test_a_card_in_another_users_directory_is_not_looked_at(two):
    theirs = two.directory("r2fs-1", two.attacker, 0o777)
    os.mkfifo(theirs / "a.json", 0o666)
    (theirs / "b.json").symlink_to("/dev/zero")
    (theirs / "c.json").write_text(json.dumps(CARD))
    found = environ(two, theirs)
    with acting_as(two.victim):
        assert client.daemons(found) == []
        assert client.daemons(found, theirs) == []
        assert client.held(found) == []
        (told,) = client.not_looked_into(found)
    assert f"{theirs} belongs to another user (uid {two.attacker})" in told


def test_odd_files_in_the_users_own_directory_keep_nobody_waiting(two):
    mine = two.directory("run", two.victim, 0o700)
    os.mkfifo(mine / "a.json")
    (mine / "b.json").symlink_to("/dev/zero")
    (mine / "c.json").write_text("[" * 60_000)
    (mine / "d.json").write_text('{"pid": 1e999}')
    (mine / "e.json").write_text('{"pid": ' + "9" * 4000 + "}")
    (mine / "f.json").write_text(json.dumps({**CARD, "pad": "x" * (1 << 17)}))
    (mine / "g.json").write_text(json.dumps(CARD))
    for path in mine.iterdir():
        two.give(path, two.victim)
    two.give(mine / "g.json", two.attacker)  # moved in by a backup, say
    with acting_as(two.victim):
        assert client.daemons(environ(two, mine)) == []
    two.give(mine / "g.json", two.victim)
    with acting_as(two.victim):
        assert [daemon.mountpoint for daemon in client.daemons(environ(two, mine))] == ["/mnt/takes"]


@pytest.mark.parametrize("two", [ROOT], indirect=True)
def test_root_looks_only_where_root_alone_writes(two):
    """Cards of other users' sessions are theirs: root asks as that user."""
    session = two.directory("1000", two.attacker, 0o700)
    (session / "r2fs").mkdir()  # root's own, in a place that is not
    (session / "r2fs" / "a.json").write_text(json.dumps(CARD))
    assert client.daemons({"XDG_RUNTIME_DIR": str(session), "TMPDIR": str(two.shared)}) == []
    assert not [path for path in client.run_dirs({}) if path.match("/run/user/*/*") and path.parts[3] != "0"]
    with pytest.raises(DirectoryUnusable, match=rf"run directory .*{session} belongs to another .*--run-dir"):
        directories.prepare_run(settings(two, run_dir=session / "r2fs"))


def test_directories_of_another_user_make_no_mount(two):
    theirs = two.directory("theirs", two.attacker, 0o777)
    for what in ("cache", "state", "run"):
        wrong = settings(two, **{f"{what}_dir": theirs / "x"})
        with (
            acting_as(two.victim),
            pytest.raises(DirectoryUnusable, match=rf"the {what} directory .*another user.*--{what}-dir"),
        ):
            directories.prepare(wrong)
    assert not list(theirs.iterdir())


def test_a_run_directory_that_is_there_keeps_its_mode(two):
    """As /run has it, whose mode is not r2fs's to change; and one like /tmp is none."""
    mine = two.directory("run", two.victim, 0o755)
    with acting_as(two.victim):
        directories.prepare_run(settings(two, run_dir=mine))
        with pytest.raises(DirectoryUnusable, match="can be written by other users"):
            directories.prepare_run(settings(two, run_dir=two.shared))
    assert stat.S_IMODE(mine.stat().st_mode) == 0o755
    assert stat.S_IMODE(two.shared.stat().st_mode) == 0o1777


def test_a_link_of_another_user_in_the_place_of_the_run_directory(two):
    target = two.directory("target", two.victim, 0o755)
    link = two.shared / "r2fs-1"
    link.symlink_to(target)
    two.give(link, two.attacker)
    with acting_as(two.victim), pytest.raises(DirectoryUnusable, match="belongs to another user"):
        directories.prepare_run(settings(two, run_dir=link))
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert not list(target.iterdir())


@pytest.mark.parametrize("own", [False, True], ids=["their directory", "planted in an own one"])
def test_a_card_and_a_session_log_are_written_through_no_link(two, own):
    precious = two.home / "precious"
    precious.write_text("kept")
    two.give(precious, two.victim)
    run = two.directory("run", two.victim if own else two.attacker, 0o755 if own else 0o777)
    for name in ("takes.json.new", "takes.session.new", "takes.session", "takes.sock", "takes.json"):
        (run / name).symlink_to(precious)
        two.give(run / name, two.attacker)
    server = ControlServer(run, "takes", {}, lambda name, work: None)
    with acting_as(two.victim):
        if own:
            server.open(CARD)
            log = SessionLog.create(run / "takes.session")
            log.state("{}")
            log.close()
            assert sessionlog.read(run / "takes.session") is not None
            with owned_paths.directory(run) as fd:
                assert control.read_card("takes.json", fd) == CARD
        else:
            with pytest.raises(DirectoryUnusable, match="no control socket can be made"):
                server.open(CARD)
            with pytest.raises(PermissionError, match="belongs to another user"):
                SessionLog.create(run / "takes.session")
    server.close()
    assert precious.read_text() == "kept"


@pytest.mark.expect_warnings("cannot be read, so nobody takes its mount over")
@pytest.mark.parametrize("kind", ["fifo", "zero", "deep", "theirs"])
def test_a_session_log_that_is_none_is_not_read(two, kind):
    mine = two.directory("run", two.victim, 0o700)
    path = mine / "a.session"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"\x01" + b"[" * 100_000 + b"\n" if kind == "deep" else b'\x01["s",0,"{}"]\n')
    two.give(path, two.attacker if kind == "theirs" else two.victim)
    with acting_as(two.victim):
        assert sessionlog.read(path) is None


# ------------------------------------------------------------------ who is at the other end
def test_a_daemon_of_another_user_is_not_believed(two, listening):
    mine = two.directory("run", two.victim, 0o755)
    server = listening(mine / "a.sock", two.attacker)
    daemon = Daemon(os.getpid(), "/mnt/takes", "r2://takes", "", mine / "a.sock")
    with (
        acting_as(two.victim),
        pytest.raises(DaemonUnreachable, match=rf"another user's \(uid {two.attacker}\)"),
    ):
        client.ask_once(daemon, "flush")
    connection, _ = server.accept()
    assert connection.recv(100) == b""  # nor told anything
    connection.close()


def test_a_holder_of_another_user_is_not_believed(two, listening):
    mine = two.directory("run", two.victim, 0o755)
    listening(mine / "a.holder", two.attacker, socket.SOCK_SEQPACKET)
    with acting_as(two.victim):
        assert keeper.connect(mine / "a.holder") is None
        assert keeper.ask(mine / "a.holder", {"op": "take"}) is None
        assert client.held(environ(two, mine)) == []


def test_a_daemon_answers_no_other_user(two):
    run = two.directory("run", two.victim, 0o755)
    with acting_as(two.victim):
        server = ControlServer(run, "takes", {}, lambda name, work: work())
        server.open(CARD)
    server.path.chmod(0o666)
    try:
        with acting_as(two.attacker), socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(server.path))
        with acting_as(two.victim):
            server._accept()
        (request,) = server._finished
        assert not request.message
    finally:
        server.close()


def test_holders_that_are_mute_cost_one_moment_together(two, listening, monkeypatch):
    mine = two.directory("run", two.victim, 0o700)
    for name in "abcdefgh":
        listening(mine / f"{name}.holder", two.victim, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(client, "HOLDERS_S", 0.1)
    begun = time.monotonic()
    with acting_as(two.victim):
        assert client.held(environ(two, mine)) == []
    assert time.monotonic() - begun < 2


def test_what_was_handed_over_is_a_session_or_nothing():
    with open("/dev/null", "rb") as null, open(__file__, "rb") as file:
        assert not keeper.is_session(null.fileno())
        assert not keeper.is_session(file.fileno())
    if os.access("/dev/fuse", os.R_OK | os.W_OK):
        with open("/dev/fuse", "rb", buffering=0) as fuse:
            assert keeper.is_session(fuse.fileno())


# ------------------------------------------------------------------ state and cache
@pytest.mark.parametrize("name", ["lock", "journal.db", "journal.db-wal", "reserve"])
@pytest.mark.parametrize("kind", ["fifo", "link", "theirs"])
def test_a_state_directory_in_which_somebody_was_before(two, name, kind):
    state = two.directory("state", two.victim, 0o700)
    precious = two.home / "precious"
    precious.write_text("kept")
    two.give(precious, two.victim)
    if kind == "fifo":
        os.mkfifo(state / name)
    elif kind == "link":
        (state / name).symlink_to(precious)
    else:
        (state / name).write_text("")
    two.give(state / name, two.victim if kind == "fifo" else two.attacker)
    with acting_as(two.victim), pytest.raises(DirectoryUnusable, match=rf"state directory .*{name}"):
        Journal.open(state)
    assert precious.read_text() == "kept"


def test_unsent_files_are_looked_for_in_no_directory_of_another_user(two):
    ready = settings(two)
    theirs = two.directory("cache.staging", two.attacker, 0o777)
    with acting_as(two.victim):
        directories.prepare(ready)
        (ready.state_dir / "staging").symlink_to(theirs)
        with pytest.raises(DirectoryUnusable, match="belongs to another user"):
            directories.prepare(ready)
    assert (ready.state_dir / "staging").is_symlink()


@pytest.mark.expect_warnings("nothing is cached")
def test_a_cache_that_another_user_made_anew_is_not_used(two):
    theirs = two.directory("cache", two.attacker, 0o777)
    (theirs / "content").mkdir()
    (theirs / "content").chmod(0o777)
    two.give(theirs / "content", two.attacker)
    with acting_as(two.victim):
        cache = CleanCache(theirs, limit_bytes=1 << 20, ttl_s=0.0, clock=SystemClock())
        assert cache.view().entries == 0
        cache.close()
    assert not list((theirs / "content").iterdir())


def test_the_lock_of_a_state_directory_is_still_a_lock(tmp_path):
    journal = Journal.open(tmp_path)
    with (tmp_path / "lock").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    journal.close()


def test_settings_without_neighbours_are_prepared_as_ever(two):
    ready = replace(settings(two), run_dir=two.home / "run")
    with acting_as(two.victim):
        assert directories.prepare(ready).staging is None


# ------------------------------------------------------------------ what unmounted mounts owe
@pytest.mark.parametrize("how", ["their home", "their link"])
def test_states_in_a_place_of_another_user_are_not_read(two, monkeypatch, how):
    """As sudo leaves HOME. The command that `status` names for one would be theirs."""
    monkeypatch.setattr(places, "ROOT_STATES", ())
    theirs = two.directory("theirs", two.attacker)
    place = theirs / ".local" / "state" / "r2fs"
    (place / "b-1").mkdir(parents=True)
    (place / "b-1" / "journal.db").write_text("")
    (place / "b-1" / "mount.json").write_text("{}")
    two.give(place / "b-1", two.victim)
    if how == "their link":
        elsewhere = two.home / ".local" / "state" / "r2fs" / state_directories.ELSEWHERE
        elsewhere.mkdir(parents=True)
        (elsewhere / "b-1").symlink_to(place / "b-1")
        for path in (elsewhere, *elsewhere.parents[:3]):
            two.give(path, two.victim)
    home = theirs if how == "their home" else two.home
    with acting_as(two.victim):
        found = state_directories.find({"HOME": str(home)})
    assert found.states == ()
    assert found.closed == (place if how == "their home" else place / "b-1",)


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal", "lock"])
@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_a_state_that_is_none_keeps_nobody_waiting_and_is_told(two, monkeypatch, name, kind):
    monkeypatch.setattr(places, "ROOT_STATES", ())
    state = two.home / ".local" / "state" / "r2fs" / "b-1"
    state.mkdir(parents=True)
    for path in (state, *state.parents[:3]):
        two.give(path, two.victim)
        path.chmod(0o700)
    with acting_as(two.victim):
        Journal.open(state).close()
        (state / name).unlink(missing_ok=True)
        os.mkfifo(state / name) if kind == "fifo" else (state / name).symlink_to("/dev/zero")
        os.mkfifo(state / "mount.json")
        (found,) = state_directories.find({"HOME": str(two.home)}).states
    assert found.record is None
    assert f"{name} is" in str(found.pending.error)
