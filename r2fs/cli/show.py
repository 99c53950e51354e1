"""Showing: sizes, times, tables, progress, JSON.

Owns:  how numbers look to a person. JSON has plain bytes and seconds.
Never: prints a name from the bucket without escaping what would break a terminal.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Self

from r2fs.cli.streams import can_write
from r2fs.model.keys import printable

WAIT_BAR = 30  # characters
UNBOUNDED = 10_000  # no line is folded where no person reads


def size(count: float) -> str:
    """ "1.5 MiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def seconds(value: float) -> str:
    """ "42 s", "3 min 20 s", "2 h 5 min"."""
    whole = int(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(number: int, word: str) -> str:
    """ "1 file", "3 files"."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def as_json(value: object) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    print(text if can_write(text) else json.dumps(value, indent=2, default=str))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()) -> None:
    """A table without lines; whole on a pipe, and fitted to a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        shown.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(printable(str(cell))) for cell in row))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNBOUNDED
    text = io.StringIO()  # printed by ourselves: rich ends the process where a pipe is closed
    Console(file=text, width=width, highlight=False).print(shown)
    print("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def left(queue: Mapping[str, Any]) -> str:
    """What is not yet in the bucket: "3 files (12.0 MiB), 1 deletion"."""
    parts = []
    if queue["files"]:
        parts.append(f"{counted(queue['files'], 'file')} ({size(queue['bytes'])})")
    if queue["deletes"]:
        parts.append(counted(queue["deletes"], "deletion"))
    return ", ".join(parts) or "nothing"


class Progress:
    """Uploads on a terminal, as a bar on standard error; elsewhere silence. A context manager."""

    def __init__(self, quiet: bool) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._most = 0
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("sending"), BarColumn(WAIT_BAR), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, queue: Mapping[str, Any]) -> None:
        """The bar is full when nothing is owed; its whole is the most that was owed at once."""
        if self._bar is None:
            return
        sent = sum(transfer["sent"] for transfer in queue["transfers"])
        owed = max(0, queue["bytes"] - sent)
        self._most = max(self._most, owed)
        rate = sum(transfer["rate"] for transfer in queue["transfers"] if transfer["state"] != "queued")
        text = f"{left(queue)} left"
        text += f", {size(rate)}/s, {seconds(owed / rate)}" if rate else ""
        self._bar.update(self._task, total=self._most or None, completed=self._most - owed, description=text)
