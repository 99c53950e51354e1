"""`r2fs mirror`: keep a plain directory and a bucket's prefix in step, without FUSE."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.bulk import complain_of
from r2fs.cli.options import TimeText, json_option
from r2fs.cli.progress import BulkProgress
from r2fs.cli.setting_flags import complete_target, flags_from, mirror_flags
from r2fs.cli.streams import open_log
from r2fs.cli.usage import Command, PathText
from r2fs.model import amounts
from r2fs.model.exit_codes import DONE, PARTLY
from r2fs.model.keys import printable
from r2fs.model.settings.loading import credentials_at, settings_of
from r2fs.model.settings.sources import gather

LONGEST_S = 86400.0


@click.command("mirror", cls=Command)
@click.argument("directory", metavar="DIR", type=PathText())
@click.argument("target", metavar="[URL|NAME]", required=False, shell_complete=complete_target)
@click.option("--once", is_flag=True, help="Bring both sides into step once, and end.")
@click.option("--up", is_flag=True, help="With --once: only from DIR to the bucket.")
@click.option("--down", is_flag=True, help="With --once: only from the bucket to DIR.")
@click.option("--delete", is_flag=True, help="Carry removals to the other side.")
@click.option(
    "--every", "every_s", default="1m", type=TimeText(1, LONGEST_S),
    help="Time between two comparisons of both sides.  [1m]",
)  # fmt: skip
@json_option("With --once: print the report as JSON.")
@mirror_flags
def command(
    directory: str,
    target: str | None,
    once: bool,
    up: bool,
    down: bool,
    delete: bool,
    every_s: float,
    as_json: bool,
    words: tuple[str, ...],
    config_file: Path | None,
    **given: Any,
) -> int:
    """Keep a plain directory and a bucket in step, where FUSE is not to be had.

    New and changed files are sent once they are closed, or have been still for 10 seconds; objects that are new or
    changed in the bucket are fetched by a comparison of both sides each --every. A file that was changed on both
    sides is kept in both contents, under the conflict names of a mount. Runs in the foreground until SIGTERM, Ctrl-C
    or r2fs umount DIR, which wait for uploads; r2fs status, flush, wait, url and key take files of DIR.

    A removal stays on its side: an emptied DIR must not empty the bucket. --delete carries removals to the other
    side, of files and objects that were in step before and have not changed since.

    With --once it ends after one comparison: with --down the whole bucket is in DIR, with --up all of DIR is in the
    bucket, or the exit code is 13; nothing is removed without --delete. The same command continues after a kill.

    Example: r2fs mirror --once --down ~/plain r2://studio/takes
    """
    if up and down:
        raise click.UsageError("--up and --down exclude each other; without both, changes go both ways")
    if (up or down or as_json) and not once:
        raise click.UsageError("--up, --down and --json need --once")
    sources: dict[str, Any] = {
        "target": target,
        "flags": flags_from(given, words),
        "config_file": config_file,
        "base": Path.cwd(),
    }
    values = gather(**sources)
    settings = settings_of(values)
    from r2fs.daemon import logs
    from r2fs.daemon.mirror_service import MirrorLaunch, MirrorService
    from r2fs.daemon.reload import Source
    from r2fs.mirror.decide import Way
    from r2fs.mirror.settle import Rules

    debug = bool(click.get_current_context().obj["debug"])
    level = "debug" if debug else "warning" if once else settings.log_level
    open_log(settings, level)

    def credentials_now() -> Any:
        found = credentials_at(gather(**sources, warn=False), settings.bucket.name)
        logs.hide(found)
        return found

    rules = Rules(Way.UP if up else Way.DOWN if down else Way.BOTH, delete)
    source = Source(
        values.files(), lambda: settings_of(gather(**sources, warn=False)), "when the mirror is started again"
    )
    launch = MirrorLaunch(settings, Path(directory), rules, os.environ, credentials_now, source)
    service = MirrorService(launch)
    return _once(service, as_json, whole=up or down) if once else service.run(every_s, lambda: None)


def _once(service: Any, as_json: bool, whole: bool) -> int:
    """Run one comparison. `whole`: a name that is not mirrored is a failure, since one side is to have all of the other."""
    with BulkProgress("in step", quiet=as_json) as progress:
        counts, failed, skipped = service.once(
            lambda done, total, now: progress.show(
                done, total, f"({amounts.size(now.sent_bytes + now.fetched_bytes)})"
            )
        )
    if as_json:
        show.as_json(
            {
                "sent": counts.sent,
                "sent_bytes": counts.sent_bytes,
                "fetched": counts.fetched,
                "fetched_bytes": counts.fetched_bytes,
                "objects_deleted": counts.deleted,
                "files_removed": counts.removed,
                "conflicts": counts.conflicts,
                "not_mirrored": [{"name": name, "reason": why} for name, why in skipped.items()],
                "failed_count": len(failed),
                "failed": [{"name": name, "reason": why} for name, why in failed],
            }
        )
    else:
        said = [
            f"sent {amounts.counted(counts.sent, 'file')} ({amounts.size(counts.sent_bytes)})",
            f"fetched {amounts.counted(counts.fetched, 'file')} ({amounts.size(counts.fetched_bytes)})",
        ]
        for number, word in (
            (counts.deleted, "removed in the bucket"),
            (counts.removed, "removed here"),
            (counts.conflicts, "kept in two versions"),
            (len(skipped), "not mirrored"),
            (len(failed), "failed"),
        ):
            said += [f"{number} {word}"] if number else []
        click.echo(", ".join(said))
        complain_of([(printable(name), why) for name, why in failed], len(failed), "(--json lists all)")
    return PARTLY if failed or (whole and skipped) else DONE
