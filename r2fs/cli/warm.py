"""`r2fs warm`: download files into the cache before they are read."""

from __future__ import annotations

import time
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import by_daemon, known_daemons
from r2fs.cli.usage import Command, PathText
from r2fs.cli.warm_progress import WarmProgress, code_of, conclude
from r2fs.daemon import client


@click.command("warm", cls=Command, epilog="Example: r2fs warm ~/studio/kits ~/studio/song.wav")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PathText())
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(paths: tuple[str, ...], as_json: bool) -> int:
    """Download files, and all that is below directories, into the cache.

    Files that are here already cost no request, so an interrupted command continues where it ended. It stops when
    the cache has no room for the next file: what it has downloaded is not evicted for the rest. Readers go first.

    Exit code 14: some files are not here, with the reasons on standard error.
    """
    answers, codes = [], {0}
    for daemon, within in by_daemon(paths, known_daemons(started=True)).items():
        began_s = time.monotonic()
        view: dict[str, Any] = {}
        with WarmProgress(quiet=as_json) as progress:
            for view in client.ask(daemon, "warm", paths=within):
                progress.show(view)
        answers.append({"mountpoint": daemon.mountpoint, **view})
        codes.add(code_of(view) if as_json else conclude(daemon.mountpoint, view, time.monotonic() - began_s))
    if as_json:
        show.as_json(answers)
    return max(codes)
