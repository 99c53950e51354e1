"""`r2fs status`: what each mount's daemon says of itself."""

from __future__ import annotations

from typing import Any

import click

from r2fs.cli import show
from r2fs.cli.asking import held_mounts, held_text, known_daemons, nobody_at
from r2fs.daemon import client
from r2fs.model.errors import R2fsError

TRANSFERS_SHOWN = 20
WRITERS = {"slowed": "slowed", "waiting": "wait for uploads", "disk full": "the disk is full"}
OPEN_FILES_SHOWN = 20


@click.command("status")
@click.argument("directory", metavar="[DIR]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print everything, as JSON.")
def command(directory: str | None, as_json: bool) -> int:
    """Show mounts: what is on its way, what is cached, what it cost.

    With DIR (or any path in a mount) one mount in detail, else all of this user; root sees all.
    """
    found = known_daemons()
    if directory is not None:
        daemon = client.owner_of(directory, found)
        if daemon is None:
            raise nobody_at(directory)
        answer = client.ask_once(daemon, "status")
        show.as_json(answer) if as_json else _detail(answer)
        return 0
    answers: list[dict[str, Any]] = []
    failed: list[R2fsError] = []
    for daemon in found:
        try:
            answers.append(client.ask_once(daemon, "status"))
        except R2fsError as error:
            failed.append(error)
            answers.append(
                {"mount": {"mountpoint": daemon.mountpoint, "pid": daemon.pid, "error": str(error)}}
            )
    answers += [
        {"mount": {"mountpoint": one.mountpoint, "url": one.url, "state": "held", "error": held_text(one)}}
        for one in held_mounts()
    ]
    if as_json:
        show.as_json(answers)
    else:
        _overview(answers)
    for problem in failed:
        click.echo(f"r2fs: {problem}", err=True)
    return failed[0].exit_code if failed else 0


def _overview(answers: list[dict[str, Any]]) -> None:
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
                f"{show.size(cache['bytes'])} of {show.size(cache['limit'])}",
            ]
        )
    if rows:
        show.table(["mounted on", "bucket", "state", "not yet sent", "troubles", "cache"], rows)
    else:
        print("nothing is mounted")


def _troubles(answer: dict[str, Any]) -> str:
    queue, room, aside, health = (answer.get(part, {}) for part in ("queue", "room", "aside", "health"))
    troubles = []
    if not health.get("answers", True):
        troubles.append(f"no answer for {show.seconds(health['for_s'])}")
    if queue["parked"]:
        troubles.append(f"{queue['parked']} refused")
    if queue["conflicts"]:
        troubles.append(show.counted(len(queue["conflicts"]), "conflict"))
    if (writers := room.get("writers", "free")) != "free":
        troubles.append(WRITERS.get(writers, writers))
    if room.get("ballast") == 0:
        troubles.append("no reserve for the journal")
    if room.get("disk_error"):
        troubles.append("disk error")
    if aside.get("journals"):
        troubles.append("the journal was damaged")
    if aside.get("orphans"):
        troubles.append(show.counted(len(aside["orphans"]), "file") + " set aside")
    return ", ".join(troubles)


def _room(room: dict[str, Any]) -> list[tuple[str, str]]:
    """What is left for writers. Nothing to say while there is plenty."""
    facts = []
    if (writers := room.get("writers", "free")) != "free":
        used = f"{show.size(room['dirty'])} of {show.size(room['dirty_limit'])} not yet sent"
        facts.append(("writers", f"{WRITERS.get(writers, writers)}: {used}"))
    if room.get("disk_error"):
        facts.append(("disk", room["disk_error"]))
    elif room and room["disk_free"] < room["disk_reserve"]:
        facts.append(("disk", f"full: {show.size(room['disk_free'])} free"))
    if room and not room["ballast"]:
        facts.append(("reserve", "none: the disk is or was too full to keep room for the journal"))
    return facts


def _aside(aside: dict[str, Any]) -> list[tuple[str, str]]:
    """What was set aside, and waits for a person."""
    facts = [("damaged journal", name) for name in aside.get("journals", ())]
    for orphan in aside.get("orphans", ()):
        was = f", was {orphan['key']}" if orphan["key"] else ""
        facts.append(("set aside", f"{orphan['path']} ({show.size(orphan['size'])}{was})"))
    return facts


def _detail(answer: dict[str, Any]) -> None:
    mount, queue, cache, requests = (answer[part] for part in ("mount", "queue", "cache", "requests"))
    facts = [
        ("bucket", mount["url"]),
        ("mounted on", mount["mountpoint"]),
        ("daemon", f"process {mount['pid']}, {mount['state']}, {mount['driver']}"),
        ("if it dies", _fate(mount)),
        (
            "not yet sent",
            show.left(queue) + (f", oldest {show.seconds(queue['oldest_s'])}" if queue["left"] else ""),
        ),
        ("sent", f"{show.counted(queue['uploaded'], 'file')} ({show.size(queue['uploaded_bytes'])})"),
        ("cache", _cache_text(cache)),
    ]
    if requests:
        classes = f"class A {requests['class_a']}, class B {requests['class_b']}, free {requests['free']}"
        facts.append(("requests", f"{requests['total']} ({classes}; {requests['retries']} repeated)"))
    if (opened := answer.get("kernel", {}).get("open_files")) is not None:
        passed = sum(file["mode"] == "passthrough" for file in opened)
        facts.append(("open files", f"{len(opened)} ({passed} by passthrough)"))
    health = answer.get("health", {})
    if not health.get("answers", True):
        facts.append(("no answer", f"for {show.seconds(health['for_s'])}: {health['reason']}"))
    facts += _room(answer.get("room", {})) + _aside(answer.get("aside", {}))
    facts += [("conflict kept", path) for path in queue["conflicts"]]
    if queue["hidden"]:
        facts.append(("hidden", f"{show.counted(queue['hidden'], 'key')} that no file name can be"))
    for found in queue.get("directory_objects", ()):
        facts.append(("holds bytes", f"{found['key']} ({show.size(found['size'])}), the key of a directory"))
    if queue["last_error"]:
        facts.append(("last error", queue["last_error"]))
    show.table(["", ""], facts)
    _transfers(queue)
    _open_files(answer.get("kernel", {}).get("open_files") or [])


def _fate(mount: dict[str, Any]) -> str:
    if mount.get("held_by"):
        return f"the mount stays, kept by {mount['held_by']}"
    return f"the mount goes with it: {mount.get('why_not') or 'its r2fs is older than this one'}"


def _cache_text(cache: dict[str, Any]) -> str:
    rate = "" if cache["hit_rate"] is None else f", {cache['hit_rate']:.0%} hits"
    used = f"{show.size(cache['bytes'])} of {show.size(cache['limit'])} in {show.counted(cache['entries'], 'entry')}"
    return used.replace("entrys", "entries") + rate


def _transfers(queue: dict[str, Any]) -> None:
    transfers = queue["transfers"][:TRANSFERS_SHOWN]
    if not transfers:
        return
    rows = []
    for item in transfers:
        done = f"{100 * item['sent'] // item['size']} %" if item["size"] and item["sent"] else ""
        rate = f"{show.size(item['rate'])}/s" if item["rate"] else ""
        rows.append([item["path"], item["state"], show.size(item["size"]), done, rate, item["reason"] or ""])
    print()
    show.table(["file", "state", "size", "sent", "rate", ""], rows, right=["size", "sent", "rate"])
    more = len(queue["transfers"]) - len(transfers)
    if more > 0:
        print(f"and {more} more (--json shows them)")


def _open_files(opened: list[dict[str, Any]]) -> None:
    """How each is read and written, and why."""
    if not opened:
        return
    rows = [
        [file["path"] or "(without a name)", file["mode"], file["handles"], file["why"]]
        for file in opened[:OPEN_FILES_SHOWN]
    ]
    print()
    show.table(["open file", "by", "times", "because"], rows, right=["times"])
    if len(opened) > OPEN_FILES_SHOWN:
        print(f"and {len(opened) - OPEN_FILES_SHOWN} more (--json shows them)")
