"""Recipes: what a program does in a directory, and how two directories are compared after it.

Owns:  the kinds of comparison. A recipe is run on the local disk and on a mount, each time with the
       same inputs; exit code, output and every file must be the same, but for what `loose` names.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

RUN_S = 100.0  # two cores that other tests share

# How files are compared whose bytes differ from one run to the next, even on one disk.
SAME_AUDIO = "audio"  # the decoded samples
SAME_KIND = "kind"  # that it is there, with the same mode


@dataclass(frozen=True)
class Recipe:
    name: str
    script: str  # bash, or Python where `python` says so; run in an empty directory that holds `needs`
    needs: tuple[str, ...] = ()  # names of inputs.py; on the mount they lie in the bucket, not in the cache
    python: bool = False
    loose: Mapping[str, str] = field(default_factory=dict)  # pattern of a path → how it is compared

    def how(self, path: str) -> str | None:
        return next((how for pattern, how in self.loose.items() if fnmatch.fnmatch(path, pattern)), None)


@dataclass(frozen=True)
class Ran:
    code: int
    output: str
    errors: str
    began_ns: int  # times of files that are older were set by the program, not by the clock


def run(recipe: Recipe, directory: Path, side: Path) -> Ran:
    """`side` is a local directory outside of what is compared: $SIDE, and the program's home."""
    began = side / "began"
    began.touch()
    words = [sys.executable, "-c"] if recipe.python else ["bash", "-euo", "pipefail", "-c"]
    done = subprocess.run(
        [*words, recipe.script],
        cwd=directory,
        env=environment(side),
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=RUN_S,
        umask=0o022,
        check=False,
    )
    output = done.stdout.replace(str(directory), "HERE").replace(str(side), "SIDE")
    return Ran(done.returncode, output, done.stderr, began.stat().st_mtime_ns)


def environment(side: Path) -> dict[str, str]:
    who = {
        f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in _IDENTITY.items()
    }
    kept = {name: os.environ[name] for name in os.environ if name.startswith(("PATH", "R2FS_TEST_", "LD_"))}
    own = {"SIDE": str(side), "HOME": str(side), "TMPDIR": str(side), "PYTHON": sys.executable}
    return {**kept, **who, **own, "LC_ALL": "C.UTF-8", "TZ": "UTC", "GIT_CONFIG_NOSYSTEM": "1"}


_IDENTITY = {"NAME": "Anna", "EMAIL": "anna@example.com", "DATE": "2026-01-02T03:04:05Z"}


# ------------------------------------------------------------------ what is in a directory
@dataclass(frozen=True)
class Found:
    kind: str
    mode: int
    size: int
    content: str  # SHA-256, or a symbolic link's target
    mtime_ns: int
    owner: tuple[int, int]


def contents(directory: Path) -> dict[str, Found]:
    return {path: look(directory / path) for path in sorted(paths(directory))}


def paths(directory: Path) -> Iterator[str]:
    for root, directories, files in os.walk(directory):
        for name in directories + files:
            yield os.path.relpath(os.path.join(root, name), directory)


def look(path: Path) -> Found:
    at = path.lstat()
    kind, content, size = stat.filemode(at.st_mode)[0], "", 0
    if kind == "l":
        content = os.readlink(path)
    elif kind == "-":
        data = path.read_bytes()
        content, size = hashlib.sha256(data).hexdigest(), at.st_size
        assert len(data) == size, f"{path}: {len(data)} bytes are read, {size} are told"
    return Found(kind, stat.S_IMODE(at.st_mode), size, content, at.st_mtime_ns, (at.st_uid, at.st_gid))


def differences(
    recipe: Recipe, local: Path, ran_here: Ran, mount: Path, ran_there: Ran, there: Mapping[str, Found]
) -> list[str]:
    """What differs on the mount, in words."""
    here = contents(local)
    said = []
    for path in sorted(here.keys() | there.keys()):
        how = recipe.how(path)
        if path not in there or path not in here:
            said.append(f"{path}: {'missing' if path in here else 'left over'}")
            continue
        one, two = here[path], there[path]
        if (one.kind, one.mode, one.owner) != (two.kind, two.mode, two.owner):
            said.append(f"{path}: {one} is {two}")
        elif how is None and (one.size, one.content) != (two.size, two.content):
            said.append(f"{path}: {one.size} bytes {one.content} are {two.size} bytes {two.content}")
        elif how == SAME_AUDIO and samples(local / path) != samples(mount / path):
            said.append(f"{path}: sounds different")
        times = set_by_program(one, ran_here), set_by_program(two, ran_there)
        if times[0] != times[1]:
            said.append(f"{path}: modified {one.mtime_ns} is {two.mtime_ns}")
    return said


def set_by_program(found: Found, ran: Ran) -> int | None:
    """A time that a program has set; None for one that the clock gave, which differs from run to run.

    Programs that set the time of day leave the fraction out.
    """
    whole_s = found.mtime_ns % 1_000_000_000 == 0
    began_ns = ran.began_ns - (ran.began_ns % 1_000_000_000 if whole_s else 0)
    return found.mtime_ns if found.mtime_ns < began_ns else None


def samples(path: Path) -> str:
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", path, "-f", "md5", "-"],
        capture_output=True,
        text=True,
        check=True,
        timeout=RUN_S,
    )
    return done.stdout
