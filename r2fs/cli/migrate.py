"""`r2fs migrate`: give objects other keys, by a map or a rule."""

from __future__ import annotations

from pathlib import Path

import click

from r2fs.bulk.migrate import Migration, Report, check
from r2fs.bulk.plan import BadMap, Plan, plan, read_map, rows_of_rule
from r2fs.bulk.results import Results
from r2fs.cli import show
from r2fs.cli.bulk import complain_of
from r2fs.cli.options import config_option, json_option
from r2fs.cli.progress import BulkProgress
from r2fs.cli.setting_flags import complete_target
from r2fs.cli.storing import settings_at, store_of
from r2fs.cli.usage import Command, PathText
from r2fs.model import amounts
from r2fs.model.errors import SettingsError
from r2fs.model.exit_codes import DONE, PARTLY
from r2fs.model.keys import printable
from r2fs.model.ports import ObjectStore, pages


@click.command("migrate", cls=Command)
@click.argument("target", metavar="URL|NAME", shell_complete=complete_target)
@click.option("--map", "map_file", type=PathText(), metavar="FILE", help="CSV of old and new keys.")
@click.option(
    "--rule",
    nargs=2,
    metavar="REGEX NEW",
    help="Each key that REGEX matches whole becomes NEW, with \\1 for a group.",
)
@click.option(
    "--results",
    type=PathText(),
    metavar="FILE",
    help="CSV of confirmed copies; needed with --rule. Default: FILE.results.csv beside the map.",
)
@click.option("--keep-old", is_flag=True, help="Copy only: delete no old key.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and what would fail; change nothing.")
@json_option("Print the report as JSON.")
@config_option
def command(
    target: str,
    map_file: str | None,
    rule: tuple[str, str] | None,
    results: str | None,
    keep_old: bool,
    dry_run: bool,
    as_json: bool,
    config_file: Path | None,
) -> int:
    """Give objects of a bucket other keys.

    The bytes stay in the bucket: each object is copied there, the copy's size and ETag are compared, its line is
    written to the results file, and then the old key is deleted. One old key may become several new ones. Two old
    keys with one new key are refused, as is a new key that is another line's old key; no object is ever replaced.

    FILE is a CSV: the old key, the new key, and any further columns, which are carried on into the results. A first
    line may name the columns (old, new). Keys are those of the bucket, also where URL has a prefix: then all must be
    below it.

    Interrupted or killed, the same command goes on: the results file tells what was confirmed. Only what stands in
    the results file has moved: let a database follow it. Exit code 13: some objects failed, the others have moved.
    """
    if (map_file is None) == (rule is None):
        raise click.UsageError("give the keys by --map FILE, or by --rule REGEX NEW")
    if map_file is None and results is None and not dry_run:
        raise click.UsageError("with --rule, name a file by --results: what has moved is recorded there")
    settings = settings_at(target, config_file)
    rows, heads = read_map(_text_of(map_file)) if map_file is not None else ([], ())
    with store_of(settings, target, config_file) as store:
        if rule is not None:
            found = pages(store, settings.bucket.prefix)
            rows = rows_of_rule((info.key for page in found for info in page.objects), *rule)
        work = plan(rows, heads, settings.bucket.prefix)
        if dry_run:
            return _dry_run(store, work, as_json)
        path = Path(results or f"{map_file}.results.csv")
        with Results(path, heads) as confirmed, BulkProgress("moved", quiet=as_json) as progress:
            report = Migration(store, confirmed, keep_old).run(
                work, lambda now: progress.show(now.done, now.total, f"({amounts.size(now.bytes)})")
            )
    _print(report, path, as_json)
    return PARTLY if report.failed else DONE


def _text_of(map_file: str) -> str:
    try:
        return Path(map_file).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{map_file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadMap(f"{map_file} is not UTF-8: {error.reason} at byte {error.start}") from None


def _dry_run(store: ObjectStore, work: Plan, as_json: bool) -> int:
    with BulkProgress("checked", quiet=as_json) as progress:
        faults = check(store, work, lambda done: progress.show(done, work.copies))
    rows = [row for move in work.moves for row in move.rows]
    if as_json:
        show.as_json(
            {
                "copies": [{"old": row.old, "new": row.new} for row in rows],
                "failed": [{"line": line, "key": key, "reason": why} for line, key, why in faults],
            }
        )
    else:
        for row in rows:
            click.echo(f"{printable(row.old)} -> {printable(row.new)}")
        _complain(faults)
        click.echo(f"{amounts.counted(work.copies, 'copy')}: nothing was changed", err=True)
    return PARTLY if faults else DONE


def _print(report: Report, path: Path, as_json: bool) -> None:
    if as_json:
        show.as_json(
            {
                "copies": report.total,
                "confirmed": report.confirmed,
                "confirmed_earlier": report.earlier,
                "bytes": report.bytes,
                "old_keys_deleted": report.deleted,
                "failed_count": len(report.failed),
                "failed": [{"line": line, "key": key, "reason": why} for line, key, why in report.failed],
                "results": str(path),
            }
        )
        return
    earlier = f", {report.earlier} by an earlier run" if report.earlier else ""
    click.echo(
        f"{report.confirmed} of {amounts.counted(report.total, 'copy')} confirmed ({amounts.size(report.bytes)}){earlier}; "
        f"{amounts.counted(report.deleted, 'old key')} deleted; results: {path}"
    )
    _complain(report.failed)


def _complain(failed: list[tuple[int, str, str]]) -> None:
    said = [("", f"line {line}: {why if key in why else f'{key}: {why}'}") for line, key, why in failed]
    complain_of(said, len(failed), "(--json lists all)")
