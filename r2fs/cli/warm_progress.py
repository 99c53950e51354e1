"""Progress of downloads into the cache, and their result: a bar on a terminal, a line every few seconds without one.

Never: prints progress to standard output, which is for results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from r2fs.cli import show
from r2fs.cli.progress_bar import make_bar
from r2fs.model import amounts

EVERY_S = 5.0
FIRST_S = 1.0  # until the first line: a rate is known
STOPPED = {  # the reason, and the remedy
    "cache": ("the cache is full", "raise cache_size, or name less"),
    "disk": ("the disk of the cache is nearly full", "free some of it, or name less"),
    "budget": ("the budget of this month's requests is used up", "raise prefetch_cost"),
    "stop": ("the mount stops", "run the command again in the next mount"),
}
PARTLY_HERE = 14  # exit code: not all files are here


class WarmProgress:
    """A context manager. Call `show` with each view of a download."""

    def __init__(self, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._due_s = clock() + FIRST_S
        self._bar: Any = make_bar() if not quiet and sys.stderr.isatty() else None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, view: Mapping[str, Any]) -> None:
        if self._bar is not None:
            text = f"{view['here'] + view['fetched']} of {amounts.counted(view['files'], 'file')}"
            done = view["here_bytes"] + view["fetched_bytes"]
            self._bar.update(self._task, total=view["bytes"] or None, completed=done, description=text)
        elif not self._quiet and self._clock() >= self._due_s:
            self._due_s = self._clock() + EVERY_S
            print(line(view), file=sys.stderr, flush=True)


def line(view: Mapping[str, Any]) -> str:
    """ "12 of 41 files, 3.0 MiB of 20.2 MiB, 1.5 MiB/s, ready in 11 s"."""
    if not view["files"]:
        return "listing what is to be downloaded"
    done = amounts.size(view["here_bytes"] + view["fetched_bytes"])
    text = f"{view['here'] + view['fetched']} of {amounts.counted(view['files'], 'file')}, {done} of {amounts.size(view['bytes'])}"
    if view["left_s"] is not None:
        text += f", {amounts.size(view['rate'])}/s, ready in {amounts.seconds(view['left_s'] + 0.5)}"
    return text


def result(view: Mapping[str, Any], took_s: float) -> str:
    """ "41 files (20.2 MiB) are here: 38 downloaded (19.0 MiB) in 4 s"."""
    count = view["here"] + view["fetched"]
    size = amounts.size(view["here_bytes"] + view["fetched_bytes"])
    text = f"{amounts.counted(count, 'file')} ({size}) {'is' if count == 1 else 'are'} here"
    if view["fetched"]:
        text += (
            f": {view['fetched']} downloaded ({amounts.size(view['fetched_bytes'])})"
            f" in {amounts.seconds(took_s + 0.5)}"
        )
    return text


def problems(view: Mapping[str, Any]) -> Iterator[str]:
    """Sentences that say which files are not here, and why."""
    for path, reason in view["failed"]:
        yield f"{path}: {reason.removeprefix(path + ': ')}"
    if view["failures"] > len(view["failed"]):
        yield f"and {view['failures'] - len(view['failed'])} more"
    if view["stopped"] is not None:
        left = view["files"] - view["here"] - view["fetched"] - view["failures"]
        missing = amounts.size(view["bytes"] - view["here_bytes"] - view["fetched_bytes"])
        place, remedy = STOPPED[view["stopped"]]
        yield f"{place}: {amounts.counted(left, 'file')} ({missing}) not downloaded: {remedy}"


def conclude(mountpoint: str, view: Mapping[str, Any], took_s: float) -> int:
    """Print the result, and what is missing; return the exit code."""
    print(f"{mountpoint}: {result(view, took_s)}")
    for sentence in problems(view):
        show.complain(f"{mountpoint}: {sentence}")
    return code_of(view)


def code_of(view: Mapping[str, Any]) -> int:
    return PARTLY_HERE if view["failures"] or view["stopped"] is not None else 0
