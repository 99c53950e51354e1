"""`r2fs url`: a URL of a file, presigned or public, made without a request to the bucket."""

from __future__ import annotations

import time
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import look_up, one_target
from r2fs.cli.failures import named_in
from r2fs.cli.options import TimeText, json_option, timeout_option
from r2fs.cli.usage import Command, PathText
from r2fs.cli.wait import wait_for
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.daemon.protocol import SIGNED_URL
from r2fs.model.addresses import LONGEST_URL_S
from r2fs.model.errors import NotFound


@click.command("url", cls=Command)
@click.argument("path", type=PathText())
@click.option(
    "--expires",
    "expires_s",
    default="1h",
    type=TimeText(1, LONGEST_URL_S),
    show_default=True,
    help="Life of a presigned URL: 1s to 7d.",
)
@click.option("--public", is_flag=True, help="The URL below the setting public_url, which does not expire.")
@click.option("--put", is_flag=True, help="A URL to upload to: a PUT to it makes or replaces the object.")
@click.option("--download", metavar="NAME", help="Browsers save the file, as NAME.")
@click.option("--wait", is_flag=True, help="First wait until the bucket holds the file, as `r2fs wait` does.")
@timeout_option()
@json_option("Print URL, key, bucket, state and end as JSON.")
def command(
    path: str,
    expires_s: float,
    public: bool,
    put: bool,
    download: str | None,
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
) -> int:
    """Print a URL of the file PATH.

    The URL is made at once, also for a file that is still on its way to the bucket: until the file has
    arrived, the URL answers 404 (or the version before). With --wait the command returns when the bucket
    holds exactly these bytes, and prints no URL if it ends with another exit code than 0.

    Whoever has a presigned URL can read the object (with --put: write it) until the URL expires. A URL that was
    signed with temporary credentials ends with these; the command says when, where the credentials say so.
    """
    _check_options(public, put, download, wait)
    daemon, within = one_target(path)
    if wait and (code := wait_for({daemon: [within]}, timeout_s, quiet=as_json)):
        return code
    wish = {"path": within, "expires_s": expires_s, "public": public, "put": put, "download": download}
    answer = _url(daemon, path, wish)
    if not as_json:
        _warn_of_the_end(answer, expires_s)
        click.echo(answer[SIGNED_URL])
        return 0
    ends_s = answer.get("ends_s")
    show.as_json(
        {
            "url": answer[SIGNED_URL],
            "key": answer["key"],
            "bucket": answer["bucket"],
            "state": answer["state"] or None,
            "public": answer["public"],
            "method": "PUT" if put else "GET",
            "expires": None if ends_s is None else show.utc(ends_s),
        }
    )
    return 0


def _check_options(public: bool, put: bool, download: str | None, wait: bool) -> None:
    if public and put:
        raise click.UsageError("--public is for reading: --put needs a presigned URL")
    if public and download is not None:
        raise click.UsageError(
            "--download needs a presigned URL: a public one has the headers that the object is stored with"
        )
    if put and (download is not None or wait):
        raise click.UsageError("--put is for uploading: --download and --wait are for reading")


def _url(daemon: Daemon, path: str, wish: dict[str, Any]) -> dict[str, Any]:
    with named_in(daemon.mountpoint, [wish["path"]]):
        try:
            return client.ask_once(daemon, "url", **wish)
        except NotFound:  # perhaps not known yet: the mount has not looked into this directory
            pass
    look_up(path)
    with named_in(daemon.mountpoint, [wish["path"]]):
        return client.ask_once(daemon, "url", **wish)


def _warn_of_the_end(answer: dict[str, Any], expires_s: float) -> None:
    if not answer.get("temporary"):
        return
    end_s = answer.get("credentials_end_s")
    if end_s is None:
        show.complain(
            "warning: the credentials are temporary: the URL ends with them, whatever --expires says"
        )
    elif end_s < time.time() + expires_s:
        show.complain(
            f"warning: the URL ends at {show.utc(end_s)}, with the temporary credentials it is signed with"
        )
