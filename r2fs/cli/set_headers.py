"""`r2fs set`: Content-Type and headers of objects, of a mount's path or of a bucket's prefix."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from r2fs.bulk.headers import HeaderWork
from r2fs.bulk.removal import Target
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
from r2fs.model.errors import InvalidArgument
from r2fs.model.header_change import HeaderChange
from r2fs.model.reports import BulkReport


@click.command("set", cls=Command)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PathText())
@click.option("-r", "--recursive", is_flag=True, help="All files below each PATH.")
@click.option("--content-type", metavar="TYPE", help="Content-Type, such as audio/mpeg.")
@click.option("--cache-control", metavar="TEXT", help='Cache-Control, such as "public, max-age=3600".')
@click.option("--content-disposition", metavar="TEXT", help="Content-Disposition, such as attachment.")
@click.option("--content-language", metavar="TEXT", help="Content-Language, such as en.")
@click.option(
    "--guess-type",
    is_flag=True,
    help="Content-Type by the name, else by the first bytes, of objects without a telling one.",
)
@click.option("--dry-run", is_flag=True, help="Count what would be changed; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Settings file to read."
)
def command(
    paths: tuple[str, ...],
    recursive: bool,
    content_type: str | None,
    cache_control: str | None,
    content_disposition: str | None,
    content_language: str | None,
    guess_type: bool,
    dry_run: bool,
    as_json: bool,
    config_file: Path | None,
) -> int:
    """Set Content-Type and headers of objects, and report how many were changed.

    PATH is a path in a mount, or r2://BUCKET/KEY without one. Each object is copied onto itself inside the bucket:
    bytes and other metadata stay. An empty TEXT removes a header. Returns when the bucket has the change.

    Example: r2fs set -r --guess-type --cache-control "public, max-age=3600" ~/studio/results

    Exit codes: 0, all objects are as wanted. 13, some objects failed and are named in the report. 75, some changes are
    sent by the mount's daemon later.
    """
    given = {
        "cache-control": cache_control,
        "content-disposition": content_disposition,
        "content-language": content_language,
    }
    headers = {name: value for name, value in given.items() if value is not None}
    if content_type is None and not headers and not guess_type:
        raise click.UsageError("name what is to be set: --content-type, --cache-control, …, or --guess-type")
    try:
        change = HeaderChange(content_type, headers, guess_type)
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from None
    work = _Setting(change, recursive, dry_run, config_file)
    failures = Failures()
    named = [path for path in paths if not is_url(path)]
    mounted = by_daemon(named, known_daemons(started=True), failures) if named else {}
    try:
        with BulkProgress("looked at", quiet=as_json) as progress:
            work.run(list(filter(is_url, paths)), mounted, progress, failures)
    finally:
        if work.report.found or (sys.exc_info()[0] is None and not failures.code):
            _print(work.report, dry_run, as_json)
    if failures.code:
        return failures.code
    if work.report.failed:
        return PARTLY
    return SOMETHING_LEFT if work.report.waiting else 0


class _Setting:
    """One command: the change, and the report of all its paths."""

    def __init__(
        self, change: HeaderChange, recursive: bool, dry_run: bool, config_file: Path | None
    ) -> None:
        self._change = change
        self._recursive = recursive
        self._dry_run = dry_run
        self._config_file = config_file
        self.report = BulkReport()

    def run(
        self,
        urls: Sequence[str],
        mounted: Mapping[Daemon, Sequence[str]],
        progress: BulkProgress,
        failures: Failures,
    ) -> None:
        for url in urls:
            with failures.noted():
                self.url(url, progress)
        for daemon, within in mounted.items():
            for path in within:
                with failures.noted():
                    self.mounted(daemon, path, progress)

    def url(self, url: str, progress: BulkProgress) -> None:
        bucket, key = bucket_of(url)
        settings = settings_at(bucket, self._config_file)
        one = BulkReport()
        try:
            with store_of(settings, bucket, self._config_file, check=False) as store:
                HeaderWork(store, self._change, self._dry_run).run(
                    Target.of(key, self._recursive), one, lambda now: self._show(now, progress)
                )
        finally:
            self.report.add(one)
        check_found(url, one, self._recursive)

    def mounted(self, daemon: Daemon, path: str, progress: BulkProgress) -> None:
        answer: Message = {}
        change = self._change
        with named_in(daemon.mountpoint, [path]):
            for answer in client.ask(
                daemon,
                "set",
                path=path,
                recursive=self._recursive,
                dry_run=self._dry_run,
                content_type=change.content_type,
                headers=dict(change.headers),
                guess=change.guess,
            ):
                self._show(report_in({"errors": (), **answer["report"]}), progress)
            self.report.add(report_in(answer["report"]))
            raise_failure(answer["stopped"] or {})

    def _show(self, now: BulkReport, progress: BulkProgress) -> None:
        before = self.report.done + self.report.unchanged + self.report.failed
        done = now.done + now.unchanged + now.failed
        progress.show(before + done, before + now.found if now.listed else None)


def _print(report: BulkReport, dry_run: bool, as_json: bool) -> None:
    if as_json:
        show.as_json(
            {
                "dry_run": dry_run,
                "changed_count": report.done,
                "unchanged_count": report.unchanged,
                "failed_count": report.failed,
                "waiting_count": report.waiting,
                "errors": [{"key": key, "reason": why} for key, why in report.errors],
            }
        )
        return
    click.echo(
        f"{'would change' if dry_run else 'changed'} {amounts.counted(report.done, 'object')}; "
        f"{report.unchanged} were as wanted; {report.failed} failed"
    )
    if report.waiting:
        show.complain("not all changes are in the bucket yet: the mount's daemon sends them")
    complain_of(report)
