"""Stopping: deadline, signals, a busy mount, what is left and what is said of it."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace

import pytest

from r2fs.daemon.shutdown import LATE_END_S, WORKERS_END_S, threads_end_s
from r2fs.daemon.stopping import (
    BUSY_GRACE_S,
    PASSING_S,
    RETRY_S,
    SAME_S,
    Stopping,
    count_left,
    exit_code,
    left_text,
)
from r2fs.daemon.systemd import ServiceManager
from r2fs.model.errors import Busy, MountError, MountPointBad
from r2fs.model.views import QueueView, TransferView
from tests.support.clocks import ManualClock

NOTHING = QueueView(
    files=0, directories=0, bytes=0, deletes=0, watched=0, active=0, parked=0, conflicts=(), hidden=0, oldest_s=0.0, transfers=(),
    uploaded=0, uploaded_bytes=0, failed=0, last_error=None, last_error_at_s=None,
)  # fmt: skip
PENDING = replace(NOTHING, files=3, bytes=3 << 20)


class Engine:
    """Sends one file for each look, four looks a second."""

    def __init__(self, clock: ManualClock, view: QueueView, sends: bool = True) -> None:
        self.clock, self.view, self.sends = clock, view, sends
        self.asked_s: list[float] = []

    def queue_view(self) -> QueueView:
        return self.view

    def drain(self, timeout_s, progress=None):
        self.asked_s.append(timeout_s)
        end = self.clock.monotonic() + timeout_s
        while self.view.files and self.clock.monotonic() < end:
            self.clock.advance(0.25)
            if self.sends:
                self.view = replace(self.view, files=self.view.files - 1)
            progress(self.view)
        return self.view


class Mount:
    """Busy for so many tries; tells how it was unmounted."""

    def __init__(self, busy: float = 0) -> None:
        self.busy = busy
        self.calls: list[bool] = []

    def unmount(self, lazy: bool = False) -> None:
        self.calls.append(lazy)
        if len(self.calls) <= self.busy and not lazy:
            raise Busy("busy")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def stopping(tmp_path, clock):
    return Stopping(tmp_path, 60.0, ServiceManager({}), clock)


def test_everything_is_sent(stopping, clock):
    engine = Engine(clock, PENDING)
    left = stopping.drain(engine)
    assert exit_code(left) == 0
    assert engine.asked_s == [60.0]
    assert stopping.requested.is_set()  # an unmount from outside is a request, too


def test_the_deadline_counts_from_the_request(stopping, clock):
    stopping.request("SIGTERM")
    clock.advance(50)
    engine = Engine(clock, PENDING, sends=False)
    left = stopping.drain(engine)
    assert engine.asked_s == [pytest.approx(10.0)]
    assert exit_code(left) == 75
    assert count_left(left) == 3


def test_the_first_request_sets_the_deadline(stopping, clock):
    stopping.unmount_now(Mount().unmount, False, 5.0)
    clock.advance(1)
    stopping.request("SIGTERM")
    engine = Engine(clock, PENDING, sends=False)
    stopping.drain(engine)
    assert engine.asked_s == [4.0]


def test_a_second_signal_does_not_wait(stopping, clock):
    stopping.signal("SIGTERM")
    assert not stopping.hurried.is_set()
    clock.advance(SAME_S)
    stopping.signal("SIGTERM")
    engine = Engine(clock, PENDING, sends=False)
    began = clock.monotonic()
    assert exit_code(stopping.drain(engine)) == 75
    assert clock.monotonic() - began < 1


@pytest.mark.parametrize("names", [("SIGTERM", "SIGHUP"), ("SIGHUP", "SIGTERM"), ("SIGHUP", "SIGHUP")])
def test_the_end_of_a_session_is_one_signal(stopping, clock, names):
    for name in names:
        stopping.signal(name)
    assert stopping.requested.is_set()
    assert not stopping.hurried.is_set()
    stopping.signal("SIGTERM")
    clock.advance(SAME_S)
    stopping.signal("SIGTERM")
    assert stopping.hurried.is_set()


def test_two_signals_at_once_are_one(stopping, clock):
    """As timeout(1) sends them, and a terminal: to the process, and to its group."""
    stopping.signal("SIGINT")
    stopping.signal("SIGINT")
    clock.advance(SAME_S / 2)
    stopping.signal("SIGTERM")
    assert not stopping.hurried.is_set()
    assert exit_code(stopping.drain(Engine(clock, PENDING))) == 0
    clock.advance(SAME_S)
    stopping.signal("SIGINT")
    assert stopping.hurried.is_set()


def test_the_first_signal_after_an_unmount_still_waits(stopping, clock):
    stopping.request("unmounted")
    stopping.signal("SIGTERM")
    assert not stopping.hurried.is_set()
    assert exit_code(stopping.drain(Engine(clock, PENDING))) == 0


def test_what_is_refused_by_the_bucket_counts_as_left(stopping, clock):
    engine = Engine(clock, replace(NOTHING, files=1, parked=1), sends=False)
    left = stopping.drain(engine)
    assert exit_code(left) == 75
    assert left.parked == 1


def test_deletions_count(stopping, clock):
    assert exit_code(stopping.drain(Engine(clock, replace(NOTHING, deletes=2), sends=False))) == 75


def test_progress_and_outcome_reach_who_waits(stopping, clock):
    seen = []
    left = stopping.drain(Engine(clock, PENDING))
    progress, before = stopping.wait(0.0)
    assert progress is not None
    assert before is None
    waiter = threading.Thread(target=lambda: seen.append(stopping.wait(20.0)))
    waiter.start()
    stopping.finish(left)
    waiter.join(20)
    assert seen[0][1] is left or stopping.wait(0)[1] is left


def test_the_manager_is_asked_for_time_while_sending(tmp_path, clock):
    told: list[tuple[float, str]] = []

    class Manager(ServiceManager):
        def extend(self, seconds, status):
            told.append((seconds, status))

    Stopping(tmp_path, 60.0, Manager({}), clock).drain(Engine(clock, PENDING))
    assert len(told) == 3
    assert all(seconds >= 30 for seconds, _ in told)
    assert told[0][1] == "sending 2 files (3.0 MiB)"


# ------------------------------------------------------------------ the mount
def test_an_idle_mount_goes_at_once(stopping, clock):
    mount = Mount()
    stopping.request("SIGTERM")
    stopping.unmount_on_request(mount.unmount, Engine(clock, PENDING))
    assert mount.calls == [False]


@pytest.mark.expect_warnings("is in use by")
def test_a_busy_mount_is_waited_for_while_something_is_owed(stopping, clock):
    mount = Mount(busy=20)
    stopping.request("SIGTERM")
    stopping.unmount_on_request(mount.unmount, Engine(clock, PENDING))
    assert mount.calls == [False] * 21
    assert set(clock.waited) == {PASSING_S, RETRY_S}


def test_a_call_that_is_just_under_way_is_no_user(stopping, clock):
    mount = Mount(busy=2)
    stopping.request("SIGTERM")
    stopping.unmount_on_request(mount.unmount, Engine(clock, PENDING))
    assert mount.calls == [False] * 3


def test_umount_waits_for_a_call_that_is_just_under_way(stopping):
    mount = Mount(busy=2)
    stopping.unmount_now(mount.unmount, lazy=False, timeout_s=None)
    assert mount.calls == [False] * 3
    assert stopping.requested.is_set()


@pytest.mark.expect_warnings("is in use by")
def test_a_busy_mount_is_detached_at_the_deadline(stopping, clock):
    mount = Mount(busy=float("inf"))
    began = clock.monotonic()
    stopping.request("SIGTERM")
    stopping.unmount_on_request(mount.unmount, Engine(clock, PENDING))
    assert mount.calls[-1] is True
    assert clock.monotonic() - began == pytest.approx(60, abs=1)


@pytest.mark.expect_warnings("is in use by")
@pytest.mark.parametrize("left", [NOTHING, replace(NOTHING, files=1, deletes=2, parked=3)])
def test_a_busy_mount_with_nothing_to_send_is_soon_detached(stopping, clock, left):
    mount = Mount(busy=float("inf"))
    began = clock.monotonic()
    stopping.request("SIGTERM")
    stopping.unmount_on_request(mount.unmount, Engine(clock, left))
    assert mount.calls[-1] is True
    assert clock.monotonic() - began == pytest.approx(BUSY_GRACE_S, abs=1)


def test_a_second_signal_detaches_a_busy_mount(stopping, clock):
    mount = Mount(busy=float("inf"))
    stopping.signal("SIGTERM")
    clock.advance(SAME_S)
    stopping.signal("SIGTERM")
    stopping.unmount_on_request(mount.unmount, Engine(clock, PENDING))
    assert mount.calls == [True]


@pytest.mark.expect_warnings("cannot be taken away")
def test_a_mount_that_cannot_be_taken_away_is_said(stopping, clock):
    def refuse(lazy=False):
        raise MountPointBad("no")

    stopping.request("SIGTERM")
    stopping.unmount_on_request(refuse, Engine(clock, NOTHING))


def test_umount_of_a_busy_mount_changes_nothing_and_names_who(stopping, clock, tmp_path, monkeypatch):
    monkeypatch.setattr("r2fs.daemon.mountpoint.users", lambda path, asking: ["bash (1234)"])
    with pytest.raises(
        MountError, match=r"in use by bash \(1234\): leave it, or detach it with r2fs umount --lazy"
    ):
        stopping.unmount_now(Mount(busy=float("inf")).unmount, False, 1.0)
    assert not stopping.requested.is_set()
    engine = Engine(clock, PENDING, sends=False)
    stopping.drain(engine)
    assert engine.asked_s == pytest.approx([60.0])


def test_umount_does_not_name_itself_as_if_another_could_leave(stopping, tmp_path, monkeypatch):
    """Its output may be a file of the mount: then it is the user."""
    monkeypatch.setattr(
        "r2fs.daemon.mountpoint.users", lambda path, asking: ["bash (1)"] if not asking else []
    )
    monkeypatch.setattr("r2fs.daemon.mountpoint.uses", lambda path, pid: pid == 1234)
    for asking, words in ((1234, "in use by this command itself"), (77, "a process that cannot be seen")):
        with pytest.raises(MountError, match=words):
            stopping.unmount_now(Mount(busy=float("inf")).unmount, False, 1.0, asking)


def test_umount_sets_the_deadline_before_the_mount_goes(stopping, clock):
    """The driver's loop ends with the unmount, and drains at once: it must know the deadline already."""
    engine = Engine(clock, PENDING, sends=False)

    def unmount(lazy=False):
        stopping.drain(engine)

    stopping.unmount_now(unmount, False, 2.0)
    assert engine.asked_s == [2.0]


def test_what_is_said_of_what_is_left():
    assert left_text(NOTHING) == "nothing"
    assert left_text(replace(NOTHING, files=1, bytes=3 << 19)) == "1 file (1.5 MiB)"
    assert left_text(replace(NOTHING, files=2, bytes=9, deletes=1)) == "2 files (9 B), 1 deletion"
    assert left_text(replace(NOTHING, directories=2)) == "2 directories"
    refused = TransferView("d/a.wav", "delete", "parked", 0, 0, 0.0, 1.0, "d/a.wav: it is locked")
    view = replace(NOTHING, deletes=2, parked=2, transfers=(refused,))
    assert left_text(view) == "2 deletions"
    said = "2 deletions; 2 parked: d/a.wav: it is locked; and 1 more (see r2fs status)"
    assert left_text(view, parked=True) == said


def test_reasons_are_logged(stopping, caplog):
    with caplog.at_level(logging.INFO, "r2fs"):
        stopping.request("SIGTERM")
    assert "stopping: SIGTERM" in caplog.text
    assert os.getpid()


def test_what_is_late_is_not_waited_for_once_more():
    """By mounts and mirrors: the time for uploads was the wait."""
    assert threads_end_s(PENDING) == LATE_END_S < WORKERS_END_S == threads_end_s(NOTHING)
