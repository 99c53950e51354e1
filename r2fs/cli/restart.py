"""`r2fs restart`: another daemon under the same mount, as after an upgrade of r2fs."""

from __future__ import annotations

import time

import click

from r2fs.cli import show
from r2fs.cli.asking import daemon_of, known_daemons
from r2fs.cli.failures import Failures
from r2fs.cli.options import json_option
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.model.errors import DaemonUnreachable, R2fsError

POLL_S = 0.05
AWAIT_S = 60.0  # for a busy machine; the mount waits no longer by default


@click.command("restart", cls=Command)
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=PathText())
@json_option("Print the outcome as JSON.")
def command(directories: tuple[str, ...], as_json: bool) -> int:
    """Start the daemon anew, without unmounting: after an upgrade of r2fs, or a change of its settings.

    Open files, working directories and mappings stay valid. Calls that need the daemon wait for a moment.
    """
    found = known_daemons()
    results, failures = [], Failures()
    for directory in directories:
        with failures.noted():
            results.append(_restart(directory, found))
    if as_json:
        show.as_json(results)
    return failures.code


def _restart(directory: str, found: list[Daemon]) -> dict[str, object]:
    daemon = daemon_of(directory, found)
    client.ask_once(daemon, "restart")
    successor, answer = _await(daemon)
    return {"mountpoint": daemon.mountpoint, **answer, "pid": successor.pid}


def _await(before: Daemon) -> tuple[Daemon, dict[str, object]]:
    """Wait for the successor, until it answers and the mount is running."""
    deadline = time.monotonic() + AWAIT_S
    while time.monotonic() < deadline:
        for daemon in known_daemons():
            if daemon.socket == before.socket and daemon.since != before.since:
                try:
                    if client.ask_once(daemon, "status")["mount"]["state"] == "running":
                        return daemon, client.ask_once(daemon, "ping")
                except R2fsError:
                    break  # its socket is not bound yet
        time.sleep(POLL_S)
    raise DaemonUnreachable(
        f"no new daemon of {before.mountpoint} within {AWAIT_S:.0f} s: see its log; r2fs status names the log"
    )
