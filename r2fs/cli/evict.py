"""`r2fs evict`: drop cached content from this host."""

from __future__ import annotations

import click

from r2fs.cli import show
from r2fs.cli.asking import by_daemon, known_daemons
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.model import amounts


@click.command("evict", cls=Command, epilog="Example: r2fs evict ~/studio/archive")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PathText())
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(paths: tuple[str, ...], as_json: bool) -> None:
    """Drop the cached content of files, and of all that is below directories.

    The files stay in the bucket and in the mount; the next read downloads them. Kept, and named with the reason,
    are files that are open, pinned, or not in the bucket yet.
    """
    answers = []
    for daemon, within in by_daemon(paths, known_daemons(started=True)).items():
        answer = client.ask_once(daemon, "evict", paths=within)
        answers.append({"mountpoint": daemon.mountpoint, **answer})
    if as_json:
        show.as_json(answers)
        return
    for answer in answers:
        text = f"{amounts.counted(answer['files'], 'file')} ({amounts.size(answer['bytes'])} on the disk) dropped"
        kept = f", {answer['kept']} kept" if answer["kept"] else ""
        print(f"{answer['mountpoint']}: {text}{kept}")
        for path, reason in answer["reasons"]:
            show.complain(f"{answer['mountpoint']}: {path}: kept: {reason}")
