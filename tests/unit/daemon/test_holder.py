"""The holder by itself: who gets the descriptor, when it ends, and what it starts. No mount: a pipe plays one."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r2fs.daemon.handover import keeper
from r2fs.daemon.handover.keeper import Again, HolderKeeper

PATIENCE_S = 30.0
CARD = {"mountpoint": "/mnt", "url": "r2://takes", "name": ""}


def until(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
    return found


class Rig:
    def __init__(self, base: Path) -> None:
        self.path = base / ("long" * 30) / "a.holder"  # longer than an address may be
        self.path.parent.mkdir()
        self.reading, self.writing = os.pipe()
        self.keepers: list[HolderKeeper] = []

    def keeper(self, grace_s: float = 60.0, again: Again | None = None) -> HolderKeeper:
        self.keepers.append(HolderKeeper(self.path, grace_s, CARD, again))
        return self.keepers[-1]

    def kept(self, grace_s: float = 60.0, again: Again | None = None) -> HolderKeeper:
        one = self.keeper(grace_s, again)
        one.keep(self.reading)
        assert one.describe() is not None
        return one

    def die(self, one: HolderKeeper) -> None:
        """As its process would: the connection ends without a word."""
        assert one._line is not None
        one._line.close()
        one._line = None

    def status(self) -> dict[str, Any] | None:
        return keeper.ask(self.path, {"op": "status"})

    def gone(self) -> bool:
        return self.status() is None and not self.path.exists()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    one = Rig(tmp_path)
    yield one
    os.close(one.writing)  # the pipe's other end: "the mount is gone"
    os.close(one.reading)
    for each in reversed(one.keepers):  # the last successor is who may end the holder of them all
        each.end()
    for each in one.keepers:
        if each._process is not None:
            each._process.wait(PATIENCE_S)


def test_a_holder_may_take_longer_to_start_than_to_answer(rig, monkeypatch):
    monkeypatch.setattr(keeper, "ANSWER_S", 0.001)  # less than any process needs
    rig.kept()


def test_a_successor_gets_the_descriptor_once_the_daemon_is_dead(rig):
    one = rig.kept()
    assert (rig.path.stat().st_mode & 0o777) == 0o600
    status = rig.status()
    assert (status["daemon"], status["alone_s"], status["card"]) == (os.getpid(), None, CARD)
    assert rig.keeper().take() is None, "a daemon has it"
    refused = keeper.ask(rig.path, {"op": "end"})
    assert refused is not None
    assert refused["error"] == "a daemon has it"
    rig.die(one)
    two = rig.keeper(grace_s=1234)
    fd = until(two.take)
    assert os.path.sameopenfile(fd, rig.reading)
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert rig.status()["grace_s"] == 1234
    two.end()
    until(rig.gone)


def test_an_orderly_end_leaves_nothing(rig):
    one = rig.kept()
    process = one._process
    one.end()
    assert process.poll() == 0
    assert rig.gone()
    assert one.describe() is None


def test_a_daemon_that_leaves_makes_place(rig):
    one = rig.kept()
    one.leave({}, rig.reading)
    fd = rig.keeper().take()
    assert fd is not None
    os.close(fd)


def test_a_daemon_that_becomes_its_own_successor_gets_no_second_one(rig, tmp_path):
    """`r2fs restart`: execve() keeps the process, and its modules take a moment to load."""
    again = Again((sys.executable, "-c", f"open({str(tmp_path / 'started')!r}, 'w')"), str(tmp_path))
    one = rig.kept(again=again)
    one.leave({}, rig.reading)
    assert rig.status()["starts_it"] is True
    time.sleep(1.0)
    assert not (tmp_path / "started").exists(), "this process still runs"
    successor = rig.keeper()
    fd = successor.take()
    assert fd is not None
    os.close(fd)
    assert rig.status()["starts_it"] is False
    successor.end()


def test_a_successor_that_ends_before_it_has_the_mount_is_replaced(rig, tmp_path):
    again = Again((sys.executable, "-c", f"open({str(tmp_path / 'started')!r}, 'w')"), str(tmp_path))
    one = rig.keeper(again=again)
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    one._deal["pid"] = ended.pid
    one.keep(rig.reading)
    one.leave({}, rig.reading)
    assert rig.status()["starts_it"] is True
    assert not (tmp_path / "started").exists()
    ended.communicate(b"\n", PATIENCE_S)
    until((tmp_path / "started").exists)


def test_after_its_time_it_ends(rig):
    rig.die(rig.kept(grace_s=0.3))
    until(rig.gone)


def test_it_ends_with_the_mount(rig):
    """POLLERR of /dev/fuse; a pipe without a writer says POLLHUP."""
    one = rig.kept()
    rig.die(one)
    os.close(rig.writing)
    until(rig.gone)
    rig.writing = os.open(os.devnull, os.O_WRONLY)


def test_whoever_wants_it_ended_is_obeyed_while_there_is_no_daemon(rig):
    rig.die(rig.kept())
    until(lambda: rig.status()["daemon"] is None)
    assert keeper.ask(rig.path, {"op": "end"}) == {"ok": True}
    os.close(rig.reading)
    poll = select.poll()
    poll.register(rig.writing, select.POLLERR)
    assert poll.poll(PATIENCE_S * 1000), "the answer comes after the descriptor is closed"
    until(rig.gone)
    rig.reading = os.open(os.devnull, os.O_RDONLY)


def test_nonsense_is_survived(rig):
    rig.kept()
    for data in (b"", b"{", b"[1]", b'{"op": "take"}', b'{"op": "dance"}'):
        line = keeper.connect(rig.path)
        assert line is not None
        with line:
            line.send(data)
            line.settimeout(0.2)
            try:
                line.recv(1000)
            except (TimeoutError, ConnectionResetError):
                pass
    assert rig.status()["daemon"] == os.getpid()


def test_a_dead_daemon_is_started_again_but_not_for_ever(rig, tmp_path):
    """The command fails at once, each time: it is tried ever more seldom, and given up in the end."""
    script = (
        "import os, sys; open(sys.argv[1], 'a').write(os.getcwd() + os.environ['_R2FS_TAKE_OVER'] + '\\n')"
    )
    again = Again((sys.executable, "-c", script, str(tmp_path / "starts")), str(tmp_path))
    rig.die(rig.kept(grace_s=60, again=again))
    until(lambda: (tmp_path / "starts").exists() and (tmp_path / "starts").read_text().count("\n") >= 3)
    assert set((tmp_path / "starts").read_text().splitlines()) == {f"{tmp_path}1"}
    status = rig.status()
    assert status["daemon"] is None
    fd = rig.keeper().take()
    assert fd is not None
    os.close(fd)
    assert rig.status()["starts_it"] is False


def test_without_its_daemon_it_never_begins(rig):
    one = rig.keeper()
    one.launch()
    process = one._process
    one._line.close()
    one._line = None
    assert process.wait(PATIENCE_S) == 0
    assert not rig.path.exists()


def test_somebody_elses_socket_is_not_a_holder(tmp_path):
    assert keeper.ask(tmp_path / "none", {"op": "status"}) is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(tmp_path / "x"))
        other.listen(1)
        assert keeper.ask(tmp_path / "x", {"op": "status"}) is None


@pytest.mark.parametrize(
    "said", [b"{}", b'{"op": "take"}', b'{"op": "take", "pid": "x"}', b"[" * 60_000, b"\xff"]
)
def test_nonsense_does_not_end_it(rig, said):
    """With it the mount would go."""
    rig.die(rig.kept())
    until(lambda: rig.status()["daemon"] is None)
    line = keeper.connect(rig.path)
    assert line is not None
    with line:
        line.send(said)
        line.recv(1 << 16)
    assert rig.status() is not None
