"""What the demo prints: a heading for each part, a line for each thing done, numbers at the end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

console = Console(highlight=False)


def part(title: str) -> None:
    console.print(f"\n[bold]{title}[/bold]")


def did(what: str, size: int | None = None, seconds: float | None = None) -> None:
    line = f"  {what:<44}"
    if size is not None:
        line += f"{size / 1e6:>10.1f} MB"
    if seconds is not None:
        line += f"{seconds:>9.2f} s"
    console.print(line.rstrip())


def numbers(title: str, rows: list[tuple[str, str]]) -> None:
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    console.print()
    with console.capture() as drawn:
        console.print(table)
    for line in drawn.get().splitlines():
        print(line.rstrip(), file=console.file)


def mb_per_s(size: int, seconds: float) -> str:
    return f"{size / 1e6 / max(seconds, 1e-6):,.0f} MB/s"
