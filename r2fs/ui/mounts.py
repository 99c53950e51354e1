"""Mounts of the page: found by their daemons, and their data in the page's form.

Owns:    the form of each answer: texts that a person reads are escaped, paths that the page sends back are refs.
Never:   sends a request to a bucket; opens a file; waits longer than ANSWER_S for a silent daemon.
Threads: functions of any thread; Mounts is constant.
Fails:   NotFound for a mount that is not there; DaemonUnreachable; the errors of the daemon.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from r2fs import __version__
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.model.errors import DaemonUnreachable, NotFound, R2fsError
from r2fs.model.keys import printable
from r2fs.ui.beneath import ref_of

ANSWER_S = 3.0  # of a daemon's silence
TRANSFERS = 100  # shown
NAMES = 400  # of a directory shown in the map, the largest ones
OPENED, INNER = 12, 40  # directories of it whose names are shown, too, and names in each

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Served:
    """A mount, with its daemon or the reason why it has none."""

    id: str
    mountpoint: str
    url: str
    daemon: Daemon | None
    error: str = ""


class Mounts:
    def __init__(
        self,
        running: Callable[[], Sequence[Daemon]],
        without_daemon: Callable[[], Sequence[Served]],
        troubles: Callable[[Answer], Sequence[tuple[str, str]]],
    ) -> None:
        """`troubles` returns names and sentences for the troubles in a mount's status."""
        # constant
        self._running = running
        self._without_daemon = without_daemon
        self._troubles = troubles

    def all(self) -> list[Answer]:
        """Names of all mounts."""
        found = [*map(served, self._running()), *self._without_daemon()]
        found.sort(key=lambda one: one.mountpoint)
        return [{"id": one.id, "mountpoint": printable(one.mountpoint), "url": printable(one.url)} for one in found]  # fmt: skip

    def daemon(self, id_: str) -> Daemon:
        """The daemon of a mount. DaemonUnreachable, with the remedy, where it has none."""
        for daemon in self._running():
            if daemon.socket.stem == id_:
                return replace(daemon, silence_s=ANSWER_S)
        for one in self._without_daemon():
            if one.id == id_:
                raise DaemonUnreachable(one.error)
        raise NotFound("nothing is mounted there now")

    def hear(self, daemon: Daemon) -> None:
        """Return once the daemon has answered: a call in the mount of a silent one would hang."""
        ask(daemon, "ping")

    def status(self, id_: str) -> Answer:
        """A mount's status, with at most TRANSFERS transfers."""
        daemon = self.daemon(id_)
        answer = ask(daemon, "status")
        with understood(daemon):
            queue = dict(answer["queue"])
            queue["sent"] = sum(transfer["sent"] for transfer in queue["transfers"])
            transfers = sorted([*queue["transfers"], *answer.get("downloads", ())], key=_first)
            queue["transfers"] = transfers[:TRANSFERS]
            queue["hidden_transfers"] = len(transfers) - len(queue["transfers"])
            queue["conflicts"] = len(queue["conflicts"])
            health = answer.get("health") or {}
            status: Answer = shown(
                {
                    "at_s": time.time(),
                    "version": __version__,
                    "daemon_version": ask(daemon, "ping")["version"],
                    "mount": {
                        name: answer["mount"].get(name)
                        for name in ("mountpoint", "url", "state", "driver", "pid", "read_only")
                    },
                    "is_mirror": "mirror" in answer,
                    "answers": health.get("answers", True),
                    "queue": queue,
                    "cache": answer["cache"],
                    "requests": answer["requests"],
                    "troubles": self._troubles(answer),
                }
            )
        return status

    def cost(self, id_: str) -> Answer:
        daemon = self.daemon(id_)
        answer = ask(daemon, "cost")
        with understood(daemon):
            return {
                name: answer[name]
                for name in ("since_s", "requests", "storage", "dollars_per_month", "prices")
            }

    def level(self, id_: str, path: str) -> Answer:
        """The names in the directory `path`, and those in its largest directories: size and bytes here of each, all
        below a directory included."""
        daemon = self.daemon(id_)
        found = _tiles(daemon, path)
        for inner, tile in [
            one for one in found[:OPENED] if one[1]["kind"] == "directory" and one[1]["files"]
        ]:
            tile["tiles"] = [each for _, each in _tiles(daemon, inner)[:INNER]]
        rest = [tile for _, tile in found[NAMES:]]
        return {
            "path": printable(path),
            "tiles": [tile for _, tile in found[:NAMES]],
            "more": {
                "names": len(rest),
                "files": sum(tile["files"] for tile in rest),
                "bytes": sum(tile["bytes"] for tile in rest),
                "here_bytes": sum(tile["here_bytes"] for tile in rest),
            },
        }


def _tiles(daemon: Daemon, path: str) -> list[tuple[str, Answer]]:
    """The paths of the names in a directory, each with its tile, the largest first."""
    answers = ask_all(daemon, "files", path=path)
    shares = ask(daemon, "shares", path=path)
    with understood(daemon):
        below = {share["path"]: share for share in shares["shares"]}
        found = [
            (file["path"], _tile(file, below.get(file["path"]))) for each in answers for file in each["files"]
        ]
    return sorted(found, key=lambda one: (-one[1]["bytes"], one[0]))


def served(daemon: Daemon) -> Served:
    return Served(daemon.socket.stem, daemon.mountpoint, daemon.url, daemon)


def ask(daemon: Daemon, op: str, **arguments: object) -> Answer:
    """The last answer to a request."""
    return ask_all(daemon, op, **arguments)[-1]


def ask_all(daemon: Daemon, op: str, **arguments: object) -> list[Answer]:
    with understood(daemon):
        return list(client.ask(daemon, op, **arguments))


@contextmanager
def understood(daemon: Daemon) -> Iterator[None]:
    """Raise DaemonUnreachable for an answer of another form: a daemon of another version."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        where = printable(daemon.mountpoint)
        raise DaemonUnreachable(
            f"the answer of the daemon of {where} is not understood by this r2fs ui, of version {__version__}: "
            f"r2fs restart {where} replaces the daemon, without unmounting; after an upgrade start r2fs ui again, too"
        ) from error


def shown(value: Any) -> Any:
    """A copy in which each text is escaped: no control character, no override of the writing direction."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(name)): shown(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [shown(each) for each in value]
    return value


def failure(error: R2fsError) -> Answer:
    return {"error": printable(str(error)), "kind": type(error).__name__}


def _first(transfer: Mapping[str, Any]) -> tuple[int, float]:
    """Order of transfers: on their way, then parked, then those that wait, the oldest first."""
    rank = {"parked": 1, "queued": 2, "dirty": 3}.get(transfer["state"], 0)
    return rank, -float(transfer["age_s"])


def _tile(file: Mapping[str, Any], share: Mapping[str, Any] | None) -> Answer:
    path, is_dir = file["path"], file["kind"] == "directory"
    name = path.rpartition("/")[2]
    common = {
        "name": printable(name),
        "ref": ref_of(path),
        "kind": file["kind"],
        "pinned": bool(file["pinned"]),
    }
    if is_dir:
        of = share or {"files": 0, "bytes": 0, "here_bytes": 0, "pending": 0, "listed": False}
        return {**common, **{key: of[key] for key in ("files", "bytes", "here_bytes", "pending", "listed")}, "state": file["state"]}  # fmt: skip
    return {
        **common,
        "files": 1,
        "bytes": file["size"],
        "here_bytes": min(file["cached"], file["size"]),
        "pending": int(file["state"] not in ("clean", "local")),
        "listed": True,
        "state": file["state"],
    }
