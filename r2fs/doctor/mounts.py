"""Checks of the mounts of this host: the answer of each daemon, and each mount without one.

Never: makes a call in a mount, which may hang.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2fs.daemon import client, mountpoint
from r2fs.doctor.findings import Finding, failed, of_error, ok, warning
from r2fs.drivers import kmount
from r2fs.model import amounts
from r2fs.model.errors import DaemonUnreachable, R2fsError, Unavailable


@dataclass(frozen=True, slots=True)
class Seen:
    """Answers of the daemons, for the bundle, and the findings."""

    status: list[dict[str, Any]]
    findings: list[Finding]


def look(environ: Mapping[str, str], run_dir: Path | None, source: str | None = None) -> Seen:
    """Check all mounts; with `source`, the URL of a bucket, only its mounts among those without a daemon."""
    status: list[dict[str, Any]] = []
    findings: list[Finding] = []
    found = client.daemons(environ, run_dir)
    for answer in client.ask_each(found, "status"):
        if isinstance(answer, R2fsError):
            findings.append(of_error("mount", answer))
            continue
        status.append(answer)
        findings += _of_daemon(answer)
    held = client.held(environ, run_dir)
    for one in held:
        findings.append(
            warning(
                "mount",
                f"{one.mountpoint}: its daemon has gone, and the mount waits {max(0.0, one.left_s):.0f} s for another",
                "it is being started again" if one.starts_it else f"r2fs mount {one.url} {one.mountpoint}",
            )
        )
    findings += _without_daemon(
        {each.mountpoint for each in found} | {each.mountpoint for each in held}, source
    )
    if not findings:
        findings.append(ok("mount", "nothing is mounted"))
    return Seen(status, findings)


def _of_daemon(answer: Mapping[str, Any]) -> Iterator[Finding]:
    mount, queue, health = answer["mount"], answer["queue"], answer["health"]
    where = f"{mount['mountpoint']} ({mount['url']})"
    if health and not health["answers"]:
        yield failed(
            "mount",
            f"{where}: the bucket has not answered for {amounts.seconds(health['for_s'])}: {health['reason']}",
            "changes are kept and sent later; the other checks say what is wrong",
            Unavailable.exit_code,
        )
    if queue["parked"]:
        yield warning(
            "mount",
            f"{where}: {amounts.counted(queue['parked'], 'change')} refused by the bucket",
            f"r2fs status {mount['mountpoint']} has the reasons; then r2fs flush --retry",
        )
    if answer.get("damaged"):  # a mirror has no cache, and no word on its disk
        yield warning(
            "mount",
            f"{where}: {amounts.counted(len(answer['damaged']), 'object')} with other bytes than their ETags say",
            "store them again, or set md5_etags = false for a server with other ETags",
        )
    room = answer.get("room", {})
    if room.get("disk_error") or room.get("writers") == "disk full":
        yield failed("mount", f"{where}: this host's disk takes no more", "make room on it", 7)
    left = amounts.left(queue["files"], queue["directories"], queue["bytes"], queue["deletes"])
    yield ok("mount", f"{where}: {mount['state']}, {mount['driver']}, not yet sent: {left}")


def _without_daemon(known: set[str], source: str | None) -> Iterator[Finding]:
    """Mounts that no daemon or holder of this user has."""
    for each in kmount.mounts():
        if each.fstype != mountpoint.OURS or each.path in known or source not in (None, each.source):
            continue
        try:
            stale = mountpoint.is_stale(Path(each.path))
        except R2fsError as error:
            yield of_error("mount", error)
            continue
        if stale:
            yield failed(
                "mount",
                f"{each.path} ({each.source}): its daemon has gone, and programs get errors",
                f"r2fs umount {each.path}, or mount it again",
                DaemonUnreachable.exit_code,
            )
        else:
            yield ok(
                "mount",
                f"{each.path} ({each.source}) is another user's, or its run directory is not known here",
            )
