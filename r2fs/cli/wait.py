"""`r2fs wait`: return when the bucket holds exactly the bytes of files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import by_daemon, known_daemons
from r2fs.cli.failures import named_in
from r2fs.cli.options import json_option, paths_argument, timeout_option
from r2fs.cli.progress import UploadProgress
from r2fs.cli.usage import Command
from r2fs.daemon.client import Daemon
from r2fs.daemon.receipt import Outcome, confirm
from r2fs.model import amounts
from r2fs.model.errors import Refused
from r2fs.model.exit_codes import DONE, OTHER_VERSION, PARTLY, REFUSED, SOMETHING_LEFT

_WORSE = (DONE, PARTLY, SOMETHING_LEFT, OTHER_VERSION, REFUSED, Refused.exit_code)
CODES = {
    Outcome.CONFIRMED: DONE,
    Outcome.OUT_OF_TIME: SOMETHING_LEFT,
    Outcome.REPLACED: OTHER_VERSION,
    Outcome.PARKED: REFUSED,
    Outcome.REFUSED: Refused.exit_code,
    Outcome.UNKNOWN: PARTLY,
}


@click.command("wait", cls=Command)
@paths_argument
@timeout_option("Longest time to wait: 30s, 15m.")
@json_option()
def command(paths: tuple[str, ...], timeout_s: float | None, as_json: bool) -> int:
    """Return when the bucket holds exactly the bytes of each PATH.

    PATH is a file in a mount, or a directory with all that is below it. Changes of it are sent now. Then each
    file's ETag is compared with the bucket: a HEAD for a file, listings for a directory. A file that a program has
    open for writing is waited for.

    Exit codes: 0, the bucket holds exactly these bytes. 3, the bucket refuses all requests. 10, a file or a removal
    is parked: it was refused, or may be damaged. 12, the bucket holds another version of a file, or none: somebody
    else has replaced or removed it. 13, a bucket of several gave no answer; the others hold exactly these bytes. 75,
    time is up.
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
    with UploadProgress(quiet=quiet or as_json) as progress:
        for daemon, paths in targets.items():
            with named_in(daemon.mountpoint, paths):
                receipt = confirm(
                    daemon, list(paths), deadline_s, partial(progress.show, mountpoint=daemon.mountpoint)
                )
            results.append(
                {
                    "mountpoint": daemon.mountpoint,
                    "exit_code": CODES[receipt.outcome],
                    "checked": receipt.checked,
                    "reasons": list(receipt.reasons) or _reasons(receipt.answer),
                }
            )
    if as_json:
        show.as_json(results)
    else:
        for result in results:
            for reason in result["reasons"]:
                show.complain(f"{result['mountpoint']}: {reason}")
    return _WORSE[max((_WORSE.index(result["exit_code"]) for result in results), default=0)]


def _reasons(answer: Mapping[str, Any] | None) -> list[str]:
    if answer is None:
        return []
    if answer["parked_count"]:
        first = answer["parked"][0]
        return [amounts.parked(answer["parked_count"], first["path"], first["reason"])]
    if answer["refusal"]:
        return [f"the bucket refuses everything: {answer['refusal']}"]
    return [f"time is up; left: {show.left(answer['queue'])}"]
