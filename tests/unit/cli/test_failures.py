"""Commands of several operands: all are done, each failure is named, and the first one's code is the command's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2fs.cli import restart
from r2fs.daemon.control import Request
from r2fs.model.errors import MountError, NoSpace, NotFound, ReadOnly
from tests.unit.cli.conftest import Said, queue
from tests.unit.cli.test_warm import view
from tests.unit.cli.test_words import removal

R2fs = Callable[..., Said]
MakeDaemon = Callable[..., Path]


def lacking(name: str, answer: dict[str, Any]) -> Callable[[Request], dict[str, Any]]:
    """An operation that answers so, unless the file `name` is asked for."""

    def operation(request: Request) -> dict[str, Any]:
        if name in (request.paths() or [request.text("path")]):
            raise NotFound(f"{name}: no such file or directory")
        return answer

    return operation


def test_umount_does_the_other_directories(r2fs: R2fs, daemon: MakeDaemon, home: Path) -> None:
    def busy(request: Request) -> dict[str, Any]:
        raise MountError("/mnt/used is in use by bash (12)")

    used = daemon("used", stop=busy)
    left = daemon("left", stop=lambda request: {"queue": queue(files=1), "exit_code": 75})
    good = daemon("good", stop=lambda request: {"queue": queue(), "exit_code": 0})
    said = r2fs("umount", "--json", home, left, used, good)
    assert said.code == 8
    assert [(one["mountpoint"], one["exit_code"]) for one in said.json] == [(str(left), 75), (str(good), 0)]
    assert said.err.splitlines() == [
        f"r2fs: {home} is not a mount of r2fs (r2fs status lists them)",
        "r2fs: /mnt/used is in use by bash (12)",
    ]


def test_umount_of_a_name_says_the_directory(r2fs: R2fs, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = home / "config.toml"
    config.write_text('[mount.takes]\nurl = "s3://studio"\nmountpoint = "/mnt/takes"\n')
    config.chmod(0o600)
    monkeypatch.setenv("R2FS_CONFIG", str(config))
    said = r2fs("umount", "takes")
    assert (said.code, said.err.endswith(": r2fs umount /mnt/takes\n")) == (8, True), said.err


def test_restart_does_the_other_directories(
    r2fs: R2fs, daemon: MakeDaemon, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart, "_await", lambda before: (before, {"mountpoint": before.mountpoint}))
    point = daemon("takes", restart=lambda request: {})
    said = r2fs("restart", "--json", home, point)
    assert (said.code, [one["mountpoint"] for one in said.json]) == (8, [str(point)])
    assert said.err.startswith(f"r2fs: {home} is not in a mount")


@pytest.mark.parametrize("command", ["warm", "evict"])
def test_files_beside_a_missing_one(r2fs: R2fs, daemon: MakeDaemon, home: Path, command: str) -> None:
    answer = view() if command == "warm" else {"files": 1, "bytes": 9, "kept": 0, "reasons": []}
    mount = daemon("takes", **{command: lacking("nix", answer)})
    said = r2fs(command, mount / "nix", mount / "a", home / "b")
    assert said.code == 8  # of the first: paths are looked for before anything is done
    assert said.out.count(f"{mount}: ") == 1
    assert f"r2fs: {mount}/nix: no such file or directory" in said.err.splitlines()
    assert f"r2fs: {home}/b is not in a mount of r2fs (r2fs status lists them)" in said.err.splitlines()
    assert r2fs(command, mount / "nix", mount / "a").code == 1
    assert r2fs(command, mount / "a").code == 0


def test_rm_deletes_the_others_and_keeps_its_report(r2fs: R2fs, daemon: MakeDaemon) -> None:
    mount = daemon("takes", remove=lacking("d/nix", removal(1, 5)))
    said = r2fs("rm", mount / "d/nix", mount / "d/a", mount / "d/b")
    assert (said.code, said.out) == (1, "deleted 2 objects (10 B); 0 failed\n")
    assert said.err == f"r2fs: {mount}/d/nix: no such file or directory\n"


def test_what_a_mount_refuses_names_the_mount(r2fs: R2fs, daemon: MakeDaemon) -> None:
    def refuse(error: Exception) -> Callable[[Request], dict[str, Any]]:
        def operation(request: Request) -> dict[str, Any]:
            raise error

        return operation

    mount = daemon(
        "takes",
        remove=refuse(ReadOnly("this mount is read-only")),
        unpin=refuse(NotFound("/ is not pinned itself")),
        pin=refuse(NoSpace("the pins would have 9 GiB")),
    )
    assert r2fs("rm", mount / "d/a").err == f"r2fs: {mount}: this mount is read-only\n"
    assert r2fs("unpin", mount).err == f"r2fs: {mount} is not pinned itself\n"
    said = r2fs("pin", mount / "d")
    assert (said.code, said.err) == (14, f"r2fs: {mount}: the pins would have 9 GiB\n")
