"""`r2fs pin` and `r2fs unpin`: the requests that they send, and what they print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2fs.daemon.control import Request
from r2fs.model.errors import NoSpace, NotFound
from r2fs.model.exit_codes import PARTLY_HERE
from tests.unit.cli.conftest import Said
from tests.unit.cli.test_warm import MIB, view

R2fs = Callable[..., Said]
MakeDaemon = Callable[..., Path]


class Asked:
    """Notes each request to pin."""

    def __init__(self) -> None:
        self.requests: list[tuple[list[str] | None, Any, Any]] = []

    def __call__(self, request: Request) -> dict[str, Any]:
        self.requests.append((request.paths(), request.message.get("session"), request.message.get("wait")))
        return view()


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_paths_are_pinned_and_waited_for(r2fs: R2fs, daemon: MakeDaemon, asked: Asked) -> None:
    mount = daemon("takes", pin=asked)
    said = r2fs("pin", mount / "kit", mount / "a.wav")
    assert (said.code, said.out) == (
        0,
        f"{mount}: 4 files (4.0 MiB) are here: 3 downloaded (3.0 MiB) in 0 s\n",
    )
    assert r2fs("pin", "--no-wait", mount / "kit").out == ""
    assert asked.requests == [(["kit", "a.wav"], None, True), (["kit"], None, False)]


def test_a_session_brings_its_files_and_names_what_is_missing(
    r2fs: R2fs, daemon: MakeDaemon, asked: Asked, tmp_path: Path
) -> None:
    mount = daemon("takes", pin=asked)
    (mount / "song").mkdir()
    (mount / "kick.wav").write_bytes(b"1")
    (tmp_path / "local.wav").write_bytes(b"1")
    (mount / "song/bass.wav").write_bytes(b"1")
    playlist = mount / "song/list.m3u"
    playlist.write_text(f"bass.wav\n../kick.wav\n{mount}/kick.wav\n{tmp_path}/local.wav\n../../gone.wav\n")
    said = r2fs("pin", playlist)
    assert said.code == 14
    assert said.err == "r2fs: song/list.m3u refers to ../../gone.wav, which is not in the mount\n"
    assert r2fs("pin", "--alone", "--json", playlist).code == 0
    assert asked.requests == [
        (["song/list.m3u", "song/bass.wav", "kick.wav"], "song/list.m3u", True),
        (["song/list.m3u"], None, True),
    ]


def test_what_is_no_session(r2fs: R2fs, daemon: MakeDaemon, asked: Asked) -> None:
    mount = daemon("takes", pin=asked)
    (mount / "song.als").write_bytes(b"no gzip")
    assert r2fs("pin", mount / "song.als").err.startswith(f"r2fs: {mount}/song.als: not an Ableton set")
    assert r2fs("pin", mount / "none.rpp").code == 1
    assert r2fs("pin").code == r2fs("pin", "--list", "x").code == 2
    assert asked.requests == []


def test_a_refusal_is_passed_on(r2fs: R2fs, daemon: MakeDaemon) -> None:
    def pin(request: Request) -> dict[str, Any]:
        raise NoSpace("pinned files would be 8.0 MiB")

    mount = daemon("takes", pin=pin)
    said = r2fs("pin", mount / "kit")
    assert (said.code, said.err) == (PARTLY_HERE, f"r2fs: {mount}: pinned files would be 8.0 MiB\n")


def test_the_list(r2fs: R2fs, daemon: MakeDaemon) -> None:
    pins = [
        {"path": "kit/", "session": None, "since_at_s": 1.0, "files": 3, "bytes": MIB, "here_bytes": MIB},
        {"path": "a.wav", "session": "s.rpp", "since_at_s": 1.0, "files": 1, "bytes": 5, "here_bytes": 0},
    ]
    mount = daemon("takes", pins=lambda request: {"limit": 8 * MIB, "pins": pins})
    lines = [line.split() for line in r2fs("pin", "--list").out.splitlines()]
    assert lines[0] == ["pinned", "files", "size", "here", "session"]
    assert lines[2] == [f"{mount}/kit/", "3", "files", "1.0", "MiB", "1.0", "MiB"]
    assert lines[3] == [f"{mount}/a.wav", "1", "file", "5", "B", "0", "B", "of", "s.rpp"]
    assert r2fs("pin", "--list", "--json").json[0]["pins"] == pins


def test_unpin(r2fs: R2fs, daemon: MakeDaemon) -> None:
    mount = daemon("takes", unpin=lambda request: {"unpinned": len(request.paths() or [])})
    assert r2fs("unpin", mount / "kit", mount / "b").out == f"{mount}: 2 pins removed\n"


def test_the_other_paths_are_done(r2fs: R2fs, daemon: MakeDaemon, tmp_path: Path) -> None:
    done: list[list[str] | None] = []

    def pin(request: Request) -> dict[str, Any]:
        paths = request.paths() or []
        if "none" in paths:
            raise NotFound("none: no such file or directory")
        done.append(paths)
        return {**view(), "unpinned": 1}

    mount = daemon("takes", pin=pin, unpin=pin)
    for command in ("pin", "unpin"):
        done.clear()
        said = r2fs(command, tmp_path / "elsewhere", mount / "a", mount / "none", mount / "b")
        assert said.code == 8, "of the first failure: in no mount"
        first, second = said.err.splitlines()
        assert "elsewhere is not in a mount of r2fs" in first
        assert second == f"r2fs: {mount}/none: no such file or directory"
        assert done == [["a"], ["b"]]
    missing = r2fs("pin", mount / "none.rpp", mount / "a")
    assert (missing.code, done[-1]) == (1, ["a"])
