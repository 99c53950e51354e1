"""`r2fs cost`: requests of a mount, its storage, and the price of both."""

from __future__ import annotations

import math
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import known_daemons, nobody_at
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.model import amounts
from r2fs.model.prices import GB

CENT = 0.01


@click.command("cost", cls=Command)
@click.argument("directory", metavar="DIR", type=PathText())
@click.option(
    "--list",
    "listed",
    is_flag=True,
    help="List the bucket for its size: a request for each thousand objects.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def command(directory: str, listed: bool, as_json: bool) -> None:
    """Show what a mount costs: its requests since the daemon's start, per day and per month at this rate; its storage.

    DIR is a path in the mount. Storage is that of the files that the mount has listed so far; with --list, of all.
    Prices are R2's, or those of the settings price_storage, price_class_a and price_class_b. The free tier is
    the account's, and is not subtracted. Deletes and downloads' bytes are free. A local directory (file://) is
    counted as if it were in R2.

    \b
    Example:
      r2fs cost --list ~/studio
    """
    daemon = client.owner_of(directory, known_daemons(started=True))
    if daemon is None:
        raise nobody_at(directory)
    answer = client.ask_once(daemon, "cost", list=listed)
    if as_json:
        show.as_json(answer)
        return
    requests, storage, prices = answer["requests"], answer["storage"], answer["prices"]
    rows = [
        _row(f"since the start ({amounts.seconds(answer['since_s'])})", requests["since_start"]),
        _row("per day at this rate", requests["per_day"]),
        _row("per month at this rate", requests["per_month"]),
    ]
    figures = ["class A", "class B", "free", "price"]
    show.table(["requests", *figures], rows, right=figures)
    objects, bytes_ = amounts.counted(storage["objects"], "object"), f"{storage['bytes'] / GB:.2f} GB"
    scope = "listed" if storage["listed"] else "known so far; --list counts all"
    lines = [
        ("storage", f"{objects}, {bytes_} ({scope}): {dollars(storage['dollars_per_month'])} a month"),
        ("together", f"{dollars(answer['dollars_per_month'])} a month, before the free tier"),
        ("prices", _prices(prices)),
    ]
    print(f"\n{show.labelled(lines)}")


def _prices(prices: dict[str, Any]) -> str:
    storage, class_a, class_b = (f"{prices[name]:g} $" for name in ("storage", "class_a", "class_b"))
    return f"{storage} a GB and month; {class_a} and {class_b} a million requests of class A and B"


def _row(name: str, requests: dict[str, Any]) -> list[str]:
    counts = [f"{requests[kind]:,.0f}" for kind in ("class_a", "class_b", "free")]
    return [name, *counts, dollars(requests["dollars"])]


def dollars(amount: float) -> str:
    """ "1.50 $"; below a cent two digits that count: "0.00045 $"."""
    if amount >= CENT or not amount:
        return f"{amount:.2f} $"
    places = min(1 - math.floor(math.log10(amount)), 12)
    return f"{amount:.{places}f}".rstrip("0").rstrip(".") + " $"
