"""`r2fs pin` and `r2fs unpin`: keep files on this host, and let them be evicted again."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import by_daemon, daemon_of, each_result, known_daemons
from r2fs.cli.failures import Failures, named_in
from r2fs.cli.options import json_option, paths_argument
from r2fs.cli.usage import Command, PathText
from r2fs.cli.warm import WarmProgress, code_of, conclude
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.model import amounts, sessions
from r2fs.model.errors import FileError, NoSpace, NotFound, R2fsError
from r2fs.model.exit_codes import DONE, PARTLY_HERE


@click.command(
    "pin",
    cls=Command,
    epilog="Example: r2fs pin ~/studio/kits; r2fs pin ~/studio/song/song.rpp; r2fs pin --list",
)
@click.argument("paths", metavar="[PATH...]", nargs=-1, type=PathText())
@click.option("--list", "as_list", is_flag=True, help="List what is pinned.")
@click.option("--alone", is_flag=True, help="Pin a session file without the files that it refers to.")
@click.option("--no-wait", is_flag=True, help="Return at once; the download goes on in the background.")
@json_option()
def command(paths: tuple[str, ...], as_list: bool, alone: bool, no_wait: bool, as_json: bool) -> int:
    """Keep files, and all that is below directories, on this host.

    Pinned files are downloaded now, never evicted, and fetched again when a listing shows a new version. At most 80 %
    of the cache can be pinned. Pins outlast the mount; an interrupted download goes on in the background.

    A session file (.rpp of Reaper, .als of Ableton Live, .aup3 of Audacity, .m3u, .m3u8, .xspf, .edl) is pinned with
    all files of the mount that it refers to. Those that are not there are named. After a change of the session, pin
    it again.

    Exit code 14: some files are not here, with the reasons on standard error.
    """
    if as_list == bool(paths):
        raise click.UsageError("give paths to pin, or --list")
    if as_list:
        return _list(as_json)
    answers, codes, failures = [], {DONE}, Failures()
    targets = deque(_targets(paths, known_daemons(started=True), alone, failures))
    while targets:
        daemon, within, session, missing = targets.popleft()
        began_s = time.monotonic()
        view: dict[str, Any] = {}
        try:
            with named_in(daemon.mountpoint, within), WarmProgress(quiet=as_json) as progress:
                for view in client.ask(daemon, "pin", paths=within, session=session, wait=not no_wait):
                    progress.show(view)
        except NoSpace as error:
            show.complain(str(error))
            codes.add(PARTLY_HERE)
            continue
        except FileError as error:
            if session is None and len(within) > 1:  # the others are pinned
                targets.extendleft((daemon, [path], None, missing) for path in reversed(within))
            else:
                failures.note(error)
            continue
        answers.append({"mountpoint": daemon.mountpoint, "session": session, "missing": missing} | view)
        codes.add(PARTLY_HERE if missing else code_of(view))
        if as_json:
            continue
        if not no_wait:
            conclude(daemon.mountpoint, view, time.monotonic() - began_s)
        for path in missing:
            show.complain(f"{session} refers to {path}, which is not in the mount")
    if as_json:
        show.as_json(answers)
    return failures.code or max(codes)


def _targets(
    paths: Sequence[str], found: Sequence[Daemon], alone: bool, failures: Failures
) -> Iterator[tuple[Daemon, list[str], str | None, list[str]]]:
    """Yield for each request: the daemon, paths relative to its mount, their session, and references that are missing."""
    plain = [path for path in paths if alone or not sessions.is_session(path)]
    for daemon, within in by_daemon(plain, found, failures).items():
        yield daemon, within, None, []
    for path in paths:
        if path in plain:
            continue
        with failures.noted():
            owner = daemon_of(path, found)
            present, missing = _resolved(path, _references(path), owner)
            session = client.within_mount(path, owner)
            yield owner, [session, *present], session, missing


def _references(path: str) -> list[sessions.Reference]:
    try:
        with open(path, "rb") as file:
            return sessions.references(path, file)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file or directory") from None
    except OSError as error:
        raise R2fsError(f"{path}: {error.strerror}") from None


def _resolved(
    path: str, references: Sequence[sessions.Reference], daemon: Daemon
) -> tuple[list[str], list[str]]:
    """The files in the mount that `references` lead to, relative to it; and the references that lead to no file."""
    directory = os.path.dirname(os.path.abspath(path))
    present: dict[str, None] = {}
    missing: list[str] = []
    for reference in references:
        places = [os.path.normpath(os.path.join(directory, place)) for place in reference]
        there = [place for place in places if client.owner_of(place, [daemon]) and os.path.isfile(place)]
        if there:
            present[client.within_mount(there[0], daemon)] = None
        elif not any(os.path.isfile(place) for place in places):  # else on this host's disk: here already
            missing.append(reference[0])
    return list(present), missing


def _list(as_json: bool) -> int:
    answers = []
    for daemon in known_daemons(started=True):
        answers.append({"mountpoint": daemon.mountpoint} | client.ask_once(daemon, "pins"))
    if as_json:
        show.as_json(answers)
        return 0
    rows = [
        (
            os.path.join(answer["mountpoint"], pin["path"]),
            amounts.counted(pin["files"], "file"),
            amounts.size(pin["bytes"]),
            amounts.size(pin["here_bytes"]),
            "" if pin["session"] is None else f"of {pin['session']}",
        )
        for answer in answers
        for pin in answer["pins"]
    ]
    if rows:
        show.table(("pinned", "files", "size", "here", "session"), rows, right=("size", "here"))
    else:
        print("nothing is pinned")
    return 0


@click.command("unpin", cls=Command, epilog="Example: r2fs unpin ~/studio/song/song.rpp")
@paths_argument
def unpin(paths: tuple[str, ...]) -> int:
    """Let pinned files be evicted again.

    Removes the pins at and below each PATH, and for a session file those of the files that it was pinned with. The
    files stay here until the cache needs their room; r2fs evict drops them now.
    """
    failures = Failures()
    for mountpoint, answer in each_result(paths, failures, _unpin):
        print(f"{mountpoint}: {amounts.counted(answer['unpinned'], 'pin')} removed")
    return failures.code


def _unpin(daemon: Daemon, paths: list[str]) -> dict[str, Any]:
    return client.ask_once(daemon, "unpin", paths=paths)
