"""Take-over: continues the mount of another daemon, and keeps this one's for a successor.

Owns:    the decision whether a kept session can be continued, its log in the run directory (disk/sessionlog.py), and
         the end of a session that cannot.
Never:   sends a request to the mount before a daemon serves it: no answer would arrive.
Threads: find() and open_log() before any thread; keep() in the readiness thread; leave() and end() in the
         thread that ends the daemon.
Fails:   softly: the mount then ends with its daemon. MountError where only a take-over was wanted.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Final

from r2fs.daemon import mountpoint
from r2fs.daemon.handover.holder import ONLY
from r2fs.daemon.handover.keeper import (
    Again,
    HolderKeeper,
    Keeper,
    StoreKeeper,
    is_over,
    is_session,
)
from r2fs.daemon.starting import socket_name
from r2fs.daemon.systemd import ServiceManager
from r2fs.disk import sessionlog
from r2fs.disk.sessionlog import SessionLog
from r2fs.drivers import kmount
from r2fs.drivers.kernel.kernel_driver import KernelDriver
from r2fs.drivers.kernel.negotiation import SessionState
from r2fs.drivers.kernel.wire import Init
from r2fs.model import owned_paths
from r2fs.model.errors import MountError, R2fsError
from r2fs.model.records import Inheritance
from r2fs.model.settings import Settings

log = logging.getLogger(__name__)

FORMAT: Final = 1  # of the log's content: a session of another format is not continued


@dataclass(frozen=True, slots=True)
class Left:
    """A session that this daemon goes on with."""

    fd: int
    state: SessionState
    inheritance: Inheritance


class TakeOver:
    def __init__(
        self,
        settings: Settings,
        target: str,
        environ: MutableMapping[str, str],
        manager: ServiceManager,
        again: Again | None,
    ) -> None:
        # constant
        self._settings = settings
        self._target = target
        self._environ = environ
        stem = socket_name(settings)
        self._path = settings.run_dir / f"{stem}.session"
        self._holder = settings.run_dir / f"{stem}.holder"
        self._manager = manager
        self._again = again
        # guarded by: _lock
        self._lock = threading.Lock()  # held during a call of the keeper, which may take a moment
        self._over = False
        # set before any thread starts, or with the lock
        self._keeper: Keeper = Keeper("it does not answer yet")
        self._log: SessionLog | None = None
        self._left: Left | None = None

    # ------------------------------------------------------------------ before the engine is built
    def find(self, driver: type) -> Left | None:
        """The session that another daemon left of this mount. One that cannot be continued is ended; None."""
        self._keeper = self._make_keeper()
        sent_for = self._environ.pop(ONLY, "")
        fd = self._found()
        if fd is None:
            if sent_for:  # started by a holder that has been ended since: the mount is not wanted any more
                raise MountError(f"{self._target} has no session to take over")
            return None
        why, left = self._examine(fd, driver)
        if left is None:
            log.info("%s was left by another daemon, and begins anew: %s", self._target, why)
            self._discard(fd)
            return None
        self._left = left
        return left

    def _make_keeper(self) -> Keeper:
        if self._manager.stores:
            return StoreKeeper(self._manager)
        card = {"mountpoint": self._target, "url": self._settings.bucket.url, "name": self._settings.name}
        return HolderKeeper(self._holder, self._settings.take_over_s, card, self._again)

    def _found(self) -> int | None:
        fd = StoreKeeper.find(self._environ)
        if fd is None and isinstance(self._keeper, HolderKeeper):
            fd = self._keeper.take()
        if fd is not None and not is_session(fd):
            log.warning("%s: the descriptor handed over is not of /dev/fuse, and is closed", self._target)
            os.close(fd)
            return None
        return fd

    def _examine(self, fd: int, driver: type) -> tuple[str, Left | None]:
        """The session, or the reason why it cannot be continued."""
        if is_over(fd):
            return "its connection has ended", None
        mounted = kmount.mounted_at(self._target)
        if mounted is None or mounted.fstype != mountpoint.OURS:
            return "it is not mounted there any more", None
        if not issubclass(driver, KernelDriver):
            return "its driver cannot", None
        found = sessionlog.read(self._path)
        if found is None:
            return "there is no record of its inodes", None
        try:
            state = owned_paths.load_json(found[0])
            if state["identity"] != self._identity():
                return "it was mounted with other settings", None
            return "", Left(fd, SessionState(**state["session"]), found[1])
        except (ValueError, KeyError, TypeError) as error:
            return f"its log cannot be read ({error!r})", None

    def _identity(self) -> dict[str, object]:
        """Values that must be equal in both daemons: mount(2)'s options, and the source of the inode numbers."""
        settings = self._settings
        return {
            "format": FORMAT,
            "mountpoint": self._target,
            "url": settings.bucket.address,
            "endpoint": settings.bucket.endpoint_url,
            "state_dir": str(settings.state_dir),
            "read_only": settings.read_only,
            "allow_other": settings.allow_other,
            "noexec": settings.noexec,
            **({} if settings.links == "follow" else {"links": settings.links}),  # the kernel caches links
        }

    def _discard(self, fd: int) -> None:
        """End a session without a stat: its connection, so that waiting calls get ENOTCONN, then its mount."""
        kmount.abort(self._target)
        os.close(fd)
        self._keeper.end()
        try:
            mounted = kmount.mounted_at(self._target)
            if mounted is not None and mounted.fstype == mountpoint.OURS:
                kmount.unmount(self._target, lazy=True)
        except R2fsError as error:
            log.warning("%s could not be taken away: %s", self._target, error)
        self._path.unlink(missing_ok=True)
        self._keeper = self._make_keeper()

    # ------------------------------------------------------------------ before the mount
    def open_log(self, driver: type) -> SessionLog | None:
        """Open the log for the successor's state; None where no successor is possible."""
        why = self._impossible(driver)
        if why is not None:
            with self._lock:
                self._give_up_locked(why)
            return None
        try:
            if self._left is not None:
                state = self._state(self._left.state)
                self._log = SessionLog.go_on(self._path, state, self._left.inheritance)
            else:
                self._log = SessionLog.create(self._path)
        except OSError as error:
            log.warning(
                "%s cannot be written (%s): no daemon can take this mount over", self._path, error.strerror
            )
            with self._lock:
                self._give_up_locked(f"{self._path} cannot be written")
            return None
        if isinstance(self._keeper, HolderKeeper) and self._left is None:
            self._keeper.launch()
        return self._log

    def _impossible(self, driver: type) -> str | None:
        if not issubclass(driver, KernelDriver):
            return "only the kernel driver can be taken over"
        if not self._settings.take_over_s and isinstance(self._keeper, HolderKeeper):
            return "take_over is 0"
        if not self._manager.stores and self._manager.is_there:
            return "the unit stores no descriptors (FileDescriptorStoreMax=)"
        return None

    def _state(self, state: SessionState) -> str:
        return json.dumps({"identity": self._identity(), "session": json.loads(state.to_json())})

    # ------------------------------------------------------------------ while mounted
    def keep(self, driver: object) -> None:
        """Give the session to its keeper, once the mount answers: from then on the session outlives this process."""
        if self._log is None or self._left is not None or not isinstance(driver, KernelDriver):
            return
        with self._lock:
            if self._over:
                return
            state = driver.state()
            if state is None or not state.has(Init.HAS_RESEND):
                self._give_up_locked("the kernel does not repeat requests that a daemon left unanswered")
                return
            self._log.state(self._state(state))
            self._keeper.keep(driver.fileno())

    def _give_up_locked(self, why: str) -> None:
        """Keep the session no more: the mount ends with this process."""
        self._end_locked()
        self._keeper = Keeper(why)

    def describe(self) -> dict[str, str | None]:
        """Keeper of the session, or the reason why it is not kept; for status."""
        keeper, usable = self._keeper, self._log is not None and self._log.usable
        held = keeper.describe() if usable else None
        if held is not None:
            return {"held_by": held, "why_not": None}
        if keeper.why:
            return {"held_by": None, "why_not": keeper.why}
        if self._over:
            return {"held_by": None, "why_not": "it is being unmounted"}
        return {
            "held_by": None,
            "why_not": "its holder has gone" if usable else "its log could not be written",
        }

    def tidy(self) -> None:
        if self._log is not None:
            self._log.tidy()

    # ------------------------------------------------------------------ the end
    def leave(self, fd: int) -> None:
        """Leave the session to this process itself, after execve()."""
        if self._log is not None:
            self._log.close()
        self._keeper.leave(self._environ, fd)

    def end(self) -> None:
        """End the keeping: the mount has ended, or is not to be kept."""
        with self._lock:
            self._end_locked()

    def _end_locked(self) -> None:
        self._over = True
        self._keeper.end()
        if self._log is not None:
            self._log.remove()
