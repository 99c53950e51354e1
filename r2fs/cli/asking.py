"""What the commands that ask a daemon share."""

from __future__ import annotations

import os

import click

from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.model.config import gather
from r2fs.model.errors import SettingsError
from r2fs.model.units import Duration

LONGEST_S = 30 * 86400.0


def known_daemons() -> list[Daemon]:
    """Every daemon of this user, that of a run directory named in the settings included."""
    try:
        named = gather().get("run_dir")
    except SettingsError:
        named = None  # wrong settings keep nobody from seeing what is mounted
    return client.daemons(os.environ, named)


def parse_timeout(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """--timeout, in the units of settings."""
    if text is None:
        return None
    kind = Duration(0, LONGEST_S)
    try:
        return kind.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}; allowed: {kind.allowed}") from None
