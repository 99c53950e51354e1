"""Requests to daemons: functions shared by the commands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import click

from r2fs.cli.failures import Failures
from r2fs.cli.settling import await_settled
from r2fs.daemon import client, mountpoint
from r2fs.daemon.client import Daemon, Held
from r2fs.drivers import kmount
from r2fs.drivers.mount_path import absolute
from r2fs.model.errors import DaemonUnreachable, MountPointBad, NotFound, R2fsError, SettingsError
from r2fs.model.keys import printable
from r2fs.model.settings.sources import gather
from r2fs.model.settings.units import Duration

LONGEST_S = 30 * 86400.0


def known_daemons(started: bool = False) -> list[Daemon]:
    """Every daemon of this user, including the run directory in the settings.

    `started`: wait for daemons that their holders are starting again, and include them.
    """
    named = _named_run_dir()
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
    return client.held(os.environ, _named_run_dir())


def _named_run_dir() -> Path | None:
    try:
        named: Path | None = gather().get("run_dir")
    except SettingsError:
        return None  # wrong settings must not hide mounts
    return named


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


def served_by_nobody(waiting: list[Held]) -> list[tuple[Daemon, str]]:
    """Mounts whose daemon was killed and that no holder keeps, by the card left, each with its remedy."""
    kept = {held.mountpoint for held in waiting}
    said = []
    for card in client.daemons(os.environ, _named_run_dir(), dead=True):
        mounted = kmount.mounted_at(card.mountpoint)
        if card.alive or card.mountpoint in kept or mounted is None or mounted.fstype != mountpoint.OURS:
            continue
        try:
            why = str(nobody_at(card.mountpoint))
        except R2fsError as error:  # the dead mount does not even answer with an error
            why = str(error)
        said.append((card, why))
    return said


def is_no_mount(path: str) -> bool:
    """True unless mounted by r2fs, kept for a daemon, or stale."""
    if client.owner_of(path, held_mounts()) is not None or mountpoint.is_stale(Path(path)):
        return False
    mounted = kmount.mounted_at(absolute(path))
    return mounted is None or mounted.fstype != mountpoint.OURS


def held_text(waiting: Held) -> str:
    what = "it is being started again" if waiting.starts_it else "mount again, and programs go on"
    return f"the daemon has gone; its mount waits for another {max(0.0, waiting.left_s):.0f} s: {what}"


def by_daemon(
    paths: Sequence[str], found: Sequence[Daemon], failures: Failures | None = None
) -> dict[Daemon, list[str]]:
    """The paths of each daemon's mount, relative to it. The error of a path without a daemon is noted, or raised."""
    grouped: dict[Daemon, list[str]] = {}
    for path in paths:
        daemon = client.owner_of(path, found)
        if daemon is None:
            if failures is None:
                raise nobody_at(path)
            failures.note(nobody_at(path))
            continue
        grouped.setdefault(daemon, []).append(client.within_mount(path, daemon))
    return grouped


def one_target(path: str) -> tuple[Daemon, str]:
    """The daemon and the path within its mount of the file that `path` leads to: symbolic links are followed."""
    found = known_daemons(started=True)
    daemon = client.owner_of(path, found)
    if daemon is None:
        raise nobody_at(path)
    real = os.path.realpath(path)
    owner = client.owner_of(real, found)
    if owner is None:
        raise MountPointBad(f"{path} leads to {real}, which is not in a mount of r2fs")
    return owner, client.within_mount(real, owner)


def located(path: str) -> tuple[Daemon, dict[str, Any]]:
    """The object of the file that `path` leads to. NotFound if there is none; a name that the mount does not know
    yet is looked up by the mount first."""
    daemon, within = one_target(path)
    answer = client.ask_once(daemon, "locate", path=within)
    if not answer["known"]:
        look_up(path)
        answer = client.ask_once(daemon, "locate", path=within)
    return daemon, answer


def look_up(path: str) -> None:
    """Make the mount look a name up. NotFound if there is none; R2fsError if the mount cannot tell."""
    try:
        os.stat(path)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file or directory") from None
    except OSError as error:
        raise R2fsError(f"{path}: {error.strerror}") from None


def parse_timeout(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Parse --timeout, in the units of settings."""
    if text is None:
        return None
    kind = Duration(0, LONGEST_S)
    try:
        return kind.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}; allowed: {kind.allowed}") from None
