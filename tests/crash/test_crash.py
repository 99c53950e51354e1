"""kill -9 at random moments and at every named point: what was acknowledged is there, nothing else comes.

`python -m tests.crash ROUNDS` is the same for a person to watch.
"""

from __future__ import annotations

import errno
import os

import pytest

from tests.crash.campaign import Campaign, killed, report, run
from tests.crash.manifest import FILE, Manifest, Node, pattern
from tests.crash.points import ASKED, POINTS, in_the_code
from tests.crash.rig import Stats
from tests.crash.writer import Area, MountGone

DRIVERS = ("kernel", "libfuse")
SHORT = {"kernel": 10, "libfuse": 4}  # the points are the engine's: a few by another driver
LONG = {("kernel", False): 450, ("libfuse", False): 400, ("kernel", True): 90, ("libfuse", True): 60}


def raising(code):
    def call(*_):
        raise OSError(code, os.strerror(code))

    return call


def test_every_point_of_the_code_is_in_the_list():
    assert in_the_code() == set(POINTS)


def test_what_a_write_that_was_cut_short_had_left_may_be_there_or_not(tmp_path, monkeypatch):
    """The daemon is killed when it has written the next piece, and before it answers it."""
    (tmp_path / "a").mkdir()
    area = Area(tmp_path / "a", Manifest(tmp_path / "manifest"))
    write = {"do": "write", "h": 1, "at": 0, "size": 9000, "fill": 1}
    area.do({"do": "open", "h": 1, "path": "take.wav", "flags": os.O_WRONLY | os.O_CREAT})
    with monkeypatch.context() as patch:
        real = os.pwrite
        patch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:4096], at))
        patch.setattr(os, "fsync", raising(errno.ENOTCONN))
        with pytest.raises(MountGone):
            area.do(write)
    os.close(area.files[1])
    found = [view["take.wav"][1] for _, view in area.manifest.possible()]
    whole = pattern(1, 9000)
    assert sorted(found, key=len) == [whole[:4096], whole[:8192], whole]
    area.manifest.close()


def test_a_swap_leaves_alone_what_a_killed_swap_left(tmp_path):
    area = Area(tmp_path, Manifest(tmp_path / "manifest"))
    for name in ("take", "take.swap"):
        area.reference.names[name] = Node(FILE)
    for seed in range(20):
        area.rng.seed(seed)
        for op in area._swap():
            area.reference.apply(op)
        assert len(area.reference.names) == 2
    area.manifest.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_few_kills(rig, driver):
    serving = rig(driver, f"short {driver}")
    stats = run(serving, SHORT[driver], Campaign(driver))
    print(report(stats))
    assert stats.acknowledged > 0


@pytest.mark.timeout(300)
def test_a_few_kills_while_a_server_is_written_to(rig):
    serving = rig("kernel", "short server", on_server=True)
    stats = run(serving, 3, Campaign("server", ["multipart_begun", "part_sent", "parts_sent", "sent"]))
    print(report(stats))


@pytest.mark.parametrize("driver", DRIVERS)
def test_killed_while_it_is_asked_whether_it_is_there(rig, driver):
    """Who asks is another process: a thread that waits for its own mount would keep the dead daemon."""
    serving = rig(driver, "asked")
    serving.kill_at_start(ASKED, 1)
    assert serving.stats.kills[ASKED] == 1
    serving.recover()


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_thousand_kills(rig):
    """Over both drivers, on a directory and on a server; each named point at least five times."""
    total = Stats()
    for (driver, on_server), rounds in LONG.items():
        serving = rig(driver, f"long {driver}", on_server)
        total.add(run(serving, rounds, Campaign(f"{driver} {on_server}", sites=True, before=total)))
        serving.end()
    print(report(total))
    assert total.kills.total() >= 1000
    assert {point: killed(total, point) for point in POINTS if killed(total, point) < 5} == {}
