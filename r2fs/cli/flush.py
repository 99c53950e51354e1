"""`r2fs flush`: send pending changes now; with --wait, return when they are in the bucket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

from r2fs.cli import show, unsent
from r2fs.cli.asking import by_daemon, held_mounts, held_text, known_daemons
from r2fs.cli.options import json_option, timeout_option
from r2fs.cli.progress import UploadProgress
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.model import amounts
from r2fs.model.errors import DaemonUnreachable
from r2fs.model.exit_codes import DONE, REFUSED, SOMETHING_LEFT


@click.command("flush", cls=Command)
@click.argument("paths", metavar="[PATH...]", nargs=-1, type=PathText())
@click.option("--wait", is_flag=True, help="Return when the changes are in the bucket.")
@timeout_option()
@click.option("--retry", is_flag=True, help="Try parked files once more.")
@json_option("Print the pending changes as JSON.")
def command(paths: tuple[str, ...], wait: bool, timeout_s: float | None, retry: bool, as_json: bool) -> int:
    """Send pending changes now, without the usual delay.

    PATH is a file or directory in a mount, or the former path of a removed one. Without PATH, all
    mounts are flushed. With --wait, exit code 0 means that the bucket is as the mount shows it: files,
    renames from and to PATH, and removals. 10 means that the bucket refuses a file, a removal or all
    requests, or that a file may be damaged; the command then ends at once. 75 means that time ran out.
    Files that are still open for writing are not waited for.

    With --retry, parked files are tried once more, after their cause is mended. A file that may be
    torn is sent only where PATH names the file itself: look at the file first.
    """
    answers: list[dict[str, Any]] = []
    complaints, codes = [], {DONE}
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with UploadProgress(quiet=as_json or not wait) as progress:
        for daemon, within in _daemons(paths):
            rest = deadline and max(0.0, deadline - time.monotonic())
            answer = flush(daemon, within, rest if wait else 0.0, retry, progress)
            answers.append({"mountpoint": daemon.mountpoint} | answer)
            why, code = _verdict(answer)
            codes.add(code)
            if code:
                complaints.append(f"{daemon.mountpoint}: {why}; left: {show.left(answer['queue'])}")
    if as_json:
        show.as_json(answers)
    elif not paths:
        _warn_of_unmounted(bool(answers))
    if not wait:
        return DONE
    for text in complaints if not as_json else ():
        show.complain(text)
    return max(codes, key=(DONE, SOMETHING_LEFT, REFUSED).index)


def _warn_of_unmounted(any_mounted: bool) -> None:
    """Warn, without a path, of pending changes in unmounted state directories: exit code 0 excludes them."""
    if not any_mounted:
        show.complain("nothing is mounted: nothing was sent")
    for state in unsent.with_pending(unsent.unmounted()):
        show.complain(f"not mounted, and not sent by this command: {unsent.sentence(state)}")


def _daemons(paths: tuple[str, ...]) -> Iterator[tuple[Daemon, list[str]]]:
    found = known_daemons(started=True)
    if not paths:
        yield from ((daemon, []) for daemon in found)
        for waiting in held_mounts():  # after the others: its pending changes are sent by no daemon
            raise DaemonUnreachable(f"{waiting.mountpoint}: {held_text(waiting)}")
    yield from by_daemon(paths, found).items()


def flush(
    daemon: Daemon, paths: list[str], timeout_s: float | None, retry: bool, progress: UploadProgress
) -> dict[str, Any]:
    """Ask for a flush, showing its progress. Returns the last answer."""
    last: dict[str, Any] = {}
    for last in client.ask(daemon, "flush", paths=paths, timeout_s=timeout_s, retry=retry):
        progress.show(last["queue"], daemon.mountpoint)
    return last


def _verdict(answer: dict[str, Any]) -> tuple[str, int]:
    """The reason why the flush is incomplete, and the exit code; "" and 0 if it is complete."""
    if answer["parked_count"]:
        first = answer["parked"][0]
        return amounts.parked(answer["parked_count"], first["path"], first["reason"]), REFUSED
    if answer["sent"]:
        return "", DONE
    if answer["refusal"]:
        return f"the bucket refuses everything: {answer['refusal']}", REFUSED
    return "time is up", SOMETHING_LEFT
