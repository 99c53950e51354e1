"""`r2fs refresh`: forget names and attributes that a mount knows, so that it asks the bucket again."""

from __future__ import annotations

from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import by_daemon, known_daemons
from r2fs.cli.failures import in_full
from r2fs.cli.options import json_option, paths_argument
from r2fs.cli.usage import Command
from r2fs.daemon import client
from r2fs.model.amounts import counted
from r2fs.model.exit_codes import DONE, PARTLY


@click.command("refresh", cls=Command)
@paths_argument
@click.option("--wait", is_flag=True, help="Ask the bucket now, and return when PATH is as it is there.")
@click.option("--recursive", "-r", is_flag=True, help="With --wait: all that is below PATH, too.")
@json_option("Print the numbers of directories and files as JSON.")
def command(paths: tuple[str, ...], wait: bool, recursive: bool, as_json: bool) -> int:
    """Forget what a mount knows of each PATH and of all below: the next use asks the bucket.

    For changes of other hosts that are to be seen before `freshness` has passed. Cached bytes stay, and are used if
    the bucket still has their version; so do changes that are not in the bucket yet. A directory costs one request
    for each 1,000 names at its next use, or at once with --wait. While the bucket does not answer, names are shown
    as known; --wait then exits with 11. At the root of a mount of several buckets, -r --wait goes on with the others,
    names those without an answer, and exits with 13.

    Example: r2fs refresh --wait -r ~/studio/takes
    """
    if recursive and not wait:
        raise click.UsageError(
            "--recursive is for --wait: without it, everything below PATH is looked up when used"
        )
    results: list[dict[str, Any]] = []
    for daemon, within in by_daemon(paths, known_daemons(started=True)).items():
        last = client.ask_once(daemon, "refresh", paths=within, wait=wait, recursive=recursive)
        results.append({"mountpoint": daemon.mountpoint} | last)
    if as_json:
        show.as_json(results)
    for result in [] if as_json else results:
        known = f"{counted(result['directories'], 'directory')}, {counted(result['files'], 'file')}"
        click.echo(f"{result['mountpoint']}: {'as in the bucket' if wait else 'forgotten'}: {known}")
    failed = [(result["mountpoint"], one) for result in results for one in result["failed"]]
    for mountpoint, one in failed:
        show.complain(in_full(mountpoint, [one["path"]], one["error"]))
    return PARTLY if failed else DONE
