"""`r2fs set`: set Content-Type and headers of objects, of a mount's path or of a bucket's prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from r2fs.bulk.headers import HeaderWork
from r2fs.bulk.removal import Target
from r2fs.cli import show
from r2fs.cli.bulk import BulkCommand
from r2fs.cli.options import config_option, json_option, paths_argument
from r2fs.cli.usage import Command
from r2fs.model import amounts
from r2fs.model.errors import InvalidArgument
from r2fs.model.header_change import HeaderChange
from r2fs.model.ports import ObjectStore
from r2fs.model.reports import BulkReport

FIGURES = {
    "changed_count": "done",
    "unchanged_count": "unchanged",
    "failed_count": "failed",
    "waiting_count": "waiting",
}


@click.command("set", cls=Command)
@paths_argument
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
@json_option("Print the report as JSON.")
@config_option
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

    def work(store: ObjectStore, target: Target, report: BulkReport, progress: Any) -> None:
        HeaderWork(store, change, dry_run).run(target, report, progress)

    def conclude(report: BulkReport) -> None:
        click.echo(
            f"{'would change' if dry_run else 'changed'} {amounts.counted(report.done, 'object')}; "
            f"{report.unchanged} were as wanted; {report.failed} failed"
        )
        if report.waiting:
            show.complain("not all changes are in the bucket yet: the mount's daemon sends them")

    arguments = {"content_type": change.content_type, "headers": headers, "guess": guess_type}
    setting = BulkCommand("set", arguments, work, recursive, dry_run, config_file)
    setting.prepare(paths)
    return setting.run("looked at", FIGURES, conclude, as_json)
