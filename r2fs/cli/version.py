"""The version in words: of r2fs, and the commit that it was built or runs from, if that is known."""

from __future__ import annotations

import subprocess
from pathlib import Path

import click

from r2fs import __version__

PACKAGE = Path(__file__).resolve().parents[1]
BUILT = PACKAGE / "_commit"  # written into wheels by hatch_build.py
GIT_S = 5.0


def text() -> str:
    found = commit()
    return f"r2fs {__version__}" + (f" (commit {found})" if found else "")


def commit() -> str | None:
    """The commit of an installed wheel, or of the clone that the package lies in."""
    try:
        return BUILT.read_text().strip() or None
    except OSError:
        pass
    if not (PACKAGE.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE.parent), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            timeout=GIT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def show(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Print the version and end the command."""
    if wanted and not ctx.resilient_parsing:
        click.echo(text())
        ctx.exit()
