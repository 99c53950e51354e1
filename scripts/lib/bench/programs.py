"""Work that ordinary programs do (cp, tar, git), and what one host sees of another's files.

Owns:  what the programs work on, made once on the local disk, and how they are called.
Never: knows which system it measures. Run by work.py, as all work is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scripts.lib.bench.work import Result, WrongBytes, content, expect, tree_names, write

SMALL = 4096
TOKEN_S = 30.0  # longer is never
GIT = {  # no settings of anybody, the same clone everywhere
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    **{f"GIT_{who}_NAME": "bench" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "bench@localhost" for who in ("AUTHOR", "COMMITTER")},
}


# ------------------------------------------------------------------ what they work on
def make_source(path: str, size: int) -> Result:
    """A large file."""
    return write(path, size)


def make_archive(path: str, tops: int, subs: int, leaves: int) -> Result:
    """A tar archive of a tree of files of 4 KiB."""
    directory = Path(f"{path}.files")
    make_tree(directory, tree_names(tops, subs, leaves))
    run("tar", "-C", str(directory), "-cf", path, ".")
    shutil.rmtree(directory)
    return {}


def make_repository(path: str, tops: int, subs: int, leaves: int) -> Result:
    """A git repository of one commit of the same."""
    make_tree(Path(path), tree_names(tops, subs, leaves))
    git("init", "-q", "--template=", "-b", "main", path)
    git("-C", path, "add", ".")
    git("-C", path, "commit", "-q", "-m", "all")
    return {}


def make_tree(directory: Path, names: list[str]) -> None:
    body = b"".join(content(SMALL - 64))
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode().ljust(64) + body)  # no two are equal: git would store one


# ------------------------------------------------------------------ the programs
def cp(source: str, path: str) -> Result:
    """cp of a large file to a new one."""
    done = clocked("cp", source, path)
    return done | {"count": expect(os.stat(source).st_size, os.stat(path).st_size)}


def tar(archive: str, directory: str, files: int) -> Result:
    """tar -x into a new directory."""
    os.mkdir(directory)
    done = clocked("tar", "-C", directory, "-xf", archive)
    return done | {"count": expect(files, count_files(directory))}


def clone(repository: str, directory: str, files: int) -> Result:
    """git clone into a new directory, by git's protocol: no hard links. "files": with those of .git."""
    begun = time.monotonic()
    git("clone", "-q", "--no-local", "--template=", repository, directory)
    seconds = time.monotonic() - begun
    everything = count_files(directory)
    expect(files, everything - count_files(f"{directory}/.git"))
    return {"count": files, "seconds": seconds, "begun": begun, "files": everything}


def clocked(*argv: str) -> Result:
    begun = time.monotonic()
    run(*argv)
    return {"seconds": time.monotonic() - begun, "begun": begun}


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def git(*arguments: str) -> None:
    subprocess.run(
        ["git", *arguments],
        check=True,
        env=os.environ | GIT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def count_files(directory: str) -> int:
    return sum(len(files) for _, _, files in os.walk(directory))


# ------------------------------------------------------------------ two hosts
def token(here: str, there: str, number: int) -> Result:
    """Rewrite a file here and close it; open it there until the new bytes are read. Seconds from close(2)."""
    mine = f"token {number:06}\n".encode() * 100
    with open(here, "wb") as file:
        file.write(mine)
    begun = time.monotonic()
    while (seconds := time.monotonic() - begun) < TOKEN_S:
        with suppress(FileNotFoundError), open(there, "rb") as file:
            if file.read() == mine:
                return {"count": 1, "seconds": time.monotonic() - begun}
        time.sleep(0.005)
    raise WrongBytes(f"{there}: not the bytes that were written {seconds:.0f} s ago")


PROGRAMS: dict[str, Callable[..., Result]] = {
    function.__name__: function
    for function in (make_source, make_archive, make_repository, cp, tar, clone, token)
}
