"""`r2fs flush`: send now, and with --wait return when it is in the bucket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import held_mounts, held_text, known_daemons, nobody_at, parse_timeout
from r2fs.cli.usage import Command
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.daemon.stopping import SOMETHING_LEFT
from r2fs.model.errors import DaemonUnreachable


@click.command("flush", cls=Command)
@click.argument("paths", metavar="[PATH...]", nargs=-1, type=click.Path())
@click.option("--wait", is_flag=True, help="Return only when it is in the bucket.")
@click.option(
    "--timeout", "timeout_s", callback=parse_timeout, metavar="TIME", help="With --wait: no longer than this."
)
@click.option("--retry", is_flag=True, help="Try files that are parked once more.")
@click.option("--json", "as_json", is_flag=True, help="Print what is left, as JSON.")
def command(paths: tuple[str, ...], wait: bool, timeout_s: float | None, retry: bool, as_json: bool) -> int:
    """Send what is not yet in the bucket, without the usual delay.

    PATH is a file or directory in a mount; without one, everything of every mount. With --wait
    exit code 75 says that something is left: time ran out, or the bucket refuses a file (`r2fs
    status` says why). A file that is still open for writing is not waited for.

    With --retry files that are parked go out once more, when their cause is mended. One that may
    be torn goes only where PATH names the file itself: look at it first.
    """
    answers, complete = [], True
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with show.Progress(quiet=as_json or not wait) as progress:
        for daemon, within in _by_daemon(paths):
            rest = deadline and max(0.0, deadline - time.monotonic())
            answer = _flush(daemon, within, rest if wait else 0.0, retry, progress)
            refused = _refused(answer["queue"], within)
            complete = complete and answer["sent"] and not refused
            answers.append({"mountpoint": daemon.mountpoint, **answer})
            if wait and not as_json and not (answer["sent"] and not refused):
                why = f"{refused} refused by the bucket" if refused else "time is up"
                click.echo(f"r2fs: {daemon.mountpoint}: {why}; left: {show.left(answer['queue'])}", err=True)
    if as_json:
        show.as_json(answers)
    return 0 if complete or not wait else SOMETHING_LEFT


def _by_daemon(paths: tuple[str, ...]) -> Iterator[tuple[Daemon, list[str]]]:
    found = known_daemons(started=True)
    if not paths:
        yield from ((daemon, []) for daemon in found)
        for waiting in held_mounts():  # after the others: it has something that nobody sends
            raise DaemonUnreachable(f"{waiting.mountpoint}: {held_text(waiting)}")
    grouped: dict[Daemon, list[str]] = {}
    for path in paths:
        daemon = client.owner_of(path, found)
        if daemon is None:
            raise nobody_at(path)
        grouped.setdefault(daemon, []).append(client.within_mount(path, daemon))
    yield from grouped.items()


def _flush(
    daemon: Daemon, paths: list[str], timeout_s: float | None, retry: bool, progress: show.Progress
) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for last in client.ask(daemon, "flush", paths=paths, timeout_s=timeout_s, retry=retry):
        progress.show(last["queue"])
    return last


def _refused(queue: dict[str, Any], paths: list[str]) -> int:
    """Files at or below `paths` that the bucket refuses."""
    if not paths or "" in paths:
        return int(queue["parked"])
    below = tuple(f"{path}/" for path in paths)
    return sum(
        item["state"] == "parked" and f"{item['path'].strip('/')}/".startswith(below)
        for item in queue["transfers"]
    )
