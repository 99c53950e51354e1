"""Prints the figures, compares them with another revision, and holds them to their limits."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scripts.lib.figures.limits import AIMS, LIMITS
from scripts.lib.figures.static import Figure, measure

REPOSITORY = Path(__file__).resolve().parents[3]
TRACED = ("modules", "engine modules", "functions", "calls", "crossing %")
UPLOADS = "writeback"  # the room of the uploads, or the flat module of that name
PATHS = {"read": "(a) cold read", "close": "(b) close to ETag", "rename": "(c) rename of a directory"}


def traced(root: Path) -> dict[str, Figure]:
    """The traced figures of the tree at `root`; where it cannot be run, `–` and the last line of the error."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("traced.py"))],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {f"{path}: {name}": Figure("–", (reason,)) for path in PATHS.values() for name in TRACED}
    out = {}
    for key, found in json.loads(done.stdout.splitlines()[-1]).items():
        for name in TRACED:
            names = tuple(found["of engine"]) if name == "engine modules" else ()
            out[f"{PATHS[key]}: {name}"] = Figure(found[name], names)
        below = tuple(m for m in found["of engine"] if m.startswith(UPLOADS))
        out[f"{PATHS[key]}: modules of writeback"] = Figure(len(below), below)
    return out


def at_revision(revision: str, static_only: bool) -> dict[str, Figure]:
    """The figures of another revision, unpacked into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="r2fs-figures-") as folder:
        packed = subprocess.run(
            ["git", "-C", str(REPOSITORY), "archive", revision, "r2fs", "tests"], stdout=subprocess.PIPE
        )
        if packed.returncode:
            raise SystemExit(f"scripts/figures: git has no revision {revision} with r2fs and tests")
        subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
        return figures(Path(folder), static_only)


def figures(root: Path, static_only: bool) -> dict[str, Figure]:
    return measure(root) | ({} if static_only else traced(root))


def passed(now: dict[str, Figure]) -> list[str]:
    """One line for each limit that is passed or whose figure is missing."""
    out = []
    for name, limit in LIMITS.items():
        figure = now.get(name)
        if figure is None or isinstance(figure.value, str) or figure.value > limit:
            value = "missing" if figure is None else figure.value
            names = "; ".join(figure.names) if figure else ""
            out.append(f"{name}: {value}, limit {limit}" + (f" ({names})" if names else ""))
    return out


def table(now: dict[str, Figure], base: dict[str, Figure] | None, revision: str) -> str:
    rows = [("figure", "now", *([revision] if base is not None else []), "limit", "aim")]
    for name in dict.fromkeys([*now, *(base or {})]):
        before = [_text(base, name)] if base is not None else []
        rows.append((name, _text(now, name), *before, str(LIMITS.get(name, "")), str(AIMS.get(name, ""))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    for name, figure in now.items():
        if figure.names:
            lines.append(f"\n{name}:\n  " + ", ".join(figure.names))
    reasons = {n for f in (base or {}).values() if f.value == "–" for n in f.names}
    lines += [f"\n– at {revision}: {reason}" for reason in sorted(reasons)]
    return "\n".join(lines)


def _text(of: dict[str, Figure] | None, name: str) -> str:
    return str(of[name].value) if of and name in of else "–"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/figures", description="Figures of the code's structure")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="static figures only; exit 1 past a limit")
    parser.add_argument("--static", action="store_true", help="leave out the traced figures")
    parser.add_argument("--base", metavar="REV", help="a revision to compare with")
    options = parser.parse_args()
    static_only = options.static or options.check
    now = figures(REPOSITORY, static_only)
    if options.check:
        for line in passed(now):
            print(line, file=sys.stderr)
        return 1 if passed(now) else 0
    base = at_revision(options.base, static_only) if options.base else None
    if options.json:
        print(json.dumps(_for_json(now, base, options.base), indent=2, ensure_ascii=False))
    else:
        print(table(now, base, options.base or ""))
    return 0


def _for_json(now: dict[str, Figure], base: dict[str, Figure] | None, revision: str | None) -> dict[str, Any]:
    out: dict[str, Any] = {"now": {n: {"value": f.value, "names": f.names} for n, f in now.items()}}
    if base is not None:
        out["base"] = {n: {"value": f.value, "names": f.names} for n, f in base.items()}
        out["revision"] = revision
    return out | {"limits": LIMITS, "aims": AIMS}


if __name__ == "__main__":
    sys.exit(main())
