"""Keepers: hold the mount's descriptor while no daemon runs, in systemd's FD store or in a holder process (holder.py).

Threads: called by the threads that start and end the daemon, one at a time; `describe` by any.
Fails:   softly, with a logged warning: a mount that is not kept works, and ends with its daemon.
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
from typing import Any

from r2fs.daemon.handover import holder
from r2fs.daemon.protocol import is_believed, short_address
from r2fs.daemon.systemd import ServiceManager, hand_over, handed_over

log = logging.getLogger(__name__)

ANSWER_S = 10.0  # a holder answers at once; on a busy machine, later
START_S = 60.0  # for its process to start there; the end of one that cannot start is seen at once
END_S = 5.0  # for the end of a holder
NAME = "r2fs-session"  # in the FD store
FUSE = os.makedev(10, 229)  # Linux's number of /dev/fuse


@dataclass(frozen=True, slots=True)
class Again:
    """The command of this daemon, for another start."""

    argv: tuple[str, ...]
    cwd: str


class Keeper:
    """Keeps nothing: the mount ends with this process, for the reason `why`. Subclasses keep the session."""

    def __init__(self, why: str = "") -> None:
        self.why = why

    def keep(self, fd: int) -> None:
        """Keep the session: from now on the mount outlives this process."""
        log.debug("the mount ends with this process: %s", self.why)

    def leave(self, environ: MutableMapping[str, str], fd: int) -> None:
        """Leave the session to a successor: by execve() with `environ`, or started by another process."""
        raise NotImplementedError("no process keeps the session")

    def end(self) -> None:
        """Stop keeping: the session is over."""

    def describe(self) -> str | None:
        """Name of the keeper, for status; None where the session is not kept."""
        return None


class StoreKeeper(Keeper):
    """systemd's FD store."""

    def __init__(self, manager: ServiceManager) -> None:
        super().__init__()
        self._manager = manager

    @staticmethod
    def find(environ: MutableMapping[str, str]) -> int | None:
        """The descriptor that the last daemon stored; None if none is."""
        return handed_over(environ, NAME)

    def keep(self, fd: int) -> None:
        self._manager.store(fd, NAME)

    def leave(self, environ: MutableMapping[str, str], fd: int) -> None:
        hand_over(environ, NAME, fd)

    def end(self) -> None:
        self._manager.unstore(NAME)

    def describe(self) -> str | None:
        return "systemd"


class HolderKeeper(Keeper):
    """Client of a holder process; holder.py has the messages."""

    def __init__(self, path: Path, grace_s: float, card: Mapping[str, object], again: Again | None) -> None:
        """`again`: command by which the holder starts a killed daemon; None: it starts none."""
        super().__init__()
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
        """Start the process, which then waits for `keep`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", holder.__file__, os.fspath(self._path)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        ours.settimeout(START_S)
        self._line = ours

    def take(self) -> int | None:
        """The descriptor that a holder has for this mount; None without a holder, or if a daemon has it."""
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
            time.sleep(0.05)  # the daemon has died, and its holder is about to notice
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
        self._line.settimeout(ANSWER_S)
        self._pid = int(answer["pid"])

    def leave(self, environ: MutableMapping[str, str], fd: int) -> None:
        self._say("leave")

    def end(self) -> None:
        self._say("end")
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)

    def _say(self, op: str) -> None:
        """Send a last message; return when the holder has ended, or has answered."""
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
        poll = select.poll()  # a holder sends no unrequested message: readable means ended
        poll.register(line, select.POLLIN)
        return None if poll.poll(0) else f"holder (process {self._pid})"


# ------------------------------------------------------------------ for the commands, too
def connect(path: Path, timeout_s: float = ANSWER_S) -> socket.socket | None:
    """Connect to a holder's socket; None without a listener, or if it is neither this user's nor root's."""
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
    """Send one message to all these holders at once; omit those that do not answer within `within_s` seconds."""
    deadline = time.monotonic() + within_s
    answers: dict[Path, dict[str, Any]] = {}
    unanswered: dict[int, tuple[Path, socket.socket]] = {}
    poll = select.poll()
    with ExitStack() as closing:
        for path in paths:
            line = connect(path, 0.0)  # a full queue counts as no answer
            if line is None:
                continue
            closing.enter_context(line)
            with suppress(OSError):
                holder.send(line, dict(message))
                unanswered[line.fileno()] = path, line
                poll.register(line, select.POLLIN)
        while unanswered and (left_s := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left_s * 1000):
                path, line = unanswered.pop(fd)
                poll.unregister(fd)
                answer, passed = holder.receive(line)
                if passed >= 0:
                    os.close(passed)
                if answer is not None:
                    answers[path] = answer
    return answers


def ask(path: Path, message: Mapping[str, object]) -> dict[str, Any] | None:
    """Send one message to the holder at `path`; None without a holder."""
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
    """True if the kernel has ended this session. Does not read from the descriptor."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


def is_session(fd: int) -> bool:
    """True for a descriptor of /dev/fuse: one from another process may be of any file."""
    found = os.fstat(fd)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == FUSE


def is_running(pid: int) -> bool:
    """True if the process runs. A zombie does not count."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
