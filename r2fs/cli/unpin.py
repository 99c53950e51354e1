"""`r2fs unpin`: let pinned files be evicted again."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from r2fs.cli.asking import by_daemon, known_daemons
from r2fs.cli.failures import Failures, results
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.model import amounts


@click.command("unpin", cls=Command, epilog="Example: r2fs unpin ~/studio/song/song.rpp")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PathText())
def command(paths: tuple[str, ...]) -> int:
    """Let pinned files be evicted again.

    Removes the pins at and below each PATH, and for a session file those of the files that it was pinned with. The
    files stay here until the cache needs their room; r2fs evict drops them now.
    """
    failures = Failures()
    for daemon, within in by_daemon(paths, known_daemons(started=True), failures).items():
        for answer in results(daemon.mountpoint, within, failures, partial(_unpin, daemon)):
            print(f"{daemon.mountpoint}: {amounts.counted(answer['unpinned'], 'pin')} removed")
    return failures.code


def _unpin(daemon: Daemon, paths: list[str]) -> dict[str, Any]:
    return client.ask_once(daemon, "unpin", paths=paths)
