"""Screen of `r2fs status --watch`: mounts, refreshed each second, until q or Ctrl-C.

On a terminal it has a bar for each transfer; elsewhere it prints a line for each mount.
"""

from __future__ import annotations

import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from r2fs.cli import show
from r2fs.cli.status_text import brief, limit_lines, trouble_lines, troubles_of
from r2fs.cli.streams import can_write
from r2fs.model import amounts
from r2fs.model.errors import DaemonUnreachable
from r2fs.model.keys import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WATCH_S = 1.0
QUIT = (b"q", b"Q", b"\x04", b"")  # Ctrl-D, and a closed terminal, too
BAR, SHORT_BAR, WIDE = 24, 12, 90  # characters of a bar, and of a terminal that has room for long ones
ROWS = 12  # of transfers, or of reasons, at most
OLD_S = 60.0  # from which on the age of the oldest change is worth a word
FRAME = 14  # lines of a panel beside its transfers and reasons
GOOD, BUSY, BAD, DIM = "green", "cyan", "yellow", "dim"


Seen = tuple[list[dict[str, Any]], str]  # one look: the answers of daemons, and a text on unmounted buckets


def watch(look: Callable[[], Seen], as_json: bool = False) -> int:
    """Show one look after the other, until q or Ctrl-C. Returns the exit code."""
    try:
        if as_json or not show.on_terminal():
            while True:
                print(_line(_look(look), as_json), flush=True)
                time.sleep(WATCH_S)
        return _on_screen(look)
    except KeyboardInterrupt:  # the usual end
        return 0


def _look(look: Callable[[], Seen]) -> Seen:
    """One look. A daemon that does not answer may be being started again: the watch goes on."""
    try:
        return look()
    except DaemonUnreachable as error:
        return [{"mount": {"mountpoint": "", "error": str(error)}}], ""


def _line(seen: Seen, as_json: bool) -> str:
    answers, _ = seen
    if as_json:
        return json.dumps(answers, default=str)
    now = time.strftime("%H:%M:%S")
    lines = [f"{now} {printable(_sentence(answer))}" for answer in answers]
    return "\n".join(lines) or f"{now} nothing is mounted"


def _sentence(answer: Mapping[str, Any]) -> str:
    """One mount on a line: "/mnt/takes: 3 files (12.0 MiB) left, 5.0 MiB/s, 2 s to go; cache 1.0 of 10.0 GiB"."""
    mount = answer["mount"]
    if "error" in mount:
        return f"{mount['mountpoint']}: {mount['error']}"
    queue, cache = answer["queue"], answer["cache"]
    text = f"{show.left(queue)} left" if queue["left"] else "all is in the bucket"
    text += f"{_pace(queue)}; cache {amounts.size(cache['bytes'])} of {amounts.size(cache['limit'])}"
    troubles = troubles_of(answer)
    return f"{mount['mountpoint']}: {text}{'; ' + troubles if troubles else ''}"


# ------------------------------------------------------------------ the screen
def _on_screen(look: Callable[[], Seen]) -> int:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with (
        _keys() as pressed,
        Live(console=console, screen=True, auto_refresh=False, transient=True) as live,
    ):
        while True:
            live.update(rendered(_look(look), console), refresh=True)
            if pressed(WATCH_S):
                return 0


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits for so many seconds, and returns True once q was pressed."""
    if not sys.stdin.isatty():
        yield _no_keys
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)  # Ctrl-C stays a signal
    keyboard = select.poll()  # select() refuses descriptors from 1024 on
    keyboard.register(fd, select.POLLIN)

    def pressed(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            if keyboard.poll(rest * 1000) and os.read(fd, 1) in QUIT:
                return True
        return False

    try:
        yield pressed
    finally:
        with suppress(termios.error):  # the terminal is closed
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _no_keys(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _failed(text: str) -> RenderableType:
    from rich.panel import Panel
    from rich.text import Text

    return Panel(Text(printable(text), style=BAD), title="r2fs", subtitle="q ends", border_style=BAD)


def rendered(seen: Seen, console: Console) -> RenderableType:
    """The whole screen: a panel for each mount, as large as the terminal allows."""
    from rich.console import Group
    from rich.text import Text

    answers, unmounted = seen
    if not answers and not unmounted:
        return _failed("nothing is mounted")
    rows = max(1, min(ROWS, console.height // max(1, len(answers)) - FRAME))
    cells = BAR if console.width >= WIDE else SHORT_BAR
    parts: list[RenderableType] = [_panel(answer, rows, cells) for answer in answers]
    if unmounted:
        parts.append(Text(unmounted, style=BAD))
    parts.append(Text("q or Ctrl-C ends", style=DIM, justify="right"))
    return Group(*parts)


def _panel(answer: Mapping[str, Any], rows: int, cells: int) -> RenderableType:
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    mount = answer["mount"]
    title = Text(f" {printable(mount['mountpoint'])}  {printable(mount.get('url', ''))} ", style="bold")
    if "error" in mount:
        return Panel(Text(printable(mount["error"]), style=BAD), title=title, border_style=BAD)
    health = answer.get("health", {})
    online = health.get("answers", True)
    transfers = _transfers(answer, rows, cells)
    parts: list[RenderableType] = [_figures(answer, cells)]
    for below in ([transfers] if transfers is not None else [], _troubles(answer, rows)):
        parts += [Text(), *below] if below else []
    state = "online" if online else f"no answer for {amounts.seconds(health['for_s'])}"
    subtitle = Text(f" {mount['driver']}, process {mount['pid']}, {mount['state']}, {state} ", style=DIM)
    colour = BAD if troubles_of(answer) else BUSY if answer["queue"]["left"] else GOOD
    return Panel(Group(*parts), title=title, subtitle=subtitle, border_style=colour, title_align="left")


def _figures(answer: Mapping[str, Any], cells: int) -> RenderableType:
    """Queue, cache and requests, each with its bar or its figures."""
    from rich.table import Table
    from rich.text import Text

    queue, cache, requests = answer["queue"], answer["cache"], answer.get("requests") or {}
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=DIM, no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    sent = sum(item["sent"] for item in queue["transfers"])
    what = show.left(queue) if queue["left"] else "all is in the bucket"
    grid.add_row(
        "not yet sent", _bar(sent, queue["bytes"], BUSY, cells), Text(what + _oldest(queue) + _pace(queue))
    )
    used = f"{amounts.size(cache['bytes'])} of {amounts.size(cache['limit'])}"
    hits = "" if cache["hit_rate"] is None else f", {cache['hit_rate']:.0%} hits"
    ahead = f", {cache['surplus']} fetched ahead in vain" if cache.get("surplus") else ""
    grid.add_row("cache", _bar(cache["bytes"], cache["limit"], GOOD, cells), Text(used + hits + ahead))
    if requests:
        classes = f"A {requests['class_a']}, B {requests['class_b']}, free {requests['free']}"
        grid.add_row(
            "requests", Text(str(requests["total"])), Text(f"{classes}; {requests['retries']} repeated")
        )
    uploaded = f"{amounts.counted(queue['uploaded'], 'file')} ({amounts.size(queue['uploaded_bytes'])})"
    grid.add_row("sent", Text(uploaded), Text())
    for name, text in limit_lines(answer.get("bandwidth") or {}):
        grid.add_row(name, Text(), Text(text))
    return grid


def _oldest(queue: Mapping[str, Any]) -> str:
    old = queue["left"] and queue["oldest_s"] >= OLD_S
    return f", oldest {amounts.seconds(queue['oldest_s'])}" if old else ""


def _pace(queue: Mapping[str, Any]) -> str:
    text = f", {amounts.size(queue['rate'])}/s" if queue.get("rate") else ""
    if queue.get("left_s") is not None:
        text += f", {amounts.seconds(queue['left_s'])} to go"
    return text


def _bar(done: float, total: float, colour: str, cells: int) -> RenderableType:
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=total or 1, completed=min(done, total), width=cells, complete_style=colour)


def _transfers(answer: Mapping[str, Any], rows: int, cells: int) -> RenderableType | None:
    """A line with a bar for each transfer on its way, and the number of uploads that wait."""
    from rich.table import Table
    from rich.text import Text

    queue = answer["queue"]
    sent = [item for item in queue["transfers"] if item["state"] not in ("queued", "parked", "dirty")]
    room = max(1, rows - len(sent[: rows // 2]))  # each direction has its half
    fetched = list(answer.get("downloads", ()))[:room]
    sent = sent[: max(0, rows - len(fetched))]
    if not sent and not fetched:
        return None
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(width=1)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(width=cells)
    for _ in range(3):
        grid.add_column(justify="right", no_wrap=True)
    up, down = ("↑", "↓") if can_write("↑↓") else ("^", "v")
    for item in [*sent, *fetched]:
        rate, left = item["rate"], item["size"] - item["sent"]
        arrow, colour = (down, GOOD) if item["verb"] == "download" else (up, BUSY)
        grid.add_row(
            Text(arrow, style=colour),
            Text(printable(item["path"]) or "(a file without a name)"),
            _bar(item["sent"], item["size"], colour, cells),
            Text(amounts.size(item["size"])),
            Text(f"{amounts.size(rate)}/s" if rate else ""),
            Text(amounts.seconds(left / rate) if rate else ""),
        )
    waiting = queue["left"] - queue["parked"] - len(sent)
    if waiting > 0:
        grid.add_row("", Text(f"and {waiting:,} more to send", style=DIM), "", "", "", "")
    return grid


def _troubles(answer: Mapping[str, Any], rows: int) -> list[RenderableType]:
    """Sentences for what is wrong with the mount, with at most `rows` parked files and conflicts."""
    from rich.text import Text

    queue = answer["queue"]
    parked = [item for item in queue["transfers"] if item["state"] == "parked"]
    found = [("parked", f"{item['path']}: {brief(item['reason'] or '')}") for item in parked[:rows]]
    found += [("conflict kept", path) for path in queue["conflicts"][:rows]]
    lines = [f"{name}: {text}" for name, text in trouble_lines(answer, found)]
    hidden = max(0, queue["parked"] - rows) + max(0, len(queue["conflicts"]) - rows)
    if hidden:
        lines.append(f"and {hidden} more (r2fs queue list)")
    return [Text(printable(line), style=BAD, overflow="fold") for line in lines]
