"""The tables: a row for each measure, a column for each system, and what had to be shown."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scripts.lib.bench.results import LOCAL, OURS, PEERS, Cell, Measure, Results, Verdict
from scripts.lib.bench.systems import SYSTEMS

WIDTH = 150  # of a file or a pipe; a terminal has its own


def make_console(stderr: bool) -> Console:
    console = Console(highlight=False, stderr=stderr)
    return console if console.is_terminal else Console(highlight=False, stderr=stderr, width=WIDTH)


def number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} ×" if ratio < 10 else f"{ratio:,.0f} ×"


def numbers(results: Results, systems: list[str]) -> Table:
    table = Table(title="Medians", title_justify="left", padding=(0, 1))
    table.add_column("", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for system in systems:
        table.add_column(SYSTEMS[system].title, justify="right")
    if OURS in systems:
        table.add_column(": local", justify="right")
        table.add_column(": best peer", justify="right")
    for measure in results.measures():
        table.add_row(*row(results, measure, systems))
    return table


def row(results: Results, measure: Measure, systems: list[str]) -> list[Text | str]:
    cells = {system: results.cell(measure.name, system) for system in systems}
    best = measure.better([cell.median for name, cell in cells.items() if cell and name != LOCAL] or [0.0])
    shown: list[Text | str] = [measure.title, measure.unit]
    for name, cell in cells.items():
        strong = cell is not None and name != LOCAL and cell.median == best
        shown.append(Text("" if cell is None else number(cell.median), style="bold" if strong else ""))
    if OURS in systems:
        peer = results.best_peer(measure.name)
        shown.append(times(results.ratio(measure.name, OURS, LOCAL)))
        shown.append(times(results.ratio(measure.name, OURS, peer)) if peer else "")
    return shown


def requests(results: Results, systems: list[str]) -> Table:
    table = Table(title="Requests sent", title_justify="left", padding=(0, 1))
    table.add_column("", no_wrap=True)
    shown = [system for system in systems if system != LOCAL]
    for system in shown:
        table.add_column(SYSTEMS[system].title, justify="right")
    for measure in results.measures():
        cells = [results.cell(measure.name, system) for system in shown]
        if any(cell is not None and cell.requests is not None for cell in cells):
            table.add_row(measure.title, *map(counts, cells))
    return table


def counts(cell: Cell | None) -> str:
    if cell is None or cell.requests is None:
        return ""
    return ", ".join(f"{count:,} {verb}" for verb, count in sorted(cell.requests.items())) or "none"


def promises(verdicts: list[Verdict]) -> Table:
    table = Table(title="Has to show", title_justify="left", padding=(0, 1))
    table.add_column("")
    table.add_column("ratio", justify="right")
    table.add_column("")
    said = {True: Text("met", "green"), False: Text("not met", "bold red"), None: Text("not measured", "dim")}
    for verdict in verdicts:
        ratio = times(verdict.ratio)
        if verdict.against in PEERS and verdict.promise.against != verdict.against:
            ratio += f" ({verdict.against})"
        table.add_row(str(verdict), ratio, said[verdict.met])
    return table
