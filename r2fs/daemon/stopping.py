"""Stopping: unmount, send pending changes within the time given, report the rest.

A stop is requested by a signal, `r2fs umount`, or an unmount from outside. A busy mount stays while changes are
pending, at most until the deadline, since its programs may still finish; then it is detached lazily. Uploads continue
all the time.

Threads: request() and signal() in any; unmount_on_request() in one that service.py starts;
         drain() in the thread of the shutdown.
Locks:   self._lock, with the condition on it; nothing else is taken inside.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from r2fs.daemon import mountpoint as mountpoints
from r2fs.model import amounts
from r2fs.model.errors import Busy, MountError, R2fsError
from r2fs.model.exit_codes import DONE, SOMETHING_LEFT
from r2fs.model.pending import State

if TYPE_CHECKING:  # `r2fs status` needs the exit codes alone
    from r2fs.daemon.systemd import ServiceManager
    from r2fs.model.ports import Clock
    from r2fs.model.views import QueueView

log = logging.getLogger(__name__)

BUSY_GRACE_S = 3.0  # for a program that is just closing its last file
PASSING_S = 0.1  # a call in flight on the mount (such as a monitor's statfs(2)) is no user
PASSING_TRIES = 5
SAME_S = 1.0  # a signal so soon after the first counts as the same
RETRY_S = 0.5  # how often a busy mount is tried again
EXTEND_S = 30.0  # requested from the service manager, repeatedly while uploads continue
LOG_EVERY_S = 10.0


class Drainable(Protocol):
    """The part of the engine that stopping uses."""

    def drain(
        self, timeout_s: float | None, progress: Callable[[QueueView], None] | None = None
    ) -> QueueView:
        """Wait for uploads, `timeout_s` seconds at most. An exception of `progress` ends the wait and is raised."""
        ...

    def queue_view(self) -> QueueView: ...


Unmount = Callable[[bool], None]  # the driver's: unmount(lazy)


def exit_code(left: QueueView) -> int:
    return SOMETHING_LEFT if count_left(left) else DONE


def count_left(view: QueueView) -> int:
    """Number of names with pending changes."""
    return view.files + view.directories + view.deletes


def left_text(view: QueueView, parked: bool = False) -> str:
    """ "3 files (12.0 MiB), 1 deletion"; with `parked` also how many of these are, and the reason of one."""
    text = amounts.left(view.files, view.directories, view.bytes, view.deletes)
    shown = next((transfer for transfer in view.transfers if transfer.state == State.PARKED.value), None)
    if not parked or shown is None:
        return text
    return f"{text}; {amounts.parked(view.parked, shown.path, shown.reason)}"


class _Hurried(Exception):
    """Raised out of the engine's wait by a second signal."""


class Stopping:
    def __init__(self, mountpoint: Path, timeout_s: float, manager: ServiceManager, clock: Clock) -> None:
        # constant
        self._mountpoint = mountpoint
        self._timeout_s = timeout_s
        self._manager = manager
        self._clock = clock
        self.requested = threading.Event()
        self.hurried = threading.Event()
        self.unmounted = threading.Event()  # the driver's loop has ended
        # guarded by: _lock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._deadline: float | None = None
        self._signalled_s: float | None = None  # the first signal but SIGHUP
        self._progress: QueueView | None = None
        self._left: QueueView | None = None  # set at the end
        # drain()'s thread alone
        self._logged = clock.monotonic()

    # ------------------------------------------------------------------ requests to stop
    def change_timeout(self, timeout_s: float) -> None:
        """Set another time for a stop that has not begun."""
        with self._lock:
            self._timeout_s = timeout_s

    def request(self, reason: str) -> None:
        """Stop; the first request sets the deadline."""
        with self._lock:
            if self._deadline is not None:
                return
            self._deadline = self._clock.monotonic() + self._timeout_s
        log.info("stopping: %s", reason)
        self._manager.stopping("unmounting")
        self.requested.set()

    def signal(self, name: str) -> None:
        """Stop at the first signal, as an unmount does; at a second one do not wait for uploads.

        SIGHUP is never a second one: a logout sends it besides SIGTERM, or twice. Nor is a signal
        within SAME_S of the first: timeout(1) and a terminal send it to the process and to its group.
        """
        now = self._clock.monotonic()
        with self._lock:
            again = self._signalled_s is not None and name != "SIGHUP" and now - self._signalled_s >= SAME_S
            if self._signalled_s is None and name != "SIGHUP":
                self._signalled_s = now
        if again:
            log.info("%s again: not waiting for uploads", name)
            self.hurried.set()
        else:
            self.request(name)

    def unmount_now(self, unmount: Unmount, lazy: bool, timeout_s: float | None, asking: int = 0) -> None:
        """Unmount at once, for `r2fs umount`, the process `asking`. MountError, without a change, if the mount is busy."""
        with self._lock:
            before, self._timeout_s = self._timeout_s, self._timeout_s if timeout_s is None else timeout_s
        try:
            self._unmount_patiently(unmount, lazy)
        except R2fsError as error:
            with self._lock:
                self._timeout_s = before
            if not isinstance(error, Busy):
                raise
            raise MountError(
                f"{self._mountpoint} is in use by {self._users(asking)}: leave it, or detach it with r2fs umount --lazy"
            ) from None
        self.request("r2fs umount")

    def _unmount_patiently(self, unmount: Unmount, lazy: bool) -> None:
        for _ in range(PASSING_TRIES):
            try:
                unmount(lazy)
                return
            except Busy:
                self._clock.wait(self.hurried, PASSING_S)
        unmount(lazy)

    # ------------------------------------------------------------------ taking the mount away
    def unmount_on_request(self, unmount: Unmount, engine: Drainable) -> None:
        """Wait for a request; unmount, lazily at the last. Returns once the kernel has agreed."""
        self.requested.wait()
        since = self._clock.monotonic()
        refused = 0
        while not self.unmounted.is_set():
            waited = self._clock.monotonic() - since
            view = engine.queue_view()
            # parked files wait for a person
            idle = waited >= BUSY_GRACE_S and count_left(view) <= view.parked
            try:
                unmount(idle or self._remaining() <= 0 or self.hurried.is_set())
                return
            except Busy:
                refused += 1
                if refused == PASSING_TRIES:
                    log.warning(
                        "%s is in use by %s: waiting for them to leave", self._mountpoint, self._users()
                    )
                self._tell_manager(f"{self._mountpoint} is in use")
            except R2fsError as error:
                log.error("the mount cannot be taken away: %s", error)
                return
            pause_s = RETRY_S if refused >= PASSING_TRIES else PASSING_S
            self._clock.wait(self.hurried, min(pause_s, max(self._remaining(), 0.01)))

    def _users(self, asking: int = 0) -> str:
        """The processes that use the mount, in words; the one that asks only if there is no other."""
        others = mountpoints.users(self._mountpoint, asking=asking)
        if not others and asking and mountpoints.uses(self._mountpoint, asking):
            return "this command itself, whose input, output or program is a file of it"
        return ", ".join(others) or "a process that cannot be seen"

    # ------------------------------------------------------------------ uploads
    def drain(self, engine: Drainable) -> QueueView:
        """Wait for uploads until the deadline or a second signal; return the rest. Called after the unmount."""
        self.request("unmounted")
        view = engine.queue_view()
        if count_left(view):
            log.info("not yet in the bucket: %s", left_text(view))
        try:
            engine.drain(max(0.0, self._remaining()), self._show)
        except _Hurried:
            log.info("not waiting any longer")
        return engine.queue_view()

    def _show(self, view: QueueView) -> None:
        """Record the progress; the engine calls this several times a second while it waits."""
        if self.hurried.is_set():
            raise _Hurried
        now = self._clock.monotonic()
        with self._lock:
            self._progress = view
            self._changed.notify_all()
        if now - self._logged >= LOG_EVERY_S:
            self._logged = now
            log.info("still to send: %s", left_text(view))
        self._tell_manager(f"sending {left_text(view)}")

    def _tell_manager(self, text: str) -> None:
        self._manager.extend(EXTEND_S, text)

    def _remaining(self) -> float:
        with self._lock:
            return self._timeout_s if self._deadline is None else self._deadline - self._clock.monotonic()

    def finish(self, left: QueueView) -> None:
        """End wait() with the rest. All is closed but the control socket."""
        with self._lock:
            self._left = left
            self._changed.notify_all()

    def wait(self, seconds: float) -> tuple[QueueView | None, QueueView | None]:
        """The latest progress, and the rest at the end or None; waits `seconds` at most for a change."""
        with self._lock:
            if self._left is None:
                self._changed.wait(seconds)
            return self._progress, self._left
