"""`r2fs umount`: have the daemon unmount and send pending changes; clean up mounts without a daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from r2fs.cli import show, unsent
from r2fs.cli.asking import held_mounts, known_daemons, nobody_at
from r2fs.cli.failures import Failures
from r2fs.cli.options import json_option, timeout_option
from r2fs.cli.progress import UploadProgress
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client, mountpoint
from r2fs.daemon.client import Daemon, Held
from r2fs.drivers import kmount
from r2fs.drivers.mount_path import absolute
from r2fs.model import amounts
from r2fs.model.errors import DaemonUnreachable, MountError, MountPointBad, R2fsError, SettingsError
from r2fs.model.exit_codes import DONE, INTERRUPTED, SOMETHING_LEFT
from r2fs.model.settings.sources import gather


class NotWaitedFor(R2fsError):
    """Ctrl-C after the unmount, during the uploads."""

    exit_code = INTERRUPTED


@click.command("umount", cls=Command)
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=PathText())
@timeout_option("Longest wait for uploads: 30s, 15m.")
@click.option("--lazy", is_flag=True, help="Detach the mount even while programs have files open.")
@json_option("Print the outcome as JSON.")
def command(directories: tuple[str, ...], timeout_s: float | None, lazy: bool, as_json: bool) -> int:
    """Unmount, waiting for uploads.

    Exit code 75 means that changes are not yet in the bucket: they are kept, and sent at the next
    mount. Of several DIRs all are done; the exit code is that of the first failure. A mount whose daemon has ended is unmounted, too, even while it waits for another daemon.

    Example: r2fs umount --timeout 10m ~/studio
    """
    directories = _left_alone(directories)
    found = {daemon.mountpoint: daemon for daemon in known_daemons()}
    worst, failures = DONE, Failures()
    results = []
    for directory in directories:
        try:
            outcome = _unmount(directory, found.get(absolute(directory)), timeout_s, lazy, as_json)
        except NotWaitedFor:
            raise
        except R2fsError as error:
            failures.note(error)
            continue
        worst = max(worst, int(outcome["exit_code"]))
        results.append(outcome)
    if as_json:
        show.as_json(results)
    return failures.code or worst


def _unmount(
    directory: str, daemon: Daemon | None, timeout_s: float | None, lazy: bool, quiet: bool
) -> dict[str, Any]:
    if daemon is not None:
        try:
            return _stop(daemon, timeout_s, lazy, quiet)
        except DaemonUnreachable:
            if daemon.alive:
                raise  # else it is the card of a killed daemon
    return _without_daemon(directory, lazy)


def _left_alone(directories: tuple[str, ...]) -> tuple[str, ...]:
    """Change the working directory if it is in one of these mounts, which it would keep in use; return absolute paths."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return directories
    paths = tuple(os.path.abspath(directory) for directory in directories)
    if not any(f"{here}/".startswith(f"{absolute(path)}/") for path in paths):
        return directories
    os.chdir("/")
    return paths


def _stop(daemon: Daemon, timeout_s: float | None, lazy: bool, quiet: bool) -> dict[str, Any]:
    last: dict[str, Any] = {}
    with UploadProgress(quiet) as progress:
        try:
            for last in client.ask(daemon, "stop", timeout_s=timeout_s, lazy=lazy):
                progress.show(last["queue"])
        except KeyboardInterrupt:
            if not last:  # the unmount is not over
                raise
            raise NotWaitedFor(
                f"interrupted: {daemon.mountpoint} is unmounted already, and its daemon (process {daemon.pid}) still "
                f"sends: {show.left(last['queue'])} left; see r2fs status"
            ) from None
    queue = last["queue"]
    if not quiet and last["exit_code"]:
        first = next((item for item in queue["transfers"] if item["state"] == "parked"), None)
        parked = f"; {amounts.parked(queue['parked'], first['path'], first['reason'])}" if first else ""
        show.complain(
            f"{daemon.mountpoint} is unmounted; not yet in the bucket: {show.left(queue)}{parked}; "
            f"it is kept, and sent {'by the next mirror' if last.get('mirror') else 'at the next mount'}"
        )
    return {"mountpoint": daemon.mountpoint, **last}


def _without_daemon(directory: str, lazy: bool) -> dict[str, Any]:
    path = Path(directory)
    real = absolute(path)
    waiting = next((held for held in held_mounts() if held.mountpoint == real), None)
    if waiting is not None:
        _end_held(waiting, lazy)
    if mountpoint.is_stale(path):
        mountpoint.detach_stale(path)
        click.echo(f"r2fs: {directory}: a mount without a daemon was removed", err=True)
        return {"mountpoint": real, "exit_code": DONE}
    mounted = kmount.mounted_at(real)
    if mounted is not None and mounted.fstype == mountpoint.OURS:
        raise nobody_at(directory)
    return _unmounted_already(directory, real)


def _unmounted_already(directory: str, real: str) -> dict[str, Any]:
    """The outcome of the earlier unmount; MountPointBad without a record of a mount there."""
    state = unsent.last_on(directory)
    if state is None:
        if (around := client.owner_of(directory, known_daemons())) is not None:
            raise MountPointBad(
                f"{directory} lies in the mount on {around.mountpoint}: r2fs umount {around.mountpoint}"
            )
        raise MountPointBad(f"{directory} is not a mount of r2fs{_remedy(directory)}")
    if not state.pending.anything:
        raise MountPointBad(f"{directory} is not mounted any more; all of {state.place} is in the bucket")
    click.echo(f"r2fs: {directory} is not mounted any more; {unsent.sentence(state)}", err=True)
    return {"mountpoint": real, "exit_code": SOMETHING_LEFT, **unsent.as_data(state)}


def _remedy(directory: str) -> str:
    """The mount point of [mount.NAME], if NAME was given in place of a directory."""
    try:
        if directory in gather().file.mounts:
            point = gather(directory).mountpoint
            return f": [mount.{directory}] of the settings file is for {point}: r2fs umount {point}"
    except SettingsError as error:
        return f" (r2fs status lists them; the settings file has an error: {error})"
    return " (r2fs status lists them)"


def _end_held(waiting: Held, lazy: bool) -> None:
    """End a held mount. MountError while programs use it: they may continue with another daemon."""
    users = [] if lazy else mountpoint.users(Path(waiting.mountpoint))
    if users:
        raise MountError(
            f"{waiting.mountpoint} is in use by {', '.join(users)}: leave it, mount again so that they go on, "
            "or detach it with r2fs umount --lazy"
        )
    if not waiting.end():
        raise MountError(f"{waiting.mountpoint} has a new daemon just now: try again")
