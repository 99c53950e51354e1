"""What the doctor says of a daemon's answer."""

from __future__ import annotations

import os
import resource
from typing import Any

from r2fs.doctor import mounts
from r2fs.doctor.findings import Level
from r2fs.drivers.kernel import trial
from r2fs.drivers.kernel.wire import Init

QUEUE = {"files": 0, "directories": 0, "bytes": 0, "deletes": 0, "parked": 0}


def answer(**more: Any) -> dict[str, Any]:
    mount = {"mountpoint": "/mnt/takes", "url": "r2://takes", "state": "running", "driver": "mirror"}
    return {"mount": mount, "queue": QUEUE, "health": None, **more}


def test_a_mirror_has_no_cache_and_no_room() -> None:
    (found,) = mounts._of_daemon(answer(mirror={}))
    assert found.level is Level.OK
    assert "/mnt/takes (r2://takes): running, mirror" in found.text


def test_a_full_disk_and_damaged_objects_are_findings() -> None:
    room = {"disk_error": None, "writers": "disk full"}
    found = list(mounts._of_daemon(answer(damaged=["a.wav"], room=room)))
    assert [each.level for each in found] == [Level.WARNING, Level.FAILED, Level.OK]


def test_the_trial_mount_may_have_a_high_descriptor() -> None:
    """A program with many open files: select() knows no descriptor from 1,024 on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    fillers = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        assert trial.offered().has(Init.ASYNC_READ)
    finally:
        for fd in fillers:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
