"""Two users of one machine, played by one process that is root: the victim, and a neighbour who prepares paths.

Owns:   who this process is meanwhile (real and effective user; the saved one stays root, so that it comes back).
Never:  skips in silence: without root these tests say so, and where CI is set they fail.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT, NOBODY, STRANGER = 0, 65534, 65533


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """As this user, in every thread. Root is what it was."""
    if uid == ROOT:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(uid, uid, 0)
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


def require_root() -> None:
    """CI runs as root: there, what cannot play is a failure."""
    if os.geteuid() != ROOT:
        why = "plays two users, which takes root"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)


@dataclass(frozen=True)
class Neighbours:
    """`shared` is a directory as /tmp is one; `home` is the victim's own."""

    victim: int
    attacker: int
    shared: Path
    home: Path

    def directory(self, name: str, owner: int, mode: int = 0o755) -> Path:
        path = self.shared / name
        path.mkdir()
        self.give(path, owner)
        path.chmod(mode)
        return path

    def give(self, path: Path, owner: int) -> Path:
        os.chown(path, owner, owner, follow_symlinks=False)
        return path


@contextmanager
def neighbours(victim: int) -> Iterator[Neighbours]:
    """Not below pytest's own directory, which others cannot enter."""
    require_root()
    base = Path(tempfile.mkdtemp(prefix="r2fs-neighbours-", dir="/tmp"))
    try:
        base.chmod(0o755)
        shared, home = base / "tmp", base / "home"
        shared.mkdir()
        shared.chmod(0o1777)
        home.mkdir(0o700)
        os.chown(home, victim, victim)
        yield Neighbours(victim, NOBODY if victim == ROOT else STRANGER, shared, home)
    finally:
        shutil.rmtree(base)
