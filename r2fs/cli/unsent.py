"""Unsent files and deletes of unmounted state directories, for `r2fs status`."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import Any

from r2fs.cli import show
from r2fs.cli.asking import held_mounts, named_directory
from r2fs.daemon import state_directories
from r2fs.daemon.state_directories import FoundStates, StateDirectory
from r2fs.drivers.mount_path import absolute
from r2fs.model.keys import printable


def unmounted() -> FoundStates:
    """Every state directory that no daemon has open, in the standard places and in the settings.

    Excluded are mounts whose daemon is being started again: that daemon sends the changes.
    """
    starting = {held.mountpoint for held in held_mounts() if held.starts_it}
    named = named_directory("state_dir")
    found = state_directories.find(os.environ, [named] if named else [])
    mine = tuple(s for s in found.states if s.record is None or s.record.mountpoint not in starting)
    return replace(found, states=mine)


def with_pending(found: FoundStates) -> list[StateDirectory]:
    return [state for state in found.states if state.pending.anything]


def last_on(directory: str) -> StateDirectory | None:
    """The state of the last mount on this directory; one with pending changes first."""
    path = absolute(directory)
    was_there = [s for s in unmounted().states if s.record is not None and s.record.mountpoint == path]
    return max(
        was_there, key=lambda s: (s.pending.anything, s.record.mounted_s if s.record else 0.0), default=None
    )


def sentence(state: StateDirectory) -> str:
    """Say how much is pending for a bucket, since when, and the command that sends it."""
    amount, since = _amount(state)
    return f"{amount} of {state.place} kept in {state.path}{since}; to send: {state.remedy}"


def _amount(state: StateDirectory) -> tuple[str, str]:
    """The amount that is pending, and the time of the oldest change."""
    pending = state.pending
    parked = f" ({pending.parked} of them refused by the bucket)" if pending.parked else ""
    since = f", since {show.moment(pending.oldest_at_s)}" if pending.oldest_at_s is not None else ""
    return state_directories.pending_text(pending) + parked, since


def as_data(state: StateDirectory) -> dict[str, Any]:
    """An entry of `status --json`, beside those of mounts."""
    record = state.record
    return {
        "mount": {
            "mountpoint": record.mountpoint if record else None,
            "url": record.url if record else None,
            "endpoint": record.endpoint if record else None,
            "name": record.name if record else "",
            "state": "not mounted",
            "state_dir": str(state.path),
            "error": sentence(state),
        },
        "pending": asdict(state.pending),
        "command": state.remedy,
        "keys": record.keys if record else "",
    }


def unmounted_text(found: FoundStates) -> str:
    """Lines below the table of mounts; "" without pending changes."""
    waiting = with_pending(found)
    if not waiting:
        return ""
    lines = ["not yet in the bucket, and no mount sends it:"]
    for state in waiting:
        amount, since = _amount(state)
        lines.append(f"  {printable(state.place)}: {amount}{since}")
        lines.append(f"    kept in  {printable(str(state.path))}")
        if state.record is not None and state.record.keys:
            lines.append(f"    keys     {printable(state.record.keys)}")
        lines.append(f"    to send  {printable(state.remedy)}")
    return "\n".join(lines)


def unread(found: FoundStates) -> list[str]:
    """Sentences on the places that could not be read."""
    said = []
    if found.closed:
        places = ", ".join(map(str, found.closed))
        said.append(f"not readable by this user: {places} (sudo r2fs status reads them)")
    said += [
        f"{path} does not exist, and its unsent changes are unknown: mount its disk, or if it was deleted: rm {link}"
        for path, link in found.missing
    ]
    return said
