"""Points: where the code calls `crash_point(name)`, found in the sources, and what makes each happen.

Owns:  the list that the suite goes through. `test_crash.py` fails where a name in the sources is not in it.
Never: is imported by the daemon.
"""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "r2fs"

# When the daemon is to die there: while a writer is at work, while what an earlier kill left is read
# at start, or while another host writes the same names.
WORK, START, RIVAL = "work", "start", "rival"

POINTS: dict[str, str] = {
    # the journal: before and after each commit, wherever it is asked for
    "commit": WORK,
    "committed": WORK,
    # names
    "created": WORK,
    "made": WORK,
    "unlinked": WORK,
    "directory_removed": WORK,
    "renamed": WORK,
    "attributes_journalled": WORK,
    # files that become dirty, and are sealed
    "staged": WORK,
    "open_write_journalled": WORK,
    "truncated": WORK,
    "sealed": WORK,
    "unchanged": WORK,
    "bytes_synced": WORK,
    "sync_journalled": WORK,
    # uploads
    "claimed": WORK,
    "multipart_created": WORK,
    "multipart_begun": WORK,
    "part_stored": WORK,
    "part_sent": WORK,
    "parts_sent": WORK,
    "multipart_completed": WORK,
    "sent": WORK,
    "put_committed": WORK,
    # staged files whose row is gone
    "leaving_safe": WORK,
    "left": WORK,
    "materialised": WORK,
    "conflict_journalled": RIVAL,
    # deletes
    "delete_looked": WORK,
    "deleted": WORK,
    "delete_journalled": WORK,
    # the next start
    "row_restored": START,
    "restored": START,
}
ASKED = "statfs"  # the suite's own: `tests/crash/daemon.py`


def in_the_code() -> set[str]:
    """Every name that a call of `crash_point` or `_crash_point` in the package has."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("crash_point", "_crash_point"):
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: a point's name is a word"
                found.add(str(name.value))
    return found
