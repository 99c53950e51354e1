"""`r2fs warm`: download files into the cache before they are read."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import by_daemon, known_daemons
from r2fs.cli.failures import Failures, results
from r2fs.cli.usage import Command, PathText
from r2fs.cli.warm_progress import WarmProgress, code_of, conclude
from r2fs.daemon import client
from r2fs.daemon.client import Daemon


@click.command("warm", cls=Command, epilog="Example: r2fs warm ~/studio/kits ~/studio/song.wav")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PathText())
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(paths: tuple[str, ...], as_json: bool) -> int:
    """Download files, and all that is below directories, into the cache.

    Files that are here already cost no request, so an interrupted command continues where it ended. It stops when
    the cache has no room for the next file: what it has downloaded is not evicted for the rest. Readers go first.

    Exit code 14: some files are not here, with the reasons on standard error.
    """
    answers, codes, failures = [], {0}, Failures()
    for daemon, within in by_daemon(paths, known_daemons(started=True), failures).items():
        point = daemon.mountpoint
        for view, took_s in results(point, within, failures, partial(_warm, daemon, as_json)):
            answers.append({"mountpoint": point, **view})
            codes.add(code_of(view) if as_json else conclude(point, view, took_s))
    if as_json:
        show.as_json(answers)
    return failures.code or max(codes)


def _warm(daemon: Daemon, quiet: bool, paths: list[str]) -> tuple[dict[str, Any], float]:
    """The last answer, and the seconds until it came."""
    began_s = time.monotonic()
    view: dict[str, Any] = {}
    with WarmProgress(quiet=quiet) as progress:
        for view in client.ask(daemon, "warm", paths=paths):
            progress.show(view)
    return view, time.monotonic() - began_s
