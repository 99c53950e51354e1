"""`r2fs rm`: delete objects, of a mount's path or of a bucket's prefix, and report them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from r2fs.bulk.removal import Removal, Target
from r2fs.cli import show
from r2fs.cli.bulk import BulkCommand, bucket_of
from r2fs.cli.options import config_option, json_option, paths_argument
from r2fs.cli.usage import Command
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.model import amounts
from r2fs.model.keys import printable
from r2fs.model.ports import ObjectStore
from r2fs.model.reports import BulkReport

LEAST_IN_MB = 10_000  # bytes
FIGURES = {
    "deleted_count": "done",
    "failed_count": "failed",
    "total_bytes": "bytes",
    "not_uploaded_count": "unsent",
    "waiting_count": "waiting",
}


@click.command("rm", cls=Command)
@paths_argument
@click.option("-r", "--recursive", is_flag=True, help="Also all that is below each PATH.")
@click.option("--dry-run", is_flag=True, help="Count what would be deleted; change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Delete a whole bucket or mount without a question.")
@json_option("Print the report as JSON.")
@config_option
def command(
    paths: tuple[str, ...], recursive: bool, dry_run: bool, yes: bool, as_json: bool, config_file: Path | None
) -> int:
    """Delete objects, and report how many, of how many bytes, and what failed.

    PATH is a path in a mount, or r2://BUCKET/KEY without one. With -r all keys below PATH/ go: those of directories,
    those that no file name can show, and in a mount also files that are not uploaded yet. `projects/p45` never takes
    `projects/p456`. In a mount the names are gone at once; a file that was renamed out of PATH is kept. Nothing at
    PATH is no error with -r, so that the command can be repeated until it is done.

    Example: r2fs rm -r ~/studio/users/anna/projects/p45

    Exit codes: 0, all is deleted. 13, some objects failed and are named in the report. 75, some deletions are sent by
    the mount's daemon later.
    """

    def work(store: ObjectStore, target: Target, report: BulkReport, progress: Any) -> None:
        Removal(store).run(target, report, progress, dry_run=dry_run)

    def conclude(report: BulkReport) -> None:
        unsent = f", {report.unsent} of them not uploaded yet" if report.unsent else ""
        click.echo(
            f"{'would delete' if dry_run else 'deleted'} {amounts.counted(report.done, 'object')} "
            f"({_amount(report.bytes)}){unsent}; {report.failed} failed"
        )
        if report.waiting:
            waiting = amounts.counted(report.waiting, "deletion")
            show.complain(f"{waiting} wait and are sent by the mount's daemon")

    removal = BulkCommand("remove", {}, work, recursive, dry_run, config_file)
    removal.prepare(paths)
    if not dry_run and not yes:
        _confirm(removal)
    return removal.run("counted" if dry_run else "deleted", FIGURES, conclude, as_json)


def _confirm(removal: BulkCommand) -> None:
    """Ask before a whole bucket or mount is emptied. UsageError where no person can answer."""
    whole = [url for url in removal.urls if not bucket_of(url)[1]]
    for daemon, paths in removal.mounted.items():
        whole += [os.path.join(daemon.mountpoint, path) for path in paths if _is_whole(daemon, path)]
    for name in whole:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{name}: all of it would be deleted: --yes confirms that")
        click.confirm(f"Delete all that is in {printable(name)}?", abort=True, err=True)


def _is_whole(daemon: Daemon, path: str) -> bool:
    """True for a mount's root, and in a mount of several buckets for the directory of each."""
    return not path or ("/" not in path and bool(client.ask_once(daemon, "locate", path=path)["several"]))


def _amount(count: int) -> str:
    """Megabytes with two digits; bytes where these digits would be 0."""
    return f"{count / 1e6:.2f} MB" if count >= LEAST_IN_MB else f"{count} B"
