"""kill -9 at random moments and at every named point: what was acknowledged is there, nothing else comes.

`python -m tests.crash ROUNDS` is the same for a person to watch.
"""

from __future__ import annotations

import pytest

from tests.crash.campaign import Campaign, killed, report, run
from tests.crash.points import ASKED, POINTS, in_the_code
from tests.crash.rig import Stats

DRIVERS = ("kernel", "libfuse")
SHORT = {"kernel": 10, "libfuse": 8}
LONG = {("kernel", False): 450, ("libfuse", False): 400, ("kernel", True): 90, ("libfuse", True): 60}


def test_every_point_of_the_code_is_in_the_list():
    assert in_the_code() == set(POINTS)


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
