"""Progress on standard error: bars of rich on a terminal, lines elsewhere.

Never: prints to standard output, which is for results.
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
EVERY_S = 10.0  # between lines of bulk work

Clock = Callable[[], float]


class Progress:
    """A context manager with a bar; without one (`_bar` is None) if `quiet`, or where there is no terminal."""

    def __init__(self, quiet: bool, clock: Clock = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._began_s = clock()
        self._bar: Any = self._make_bar() if not quiet and sys.stderr.isatty() else None
        self._task: Any = None

    def _make_bar(self) -> Any:
        return byte_bar()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _set_bar(self, done: float, total: float | None, text: str) -> None:
        self._bar.update(self._task, completed=done, total=total, description=text)


class UploadProgress(Progress):
    """Bytes sent of one or several mounts' queues, and a closing line. No lines without a terminal."""

    def __init__(self, quiet: bool, clock: Clock = time.monotonic) -> None:
        super().__init__(quiet, clock)
        self._tallies: dict[str, Tally] = {}

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        super().__exit__(kind, *exc)
        if self._bar is not None and kind is None and (text := self._closing()):
            print(text, file=sys.stderr)

    def show(self, queue: Mapping[str, Any], mountpoint: str = "") -> None:
        self._tallies.setdefault(mountpoint, Tally(queue)).see(queue)
        if self._bar is None:
            return
        done = sum(one.sent + one.under_way for one in self._tallies.values())
        total = done + sum(one.to_do for one in self._tallies.values())
        self._set_bar(done, total or None, _left_text(queue, self._bar.console.width - OTHERS))

    def _closing(self) -> str:
        """ "sent 4 files (101.0 MiB), 3 deletions, in 55 s"; "" if none were sent."""
        tallies = self._tallies.values()
        files, deletes = sum(one.files for one in tallies), sum(one.deletes for one in tallies)
        if files <= 0 and deletes <= 0:
            return ""
        what = amounts.left(files, 0, sum(one.sent for one in tallies), deletes)
        return f"sent {what}, in {amounts.seconds(self._clock() - self._began_s)}"


class Tally:
    """Changes of one mount's queue since the first answer: files and bytes sent."""

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


def _left_text(queue: Mapping[str, Any], room: int) -> str:
    """Number of names left, and the path of one in flight, cut to the space on the line."""
    sending = [item for item in queue["transfers"] if item["state"] not in ("queued", "parked", "dirty")]
    text = f"{queue['left']} left"
    room -= len(text) + 2
    return f"{text}: {show.shortened(sending[0]['path'], room)}" if sending and room >= SHORTEST else text


class BulkProgress(Progress):
    """Objects done of `total`, with a word for what is done to them; without a terminal a line every EVERY_S."""

    def __init__(self, word: str, quiet: bool, clock: Clock = time.monotonic) -> None:
        super().__init__(quiet, clock)
        self._word = word
        self._shown_s = self._began_s

    def _make_bar(self) -> Any:
        return count_bar()

    def show(self, done: int, total: int | None, text: str = "") -> None:
        """`total` None: not known yet."""
        now_s = self._clock()
        rate = done / (now_s - self._began_s) if now_s > self._began_s else 0.0
        if self._bar is not None:
            self._set_bar(done, total, f"{rate:.0f}/s {self._word} {text}".strip())
        elif not self._quiet and now_s - self._shown_s >= EVERY_S:
            self._shown_s = now_s
            of = f" of {total}" if total is not None else ""
            left = f", {amounts.seconds((total - done) / rate)} left" if rate and total is not None else ""
            print(f"{self._word} {done}{of}, {rate:.0f}/s{left} {text}".rstrip(), file=sys.stderr, flush=True)


# ------------------------------------------------------------------ bars
def byte_bar() -> Any:
    """A bar of bytes, rate and time left."""
    from rich.progress import BarColumn, DownloadColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Speed(ProgressColumn):
        """rich's column of transfer speed, in the units of all other sizes."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{amounts.size(speed)}/s" if speed else "")

    return _bar(
        BarColumn(BAR),
        DownloadColumn(binary_units=True, table_column=Column(no_wrap=True)),
        Speed(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
    )


def count_bar() -> Any:
    """A bar of a number of objects, and the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    text = TextColumn("{task.description}", markup=False)
    return _bar(BarColumn(BAR), MofNCompleteColumn(), TimeRemainingColumn(), text)


def _bar(*columns: Any) -> Any:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True), transient=True)
