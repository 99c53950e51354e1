"""`r2fs status`: the state of each mount, from its daemon."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from r2fs.cli import show, unsent
from r2fs.cli.asking import daemon_of, is_no_mount, known_daemons, nobody_at, unserved
from r2fs.cli.options import json_option
from r2fs.cli.status_text import detail, overview
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.daemon.client import Daemon
from r2fs.daemon.state_directories import FoundStates
from r2fs.model.errors import MountPointBad, R2fsError
from r2fs.model.exit_codes import DONE, SOMETHING_LEFT
from r2fs.model.keys import printable

WATCH_SILENCE_S = 3.0  # the screen goes on without a daemon that says nothing


@click.command("status", cls=Command)
@click.argument("directory", metavar="[DIR]", required=False, type=PathText())
@click.option("--watch", "-w", is_flag=True, help="Refresh each second, until q or Ctrl-C.")
@json_option("Print all details as JSON.")
def command(directory: str | None, watch: bool, as_json: bool) -> int:
    """Show mounts: pending changes, cache, requests.

    With DIR (or any path in a mount), show one mount in detail; else all mounts of this user. No request is sent to
    a bucket.

    --watch shows a screen with a bar for each transfer, up and down. Without a terminal it prints a line for each mount and second;
    with --json, all details on one line.

    \b
    Examples:
      r2fs status                      all mounts
      r2fs status --watch ~/studio     one mount, live
    """
    if watch:
        from r2fs.cli import screen

        return screen.watch(lambda: _answers_of(directory), as_json=as_json)
    if directory is not None:
        daemon = client.owner_of(directory, known_daemons(started=True))
        if daemon is None:
            return _of_unmounted(directory, as_json)
        answer = client.ask_once(daemon, "status")
        show.as_json(answer) if as_json else print(detail(answer))
        return DONE
    answers, failed = _ask_all(known_daemons())
    found_states = unsent.unmounted()
    if as_json:
        show.as_json([*answers, *map(unsent.as_data, unsent.with_pending(found_states))])
    else:
        print(_all_text(answers, found_states))
        for text in unsent.unread(found_states):
            show.complain(text)
    for problem in failed:
        show.complain(str(problem))
    return failed[0].exit_code if failed else DONE


def _watched() -> list[Daemon]:
    return [replace(daemon, silence_s=WATCH_SILENCE_S) for daemon in known_daemons()]


def _ask_all(daemons: list[Daemon]) -> tuple[list[dict[str, Any]], list[R2fsError]]:
    """The answers, and the errors of daemons without one."""
    answers: list[dict[str, Any]] = []
    failed: list[R2fsError] = []
    for daemon, answer in zip(daemons, client.ask_each(daemons, "status"), strict=True):
        if isinstance(answer, R2fsError):
            failed.append(answer)
            answer = {"mount": {"mountpoint": daemon.mountpoint, "pid": daemon.pid, "error": str(answer)}}
        answers.append(answer)
    for one in unserved():
        about = {"mountpoint": one.mountpoint, "url": one.url, "state": one.state, "error": one.error}
        answers.append({"mount": about})
    return answers, failed


def _of_unmounted(directory: str, as_json: bool) -> int:
    """Show the pending changes of a directory whose mount has ended in good order."""
    state = unsent.last_on(directory) if is_no_mount(directory) else None
    if state is None:
        raise nobody_at(directory)
    if not state.pending.anything:
        raise MountPointBad(f"{directory} is not mounted; all of {state.place} is in the bucket")
    show.as_json(unsent.as_data(state)) if as_json else print(
        f"{directory} is not mounted; {printable(unsent.sentence(state))}"
    )
    return SOMETHING_LEFT


def _answers_of(directory: str | None) -> tuple[list[dict[str, Any]], str]:
    """One look of the screen: the answers of daemons, and a text on unmounted buckets."""
    if directory is not None:
        return [client.ask_once(daemon_of(directory, _watched()), "status")], ""
    return _ask_all(_watched())[0], unsent.unmounted_text(unsent.unmounted())


def _all_text(answers: list[dict[str, Any]], found: FoundStates) -> str:
    return "\n\n".join(filter(None, [overview(answers), unsent.unmounted_text(found)]))
