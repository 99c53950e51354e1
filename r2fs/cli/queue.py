"""`r2fs queue`: list pending changes, send parked ones again, copy them elsewhere, give them up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from r2fs.cli import exporting, show
from r2fs.cli.asking import by_daemon, daemon_of, known_daemons
from r2fs.cli.options import directory_argument, json_option
from r2fs.cli.progress import BulkProgress
from r2fs.cli.status_text import brief
from r2fs.cli.usage import Group, PathText
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.model import amounts
from r2fs.model.errors import DaemonUnreachable, MountPointBad, R2fsError
from r2fs.model.exit_codes import DONE, PARTLY

optional_paths = click.argument("paths", metavar="[PATH...]", nargs=-1, type=PathText())


@click.group("queue", cls=Group)
def command() -> None:
    """List changes that are not in the bucket; send, export or drop them.

    DIR is a path in the mount. PATH is a file or directory in that mount, from the working directory or as
    `queue list` prints it; without PATH, all changes are meant.
    """


@command.command("list")
@directory_argument
@optional_paths
@json_option()
def list_(directory: str, paths: tuple[str, ...], as_json: bool) -> None:
    """List pending changes, each with its state, age, failed attempts and reason.

    \b
    Example:
      r2fs queue list ~/studio
    """
    transfers = _pending(*_target(directory, paths))
    if as_json:
        show.as_json(transfers)
        return
    if not transfers:
        print("all is in the bucket")
        return
    rows = [
        [
            one["path"],
            f"{one['state']} delete" if one["verb"] == "delete" else one["state"],
            amounts.size(one["size"]),
            amounts.seconds(one["age_s"]) if one["age_s"] else "",
            one["failures"] or "",
            brief(one["reason"] or ""),
        ]
        for one in transfers
    ]
    show.table(["file", "state", "size", "age", "failed", "because"], rows, right=["size", "age", "failed"])


@command.command("retry")
@directory_argument
@optional_paths
@json_option()
def retry(directory: str, paths: tuple[str, ...], as_json: bool) -> None:
    """Send parked changes again, after their cause is mended.

    A file that may be torn or damaged is sent only where PATH names the file itself: look at the file first.

    \b
    Example:
      r2fs queue retry ~/studio
    """
    daemon, within = _target(directory, paths)
    answer = client.ask_once(daemon, "retry", paths=within)
    if as_json:
        show.as_json(answer)
    else:
        print(f"{amounts.counted(answer['released'], 'parked change')} queued again")


@command.command("export")
@directory_argument
@optional_paths
@click.option("--to", "to", metavar="TARGET", required=True, type=PathText(), help="Directory of the copies.")
@json_option()
def export(directory: str, paths: tuple[str, ...], to: str, as_json: bool) -> int:
    """Copy files that are not in the bucket to a directory outside of the mount, under their names.

    Each copy is on the disk (fsync) before it is counted. No file is replaced; a copy of an earlier export with the
    same bytes counts. The mount is left as it is. Exit code 13: some files could not be copied, and are named.

    \b
    Example:
      r2fs queue export ~/studio --to /media/usb/unsent
    """
    daemon, within = _target(directory, paths)
    target = _outside(to, daemon)
    files = [
        one for one in _pending(daemon, within) if one["verb"] == "upload" and not one["path"].endswith("/")
    ]
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    with BulkProgress("exported", quiet=as_json) as progress:
        for one in files:
            path = one["path"]
            try:
                size = exporting.export(Path(daemon.mountpoint) / path, target / path, target)
                done.append({"path": path, "size": size})
            except R2fsError as error:
                failed.append({"path": path, "error": str(error)})
            progress.show(len(done) + len(failed), len(files), path)
    return _report("exported", done, failed, {"to": str(target)}, as_json)


@command.command("drop")
@directory_argument
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PathText())
@click.option(
    "--exported",
    metavar="TARGET",
    required=True,
    type=PathText(),
    help="Directory of an export of these files.",
)
@json_option()
def drop(directory: str, paths: tuple[str, ...], exported: str, as_json: bool) -> int:
    """Give up the local changes of files, and show the bucket's version again.

    Only after `r2fs queue export`: for each PATH the copy in TARGET is read, and the daemon compares its SHA-256 with
    that of its own bytes. A file that differs, is open for writing or is being uploaded keeps its changes. A file
    that the bucket does not have is gone. Exit code 13: some files kept their changes, and are named.

    \b
    Example:
      r2fs queue drop ~/studio ~/studio/take.wav --exported /media/usb/unsent
    """
    daemon, within = _target(directory, paths)
    target = _outside(exported, daemon)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for path in within:
        try:
            size, sha256 = exporting.digest(target / path)
            answer = client.ask_once(daemon, "discard", path=path, size=size, sha256=sha256)
            done.append({"path": path, "size": size, "sha256": sha256, "in_bucket": answer["in_bucket"]})
        except DaemonUnreachable as error:
            if not done and not failed:
                raise
            failed.append({"path": path, "error": str(error)})
            break  # each further file would wait as long
        except R2fsError as error:
            failed.append({"path": path, "error": str(error)})
    return _report("dropped", done, failed, {}, as_json)


def _report(
    word: str, done: list[dict[str, Any]], failed: list[dict[str, str]], extra: dict[str, Any], as_json: bool
) -> int:
    """Print the result; return the exit code."""
    if as_json:
        show.as_json({word: done, "failed": failed, **extra})
    else:
        size = sum(one["size"] for one in done)
        print(f"{word} {amounts.counted(len(done), 'file')} ({amounts.size(size)})")
        for one in failed:
            show.complain(one["error"])
    return PARTLY if failed else DONE


def _target(directory: str, paths: Sequence[str]) -> tuple[Daemon, list[str]]:
    """The daemon of a mount, and paths relative to it. MountPointBad for a path in another mount.

    A relative path that does not lead into the mount from here is below the mount point, as `queue list` prints it.
    """
    found = known_daemons(started=True)
    daemon = daemon_of(directory, found)
    grouped = by_daemon([_place(path, daemon) for path in paths], found)
    for other, elsewhere in grouped.items():
        if other is not daemon:
            raise MountPointBad(f"{elsewhere[0]} is in {other.mountpoint}, not in {daemon.mountpoint}")
    return daemon, grouped.get(daemon, [])


def _place(path: str, daemon: Daemon) -> str:
    below = os.path.normpath(os.path.join(daemon.mountpoint, path))
    if client.owner_of(path, [daemon]) is None and client.owner_of(below, [daemon]) is not None:
        return below
    return path


def _pending(daemon: Daemon, paths: list[str]) -> list[dict[str, Any]]:
    answers = client.ask(daemon, "pending", paths=paths)
    return [transfer for answer in answers for transfer in answer["transfers"]]


def _outside(directory: str, daemon: Daemon) -> Path:
    """The directory of an export, which must exist, outside of the mount."""
    path = Path(os.path.realpath(directory))
    if client.owner_of(str(path), [daemon]) is not None:
        raise MountPointBad(f"{directory} is in the mount: name a directory outside of it")
    if not path.is_dir():
        raise R2fsError(f"{directory} is no directory: make it first")
    return path
