"""POSIX: what a program gets on the mount and on the local disk, step by step, by several users."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from tests.mount.daemons import REPO, BucketMount, serve
from tests.mount.syscalls.cases import CASES, steps
from tests.support.servers import Simulator

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="acts as several users, which takes root")

# What libfuse, or the kernel's side of it, does otherwise.
OTHERWISE = {
    "kernel": set(),
    "libfuse": {"set-group-id without execution"},  # the kernel leaves the bit, and asks nobody
    "libfuse2": {
        "set-group-id without execution",
        "rename flags",  # it has none
        "exchange of directories",
    },
}


@pytest.fixture(scope="module")
def serving(
    main_driver: str, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BucketMount]:
    """Other users may use it; uploads go on meanwhile."""
    base = tmp_path_factory.mktemp(f"{main_driver}-posix")
    mount = BucketMount(
        base, main_driver, simulator.endpoint, f"{base.name}/", allow_other="true", upload_delay="0s"
    )
    yield from serve(mount)


class Actor:
    """Carries out cases in one directory; see syscalls/actor.py."""

    def __init__(self, directory: Path) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.mount.syscalls.actor"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(REPO)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, case: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps([case.replace(" ", "-"), steps(case)]) + "\n")
        self._child.stdin.flush()

    def told(self) -> list[Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line, "the actor ended: its traceback is above"
        found: list[Any] = json.loads(line)
        return found

    def end(self) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            pipe.close()
        self._child.wait(60)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Actor]:
    actor = Actor(tmp_path_factory.mktemp("local"))
    yield actor
    actor.end()


@pytest.fixture(scope="module")
def mounted_actor(serving: BucketMount) -> Iterator[Actor]:
    directory = serving.path / "cases"
    directory.mkdir()
    actor = Actor(directory)
    serving.allowed.append(r"names-of-all-kinds/new\\nline")  # the simulator's router knows no such path
    yield actor
    actor.end()
    assert not serving.complaints(), "\n".join(serving.complaints())


@ROOT_ONLY
@pytest.mark.parametrize("case", CASES)
def test_as_on_the_local_disk(case: str, main_driver: str, local: Actor, mounted_actor: Actor) -> None:
    if case in OTHERWISE[main_driver]:
        pytest.skip(f"not so with {main_driver}")
    local.ask(case)
    mounted_actor.ask(case)
    wanted, found = local.told(), mounted_actor.told()
    differences = [
        f"{want[0]}\n    local: {want[1:]}\n    mount: {have[1:]}"
        for want, have in zip_longest(wanted, found, fillvalue=["(nothing)"])
        if want != have
    ]
    assert not differences, "\n".join(differences)
