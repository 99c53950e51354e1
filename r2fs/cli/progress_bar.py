"""Progress of uploads, as a bar on a terminal.

Owns:  bytes done and bytes to do, from a queue's view, and the closing line.
Never: prints unless standard error is a terminal: scripts read exit codes and --json.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from r2fs.cli import show
from r2fs.model import amounts

BAR = 16  # characters
SHORTEST = 8  # of a name; a shorter one is of no use
OTHERS = 52  # characters that the bar, bytes, rate and time take at most, with the spaces between


class Tally:
    """Changes of one mount's queue since the first answer: files and bytes sent, and the rate."""

    def __init__(self, queue: Mapping[str, Any]) -> None:
        self._first = self.queue = queue
        self._most_deletes = 0

    def see(self, queue: Mapping[str, Any]) -> None:
        self.queue = queue
        self._most_deletes = max(self._most_deletes, queue["deletes"])

    @property
    def files(self) -> int:
        return int(self.queue["uploaded"] - self._first["uploaded"])

    @property
    def deletes(self) -> int:
        return int(self._most_deletes - self.queue["deletes"])

    @property
    def sent(self) -> int:
        """Bytes in the bucket."""
        return int(self.queue["uploaded_bytes"] - self._first["uploaded_bytes"])

    @property
    def under_way(self) -> int:
        """Bytes sent of files that are incomplete in the bucket."""
        return int(sum(item["sent"] for item in self.queue["transfers"]))

    @property
    def to_do(self) -> int:
        """Bytes to send, without parked files, which are not waited for."""
        parked = sum(item["size"] for item in self.queue["transfers"] if item["state"] == "parked")
        return int(max(0, self.queue["bytes"] - parked - self.under_way))


class Progress:
    """A context manager. Call `show` with each new view of a queue."""

    def __init__(self, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._tallies: dict[str, Tally] = {}
        self._clock = clock
        self._began_s = clock()
        if not quiet and sys.stderr.isatty():
            self._bar = make_bar()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self._bar is None:
            return
        self._bar.stop()
        if kind is None and (text := self._closing()):
            print(text, file=sys.stderr)

    def show(self, queue: Mapping[str, Any], mountpoint: str = "") -> None:
        tally = self._tallies.setdefault(mountpoint, Tally(queue))
        tally.see(queue)
        if self._bar is None:
            return
        done = sum(one.sent + one.under_way for one in self._tallies.values())
        total = done + sum(one.to_do for one in self._tallies.values())
        text = _text(queue, self._bar.console.width - OTHERS)
        self._bar.update(self._task, total=total or None, completed=done, description=text)

    def _closing(self) -> str:
        """ "sent 4 files (101.0 MiB), 3 deletions, in 55 s"; "" if none were sent."""
        tallies = self._tallies.values()
        files, deletes = sum(one.files for one in tallies), sum(one.deletes for one in tallies)
        if files <= 0 and deletes <= 0:
            return ""
        what = amounts.left(files, 0, sum(one.sent for one in tallies), deletes)
        return f"sent {what}, in {amounts.seconds(self._clock() - self._began_s)}"


def _text(queue: Mapping[str, Any], room: int) -> str:
    """Number of names left, and the path of one in flight, cut to the space on the line."""
    sending = [item for item in queue["transfers"] if item["state"] not in ("queued", "parked", "dirty")]
    text = f"{queue['left']} left"
    room -= len(text) + 2
    return f"{text}: {show.shortened(sending[0]['path'], room)}" if sending and room >= SHORTEST else text


def make_bar() -> Any:
    """Return rich's bar of bytes, rate and time left, on standard error."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar
    from rich.table import Column
    from rich.text import Text

    class Speed(ProgressColumn):
        """rich's column of transfer speed, in the units of all other sizes."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{amounts.size(speed)}/s" if speed else "")

    columns = (
        BarColumn(BAR),
        DownloadColumn(binary_units=True, table_column=Column(no_wrap=True)),
        Speed(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
    )
    return Bar(*columns, console=Console(stderr=True), transient=True)
