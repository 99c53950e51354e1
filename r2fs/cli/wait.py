"""`r2fs wait`: a receipt. Exit code 0 means that the bucket holds exactly the bytes of the named files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import by_daemon, known_daemons, parse_timeout
from r2fs.cli.flush import REFUSED, flush
from r2fs.cli.progress_bar import Progress
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.daemon.stopping import SOMETHING_LEFT
from r2fs.model import amounts
from r2fs.model.errors import Refused

OTHER_VERSION = 12  # exit code: the bucket answers, and holds something else
_WORSE = (0, SOMETHING_LEFT, OTHER_VERSION, REFUSED, Refused.exit_code)
OPEN_POLL_S = 0.2  # between looks at a file that a program has open for writing


@click.command("wait", cls=Command)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PathText())
@click.option("--timeout", "timeout_s", callback=parse_timeout, metavar="TIME", help="Longest time to wait.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(paths: tuple[str, ...], timeout_s: float | None, as_json: bool) -> int:
    """Return when the bucket holds exactly the bytes of each PATH.

    PATH is a file in a mount, or a directory with all that is below it. Changes of it are sent now. Then each
    file's ETag is compared with the bucket: a HEAD for a file, listings for a directory. A file that a program has
    open for writing is waited for.

    Exit codes: 0, the bucket holds exactly these bytes. 3, the bucket refuses all requests. 10, a file or a removal
    is parked: it was refused, or may be damaged. 12, the bucket holds another version of a file, or none: somebody
    else has replaced or removed it. 75, time is up.
    """
    return wait_for(by_daemon(paths, known_daemons(started=True)), timeout_s, as_json=as_json)


def wait_for(
    targets: Mapping[Daemon, Sequence[str]],
    timeout_s: float | None,
    *,
    quiet: bool = False,
    as_json: bool = False,
) -> int:
    """Wait for the paths of each mount; say what is wrong on standard error. Returns the exit code."""
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    results: list[dict[str, Any]] = []
    with Progress(quiet=quiet or as_json) as progress:
        for daemon, paths in targets.items():
            code, reasons, checked = _wait(daemon, list(paths), deadline_s, progress)
            results.append(
                {"mountpoint": daemon.mountpoint, "exit_code": code, "checked": checked, "reasons": reasons}
            )
    if as_json:
        show.as_json(results)
    else:
        for result in results:
            for reason in result["reasons"]:
                show.complain(f"{result['mountpoint']}: {reason}")
    return _WORSE[max((_WORSE.index(result["exit_code"]) for result in results), default=0)]


def _wait(
    daemon: Daemon, paths: list[str], deadline_s: float | None, progress: Progress
) -> tuple[int, list[str], int]:
    """Exit code, reasons and the number of files compared."""
    while True:
        rest_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        answer = flush(daemon, paths, rest_s, False, progress)
        if code := _code(answer):
            return code, _reasons(answer), 0
        receipt = client.ask_once(daemon, "verify", paths=paths)
        if receipt["differing"]:
            return OTHER_VERSION, [f"{path}: {why}" for path, why in receipt["differing"]], receipt["checked"]
        if not receipt["changing"]:
            return 0, [], receipt["checked"]
        if deadline_s is not None and time.monotonic() >= deadline_s:
            left = [f"{path}: open for writing, or changed again" for path in receipt["changing"]]
            return SOMETHING_LEFT, left, receipt["checked"]
        time.sleep(OPEN_POLL_S)


def _code(answer: Mapping[str, Any]) -> int:
    if answer["parked_count"]:
        return REFUSED
    if answer["sent"]:
        return 0
    return Refused.exit_code if answer["refusal"] else SOMETHING_LEFT


def _reasons(answer: Mapping[str, Any]) -> list[str]:
    if answer["parked_count"]:
        first = answer["parked"][0]
        return [amounts.parked(answer["parked_count"], first["path"], first["reason"])]
    if answer["refusal"]:
        return [f"the bucket refuses everything: {answer['refusal']}"]
    return [f"time is up; left: {show.left(answer['queue'])}"]
