"""`r2fs cache` and `r2fs evict`: check cached files, and remove them."""

from __future__ import annotations

from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import daemon_of, each_result
from r2fs.cli.failures import Failures
from r2fs.cli.options import directory_argument, json_option, paths_argument
from r2fs.cli.progress import BulkProgress
from r2fs.cli.usage import Command, Group
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.model import amounts
from r2fs.model.keys import printable


@click.group("cache", cls=Group)
def command() -> None:
    """Check and clear the cache of a mount. Changes that are not in the bucket are no part of it."""


@command.command("check")
@directory_argument
@json_option()
def check(directory: str, as_json: bool) -> None:
    """Compare each cached file with its ETag; a damaged one is dropped, and fetched again at its next use.

    DIR is a path in the mount. Files that are partly here, and objects whose ETag is no MD5, are left out. No request
    is sent.

    \b
    Example:
      r2fs cache check ~/studio
    """
    daemon = daemon_of(directory)
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
@json_option()
def clear(directory: str, as_json: bool) -> None:
    """Remove all cached files that no program has open. The next use fetches them again.

    DIR is a path in the mount. Changes that are not in the bucket stay.

    \b
    Example:
      r2fs cache clear ~/studio
    """
    answer = client.ask_once(daemon_of(directory), "cache_clear")
    if as_json:
        show.as_json(answer)
        return
    left = f"; {amounts.counted(answer['entries'], 'file')} in use" if answer["entries"] else ""
    removed = f"{amounts.counted(answer['removed'], 'file')} ({amounts.size(answer['removed_bytes'])})"
    print(f"removed {removed}{left}")


@click.command("evict", cls=Command, epilog="Example: r2fs evict ~/studio/archive")
@paths_argument
@json_option()
def evict(paths: tuple[str, ...], as_json: bool) -> int:
    """Drop the cached content of files, and of all that is below directories.

    The files stay in the bucket and in the mount; the next read downloads them. Kept, and named with the reason,
    are files that are open, pinned, or not in the bucket yet.
    """
    answers, failures = [], Failures()
    for mountpoint, answer in each_result(paths, failures, _evict):
        answers.append({"mountpoint": mountpoint} | answer)
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
