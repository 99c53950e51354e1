"""`r2fs cache`: check the cached files of a mount, or remove them."""

from __future__ import annotations

from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import known_daemons, nobody_at
from r2fs.cli.bulk_progress import BulkProgress
from r2fs.cli.usage import Group, PathText
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.model import amounts
from r2fs.model.keys import printable

directory_argument = click.argument("directory", metavar="DIR", type=PathText())
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group("cache", cls=Group)
def command() -> None:
    """Check and clear the cache of a mount. Changes that are not in the bucket are no part of it."""


@command.command("check")
@directory_argument
@json_option
def check(directory: str, as_json: bool) -> None:
    """Compare each cached file with its ETag; a damaged one is dropped, and fetched again at its next use.

    DIR is a path in the mount. Files that are partly here, and objects whose ETag is no MD5, are left out. No request
    is sent.

    \b
    Example:
      r2fs cache check ~/studio
    """
    daemon = _daemon(directory)
    total = client.ask_once(daemon, "status")["cache"]["entries"]
    answer: dict[str, Any] = {}
    with BulkProgress("checking", quiet=as_json) as progress:
        for answer in client.ask(daemon, "cache_check"):
            progress.show(answer["checked"] + answer["skipped"], max(total, 1))
    if as_json:
        show.as_json(answer)
        return
    left_out = f", {amounts.counted(answer['skipped'], 'file')} left out" if answer["skipped"] else ""
    checked = f"{amounts.counted(answer['checked'], 'file')} ({amounts.size(answer['bytes'])})"
    print(f"checked {checked}{left_out}; {len(answer['damaged'])} damaged and dropped")
    for key in answer["damaged"]:
        print(f"  {printable(key)}")


@command.command("clear")
@directory_argument
@json_option
def clear(directory: str, as_json: bool) -> None:
    """Remove all cached files that no program has open. The next use fetches them again.

    DIR is a path in the mount. Changes that are not in the bucket stay.

    \b
    Example:
      r2fs cache clear ~/studio
    """
    answer = client.ask_once(_daemon(directory), "cache_clear")
    if as_json:
        show.as_json(answer)
        return
    left = f"; {amounts.counted(answer['entries'], 'file')} in use" if answer["entries"] else ""
    removed = f"{amounts.counted(answer['removed'], 'file')} ({amounts.size(answer['removed_bytes'])})"
    print(f"removed {removed}{left}")


def _daemon(directory: str) -> Daemon:
    daemon = client.owner_of(directory, known_daemons(started=True))
    if daemon is None:
        raise nobody_at(directory)
    return daemon
