"""Commands of r2fs: those that only ask daemons run in this process, since most of their time is an interpreter's start.

Other commands fork, take signals or send requests of their own, and get a process.
"""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from r2fs.cli import asking
from r2fs.cli.main import run

REPO = Path(__file__).resolve().parent.parent.parent
HERE = frozenset(
    (
        "cache", "cost", "evict", "flush", "info", "key", "limit", "ls", "path", "pin", "queue", "refresh", "restart",
        "status", "umount", "unpin", "url", "wait", "warm",
    )
)  # fmt: skip


def run_r2fs(
    environment: Mapping[str, str], *words: object, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """One command, to its end; `before`: words that run it in a certain way, as env(1) does."""
    texts = [*map(str, words)]
    if texts[0] in HERE and not before:
        return run_here(environment, *texts)
    return subprocess.run(
        [*before, sys.executable, "-m", "r2fs", *texts],
        env=environment,
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_here(environment: Mapping[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    """One command in this process, which must neither fork nor wait for signals."""
    texts = [*map(str, words)]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    asking._warn.cache_clear()
    with redirect_stdout(out), redirect_stderr(err), _surroundings(environment):
        code = run("r2fs", texts)
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess(["r2fs", *texts], code, *said)


@contextmanager
def _surroundings(environment: Mapping[str, str]) -> Iterator[None]:
    """Variables and standard input of a command; afterwards these and the log are as before."""
    variables, stdin = dict(os.environ), sys.stdin
    root, ours = logging.getLogger(), logging.getLogger("r2fs")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    try:
        os.environ.clear()
        os.environ.update(environment)
        with open(os.devnull) as nothing:
            sys.stdin = nothing
            yield
    finally:
        sys.stdin = stdin
        os.environ.clear()
        os.environ.update(variables)
        root.handlers[:] = handlers
        for logger, level in zip((root, ours), levels, strict=True):
            logger.setLevel(level)
