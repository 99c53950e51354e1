"""Texts of `r2fs --version`: the version and commit of r2fs, and the kernel's release with its features of FUSE."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

from r2fs import __version__
from r2fs.model import kernel_features

PACKAGE = Path(__file__).resolve().parents[1]
BUILT = PACKAGE / "_commit"  # written into wheels by hatch_build.py
GIT_S = 5.0


def text() -> str:
    found = commit()
    return f"r2fs {__version__}" + (f" (commit {found})" if found else "")


def kernel() -> str:
    release = platform.release()
    features = ", ".join(kernel_features.by_release(release)) or "none"
    return f"Linux {release}, features of FUSE by its release: {features}"


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
