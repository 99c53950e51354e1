"""`r2fs ls`: the names in a directory, with what of each is on this host."""

from __future__ import annotations

import os
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import look_up, one_target
from r2fs.cli.status_text import brief
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.model import amounts
from r2fs.model.errors import R2fsError

BAR = 8  # characters
CLEAN = "clean"


@click.command("ls", cls=Command)
@click.argument("path", metavar="[PATH]", default=".", type=PathText())
@click.option("--json", "as_json", is_flag=True, help="Print all details as JSON.")
def command(path: str, as_json: bool) -> None:
    """List a directory of a mount: size of each file, what of it is on this host, and its state.

    PATH is a directory or a file in a mount; without it, the current directory. The only requests are those of an
    ordinary `ls`.

    State: clean (in the bucket), dirty (open for writing), queued (waits for its upload), uploading, parked (the
    bucket refuses it, see `r2fs info`), local (never uploaded, by local_patterns), unavailable (as last known: the bucket
    does not answer, or is missing).

    \b
    Example:
      r2fs ls ~/studio/takes
    """
    look_up(path)
    if os.path.isdir(path):
        try:
            os.listdir(path)  # makes the mount read the listing
        except OSError as error:
            raise R2fsError(f"{path}: {error.strerror}") from None
    daemon, within = one_target(path)
    files = [file for answer in client.ask(daemon, "files", path=within) for file in answer["files"]]
    if as_json:
        show.as_json(files)
        return
    rows = [
        [
            os.path.basename(file["path"]) + ("/" if file["kind"] == "directory" else ""),
            "" if file["kind"] == "directory" else amounts.size(file["size"]),
            here(file, BAR),
            state(file),
            show.moment(file["modified_at_s"]),
        ]
        for file in files
    ]
    if rows:
        show.table(["name", "size", "here", "state", "modified"], rows, right=["size"])
    reasons = [(os.path.basename(file["path"]), brief(why)) for file in files if (why := reason(file))]
    if reasons:
        print(f"\n{show.labelled(reasons)}")


def state(file: dict[str, Any]) -> str:
    """The state; "unavailable" for "in the bucket" where the bucket does not answer."""
    return "unavailable" if file["unavailable"] and file["state"] == CLEAN else str(file["state"])


def reason(file: dict[str, Any]) -> str | None:
    """The reason of a state that is not ordinary."""
    return file["reason"] or (file["unavailable"] if file["state"] == CLEAN else None)


def here(file: dict[str, Any], cells: int) -> str:
    """Part of a file on this host: "all", a bar with a percentage, or nothing."""
    if file["kind"] == "directory" or not file["cached"]:
        return ""
    if file["whole"]:
        return "all, pinned" if file["pinned"] else "all"
    return f"{show.bar(file['cached'], file['size'], cells)} {100 * file['cached'] // file['size']} %"
