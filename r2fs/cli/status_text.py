"""Texts of `r2fs status`: the overview of all mounts, and one mount in detail.

Fields that an older daemon does not send are left out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from r2fs.cli import show
from r2fs.model import amounts
from r2fs.model.keys import printable

TRANSFERS_SHOWN = 20
WRITERS = {"slowed": "slowed", "waiting": "wait for uploads", "disk full": "the disk is full"}
OPEN_FILES_SHOWN = 20
SKIPPED_SHOWN = 5  # names that a mirror leaves out
REASON, NAMES = 160, 40  # characters of a reason, and of its names
BAR = 10  # characters
DETAIL = re.compile(r" \(((?:\d{3} )?\w+): .*\)$")  # "(500 InternalError: We encountered …)"


def overview(answers: list[dict[str, Any]]) -> str:
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
                f"{mount['state']} (mirror)" if "mirror" in answer else mount["state"],
                show.left(queue) if queue["left"] else "",
                troubles_of(answer),
                f"{amounts.size(cache['bytes'])} of {amounts.size(cache['limit'])}" if cache["limit"] else "",
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


def troubles_of(answer: Mapping[str, Any]) -> str:
    queue, room, aside, health = (answer.get(part, {}) for part in ("queue", "room", "aside", "health"))
    troubles = []
    if not health.get("answers", True):
        troubles.append(f"unavailable for {amounts.seconds(health['for_s'])}")
    if answer.get("warnings"):
        troubles.append(amounts.counted(len(answer["warnings"]), "warning"))
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


def detail(answer: dict[str, Any]) -> str:
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
    if pinned := _pins(answer.get("pins", {})):
        lines.append(("pinned", pinned))
    if "mirror" in answer:
        lines = _mirror(answer, lines)
    if requests:
        classes = f"class A {requests['class_a']}, class B {requests['class_b']}, free {requests['free']}"
        lines.append(("requests", f"{requests['total']} ({classes}; {requests['retries']} repeated)"))
    if (opened := answer.get("kernel", {}).get("open_files")) is not None:
        passed = sum(file["mode"] == "passthrough" for file in opened)
        lines.append(("open files", f"{len(opened)} ({passed} by passthrough)"))
    lines += limit_lines(answer.get("bandwidth", {}))
    outage = _outage(answer)
    lines += trouble_lines(answer, [("conflict kept", path) for path in queue["conflicts"]])
    return "\n\n".join(
        filter(
            None,
            [show.labelled(lines), _transfers(answer, outage), _open_files(opened or [])],
        )
    )


def _mirror(answer: dict[str, Any], lines_of_a_mount: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The lines on a mirror. The lines on uploads are those of a mount."""
    mount, mirror = answer["mount"], answer["mirror"]
    pending = [line for line in lines_of_a_mount if line[0] in ("not yet sent", "sent")]
    lines = [
        ("bucket", mount["url"]),
        ("directory", mount["mountpoint"]),
        ("mirror", f"process {mount['pid']}, {mount['state']}"),
        *pending,
        ("to fetch", amounts.counted(mirror["to_fetch"], "file") if mirror["to_fetch"] else "nothing"),
        (
            "fetched",
            f"{amounts.counted(mirror['fetched'], 'file')} ({amounts.size(mirror['fetched_bytes'])})",
        ),
        ("compared", _compared(mirror)),
    ]
    if removed := mirror["deleted"] + mirror["removed"]:
        lines.append(("removed", f"{mirror['deleted']} in the bucket, {removed - mirror['deleted']} here"))
    reasons = [why if name in why else f"{name}: {why}" for name, why in sorted(mirror["skipped"].items())]
    lines += [("not mirrored", reason) for reason in reasons[:SKIPPED_SHOWN]]
    if len(reasons) > SKIPPED_SHOWN:
        lines.append(("not mirrored", f"and {len(reasons) - SKIPPED_SHOWN} more (--json shows them)"))
    return lines


def _compared(mirror: dict[str, Any]) -> str:
    at_s = mirror["compared_at_s"]
    text = "not yet" if at_s is None else f"{amounts.seconds(max(0.0, time.time() - at_s))} ago"
    return f"{text}; since then: {mirror['error']}" if mirror["error"] else text


def trouble_lines(
    answer: Mapping[str, Any], conflicts: Sequence[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """Names and sentences for each trouble of a mount; `conflicts` are put among them."""
    queue, health, outage = answer["queue"], answer.get("health", {}), _outage(answer)
    lines = []
    if outage:
        lines.append(("unavailable", f"for {amounts.seconds(health['for_s'])}: {outage}"))
    lines += [("warning", sentence) for sentence in answer.get("warnings", ())]
    lines += _room(answer.get("room", {})) + _quarantine(answer.get("aside", {}))
    lines += [("damaged", reason) for reason in answer.get("damaged", ())]
    lines += conflicts
    if queue["hidden"] and "mirror" not in answer:
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
    return lines


def _outage(answer: Mapping[str, Any]) -> str:
    health = answer.get("health", {})
    return "" if health.get("answers", True) else brief(health["reason"])


def limit_lines(bandwidth: Mapping[str, Any], always: bool = False) -> list[tuple[str, str]]:
    """A line for each direction that has a limit at some hour, or with `always` for both."""
    lines = []
    for way, name in (("up", "upload limit"), ("down", "download limit")):
        limit = bandwidth.get(way)
        if limit is None or (limit["setting"] == "off" and not always):
            continue
        text = _rate(limit["rate"])
        if limit["until_s"] is not None:
            until = time.strftime("%a %H:%M %Z", time.localtime(limit["until_s"]))
            text += f" until {until}, then {_rate(limit['then'])}"
        if limit["waiting"]:
            text += f"; {amounts.counted(limit['waiting'], 'transfer')} held by it"
        lines.append((name, text))
    return lines


def _rate(rate: int | None) -> str:
    return "none" if rate is None else f"{amounts.size(rate)}/s"


def _buckets(buckets: list[dict[str, Any]], silent: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A line on the buckets of a mount of several."""
    names = [
        one["name"]
        + (" (read-only)" if one["read_only"] else "")
        + (" (unavailable)" if one["name"] in silent else "")
        for one in buckets
    ]
    return [("directories", ", ".join(names))] if names else []


def without_details(reason: str) -> str:
    """A reason without the text of the library or the server, which --json and the log have."""
    return DETAIL.sub(r" (\1)", " ".join(reason.split()))


def brief(reason: str) -> str:
    """A reason without these details, in at most REASON characters."""
    text = without_details(reason)
    return text if len(text) <= REASON else text[: REASON - 1] + "…"


def _without_name(reason: str, path: str) -> str:
    """The reason without its path: "not allowed" of "a/b.wav: not allowed". A key has the mount's prefix before it."""
    name, found, said = reason.partition(f"{path.rstrip('/')}: ")
    return said if found and not name.strip("/").count(" ") else reason


def _is_of(reason: str, outage: str) -> bool:
    """True if `reason` is the bucket's outage with the name of an object."""
    return bool(outage) and brief(reason).rpartition(": ")[2] == outage.rpartition(": ")[2]


def _ago(at_s: float | None) -> str:
    return "" if at_s is None else f"{amounts.seconds(max(0.0, time.time() - at_s))} ago: "


def _left(queue: dict[str, Any]) -> str:
    """Pending changes, the age of the oldest, and the time left at the present rate."""
    text = show.left(queue)
    if queue["left"] and queue["oldest_s"]:
        text += f", oldest {amounts.seconds(queue['oldest_s'])}"
    if queue.get("left_s") is not None:
        text += f", about {amounts.seconds(queue['left_s'])} to go"
    return text


def _fate(mount: dict[str, Any]) -> str:
    if mount.get("held_by"):
        return f"the mount stays, kept by {mount['held_by']}"
    if mount["state"] == "stopping":
        return "unsent changes are kept, and sent at the next mount"
    return f"the mount ends with the daemon: {mount.get('why_not') or 'its r2fs is older than this one'}"


def _cache_text(cache: dict[str, Any]) -> str:
    rate = "" if cache["hit_rate"] is None else f", {cache['hit_rate']:.0%} hits"
    if cache.get("surplus"):
        rate += f", {amounts.counted(cache['surplus'], 'file')} fetched ahead and not opened"
    used = f"{amounts.size(cache['bytes'])} of {amounts.size(cache['limit'])}"
    return f"{used} in {amounts.counted(cache['entries'], 'entry')}{rate}"


def _pins(pins: dict[str, Any]) -> str:
    """ "2 paths, 1 session (41 files): 1.2 GiB of 8.0 GiB are here"; empty without a pin."""
    if not pins or not pins["paths"] + pins["sessions"]:
        return ""
    parts = [amounts.counted(pins["paths"], "path")] if pins["paths"] else []
    if pins["sessions"]:
        files = amounts.counted(pins["session_files"], "file")
        parts.append(f"{amounts.counted(pins['sessions'], 'session')} ({files})")
    return f"{', '.join(parts)}: {amounts.size(pins['here_bytes'])} of {amounts.size(pins['limit'])} are here"


def _transfers(answer: dict[str, Any], outage: str) -> str:
    """A line for each transfer, downloads first, and below them each reason once."""
    every = [*answer.get("downloads", ()), *answer["queue"]["transfers"]]
    transfers = every[:TRANSFERS_SHOWN]
    if not transfers:
        return ""
    rows, reasons = [], dict[str, list[str]]()
    for item in transfers:
        done = ""
        if item["size"] and item["sent"]:
            done = f"{show.bar(item['sent'], item['size'], BAR)} {100 * item['sent'] // item['size']} %"
        rate = f"{amounts.size(item['rate'])}/s" if item["rate"] else ""
        state = f"{item['state']} delete" if item.get("verb") == "delete" else item["state"]
        rows.append([item["path"], state, amounts.size(item["size"]), done, rate])
        if item["reason"] and not _is_of(item["reason"], outage):
            reasons.setdefault(brief(_without_name(item["reason"], item["path"])), []).append(item["path"])
    text = show.rendered(["file", "state", "size", "done", "rate"], rows, right=["size", "done", "rate"])
    more = len(every) - len(transfers)
    if more > 0:
        text += f"\nand {more} more (--json shows them)"
    why = [(some_of(paths), reason) for reason, paths in reasons.items()]
    return "\n\n".join(filter(None, [text, show.labelled([(show.shortened(n, NAMES), r) for n, r in why])]))


def some_of(paths: list[str]) -> str:
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
