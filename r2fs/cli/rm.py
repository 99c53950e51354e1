"""`r2fs rm`: objects are deleted, of a mount's path or of a bucket's prefix, and what was deleted is reported."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from r2fs.bulk.removal import Removal, Target
from r2fs.cli import show
from r2fs.cli.asking import by_daemon, known_daemons
from r2fs.cli.bulk_progress import BulkProgress
from r2fs.cli.bulk_targets import PARTLY, bucket_of, check_found, complain_of, is_url, report_in
from r2fs.cli.failures import Failures, named_in
from r2fs.cli.storing import settings_at, store_of
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.daemon.protocol import Message, raise_failure
from r2fs.daemon.stopping import SOMETHING_LEFT
from r2fs.model import amounts
from r2fs.model.keys import printable
from r2fs.model.reports import BulkReport

LEAST_IN_MB = 10_000  # bytes


@click.command("rm", cls=Command)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PathText())
@click.option("-r", "--recursive", is_flag=True, help="Also all that is below each PATH.")
@click.option("--dry-run", is_flag=True, help="Count what would be deleted; change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Delete a whole bucket or mount without a question.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Settings file to read."
)
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
    report, failures = BulkReport(), Failures()
    urls = [path for path in paths if is_url(path)]
    named = [path for path in paths if not is_url(path)]
    mounted = by_daemon(named, known_daemons(started=True), failures) if named else {}
    if not dry_run:
        _confirm(urls, mounted, yes)
    try:
        with BulkProgress("counted" if dry_run else "deleted", quiet=as_json) as progress:
            for url in urls:
                with failures.noted():
                    _remove_url(url, report, progress, recursive, dry_run, config_file)
            for daemon, within in mounted.items():
                for path in within:
                    with failures.noted():
                        _remove_mounted(daemon, path, report, progress, recursive, dry_run)
    finally:
        if report.found or (sys.exc_info()[0] is None and not failures.code):
            _print(report, dry_run, as_json)
    if failures.code:
        return failures.code
    if report.failed:
        return PARTLY
    return SOMETHING_LEFT if report.waiting else 0


def _confirm(urls: Sequence[str], mounted: dict[Daemon, list[str]], yes: bool) -> None:
    """Ask before a whole bucket or mount is emptied. UsageError where no person can answer."""
    whole = [url for url in urls if not bucket_of(url)[1]]
    whole += [
        os.path.join(daemon.mountpoint, path)
        for daemon, paths in mounted.items()
        for path in paths
        if _is_whole(daemon, path)
    ]
    for name in [] if yes else whole:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{name}: all of it would be deleted: --yes confirms that")
        click.confirm(f"Delete all that is in {printable(name)}?", abort=True, err=True)


def _is_whole(daemon: Daemon, path: str) -> bool:
    """True for a mount's root, and in a mount of several buckets for the directory of each."""
    return not path or ("/" not in path and bool(client.ask_once(daemon, "locate", path=path)["several"]))


def _remove_url(
    url: str,
    report: BulkReport,
    progress: BulkProgress,
    recursive: bool,
    dry_run: bool,
    config_file: Path | None,
) -> None:
    bucket, key = bucket_of(url)
    one = BulkReport()
    settings = settings_at(bucket, config_file)
    try:
        with store_of(settings, bucket, config_file, check=False) as store:
            Removal(store).run(
                Target.of(key, recursive),
                one,
                lambda now: progress.show(
                    report.done + now.done,
                    report.done + now.found if now.listed else None,
                    amounts.size(now.bytes),
                ),
                dry_run=dry_run,
            )
    finally:
        report.add(one)
    check_found(url, one, recursive)


def _remove_mounted(
    daemon: Daemon, path: str, report: BulkReport, progress: BulkProgress, recursive: bool, dry_run: bool
) -> None:
    answer: Message = {}
    with named_in(daemon.mountpoint, [path]):
        for answer in client.ask(daemon, "remove", path=path, recursive=recursive, dry_run=dry_run):
            progress.show(
                report.done + answer["report"]["done"], None, amounts.size(answer["report"]["bytes"])
            )
        one = report_in(answer["report"])
        report.add(one)
        raise_failure(answer["stopped"] or {})
    check_found(os.path.join(daemon.mountpoint, path), one, recursive)


def _amount(count: int) -> str:
    """Megabytes with two digits; bytes where these digits would be 0."""
    return f"{count / 1e6:.2f} MB" if count >= LEAST_IN_MB else f"{count} B"


def _print(report: BulkReport, dry_run: bool, as_json: bool) -> None:
    if as_json:
        show.as_json(
            {
                "dry_run": dry_run,
                "deleted_count": report.done,
                "failed_count": report.failed,
                "total_bytes": report.bytes,
                "not_uploaded_count": report.unsent,
                "waiting_count": report.waiting,
                "errors": [{"key": key, "reason": why} for key, why in report.errors],
            }
        )
        return
    unsent = f", {report.unsent} of them not uploaded yet" if report.unsent else ""
    click.echo(
        f"{'would delete' if dry_run else 'deleted'} {amounts.counted(report.done, 'object')} "
        f"({_amount(report.bytes)}){unsent}; {report.failed} failed"
    )
    if report.waiting:
        show.complain(
            f"{amounts.counted(report.waiting, 'deletion')} wait and are sent by the mount's daemon"
        )
    complain_of(report)
