"""`r2fs warm`: download files into the cache before they are read; progress and result of such downloads."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import each_result
from r2fs.cli.failures import Failures
from r2fs.cli.options import json_option, paths_argument
from r2fs.cli.progress import Clock, Progress
from r2fs.cli.usage import Command
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.model import amounts
from r2fs.model.exit_codes import DONE, PARTLY_HERE

EVERY_S = 5.0  # between lines without a terminal
FIRST_S = 1.0  # until the first line: a rate is known
STOPPED = {  # the reason, and the remedy
    "cache": ("the cache is full", "raise cache_size, or name less"),
    "disk": ("the disk of the cache is nearly full", "free some of it, or name less"),
    "budget": ("the budget of this month's requests is used up", "raise prefetch_cost"),
    "stop": ("the mount stops", "run the command again in the next mount"),
}


@click.command("warm", cls=Command, epilog="Example: r2fs warm ~/studio/kits ~/studio/song.wav")
@paths_argument
@json_option()
def command(paths: tuple[str, ...], as_json: bool) -> int:
    """Download files, and all that is below directories, into the cache.

    Files that are here already cost no request, so an interrupted command continues where it ended. It stops when
    the cache has no room for the next file: what it has downloaded is not evicted for the rest. Readers go first.

    Exit code 14: some files are not here, with the reasons on standard error.
    """
    answers, codes, failures = [], {DONE}, Failures()
    for point, (view, took_s) in each_result(paths, failures, partial(_warm, as_json)):
        answers.append({"mountpoint": point, **view})
        codes.add(code_of(view) if as_json else conclude(point, view, took_s))
    if as_json:
        show.as_json(answers)
    return failures.code or max(codes)


def _warm(quiet: bool, daemon: Daemon, paths: list[str]) -> tuple[dict[str, Any], float]:
    """The last answer, and the seconds until it came."""
    began_s = time.monotonic()
    view: dict[str, Any] = {}
    with WarmProgress(quiet) as progress:
        for view in client.ask(daemon, "warm", paths=paths):
            progress.show(view)
    return view, time.monotonic() - began_s


class WarmProgress(Progress):
    """Bytes downloaded; without a terminal a line every EVERY_S."""

    def __init__(self, quiet: bool, clock: Clock = time.monotonic) -> None:
        super().__init__(quiet, clock)
        self._due_s = self._began_s + FIRST_S

    def show(self, view: Mapping[str, Any]) -> None:
        if self._bar is not None:
            done = view["here_bytes"] + view["fetched_bytes"]
            self._set_bar(done, view["bytes"] or None, _files(view))
        elif not self._quiet and self._clock() >= self._due_s:
            self._due_s = self._clock() + EVERY_S
            print(line(view), file=sys.stderr, flush=True)


def line(view: Mapping[str, Any]) -> str:
    """ "12 of 41 files, 3.0 MiB of 20.2 MiB, 1.5 MiB/s, ready in 11 s"."""
    if not view["files"]:
        return "listing what is to be downloaded"
    done = amounts.size(view["here_bytes"] + view["fetched_bytes"])
    text = f"{_files(view)}, {done} of {amounts.size(view['bytes'])}"
    if view["left_s"] is not None:
        text += f", {amounts.size(view['rate'])}/s, ready in {amounts.seconds(view['left_s'] + 0.5)}"
    return text


def _files(view: Mapping[str, Any]) -> str:
    return f"{view['here'] + view['fetched']} of {amounts.counted(view['files'], 'file')}"


def conclude(mountpoint: str, view: Mapping[str, Any], took_s: float) -> int:
    """Print the result, and the files that are not here with their reasons; return the exit code."""
    print(f"{mountpoint}: {_result(view, took_s)}")
    for sentence in _problems(view):
        show.complain(f"{mountpoint}: {sentence}")
    return code_of(view)


def code_of(view: Mapping[str, Any]) -> int:
    return PARTLY_HERE if view["failures"] or view["stopped"] is not None else DONE


def _result(view: Mapping[str, Any], took_s: float) -> str:
    """ "41 files (20.2 MiB) are here: 38 downloaded (19.0 MiB) in 4 s"."""
    count = view["here"] + view["fetched"]
    size = amounts.size(view["here_bytes"] + view["fetched_bytes"])
    text = f"{amounts.counted(count, 'file')} ({size}) {'is' if count == 1 else 'are'} here"
    if view["fetched"]:
        downloaded = f"{view['fetched']} downloaded ({amounts.size(view['fetched_bytes'])})"
        text += f": {downloaded} in {amounts.seconds(took_s + 0.5)}"
    return text


def _problems(view: Mapping[str, Any]) -> Iterator[str]:
    for path, reason in view["failed"]:
        yield f"{path}: {reason.removeprefix(path + ': ')}"
    if view["failures"] > len(view["failed"]):
        yield f"and {view['failures'] - len(view['failed'])} more"
    if view["stopped"] is not None:
        left = view["files"] - view["here"] - view["fetched"] - view["failures"]
        missing = amounts.size(view["bytes"] - view["here_bytes"] - view["fetched_bytes"])
        place, remedy = STOPPED[view["stopped"]]
        yield f"{place}: {amounts.counted(left, 'file')} ({missing}) not downloaded: {remedy}"
