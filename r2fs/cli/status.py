"""`r2fs status`: the state of each mount, from its daemon."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from r2fs.cli import show, unsent
from r2fs.cli.asking import held_mounts, held_text, is_no_mount, known_daemons, nobody_at, served_by_nobody
from r2fs.cli.usage import Command, PathText
from r2fs.daemon import client
from r2fs.daemon.state_directories import FoundStates
from r2fs.daemon.stopping import SOMETHING_LEFT
from r2fs.model import amounts
from r2fs.model.errors import MountPointBad, R2fsError
from r2fs.model.keys import printable

TRANSFERS_SHOWN = 20
WRITERS = {"slowed": "slowed", "waiting": "wait for uploads", "disk full": "the disk is full"}
OPEN_FILES_SHOWN = 20
WATCH_S = 1.0
REASON, NAMES = 160, 40  # characters of a reason, and of its names
DETAIL = re.compile(r" \(((?:\d{3} )?\w+): .*\)$")  # "(500 InternalError: We encountered …)"


@click.command("status", cls=Command)
@click.argument("directory", metavar="[DIR]", required=False, type=PathText())
@click.option("--watch", "-w", is_flag=True, help="Refresh each second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print all details as JSON.")
def command(directory: str | None, watch: bool, as_json: bool) -> int:
    """Show mounts: pending changes, cache, requests.

    With DIR (or any path in a mount), show one mount in detail; else all mounts of this user.
    """
    if watch:
        if as_json or not show.on_terminal():
            raise click.UsageError("--watch needs a terminal, and excludes --json")
        return _watch(lambda: _text_of(directory))
    if directory is not None:
        daemon = client.owner_of(directory, known_daemons(started=True))
        if daemon is None:
            return _of_unmounted(directory, as_json)
        answer = client.ask_once(daemon, "status")
        show.as_json(answer) if as_json else print(_detail(answer))
        return 0
    answers, failed = _ask_all()
    found_states = unsent.unmounted()
    if as_json:
        show.as_json([*answers, *map(unsent.as_data, unsent.with_pending(found_states))])
    else:
        print(_all_text(answers, found_states))
        for text in unsent.unread(found_states):
            show.complain(text)
    for problem in failed:
        show.complain(str(problem))
    return failed[0].exit_code if failed else 0


def _ask_one(directory: str) -> dict[str, Any]:
    daemon = client.owner_of(directory, known_daemons())
    if daemon is None:
        raise nobody_at(directory)
    return client.ask_once(daemon, "status")


def _ask_all() -> tuple[list[dict[str, Any]], list[R2fsError]]:
    """The answers, and the errors of daemons without one."""
    answers: list[dict[str, Any]] = []
    failed: list[R2fsError] = []
    for daemon in known_daemons():
        try:
            answers.append(client.ask_once(daemon, "status"))
        except R2fsError as error:
            failed.append(error)
            answers.append(
                {"mount": {"mountpoint": daemon.mountpoint, "pid": daemon.pid, "error": str(error)}}
            )
    waiting = held_mounts()
    answers += [
        {"mount": {"mountpoint": one.mountpoint, "url": one.url, "state": "held", "error": held_text(one)}}
        for one in waiting
    ]
    answers += [
        {"mount": {"mountpoint": one.mountpoint, "url": one.url, "state": "no daemon", "error": why}}
        for one, why in served_by_nobody(waiting)
    ]
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


def _text_of(directory: str | None) -> str:
    return _all_text(_ask_all()[0], unsent.unmounted()) if directory is None else _detail(_ask_one(directory))


def _all_text(answers: list[dict[str, Any]], found: FoundStates) -> str:
    return "\n\n".join(filter(None, [_overview(answers), unsent.unmounted_text(found)]))


def _watch(text: Callable[[], str]) -> int:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    try:
        with Live(console=Console(highlight=False), auto_refresh=False) as live:
            while True:
                live.update(Text(text()), refresh=True)
                time.sleep(WATCH_S)
    except KeyboardInterrupt:  # the normal end of --watch
        return 0


def _overview(answers: list[dict[str, Any]]) -> str:
    columns = ["mounted on", "bucket", "state", "not yet sent", "troubles", "cache"]
    rows = []
    for answer in answers:
        mount = answer["mount"]
        if "error" in mount:
            state = mount.get("state", "no answer")
            rows.append([mount["mountpoint"], mount.get("url", ""), state, "", mount["error"], ""])
            continue
        queue, cache = answer["queue"], answer["cache"]
        rows.append(
            [
                mount["mountpoint"],
                mount["url"],
                mount["state"],
                show.left(queue) if queue["left"] else "",
                _troubles(answer),
                f"{amounts.size(cache['bytes'])} of {amounts.size(cache['limit'])}",
            ]
        )
    if not rows:
        return "nothing is mounted"
    shown = [
        number
        for number, _ in enumerate(columns)
        if columns[number] != "troubles" or any(r[number] for r in rows)
    ]
    columns, rows = [columns[n] for n in shown], [[row[n] for n in shown] for row in rows]
    if show.fits(columns, rows):
        return show.rendered(columns, rows)
    mounts = []
    for row in rows:  # one below the other on a narrow terminal
        said = [(name, value) for name, value in zip(columns[1:], row[1:], strict=True) if value]
        mounts.append(f"{printable(row[0])}\n{show.labelled(said, indent='  ')}")
    return "\n\n".join(mounts)


def _troubles(answer: dict[str, Any]) -> str:
    queue, room, aside, health = (answer.get(part, {}) for part in ("queue", "room", "aside", "health"))
    troubles = []
    if not health.get("answers", True):
        troubles.append(f"unavailable for {amounts.seconds(health['for_s'])}")
    if queue["parked"]:
        troubles.append(f"{queue['parked']} parked")
    if queue["conflicts"]:
        troubles.append(amounts.counted(len(queue["conflicts"]), "conflict"))
    if (writers := room.get("writers", "free")) != "free":
        troubles.append(WRITERS.get(writers, writers))
    if room.get("journal_reserve") == 0:
        troubles.append("no reserve for the journal")
    if room.get("disk_error"):
        troubles.append("disk error")
    if answer.get("damaged"):
        troubles.append(amounts.counted(len(answer["damaged"]), "object") + " damaged")
    if aside.get("journals"):
        troubles.append("the journal was damaged")
    if aside.get("orphans"):
        troubles.append(amounts.counted(len(aside["orphans"]), "file") + " set aside")
    return ", ".join(troubles)


def _room(room: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines on the space left for writers; none while there is plenty."""
    lines = []
    if (writers := room.get("writers", "free")) != "free":
        used = f"{amounts.size(room['dirty'])} of {amounts.size(room['dirty_limit'])} not yet sent"
        lines.append(("writers", f"{WRITERS.get(writers, writers)}: {used}"))
    if room.get("disk_error"):
        lines.append(("disk", room["disk_error"]))
    elif room and room["disk_free"] < room["disk_reserve"]:
        lines.append(("disk", f"full: {amounts.size(room['disk_free'])} free"))
    if room and not room["journal_reserve"]:
        lines.append(("reserve", "none: the disk is or was too full to keep room for the journal"))
    return lines


def _quarantine(aside: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines on files in quarantine, until a person decides."""
    lines = [("damaged journal", name) for name in aside.get("journals", ())]
    for orphan in aside.get("orphans", ()):
        was = f", was {orphan['key']}" if orphan["key"] else ""
        lines.append(("set aside", f"{orphan['path']} ({amounts.size(orphan['size'])}{was})"))
    return lines


def _detail(answer: dict[str, Any]) -> str:
    mount, queue, cache, requests = (answer[part] for part in ("mount", "queue", "cache", "requests"))
    health = answer.get("health", {})
    lines = [
        ("bucket", mount["url"]),
        *_buckets(mount.get("buckets", []), health.get("buckets", {})),
        ("mounted on", mount["mountpoint"]),
        ("daemon", f"process {mount['pid']}, {mount['state']}, {mount['driver']}"),
        ("if it dies", _fate(mount)),
        ("not yet sent", _left(queue)),
        ("sent", f"{amounts.counted(queue['uploaded'], 'file')} ({amounts.size(queue['uploaded_bytes'])})"),
        ("cache", _cache_text(cache)),
    ]
    if requests:
        classes = f"class A {requests['class_a']}, class B {requests['class_b']}, free {requests['free']}"
        lines.append(("requests", f"{requests['total']} ({classes}; {requests['retries']} repeated)"))
    if (opened := answer.get("kernel", {}).get("open_files")) is not None:
        passed = sum(file["mode"] == "passthrough" for file in opened)
        lines.append(("open files", f"{len(opened)} ({passed} by passthrough)"))
    outage = "" if health.get("answers", True) else brief(health["reason"])
    if outage:
        lines.append(("unavailable", f"for {amounts.seconds(health['for_s'])}: {outage}"))
    lines += _room(answer.get("room", {})) + _quarantine(answer.get("aside", {}))
    lines += [("damaged", reason) for reason in answer.get("damaged", ())]
    lines += [("conflict kept", path) for path in queue["conflicts"]]
    if queue["hidden"]:
        lines.append(("hidden", f"{amounts.counted(queue['hidden'], 'key')} that cannot be shown as files"))
    for found in queue.get("directory_objects", ()):
        lines.append(
            ("holds bytes", f"{found['key']} ({amounts.size(found['size'])}), the key of a directory")
        )
    if queue.get("watched"):
        lines.append(
            ("watching", f"{amounts.counted(queue['watched'], 'key')}, for a late upload to remove there")
        )
    if queue["last_error"] and not _is_of(queue["last_error"], outage):
        lines.append(("last error", f"{_ago(queue.get('last_error_at_s'))}{brief(queue['last_error'])}"))
    return "\n\n".join(
        filter(None, [show.labelled(lines), _transfers(queue, outage), _open_files(opened or [])])
    )


def _buckets(buckets: list[dict[str, Any]], silent: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A line on the buckets of a mount of several."""
    names = [
        one["name"]
        + (" (read-only)" if one["read_only"] else "")
        + (" (unavailable)" if one["name"] in silent else "")
        for one in buckets
    ]
    return [("directories", ", ".join(names))] if names else []


def brief(reason: str) -> str:
    """Without the library's or the server's own words, which --json and the log have."""
    text = DETAIL.sub(r" (\1)", " ".join(reason.split()))
    return text if len(text) <= REASON else text[: REASON - 1] + "…"


def _without_name(reason: str, path: str) -> str:
    """The reason in "a/b.wav: not allowed"; a key has the mount's prefix before the path."""
    name, found, said = reason.partition(f"{path.rstrip('/')}: ")
    return said if found and not name.strip("/").count(" ") else reason


def _is_of(reason: str, outage: str) -> bool:
    """True if `reason` repeats the bucket's outage, for whatever name."""
    return bool(outage) and brief(reason).rpartition(": ")[2] == outage.rpartition(": ")[2]


def _ago(at_s: float | None) -> str:
    return "" if at_s is None else f"{amounts.seconds(max(0.0, time.time() - at_s))} ago: "


def _left(queue: dict[str, Any]) -> str:
    """Pending changes, the age of the oldest, and the time left at the present rate."""
    text = show.left(queue)
    if queue["left"] and queue["oldest_s"]:
        text += f", oldest {amounts.seconds(queue['oldest_s'])}"
    moving = [item for item in queue["transfers"] if item["rate"]]
    if moving:
        parked = sum(item["size"] for item in queue["transfers"] if item["state"] == "parked")
        rest = queue["bytes"] - parked - sum(item["sent"] for item in queue["transfers"])
        text += f", about {amounts.seconds(max(0.0, rest / sum(item['rate'] for item in moving)))} to go"
    return text


def _fate(mount: dict[str, Any]) -> str:
    if mount.get("held_by"):
        return f"the mount stays, kept by {mount['held_by']}"
    if mount["state"] == "stopping":
        return "unsent changes are kept, and sent at the next mount"
    return f"the mount ends with the daemon: {mount.get('why_not') or 'its r2fs is older than this one'}"


def _cache_text(cache: dict[str, Any]) -> str:
    rate = "" if cache["hit_rate"] is None else f", {cache['hit_rate']:.0%} hits"
    used = f"{amounts.size(cache['bytes'])} of {amounts.size(cache['limit'])}"
    return f"{used} in {amounts.counted(cache['entries'], 'entry')}{rate}"


def _transfers(queue: dict[str, Any], outage: str) -> str:
    """A line for each transfer, and below them each reason once."""
    transfers = queue["transfers"][:TRANSFERS_SHOWN]
    if not transfers:
        return ""
    rows, reasons = [], dict[str, list[str]]()
    for item in transfers:
        done = f"{100 * item['sent'] // item['size']} %" if item["size"] and item["sent"] else ""
        rate = f"{amounts.size(item['rate'])}/s" if item["rate"] else ""
        state = f"{item['state']} delete" if item.get("verb") == "delete" else item["state"]
        rows.append([item["path"], state, amounts.size(item["size"]), done, rate])
        if item["reason"] and not _is_of(item["reason"], outage):
            reasons.setdefault(brief(_without_name(item["reason"], item["path"])), []).append(item["path"])
    text = show.rendered(["file", "state", "size", "sent", "rate"], rows, right=["size", "sent", "rate"])
    more = len(queue["transfers"]) - len(transfers)
    if more > 0:
        text += f"\nand {more} more (--json shows them)"
    why = [(_some(paths), reason) for reason, paths in reasons.items()]
    return "\n\n".join(filter(None, [text, show.labelled([(show.shortened(n, NAMES), r) for n, r in why])]))


def _some(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def _open_files(opened: list[dict[str, Any]]) -> str:
    """A line for each open file: its mode, and the reason."""
    if not opened:
        return ""
    rows = [
        [file["path"] or "(without a name)", file["mode"], file["handles"], file["why"]]
        for file in opened[:OPEN_FILES_SHOWN]
    ]
    text = show.rendered(["open file", "by", "times", "because"], rows, right=["times"])
    if len(opened) > OPEN_FILES_SHOWN:
        text += f"\nand {len(opened) - OPEN_FILES_SHOWN} more (--json shows them)"
    return text
