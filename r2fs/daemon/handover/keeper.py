"""Keepers: who has the mount's descriptor while no daemon does.

Owns:    the daemon's side of the two ways: systemd's FD store, and holder.py, a process of its own.
Never:   touches the mount; decides whether a session can be gone on with (takeover.py does).
Threads: called by whoever starts and ends the daemon, one at a time; `describe` by any.
Fails:   softly: a mount that nobody keeps is a mount, and goes with its daemon. It is logged.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from r2fs.daemon.handover import holder
from r2fs.daemon.protocol import is_believed, short_address
from r2fs.daemon.systemd import ServiceManager, hand_over, handed_over

log = logging.getLogger(__name__)

ANSWER_S = 10.0  # a holder answers at once; on a machine that is busy, later
END_S = 5.0  # for a holder to be gone
NAME = "r2fs-session"  # in the FD store
FUSE = os.makedev(10, 229)  # Linux's number of /dev/fuse


@dataclass(frozen=True, slots=True)
class Again:
    """The command of this daemon, to run it once more."""

    argv: tuple[str, ...]
    cwd: str


class Keeper(Protocol):
    def keep(self, fd: int) -> None:
        """From now on the mount outlives this process."""
        ...

    def leave(self, environ: MutableMapping[str, str], fd: int) -> None:
        """This process goes, and a successor comes: by execve() with `environ`, or started by somebody."""
        ...

    def end(self) -> None:
        """The session is over: nothing is kept any more."""
        ...

    def describe(self) -> str | None:
        """For status; None: nobody keeps it."""
        ...


class NoKeeper:
    def __init__(self, why: str) -> None:
        self.why = why

    def keep(self, fd: int) -> None:
        log.debug("the mount goes with this process: %s", self.why)

    def leave(self, environ: MutableMapping[str, str], fd: int) -> None:
        raise NotImplementedError("nobody has the session")

    def end(self) -> None:
        pass

    def describe(self) -> str | None:
        return None


class StoreKeeper:
    """systemd's FD store."""

    def __init__(self, notifier: ServiceManager) -> None:
        self._notifier = notifier

    @staticmethod
    def find(environ: MutableMapping[str, str]) -> int | None:
        """What the daemon before this one left there."""
        return handed_over(environ, NAME)

    def keep(self, fd: int) -> None:
        self._notifier.store(fd, NAME)

    def leave(self, environ: MutableMapping[str, str], fd: int) -> None:
        hand_over(environ, NAME, fd)

    def end(self) -> None:
        self._notifier.unstore(NAME)

    def describe(self) -> str | None:
        return "systemd"


class HolderKeeper:
    """holder.py: see there for what is said."""

    def __init__(self, path: Path, grace_s: float, card: Mapping[str, object], again: Again | None) -> None:
        """`again`: how the holder starts a daemon that was killed; None: others do that."""
        # constant
        self._path = path
        self._deal = {
            "pid": os.getpid(),
            "grace_s": grace_s,
            "card": dict(card),
            "again": asdict(again) if again else None,
        }
        # set once each
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._pid: int | None = None

    def launch(self) -> None:
        """Start the process, which waits for `keep`: meanwhile there is other work."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", holder.__file__, os.fspath(self._path)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        ours.settimeout(ANSWER_S)
        self._line = ours

    def take(self) -> int | None:
        """The descriptor that a holder has for this mount; None: there is no holder, or a daemon has it."""
        deadline = time.monotonic() + END_S
        while (line := connect(self._path)) is not None:
            answer, fd = _ask(line, {"op": "take", **self._deal})
            if fd >= 0:
                self._line = line
                self._pid = int((ask(self._path, {"op": "status"}) or {}).get("pid", 0)) or None
                return fd
            line.close()
            daemon = (answer or {}).get("daemon")
            if (isinstance(daemon, int) and is_running(daemon)) or time.monotonic() > deadline:
                return None
            time.sleep(0.05)  # the daemon has died, and its holder is about to see that
        return None

    # ------------------------------------------------------------------ Keeper
    def keep(self, fd: int) -> None:
        if self._line is None:
            self.launch()
        assert self._line is not None
        answer, _ = _ask(self._line, {"op": "keep", **self._deal}, fd)
        if answer is None:
            log.warning("the mount will not outlive this process: its holder did not start")
            self._line.close()
            self._line = None
            return
        self._pid = int(answer["pid"])

    def leave(self, environ: MutableMapping[str, str], fd: int) -> None:
        self._say("leave")

    def end(self) -> None:
        self._say("end")
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)

    def _say(self, op: str) -> None:
        """The last word; returns when the holder has gone, or has heard it."""
        line, self._line = self._line, None
        if line is None:
            return
        with line:
            _ask(line, {"op": op})
            if op == "end":
                with suppress(OSError):
                    line.recv(1)

    def describe(self) -> str | None:
        line = self._line
        if line is None or self._pid is None:
            return None
        poll = select.poll()  # it says nothing unasked: readable means gone
        poll.register(line, select.POLLIN)
        return None if poll.poll(0) else f"holder (process {self._pid})"


# ------------------------------------------------------------------ for the commands, too
def connect(path: Path, timeout_s: float = ANSWER_S) -> socket.socket | None:
    """A holder's socket; None where nobody listens, or somebody who is neither this user nor root."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    line.settimeout(timeout_s)
    try:
        with short_address(path) as address:
            line.connect(address)
    except OSError:
        line.close()
        return None
    if not is_believed(line):
        line.close()
        return None
    return line


def ask_all(
    paths: Iterable[Path], message: Mapping[str, object], within_s: float
) -> dict[Path, dict[str, Any]]:
    """One question to all of these holders at once; who has not answered within so many seconds is left out."""
    deadline = time.monotonic() + within_s
    answers: dict[Path, dict[str, Any]] = {}
    asked: dict[int, tuple[Path, socket.socket]] = {}
    poll = select.poll()
    with ExitStack() as closing:
        for path in paths:
            line = connect(path, 0.0)  # one whose queue is full is as good as mute
            if line is None:
                continue
            closing.enter_context(line)
            with suppress(OSError):
                holder.send(line, dict(message))
                asked[line.fileno()] = path, line
                poll.register(line, select.POLLIN)
        while asked and (left_s := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left_s * 1000):
                path, line = asked.pop(fd)
                poll.unregister(fd)
                answer, passed = holder.receive(line)
                if passed >= 0:
                    os.close(passed)
                if answer is not None:
                    answers[path] = answer
    return answers


def ask(path: Path, message: Mapping[str, object]) -> dict[str, Any] | None:
    """One question to the holder at `path`; None where there is none."""
    line = connect(path)
    if line is None:
        return None
    with line:
        return _ask(line, message)[0]


def _ask(
    line: socket.socket, message: Mapping[str, object], fd: int = -1
) -> tuple[dict[str, Any] | None, int]:
    try:
        holder.send(line, dict(message), fd)
    except OSError:
        return None, -1
    return holder.receive(line)


def is_over(fd: int) -> bool:
    """Has the kernel ended this session? Does not read from it."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


def is_session(fd: int) -> bool:
    """True for a descriptor of /dev/fuse: one that came from another process may be anything."""
    found = os.fstat(fd)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == FUSE


def is_running(pid: int) -> bool:
    """Is the process there? One that was killed and that nobody has waited for does not count."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
