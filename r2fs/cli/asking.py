"""Requests to daemons: functions shared by the commands.

Owns:  the search for daemons, with a wait while a holder starts another in place of a dead one; the daemon of a path,
       and the error of a path without one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import click

from r2fs.cli.failures import Failures, named_in
from r2fs.daemon import client, mountpoint
from r2fs.daemon.client import Daemon, Held
from r2fs.daemon.handover import keeper
from r2fs.drivers import kmount
from r2fs.drivers.mount_path import absolute
from r2fs.model.errors import (
    DaemonUnreachable,
    FileError,
    MountPointBad,
    NotFound,
    R2fsError,
    SettingsError,
)
from r2fs.model.keys import printable
from r2fs.model.settings import places

NOTICED_S = 3.0  # for the holder to notice its daemon's death; milliseconds on an idle machine
STARTED_S = 15.0  # for a daemon that the holder starts again
POLL_S = 0.05

T = TypeVar("T")


def known_daemons(started: bool = False) -> list[Daemon]:
    """Every daemon of this user, including the run directory in the settings.

    `started`: wait for daemons that their holders are starting again, and include them.
    """
    named = named_directory("run_dir")
    for sentence in client.not_looked_into(os.environ, named):
        _warn(sentence)
    await_settled(named, started)
    return client.daemons(os.environ, named)


@cache
def _warn(sentence: str) -> None:
    """Warn once: a command may search for daemons repeatedly."""
    click.echo(f"r2fs: warning: {printable(sentence)}", err=True)


def held_mounts() -> list[Held]:
    """Every mount of this user without a daemon, kept by its holder."""
    return client.held(os.environ, named_directory("run_dir"))


def named_directory(setting: str) -> Path | None:
    """The setting `run_dir` or `state_dir`; None where no file and no variable can name it, and where the settings
    are wrong, which must not hide mounts."""
    if not places.is_there(places.settings_file(os.environ)) and not any(
        variable.startswith("R2FS_") for variable in os.environ
    ):
        return None  # without an import of the settings: a status is to be quick
    from r2fs.model.settings.sources import gather

    try:
        named: Path | None = gather(warn=setting == "run_dir").get(setting)
    except SettingsError:
        return None
    return named


def await_settled(named: Path | None, started: bool, clock: Callable[[], float] = time.monotonic) -> None:
    """Wait until each mount has a daemon, or a holder that has noticed the death of its daemon.

    With `started`, wait also for daemons that holders are starting.
    """
    begun_s = clock()
    while waits := [wait for card in _dead(named) if (wait := _waits_for(card, started))]:
        if clock() - begun_s > min(waits):
            return
        time.sleep(POLL_S)


def _dead(named: Path | None) -> list[Daemon]:
    return [card for card in client.daemons(os.environ, named, dead=True) if not card.alive]


def _waits_for(card: Daemon, started: bool) -> float:
    """Seconds worth waiting for a change of this mount; 0 if none is expected."""
    status = keeper.ask(card.socket.with_suffix(".holder"), {"op": "status"})
    if status is None:
        return 0.0
    if status.get("daemon") is not None:  # the dead daemon, or a successor before it has written its card
        return STARTED_S if started else NOTICED_S
    return STARTED_S if started and status.get("starts_it") else 0.0


def daemon_of(path: str, found: Sequence[Daemon] | None = None) -> Daemon:
    """The daemon, among `found` or all, of the mount that `path` is in. Raises the error of nobody_at without one."""
    daemon = client.owner_of(path, known_daemons(started=True) if found is None else found)
    if daemon is None:
        raise nobody_at(path)
    return daemon


def nobody_at(path: str) -> R2fsError:
    """The error of a path without a reachable daemon, with its cause."""
    waiting = client.owner_of(path, held_mounts())
    if waiting is not None:
        return DaemonUnreachable(f"{waiting.mountpoint}: {held_text(waiting)}")
    if mountpoint.is_stale(Path(path)):
        return DaemonUnreachable(
            f"the daemon of {path} has gone: mount again, which sends what it left, or r2fs umount {path}"
        )
    mounted = kmount.mount_over(absolute(path))
    if mounted is not None and mounted.user not in (None, os.getuid()):
        return DaemonUnreachable(
            f"the daemon of {mounted.path} is another user's (uid {mounted.user}): "
            f"ask as that user ({_as_user(mounted.user)} r2fs …)"
        )
    if mounted is not None:
        return DaemonUnreachable(
            f"the daemon of {mounted.path} is another user's, or its --run-dir is not known here: "
            f"ask as that user, or set R2FS_RUN_DIR"
        )
    return MountPointBad(f"{path} is not in a mount of r2fs (r2fs status lists them)")


def _as_user(uid: int | None) -> str:
    return f"sudo -u '#{uid}'" if uid else "sudo"


@dataclass(frozen=True, slots=True)
class Unserved:
    """A mount without a daemon. `error`: the reason and the remedy."""

    id: str
    mountpoint: str
    url: str
    state: str
    error: str

    @property
    def sentence(self) -> str:
        """The error with the mount point."""
        return self.error if self.mountpoint in self.error else f"{self.mountpoint}: {self.error}"


def unserved() -> list[Unserved]:
    """Mounts that holders keep, and mounts of killed daemons that no holder keeps."""
    held = held_mounts()
    found = [Unserved(one.socket.stem, one.mountpoint, one.url, "held", held_text(one)) for one in held]
    kept = {one.mountpoint for one in held}
    for card in _dead(named_directory("run_dir")):
        if card.mountpoint in kept or not _is_ours(card.mountpoint):
            continue
        try:
            why = str(nobody_at(card.mountpoint))
        except R2fsError as error:  # the dead mount does not even answer with an error
            why = str(error)
        found.append(Unserved(card.socket.stem, card.mountpoint, card.url, "no daemon", why))
    return found


def is_no_mount(path: str) -> bool:
    """True unless `path` is a mount point of r2fs: served, held or stale."""
    if client.owner_of(path, held_mounts()) is not None or mountpoint.is_stale(Path(path)):
        return False
    return not _is_ours(absolute(path))


def _is_ours(path: str) -> bool:
    mounted = kmount.mounted_at(path)
    return mounted is not None and mounted.fstype == mountpoint.OURS


def held_text(waiting: Held) -> str:
    what = "it is being started again" if waiting.starts_it else "mount again, and programs go on"
    return f"the daemon has gone; its mount waits for another {max(0.0, waiting.left_s):.0f} s: {what}"


def by_daemon(
    paths: Sequence[str], found: Sequence[Daemon], failures: Failures | None = None
) -> dict[Daemon, list[str]]:
    """Group paths by daemon, relative to its mount. The error of a path without a daemon is noted in `failures`, or
    raised."""
    grouped: dict[Daemon, list[str]] = {}
    for path in paths:
        try:
            daemon = daemon_of(path, found)
        except R2fsError as error:
            if failures is None:
                raise
            failures.note(error)
            continue
        grouped.setdefault(daemon, []).append(client.within_mount(path, daemon))
    return grouped


def each_result(
    paths: Sequence[str], failures: Failures, work: Callable[[Daemon, list[str]], T]
) -> Iterator[tuple[str, T]]:
    """Yield each mount point with the result of `work` for the paths of its mount. If a path is refused, `work` is
    called for each path by itself."""
    for daemon, within in by_daemon(paths, known_daemons(started=True), failures).items():
        requests = [within]
        while requests:
            wanted = requests.pop(0)
            try:
                with named_in(daemon.mountpoint, wanted):
                    result = work(daemon, wanted)
            except R2fsError as error:
                if isinstance(error, FileError) and len(wanted) > 1:
                    requests = [[path] for path in wanted]
                else:
                    failures.note(error)
            else:
                yield daemon.mountpoint, result


def one_target(path: str) -> tuple[Daemon, str]:
    """The daemon and the path within its mount of a file. Symbolic links are followed."""
    found = known_daemons(started=True)
    daemon_of(path, found)
    real = os.path.realpath(path)
    owner = client.owner_of(real, found)
    if owner is None:
        raise MountPointBad(f"{path} leads to {real}, which is not in a mount of r2fs")
    return owner, client.within_mount(real, owner)


def located(path: str) -> tuple[Daemon, dict[str, Any]]:
    """The daemon and the object of a file. NotFound without one. The mount looks up a name that it does not know."""
    daemon, within = one_target(path)
    answer = client.ask_once(daemon, "locate", path=within)
    if not answer["known"]:
        look_up(path)
        answer = client.ask_once(daemon, "locate", path=within)
    return daemon, answer


def look_up(path: str) -> None:
    """Make the mount look up a name. Raises NotFound, or R2fsError where the mount cannot answer."""
    try:
        os.stat(path)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file or directory") from None
    except OSError as error:
        raise R2fsError(f"{path}: {error.strerror}") from None
