"""Output: tables, labelled lines, JSON.

Tables and lines have numbers in units, JSON has bytes and seconds.
Never: prints a name from the bucket without escaping characters that would break a terminal.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any

from r2fs.cli.streams import can_write
from r2fs.model import amounts
from r2fs.model.keys import printable

UNBOUNDED = 10_000  # characters of a line of a file or a pipe
NARROWEST = 20  # characters of a column that is shortened


def as_json(value: object) -> None:
    """Print JSON. Escapes all control characters (json itself only the lower ones), and those that the encoding lacks."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    plain = can_write(text)
    print(
        "".join(
            c if c == "\n" or (c.isprintable() and (plain or can_write(c))) else json.dumps(c)[1:-1]
            for c in text
        )
    )


def complain(text: str) -> None:
    """Print an error on standard error, escaped: the text may be from the bucket."""
    print(f"r2fs: {printable(' '.join(text.split()))}", file=sys.stderr)


def shortened(text: str, width: int) -> str:
    """A path in at most `width` characters: the end of a longer one, which tells more than its beginning."""
    text = printable(text)
    return text if len(text) <= width else "…" + text[1 - width :]


def on_terminal() -> bool:
    return sys.stdout.isatty()


def width() -> int:
    """Characters of a line. Lines of files and pipes are not folded."""
    return shutil.get_terminal_size().columns if on_terminal() else UNBOUNDED


def fits(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> bool:
    """True if a line holds each row whole."""
    text = _table(columns, [[printable(str(cell)) for cell in row] for row in rows], (), UNBOUNDED)
    return max(map(len, text.splitlines())) <= width()


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()) -> None:
    print(rendered(columns, rows, right))


def rendered(columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()) -> str:
    """A table without lines; complete on a pipe.

    On a narrow terminal the first column, of paths, is shortened, and the others are folded between words.
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    text = _table(columns, cells, right, UNBOUNDED)
    over = max(map(len, text.splitlines()), default=0) - width()
    if over > 0:
        longest = max((len(row[0]) for row in cells), default=0)
        room = max(NARROWEST, longest - over)
        text = _table(columns, [[shortened(row[0], room), *row[1:]] for row in cells], right, width())
    return text


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[str], wide: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, column in enumerate(columns):
        shown.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=not number or column in right,
        )
    for row in cells:
        shown.add_row(*map(Text, row))
    text = io.StringIO()  # printed by the caller: rich ends the process where a pipe is closed
    Console(file=text, width=wide, highlight=False).print(shown)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def labelled(pairs: Sequence[tuple[str, object]], indent: str = "") -> str:
    """A line for each pair of name and text. Longer texts continue below, folded between words."""
    names = max((len(name) for name, _ in pairs), default=0) + 3
    room = max(NARROWEST, width() - len(indent) - names)
    lines = []
    for name, value in pairs:
        text = textwrap.wrap(printable(str(value)), room, break_long_words=False, break_on_hyphens=False) or [
            ""
        ]
        lines += [
            f"{indent}{name if not number else '':<{names}}{line}".rstrip()
            for number, line in enumerate(text)
        ]
    return "\n".join(lines)


def bar(done: float, total: float, cells: int) -> str:
    """A bar of so many characters: "████░░░░", or "####----" where the encoding lacks these."""
    full, empty = ("█", "░") if can_write("█░") else ("#", "-")
    filled = min(cells, int(cells * done / total)) if total > 0 else 0
    return full * filled + empty * (cells - filled)


def moment(at_s: float) -> str:
    """A time as people write it, in this host's zone: "2026-11-29 13:05"."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_s))


def utc(at_s: float) -> str:
    """A time in UTC by RFC 3339: "2026-11-29T13:05:00Z"."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))


def left(queue: Mapping[str, Any]) -> str:
    """Pending changes: "3 files (12.0 MiB), 1 deletion"."""
    return amounts.left(queue["files"], queue.get("directories", 0), queue["bytes"], queue["deletes"])
