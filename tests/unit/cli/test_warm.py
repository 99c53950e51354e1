"""`r2fs warm` and `r2fs evict`: output and exit codes, from scripted answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2fs.cli.warm import WarmProgress, line
from r2fs.daemon.control import Request
from r2fs.model.errors import NotFound
from r2fs.model.exit_codes import PARTLY_HERE
from tests.unit.cli.conftest import Said

MIB = 1 << 20
R2fs = Callable[..., Said]
MakeDaemon = Callable[..., Path]


def view(**given: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "files": 4, "bytes": 4 * MIB, "here": 1, "here_bytes": MIB, "fetched": 3, "fetched_bytes": 3 * MIB,
        "rate": MIB, "left_s": 0.0, "stopped": None, "failures": 0, "failed": [],
    }  # fmt: skip
    return {**empty, **given}


def test_the_result_is_a_line(r2fs: R2fs, daemon: MakeDaemon) -> None:
    asked: list[list[str] | None] = []

    def warm(request: Request) -> dict[str, Any]:
        asked.append(request.paths())
        request.progress(**view(fetched=1))
        return view()

    mount = daemon("takes", warm=warm)
    said = r2fs("warm", mount / "kit", mount / "b")
    assert asked == [["kit", "b"]]
    assert (said.code, said.err) == (0, "")
    assert said.out == f"{mount}: 4 files (4.0 MiB) are here: 3 downloaded (3.0 MiB) in 0 s\n"


def test_what_is_not_here_has_a_code_and_a_reason(r2fs: R2fs, daemon: MakeDaemon) -> None:
    answer = view(fetched=0, fetched_bytes=0, failures=1, failed=[["a.wav", "a.wav: gone"]], stopped="cache")
    mount = daemon("takes", warm=lambda request: answer)
    said = r2fs("warm", mount)
    assert said.code == PARTLY_HERE == 14
    assert said.out == f"{mount}: 1 file (1.0 MiB) is here\n"
    assert said.err.splitlines() == [
        f"r2fs: {mount}: a.wav: gone",
        f"r2fs: {mount}: the cache is full: 2 files (3.0 MiB) not downloaded: raise cache_size, or name less",
    ]
    found = r2fs("warm", mount, "--json")
    assert (found.code, found.json[0]["stopped"], found.err) == (PARTLY_HERE, "cache", "")


def test_a_path_that_is_not_there(r2fs: R2fs, daemon: MakeDaemon) -> None:
    def warm(request: Request) -> dict[str, Any]:
        raise NotFound("none: no such file")

    mount = daemon("takes", warm=warm)
    assert r2fs("warm", mount / "none").code == 1


def test_without_a_terminal_progress_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with WarmProgress(quiet=False, clock=lambda: now[0]) as progress:
        for now[0] in (0.0, 0.5, 1.5, 2.0, 6.0, 7.0):
            progress.show(view(fetched=1, fetched_bytes=MIB, left_s=2.0))
    text = "2 of 4 files, 2.0 MiB of 4.0 MiB, 1.0 MiB/s, ready in 2 s"
    assert capsys.readouterr().err.splitlines() == [text, text]
    assert line(view(left_s=None)) == "4 of 4 files, 4.0 MiB of 4.0 MiB"


def test_evict_says_what_is_kept(r2fs: R2fs, daemon: MakeDaemon) -> None:
    answer = {"files": 2, "bytes": 2 * MIB, "kept": 1, "reasons": [["a.wav", "open"]]}
    mount = daemon("takes", evict=lambda request: answer)
    said = r2fs("evict", mount)
    assert (said.code, said.out) == (0, f"{mount}: 2 files (2.0 MiB on the disk) dropped, 1 kept\n")
    assert said.err == f"r2fs: {mount}: a.wav: kept: open\n"
    assert r2fs("evict", mount, "--json").json == [{"mountpoint": str(mount), **answer}]
