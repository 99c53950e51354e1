"""`r2fs cost`: requests of a mount, by directory, program and file; its storage; and the price of both."""

from __future__ import annotations

from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import daemon_of, one_target
from r2fs.cli.options import json_option
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.model import amounts
from r2fs.model.exit_codes import DONE, PARTLY
from r2fs.model.prices import GB

FIGURES = ["class A", "class B", "free", "price"]
ITSELF = "(files of the directory itself)"
OTHERS = "(directories beyond the first 5,000)"
NO_ANSWER = "none"


@click.command("cost", cls=Command)
@click.argument("directory", metavar="[DIR]", required=False, type=PathText())
@click.option(
    "--list",
    "listed",
    is_flag=True,
    help="List the bucket for its size: a request for each thousand objects.",
)
@click.option(
    "--by",
    type=click.Choice(["directory", "program"]),
    help="Show the requests of each directory in DIR, with all below it, or of each program.",
)
@click.option("--why", metavar="PATH", type=PathText(), help="Show the requests that a file has caused.")
@json_option("Print all figures as JSON.")
def command(directory: str | None, listed: bool, by: str | None, why: str | None, as_json: bool) -> int:
    """Show what a mount costs: its requests since the daemon's start, per day and per month at this rate; its storage.

    DIR is a path in the mount. Storage is that of the files that the mount has listed so far; with --list, of all.
    Prices are R2's, or those of the settings price_storage, price_class_a and price_class_b. The free tier is
    the account's, and is not subtracted. Deletes and downloads' bytes are free. A local directory (file://) is
    counted as if it were in R2.

    The program is the one whose call led to the request, an upload some time after it included. r2fs is named for its
    commands, and for the daemon's own requests. Figures begin with the daemon, the requests of --why with the
    last 5,000. --list leaves out buckets, of several, that cannot be listed, and then exits with 13.

    \b
    Examples:
      r2fs cost --list ~/studio
      r2fs cost --by program ~/studio
      r2fs cost --why ~/studio/takes/07.wav
    """
    if (directory is None) == (why is None) or (why is not None and (by or listed)):
        raise click.UsageError("give a path in a mount, or --why PATH alone")
    if why is not None:
        _why(why, as_json)
        return DONE
    assert directory is not None
    daemon = daemon_of(directory)
    answer = client.ask_once(daemon, "cost", list=listed, path=client.within_mount(directory, daemon))
    if as_json:
        show.as_json(answer)
    elif by is None:
        _whole(answer)
    else:
        _parts(answer[f"by_{by}"], by)
    for name, reason in answer["storage"]["failed"]:
        show.complain(f"{name}: not listed, and left out: {reason}")
    return PARTLY if answer["storage"]["failed"] else DONE


def _whole(answer: dict[str, Any]) -> None:
    """Print requests, storage and prices."""
    requests, storage, prices = answer["requests"], answer["storage"], answer["prices"]
    month = answer["month"]
    rows = [
        _row(f"since the start ({amounts.seconds(answer['since_s'])})", requests["since_start"]),
        _row(f"in {month['month']}", {**month, "free": None}),
        _row("per day at this rate", requests["per_day"]),
        _row("per month at this rate", requests["per_month"]),
    ]
    show.table(["requests", *FIGURES], rows, right=FIGURES)
    objects, bytes_ = amounts.counted(storage["objects"], "object"), f"{storage['bytes'] / GB:.2f} GB"
    scope = "listed" if storage["listed"] else "known so far; --list counts all"
    lines = [
        (
            "storage",
            f"{objects}, {bytes_} ({scope}): {amounts.dollars(storage['dollars_per_month'])} a month",
        ),
        ("together", f"{amounts.dollars(answer['dollars_per_month'])} a month, before the free tier"),
        ("prices", _prices(prices)),
    ]
    for limit, what in (("warn_cost", "warns above"), ("prefetch_cost", "fetches nothing ahead above")):
        if month[limit]:
            lines.append(("budget", f"{what} {amounts.dollars(month[limit])} of requests a month ({limit})"))
    print(f"\n{show.labelled(lines)}")


def _parts(parts: list[dict[str, Any]], by: str) -> None:
    """Print the requests of each directory or program, the dearest first."""
    rows = []
    for part in parts:
        name = part[by]
        if by == "directory":
            name = OTHERS if name is None else f"{name}/" if name else ITSELF
        rows.append(_row(name, part))
    if rows:
        show.table([by, *FIGURES], rows, right=FIGURES)
    else:
        print("no requests so far")


def _why(path: str, as_json: bool) -> None:
    """Print the requests of a file, or of all below a directory."""
    daemon, within = one_target(path)
    answer = client.ask_once(daemon, "why", path=within)
    if as_json:
        show.as_json(answer)
        return
    rows = [
        (
            show.moment(one["at_s"]),
            one["request"],
            one["class"],
            one["program"],
            one["purpose"],
            *_answer(one),
        )
        for one in answer["requests"]
    ]
    if rows:
        show.table(["time", "request", "class", "program", "for", "status", "took"], rows, right=["took"])
        print()
    kept = f"of the last {answer['kept']:,} of this mount, since {show.moment(answer['since_at_s'])}"
    count = amounts.counted(answer["count"], "request")
    print(f"{count} {kept}: {amounts.dollars(answer['dollars'])}")


def _answer(sent: dict[str, Any]) -> tuple[str, str]:
    """Status and duration; empty before the answer, and for a local directory, which has neither."""
    if sent["took_s"] is None:
        return "", ""
    return str(sent["status"] or NO_ANSWER), f"{1000 * sent['took_s']:.0f} ms"


def _prices(prices: dict[str, Any]) -> str:
    storage, class_a, class_b = (f"{prices[name]:g} $" for name in ("storage", "class_a", "class_b"))
    return f"{storage} a GB and month; {class_a} and {class_b} a million requests of class A and B"


def _row(name: str, requests: dict[str, Any]) -> list[str]:
    kinds = ("class_a", "class_b", "free")
    counts = ["" if requests[kind] is None else f"{requests[kind]:,.0f}" for kind in kinds]
    return [name, *counts, amounts.dollars(requests["dollars"])]
