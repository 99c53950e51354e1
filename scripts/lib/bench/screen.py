"""The tables: a row for each measure, a column for each system, and what had to be shown."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scripts.lib.bench.results import (
    BARE,
    LOCAL,
    OURS,
    PEERS,
    Cell,
    Measure,
    Promise,
    Results,
    Verdict,
    short,
)
from scripts.lib.bench.systems import SYSTEMS

WIDTH = 190  # of a file or a pipe; a terminal has its own


def make_console(stderr: bool) -> Console:
    console = Console(highlight=False, stderr=stderr)
    return console if console.is_terminal else Console(highlight=False, stderr=stderr, width=WIDTH)


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} ×" if ratio < 10 else f"{ratio:,.0f} ×"


def numbers(results: Results, systems: list[str]) -> Table:
    table = Table(title="Medians, and min..max ·runs", title_justify="left", padding=(0, 1))
    table.add_column("", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for system in systems:
        table.add_column(SYSTEMS[system].title, justify="right")
    if OURS in systems:
        table.add_column(": local", justify="right")
        table.add_column(": best peer", justify="right")
        table.add_column(": bare", justify="right")
    for measure in results.measures():
        table.add_row(*row(results, measure, systems))
    return table


def row(results: Results, measure: Measure, systems: list[str]) -> list[Text | str]:
    cells = {system: results.cell(measure.name, system) for system in systems}
    mounts = [cell.median for name, cell in cells.items() if cell and name not in (LOCAL, BARE)]
    best = measure.better(mounts or [0.0])
    shown: list[Text | str] = [f"{measure.title}\n  {measure.name}", measure.unit]
    for name, cell in cells.items():
        if cell is None:
            shown.append("")
            continue
        strong = name not in (LOCAL, BARE) and cell.median == best
        shown.append(
            Text.assemble((short(cell.median), "bold" if strong else ""), (f"\n{cell.spread}", "dim"))
        )
    if OURS in systems:
        peer = results.best_peer(measure.name)
        shown.append(times(results.ratio(measure.name, OURS, LOCAL)))
        shown.append(times(results.ratio(measure.name, OURS, peer)) if peer else "")
        shown.append(times(results.ratio(measure.name, OURS, BARE)))
    return shown


def requests(results: Results, systems: list[str]) -> Table:
    table = Table(
        title="Requests sent, and their cost on R2 ÷ the floor's", title_justify="left", padding=(0, 1)
    )
    table.add_column("", no_wrap=True)
    table.add_column("floor", justify="right")
    shown = [system for system in systems if system != LOCAL]
    for system in shown:
        table.add_column(SYSTEMS[system].title, justify="right")
    for measure in results.measures():
        cells = {system: results.cell(measure.name, system) for system in shown}
        if any(cell is not None and cell.requests is not None for cell in cells.values()):
            said = [counted(cell, results.cost(measure.name, system)) for system, cell in cells.items()]
            table.add_row(measure.title, counts(results.floor(measure.name)), *said)
    return table


def counted(cell: Cell | None, cost: float | None) -> Text:
    if cell is None or cell.requests is None:
        return Text("")
    return Text.assemble(counts(cell.requests), (f"\n{times(cost)}" if cost is not None else "", "dim"))


def counts(requests: dict[str, int] | None) -> str:
    if requests is None:
        return ""
    return ", ".join(f"{count:,} {verb}" for verb, count in sorted(requests.items())) or "none"


def promises(verdicts: list[Verdict]) -> Table:
    table = Table(title="Has to show", title_justify="left", padding=(0, 1))
    table.add_column("")
    table.add_column("ratio", justify="right")
    table.add_column("")
    said = {True: Text("met", "green"), False: Text("not met", "bold red"), None: Text("not measured", "dim")}
    for verdict in verdicts:
        ratio = times(verdict.ratio)
        promise = verdict.promise
        if isinstance(promise, Promise) and verdict.against in PEERS and promise.against != verdict.against:
            ratio += f" ({verdict.against})"
        table.add_row(str(verdict), ratio, said[verdict.met])
    return table
