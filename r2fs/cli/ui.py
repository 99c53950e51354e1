"""`r2fs ui`: a page on loopback: transfers, cache, requests, and the takes of conflicts."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from html import escape
from pathlib import Path
from typing import Any

import click

from r2fs.cli.asking import daemon_of, known_daemons, unserved
from r2fs.cli.status_text import limit_lines, trouble_lines
from r2fs.cli.usage import Command, PathText
from r2fs.daemon.client import Daemon
from r2fs.model import owned_paths
from r2fs.model.errors import DirectoryUnusable
from r2fs.model.settings import places
from r2fs.ui.mounts import Mounts, Served
from r2fs.ui.server import PageServer


@click.command("ui", cls=Command)
@click.argument("directory", metavar="[DIR]", required=False, type=PathText())
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1. Default: a free one."
)
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
def command(directory: str | None, port: int, opens: bool) -> int:
    """Show mounts on a page in a browser: transfers, cache, requests and their price, conflicts.

    Prints the address, and serves the page until Ctrl-C. DIR is a path in a mount; without it, all mounts of this
    user are shown. The takes of a conflict can be heard side by side, and one of them kept.

    The page is at 127.0.0.1 alone, and has a secret token in its address: whoever knows the address can read the
    files of the mounts. For a host far away, forward the port: ssh -L 8700:127.0.0.1:8700 HOST r2fs ui --port 8700

    \b
    Example:
      r2fs ui --open ~/studio
    """
    only = daemon_of(directory).mountpoint if directory is not None else None
    server = PageServer(_mounts(only), port)
    try:
        with _launcher(server.url) if opens else nullcontext() as page:
            print(server.url, flush=True)
            if page is not None:
                _open(page)
            server.serve_forever()
    except KeyboardInterrupt:  # the usual end
        pass
    finally:
        server.server_close()
    return 0


def _mounts(only: str | None) -> Mounts:
    """The mounts to show: all, or the one at the mount point `only`."""

    def running() -> Sequence[Daemon]:
        return [daemon for daemon in known_daemons() if only in (None, daemon.mountpoint)]

    def without_daemon() -> Sequence[Served]:
        found = [one for one in unserved() if only in (None, one.mountpoint)]
        return [Served(one.id, one.mountpoint, one.url, None, one.sentence) for one in found]

    def notes(answer: dict[str, Any]) -> list[tuple[str, str]]:
        return [*trouble_lines(answer), *limit_lines(answer.get("bandwidth", {}))]

    return Mounts(running, without_daemon, notes)


# ------------------------------------------------------------------ the browser
@contextmanager
def _launcher(url: str) -> Iterator[Path]:
    """Yield a private file that leads to the page. The arguments of a browser, which other users can read, name the
    file, and not the secret address."""
    run_dir = places.run_dir(os.environ)[0]
    name = f"ui-{secrets.token_hex(8)}.html"
    text = (
        '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0;url={escape(url)}"><title>r2fs</title>'
    )
    try:
        with owned_paths.directory(run_dir, make=True) as fd:
            owned_paths.replace_file(fd, name, text.encode())
    except OSError as error:
        raise DirectoryUnusable(
            f"{run_dir} cannot hold the file that opens the page ({error.strerror}): leave --open out, and open the "
            "address that is printed"
        ) from None
    try:
        yield run_dir / name
    finally:
        (run_dir / name).unlink(missing_ok=True)


def _open(page: Path) -> None:
    """Start a browser in a process of its own: browsers of a terminal return at their end."""
    subprocess.Popen(
        [sys.executable, "-m", "webbrowser", page.as_uri()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
