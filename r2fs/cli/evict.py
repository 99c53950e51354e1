"""`r2fs evict`: drop cached content from this host."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import by_daemon, known_daemons
from r2fs.cli.failures import Failures, results
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.model import amounts


@click.command("evict", cls=Command, epilog="Example: r2fs evict ~/studio/archive")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PathText())
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(paths: tuple[str, ...], as_json: bool) -> int:
    """Drop the cached content of files, and of all that is below directories.

    The files stay in the bucket and in the mount; the next read downloads them. Kept, and named with the reason,
    are files that are open, pinned, or not in the bucket yet.
    """
    answers, failures = [], Failures()
    for daemon, within in by_daemon(paths, known_daemons(started=True), failures).items():
        for answer in results(daemon.mountpoint, within, failures, partial(_evict, daemon)):
            answers.append({"mountpoint": daemon.mountpoint} | answer)
    if as_json:
        show.as_json(answers)
        return failures.code
    for answer in answers:
        text = f"{amounts.counted(answer['files'], 'file')} ({amounts.size(answer['bytes'])} on the disk) dropped"
        kept = f", {answer['kept']} kept" if answer["kept"] else ""
        print(f"{answer['mountpoint']}: {text}{kept}")
        for path, reason in answer["reasons"]:
            show.complain(f"{answer['mountpoint']}: {path}: kept: {reason}")
    return failures.code


def _evict(daemon: Daemon, paths: list[str]) -> dict[str, Any]:
    return client.ask_once(daemon, "evict", paths=paths)
