"""Lines of `r2fs status DIR` about a mirror."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from r2fs.model import amounts

SKIPPED_SHOWN = 5


def mirror_lines(
    answer: dict[str, Any], lines_of_a_mount: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The lines of a mirror in place of those of a mount; those on the bucket and on uploads are the same."""
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
