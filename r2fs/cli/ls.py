"""`r2fs ls` and `r2fs info`: the names in a directory, and one file in detail, with what of each is on this host."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import look_up, one_target
from r2fs.cli.options import json_option
from r2fs.cli.status_text import brief
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.model import amounts
from r2fs.model.errors import R2fsError

BAR = 8  # characters
CLEAN = "clean"
NO_OBJECT = "none: a directory, by the objects below it"


@click.command("ls", cls=Command)
@click.argument("path", metavar="[PATH]", default=".", type=PathText())
@json_option("Print all details as JSON.")
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
    """The state of a file; "unavailable" in place of "clean" where the bucket does not answer."""
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


@click.command("info", cls=Command)
@click.argument("path", metavar="PATH", type=PathText())
@json_option("Print all details as JSON.")
def info(path: str, as_json: bool) -> None:
    """Show a file of a mount: object key and URL, state, version, headers, what of it is on this host, and its history.

    Sends the requests of an ordinary `stat`, and a HEAD for headers that are not known yet. The history is what this
    mount did with the file, and with the object at its key: in memory since the daemon's start, the last 10,000 events
    of all files.

    \b
    Example:
      r2fs info ~/studio/takes/07.wav
    """
    look_up(path)
    daemon, within = one_target(path)
    file = client.ask_once(daemon, "file", path=within)
    if as_json:
        show.as_json(file)
        return
    print(show.labelled([*_object(file), *_bytes(file)]))
    if file["history"]:
        print()
        show.table(["time", "event", "by", "detail"], [_event(event) for event in file["history"]])


def _event(event: dict[str, Any]) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at_s"]))
    return [when, event["event"], event["program"], event["detail"]]


def _object(file: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines on the object, and on the changes that the bucket lacks."""
    lines = [
        ("path", file["path"]),
        ("kind", file["kind"]),
        ("object", file["url"] or NO_OBJECT),
        ("state", state(file)),
    ]
    if why := reason(file):
        lines.append(("because", why))
    if file["failures"]:
        lines.append(("failed", f"{amounts.counted(file['failures'], 'attempt')} in a row"))
    if file["pending_s"] is not None:
        lines.append(("pending", f"for {amounts.seconds(file['pending_s'])}"))
    if file["sent"]:
        lines.append(("sent", f"{amounts.size(file['sent'])} of {amounts.size(file['size'])}"))
    if file["conflict_of"]:
        lines.append(("conflict of", file["conflict_of"]))
    return lines + [("conflict kept", copy) for copy in file["copies"]]


def _bytes(file: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines on size, version and times."""
    lines = []
    if file["kind"] != "directory":
        lines.append(("size", f"{amounts.size(file['size'])} ({file['size']} bytes)"))
        part = "all" if file["whole"] else amounts.size(file["cached"]) if file["cached"] else "none"
        lines.append(("on this host", f"{part}, pinned" if file["pinned"] else part))
        lines.append(("type", file["content_type"]))
        lines.append(("version", f"ETag {file['etag']}" if file["etag"] else "none in the bucket"))
        lines += sorted(file["headers"].items())
        if not file["headers_known"]:
            lines.append(("headers", "not known yet: the bucket does not answer"))
    lines.append(("modified", show.moment(file["modified_at_s"])))
    if file["stored_at_s"] is not None:
        lines.append(("stored", show.moment(file["stored_at_s"])))
    if file["open"]:
        lines.append(("open", amounts.counted(file["open"], "time")))
    return lines
