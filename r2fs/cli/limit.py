"""`r2fs limit`: show and set the limits of bandwidth of a mount that runs."""

from __future__ import annotations

import click

from r2fs.cli import show
from r2fs.cli.asking import daemon_of
from r2fs.cli.options import directory_argument, json_option
from r2fs.cli.status_text import limit_lines
from r2fs.cli.usage import Command
from r2fs.daemon import client
from r2fs.model.settings.timetable import BandwidthLimit


@click.command("limit", cls=Command)
@directory_argument
@click.option("--up", metavar="LIMIT", help="Limit of all uploads together.")
@click.option("--down", metavar="LIMIT", help="Limit of all downloads together.")
@json_option("Print the limits as JSON.")
def command(directory: str, up: str | None, down: str | None, as_json: bool) -> None:
    """Show the bandwidth limits of the mount at DIR, or set them.

    A LIMIT is in bytes a second, as 10M; in bits, as 80Mbit; off; or a timetable in local time. It holds at once, for
    transfers under way too, until the daemon ends or the settings file has another limit. upload_limit and
    download_limit of the settings are for good.

    \b
    Examples:
      r2fs limit ~/studio                                         show
      r2fs limit ~/studio --up 2M                                 for this afternoon
      r2fs limit ~/studio --up "Mo-Fr 08:00-20:00 = 5M, else off"
      r2fs limit ~/studio --up off --down off                     full speed
    """
    for flag, text in (("--up", up), ("--down", down)):
        _check(flag, text)
    found = client.ask_once(daemon_of(directory), "limit", up=up, down=down)["bandwidth"]
    show.as_json(found) if as_json else print(show.labelled(limit_lines(found, always=True)))


def _check(flag: str, text: str | None) -> None:
    """Refuse a wrong limit without a request to a daemon."""
    try:
        if text is not None:
            BandwidthLimit().parse(text)
    except ValueError as error:
        raise click.UsageError(f"{flag}: {error}; allowed: {BandwidthLimit().allowed}") from None
