"""Client of the control sockets: finds daemons and sends them requests, for the commands.

Never: imports the engine, a store or a driver; sends a request to a mount.
Fails: DaemonUnreachable, and any error that the daemon answered with.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from r2fs.daemon.control import read_card
from r2fs.daemon.handover import keeper
from r2fs.daemon.protocol import (
    SILENCE_S,
    UNKNOWN,
    Message,
    decode,
    encode,
    is_believed,
    peer_uid,
    raise_failure,
    short_address,
)
from r2fs.daemon.threads import Threads
from r2fs.drivers.mount_path import absolute
from r2fs.model import owned_paths
from r2fs.model.errors import DaemonUnreachable, R2fsError
from r2fs.model.settings import places

CONNECT_TIMEOUT_S = 5.0
HOLDERS_S = 1.0  # for the answers of all holders together: a mute one costs no more


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon's card, which it wrote beside its socket at its start."""

    pid: int
    mountpoint: str
    url: str
    name: str
    socket: Path
    since: int = 0  # distinguishes daemons with one pid
    silence_s: float | None = None  # seconds without a line, after which `ask` gives up; None: SILENCE_S

    @property
    def alive(self) -> bool:
        return keeper.is_running(self.pid)


@dataclass(frozen=True, slots=True)
class Held:
    """A mount without a daemon, kept by its holder for the next one."""

    mountpoint: str
    url: str
    holder: int  # its process
    left_s: float  # seconds until the holder gives up
    starts_it: bool  # the holder starts the next daemon itself
    socket: Path

    def end(self) -> bool:
        """End the connection of the mount: calls that wait in it fail; its name stays until it is detached."""
        return bool((keeper.ask(self.socket, {"op": "end"}) or {}).get("ok"))


OwnerT = TypeVar("OwnerT", Daemon, Held)


def run_dirs(environ: Mapping[str, str]) -> list[Path]:
    """Run directories of this user's daemons; for root those that root alone can write."""
    found = _bases(environ)
    for directory in list(found):
        found += _below(directory)  # the units have a directory for each instance
    return list(dict.fromkeys(found))


def _bases(environ: Mapping[str, str]) -> list[Path]:
    named = [Path(environ["R2FS_RUN_DIR"])] if environ.get("R2FS_RUN_DIR") else []
    return [*named, places.run_dir(environ)[0], Path("/run/r2fs"), Path(f"/run/user/{os.getuid()}/r2fs")]


def _below(directory: Path) -> list[Path]:
    try:
        with owned_paths.directory(directory) as fd:
            return [directory / name for name in sorted(os.listdir(fd)) if _is_directory(name, fd)]
    except OSError:
        return []  # missing, or another user's: without daemons of this user


def _is_directory(name: str, directory: int) -> bool:
    return stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode)


def not_looked_into(environ: Mapping[str, str], extra: Path | None = None) -> list[str]:
    """Warnings, a sentence each, about run directories that are not trusted.

    Directories of instances below one are left out: a unit may run as another user.
    """
    sentences = []
    for directory in dict.fromkeys([*([extra] if extra else []), *_bases(environ)]):
        try:
            owned_paths.make_sure(directory)
        except owned_paths.UnsafePath as error:
            sentences.append(f"{error.strerror}: no daemon is looked for in {directory}")
        except OSError:
            continue  # missing, or closed to this user
    return sentences


def daemons(environ: Mapping[str, str], extra: Path | None = None, dead: bool = False) -> list[Daemon]:
    """Every running daemon, by mount point; with `dead` also cards of processes that have ended."""
    found: dict[Path, Daemon] = {}
    for path, directory in _files(environ, extra, ".json"):
        daemon = _daemon(path, directory)
        if daemon is not None and (dead or daemon.alive):
            found.setdefault(daemon.socket, daemon)
    return sorted(found.values(), key=lambda daemon: daemon.mountpoint)


def held(environ: Mapping[str, str], extra: Path | None = None) -> list[Held]:
    """Every mount that a holder keeps at the moment, by mount point."""
    paths = dict.fromkeys(path for path, _ in _files(environ, extra, ".holder"))
    found = []
    for path, status in keeper.ask_all(paths, {"op": "status"}, HOLDERS_S).items():
        one = _held(path, status)
        if one is not None:
            found.append(one)
    return sorted(found, key=lambda held: held.mountpoint)


def _held(path: Path, status: Mapping[str, Any]) -> Held | None:
    """The mount of a holder; None while a daemon has the mount, and for an answer that is not a holder's."""
    try:
        if status["daemon"] is not None:
            return None
        card, left_s = status["card"], float(status["grace_s"]) - float(status["alone_s"])
        where, url = str(card["mountpoint"]), str(card["url"])
        return Held(where, url, int(status["pid"]), left_s, bool(status["starts_it"]), path)
    except (KeyError, TypeError, ValueError):
        return None


def _files(environ: Mapping[str, str], extra: Path | None, suffix: str) -> Iterator[tuple[Path, int]]:
    """Yield each path with this suffix, and a descriptor of its directory, valid until the next step."""
    for directory in [*([extra] if extra else []), *run_dirs(environ)]:
        try:
            with owned_paths.directory(directory) as fd:
                for name in sorted(os.listdir(fd)):
                    if name.endswith(suffix):
                        yield directory / name, fd
        except OSError:
            continue  # unreadable for this user, or writable by others


def _daemon(path: Path, directory: int) -> Daemon | None:
    card = read_card(path.name, directory)
    if card is None:
        return None
    mountpoint, url, name = (str(card.get(field, "")) for field in ("mountpoint", "url", "name"))
    since = card.get("since")
    return Daemon(
        card["pid"],
        mountpoint,
        url,
        name,
        path.with_suffix(".sock"),
        since if isinstance(since, int) else 0,
    )


def owner_of(path: str, found: Sequence[OwnerT]) -> OwnerT | None:
    """The daemon (or the held mount) in whose mount `path` is: the innermost. Sends no request to a mount."""
    for candidate in (os.path.abspath(path), absolute(path)):
        within = [
            d
            for d in found
            if candidate == d.mountpoint or candidate.startswith(d.mountpoint.rstrip("/") + "/")
        ]
        if within:
            return max(within, key=lambda d: len(d.mountpoint))
    return None


def within_mount(path: str, daemon: Daemon) -> str:
    """`path` relative to the mount point; "" for the mount point itself."""
    for candidate in (os.path.abspath(path), absolute(path)):
        if candidate == daemon.mountpoint or candidate.startswith(daemon.mountpoint.rstrip("/") + "/"):
            return candidate[len(daemon.mountpoint) :].strip("/")
    raise DaemonUnreachable(f"{path} is not in {daemon.mountpoint}")


def _silence_s(daemon: Daemon) -> float:
    return SILENCE_S if daemon.silence_s is None else daemon.silence_s


def ask(daemon: Daemon, op: str, **arguments: object) -> Iterator[Message]:
    """Send one request; yield every answer, the last included. Raises the error of the answer."""
    silence_s = _silence_s(daemon)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(min(CONNECT_TIMEOUT_S, silence_s))
        try:
            with short_address(daemon.socket) as address:
                connection.connect(address)
            if not is_believed(connection):
                raise DaemonUnreachable(
                    f"what answers for {daemon.mountpoint} at {daemon.socket} is another user's "
                    f"(uid {peer_uid(connection)}): it is not believed"
                )
            connection.settimeout(silence_s)
            with suppress(BrokenPipeError):  # refused unread: the answer, already received, has the reason
                connection.sendall(encode({**arguments, "op": op}))
            with connection.makefile("rb") as lines:
                yield from _answers(daemon, lines)
        except TimeoutError:
            raise DaemonUnreachable(
                f"the daemon of {daemon.mountpoint} (process {daemon.pid}) has been silent for {silence_s:.0f} s: "
                f"its log may say why; {_ended(daemon)}"
            ) from None
        except OSError as error:
            raise DaemonUnreachable(
                f"the daemon of {daemon.mountpoint} (process {daemon.pid}) does not answer: {error.strerror or error}"
            ) from None


class _Fields(dict[str, Any]):
    """The fields of an answer, and of objects in it. A field that a command needs and that is missing: another r2fs
    has answered."""

    def __init__(self, daemon: Daemon, fields: Mapping[str, Any]) -> None:
        super().__init__({name: self._of(daemon, value) for name, value in fields.items()})
        self._daemon = daemon

    @classmethod
    def _of(cls, daemon: Daemon, value: Any) -> Any:
        if isinstance(value, dict):
            return cls(daemon, value)
        return [cls._of(daemon, each) for each in value] if isinstance(value, list) else value

    def __ror__(self, other: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]  # of any dict
        """`other` with these fields."""
        return _Fields(self._daemon, {**other, **self})

    def __missing__(self, name: str) -> Any:
        raise DaemonUnreachable(
            f"the daemon of {self._daemon.mountpoint} is of another r2fs, whose answer lacks {name!r}: "
            f"{_replaced(self._daemon)}"
        )


def _replaced(daemon: Daemon) -> str:
    return f"r2fs restart {daemon.mountpoint} replaces it, without unmounting"


def _answers(daemon: Daemon, lines: Iterator[bytes]) -> Iterator[Message]:
    for line in lines:
        try:
            message: Message = _Fields(daemon, decode(line))
        except ValueError as error:
            raise DaemonUnreachable(
                f"what answers for {daemon.mountpoint} (process {daemon.pid}) is no daemon of r2fs: {error}"
            ) from None
        if str(message.get("error", "")).startswith(UNKNOWN):
            raise DaemonUnreachable(
                f"the daemon of {daemon.mountpoint} is of an older r2fs: {_replaced(daemon)}"
            )
        raise_failure(message)
        last = message.pop("done", False)  # the protocol's own
        yield message
        if last:
            return
    raise DaemonUnreachable(
        f"the daemon of {daemon.mountpoint} (process {daemon.pid}) ended before it answered"
    )


def ask_once(daemon: Daemon, op: str, **arguments: object) -> dict[str, Any]:
    """The last answer."""
    return list(ask(daemon, op, **arguments))[-1]


def ask_each(daemons: Sequence[Daemon], op: str) -> list[dict[str, Any] | R2fsError]:
    """Ask all at once. The last answer of each, or its error; a daemon that hangs costs the others nothing."""
    answers: dict[Daemon, dict[str, Any] | R2fsError] = {}

    def put(daemon: Daemon) -> None:
        try:
            answers[daemon] = ask_once(daemon, op)
        except R2fsError as error:
            answers[daemon] = error

    threads = Threads()
    for daemon in daemons:
        threads.start(f"ask-{daemon.name}", lambda daemon=daemon: put(daemon), joined=True)  # type: ignore[misc]
    limit_s = CONNECT_TIMEOUT_S + max((_silence_s(daemon) for daemon in daemons), default=0.0)
    threads.stop(lambda: None, limit_s)
    return [answers[daemon] if daemon in answers else _endless(daemon, limit_s) for daemon in daemons]


def _endless(daemon: Daemon, after_s: float) -> DaemonUnreachable:
    """The error of a daemon that sends lines, and never the last."""
    return DaemonUnreachable(
        f"the daemon of {daemon.mountpoint} (process {daemon.pid}) has not ended its answer in {after_s:.0f} s: "
        f"{_ended(daemon)}"
    )


def _ended(daemon: Daemon) -> str:
    return f"if it hangs, end it by kill -9 {daemon.pid}, and mount again: nothing is lost"
