"""Between the death of a daemon and its successor: who asks waits for the moment, and is told the truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r2fs.cli import asking
from r2fs.daemon.handover import keeper
from r2fs.drivers import kmount
from r2fs.drivers.kmount import Mounted
from tests.unit.cli.conftest import flushed, queue
from tests.unit.cli.test_asking import status

FLUSHED = {"sent": True, "queue": queue(), "parked_count": 0, "parked": [], "refusal": None}
DEAD = 2**22 - 2  # no process has this number: above the kernel's largest by default


@pytest.fixture
def fallen(home: Path, monkeypatch: pytest.MonkeyPatch):
    """fallen([status of the holder, …]) → the mount point of a daemon that was killed; sleeping takes no time."""
    point = home / "mnt"
    slept: list[float] = []

    def _fallen(answers: list[dict[str, object] | None], then=lambda: None) -> list[float]:
        run_dir = home / "run" / "r2fs"
        run_dir.mkdir(parents=True, exist_ok=True)
        point.mkdir()
        run_dir.chmod(0o700)
        (run_dir / "t.json").write_text(
            json.dumps({"pid": DEAD, "mountpoint": str(point), "url": "r2://t", "name": ""})
        )
        left = list(answers)

        def ask(path, message):
            if path.name != "t.holder":
                return None
            return left[0] if left else None

        def sleep(seconds):
            slept.append(seconds)
            if len(left) > 1:
                left.pop(0)
            if len(left) == 1:
                then()

        monkeypatch.setattr(keeper, "ask", ask)
        monkeypatch.setattr(asking.time, "sleep", sleep)
        here = Mounted(str(point), "0:99", "fuse.r2fs", "r2://t")
        monkeypatch.setattr(kmount, "mounts", lambda: [here])
        return slept

    return _fallen


def told(daemon: int | None, starts_it: bool = False) -> dict[str, object]:
    return {
        "daemon": daemon, "starts_it": starts_it, "pid": 1, "grace_s": 60.0, "alone_s": 1.0,
        "card": {"mountpoint": "", "url": "r2://t"},
    }  # fmt: skip


def test_a_holder_that_has_not_noticed_yet_is_waited_for(home, fallen):
    slept = fallen([told(DEAD), told(DEAD), told(None)])
    asking.await_settled(None, started=False)
    assert len(slept) == 2


def test_a_daemon_that_is_being_started_is_waited_for_where_it_is_needed(home, fallen):
    slept = fallen([told(None, starts_it=True), told(DEAD), told(None)])
    asking.await_settled(None, started=False)
    assert slept == []
    asking.await_settled(None, started=True)
    assert len(slept) == 2


@pytest.mark.parametrize(
    ("answer", "limit_s"), [(told(DEAD), asking.NOTICED_S), (told(None, True), asking.STARTED_S)]
)
def test_it_is_not_waited_for_for_ever(home, fallen, answer, limit_s):
    fallen([answer])
    now = iter(range(1000))
    asking.await_settled(None, started=bool(answer["starts_it"]), clock=lambda: float(next(now)))
    assert limit_s <= next(now) <= limit_s + 3


@pytest.mark.parametrize("answers", [[None], [told(None)]])
def test_nothing_is_waited_for_where_nothing_comes(home, fallen, answers):
    slept = fallen(answers)
    asking.await_settled(None, started=True)
    assert slept == []


def test_flush_goes_to_the_successor(r2fs, home, fallen, daemon):
    made: list[Path] = []

    def successor() -> None:
        if not made:
            (home / "run" / "r2fs" / "t.json").unlink()
            made.append(daemon("t", flush=lambda request: flushed(True)))

    fallen([told(DEAD), told(None, starts_it=True), told(None, starts_it=True)], then=successor)
    said = r2fs("flush", "--wait", "--json")
    assert made
    assert said.code == 0
    assert [answer["mountpoint"] for answer in said.json] == [str(made[0])]


def test_a_stale_mount_is_in_the_overview(r2fs, home, fallen, daemon, monkeypatch):
    fallen([None])
    monkeypatch.setattr("r2fs.daemon.mountpoint.is_stale", lambda path: path == home / "mnt")
    daemon("good", status=lambda request: status("/mnt/good"))
    said = r2fs("status")
    assert said.code == 0
    line = next(line for line in said.out.splitlines() if line.startswith(str(home / "mnt")))
    assert "no daemon" in line
    assert "has gone: mount again" in line
    (entry,) = (e for e in r2fs("status", "--json").json if e["mount"]["state"] == "no daemon")
    assert entry["mount"]["mountpoint"] == str(home / "mnt")


def test_a_card_whose_mount_is_gone_is_no_mount(r2fs, home, fallen, monkeypatch):
    fallen([None])
    monkeypatch.setattr(kmount, "mounts", list)
    assert r2fs("status").out == "nothing is mounted\n"


def test_an_interrupted_umount_says_that_it_is_unmounted_and_goes_on(r2fs, daemon, monkeypatch):
    import threading

    from r2fs.daemon import client

    gone = threading.Event()

    def stop(request):
        request.progress(queue=queue(files=3, bytes=3 << 20))
        gone.wait(20)
        return {"queue": queue(), "exit_code": 0}

    point = daemon("takes", stop=stop)
    real = client.ask

    def ask(*given, **named):
        for answer in real(*given, **named):
            yield answer
            raise KeyboardInterrupt

    monkeypatch.setattr(client, "ask", ask)
    try:
        said = r2fs("umount", point)
    finally:
        gone.set()
    assert said.code == 130
    assert f"{point} is unmounted already" in said.err
    assert "still sends: 3 files (3.0 MiB) left" in said.err
