"""Progress of bulk work: a bar on a terminal, a line every ten seconds without one.

Never: prints to standard output, which is for results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from r2fs.model import amounts

EVERY_S = 10.0


class BulkProgress:
    """A context manager. `show` takes what is done of `total`, and a text beside it."""

    def __init__(self, word: str, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._word = word
        self._quiet = quiet
        self._clock = clock
        self._begun_s = self._shown_s = clock()
        self._bar: Any = _bar() if not quiet and sys.stderr.isatty() else None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, total: int | None, text: str = "") -> None:
        """`total` None: not known yet."""
        now_s = self._clock()
        rate = done / (now_s - self._begun_s) if now_s > self._begun_s else 0.0
        if self._bar is not None:
            words = f"{rate:.0f}/s {self._word} {text}".strip()
            self._bar.update(self._task, completed=done, total=total, description=words)
            return
        if self._quiet or now_s - self._shown_s < EVERY_S:
            return
        self._shown_s = now_s
        of = f" of {total}" if total is not None else ""
        left = f", {amounts.seconds((total - done) / rate)} left" if rate and total is not None else ""
        print(f"{self._word} {done}{of}, {rate:.0f}/s{left} {text}".rstrip(), file=sys.stderr, flush=True)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(16),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
