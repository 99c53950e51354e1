"""The cases near the server: what is done, in which order, and what is written down of it.

A case fills the rows that `CASES` names. far_cases.py has those at a distance.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from scripts.lib.bench import far_cases, large_cases
from scripts.lib.bench.results import BARE, LOCAL, MEASURES, OURS, PEERS
from scripts.lib.bench.server import READS
from scripts.lib.bench.systems import Mounted, Pace, System
from scripts.lib.bench.turns import MB, Bench


# ------------------------------------------------------------------ large files
def cold_read(bench: Bench) -> None:
    """Large files of the bucket, read for the first time. The local disk's pages are dropped before."""
    bench.seed_big()
    for measure, name, size in (
        ("cold-read", "big.bin", bench.sizes.big),
        ("cold-read-512", "bigger.wav", bench.sizes.bigger),
    )[: bench.sizes.large_files]:
        bench.all_bare(measure, [name], size, connections=8)
        bench.all_cold(measure, "read", name, once=True)
        with local_file(bench, name, size) as path:
            for system in locals_of(bench) * bench.sizes.cold_rounds:
                bench.settle()
                bench.rate(measure, system, system.work("read", path=path, forget=True, once=True))


def locals_of(bench: Bench) -> list[System]:
    return [system for system in bench.systems if not system.mounts]


@contextmanager
def local_file(bench: Bench, name: str, size: int) -> Iterator[str]:
    """A file on the local disk, if that takes part."""
    with_path = ""
    for system in locals_of(bench):
        system.start(READS)
        with_path = f"{system.path}/{name}"
        system.work("write", path=with_path, size=size)
    try:
        yield with_path
    finally:
        for system in locals_of(bench):
            system.stop()


def read(bench: Bench) -> None:
    """A large file, read from the cache and at random places."""
    bench.seed_big()
    with bench.all_running(READS):
        for system in bench.systems:
            with bench.turn(system):
                if system.mounts:
                    system.work("read", path=f"{system.path}/big.bin", once=True)
                else:
                    system.work("write", path=f"{system.path}/big.bin", size=bench.sizes.big)
        for system in bench.rounds(bench.sizes.warm_rounds):
            path = f"{system.path}/big.bin"
            with bench.turn(system):
                # the local disk's pages stay, as those of the peers' cache files do
                bench.rate("read-first", system, system.work("read", path=path, forget=system.mounts))
                bench.rate("read-again", system, system.work("read", path=path))
        for system in bench.rounds(bench.sizes.warm_rounds):
            path = f"{system.path}/big.bin"
            with bench.turn(system):
                bench.rate("random", system, system.work("randomly", path=path, forget=system.mounts))
        bench.memory("memory-big")


def write(bench: Bench) -> None:
    """A large new file: written, closed, read back at once, and sent."""
    size = bench.sizes.written
    with bench.all_running():
        for number, system in enumerate(bench.rounds(bench.sizes.cold_rounds, memory=True)):
            name = f"written-{number}.bin"
            with bench.turn(system):
                with sending(bench, system, "write") as done:
                    done |= system.work("write_and_read_back", path=f"{system.path}/{name}", size=size)
                    bench.add("back", system, size / MB / done["back_seconds"])
                    sent(bench, "sent", system, done, "", {name: size})
                system.work("remove", path=f"{system.path}/{name}", files=1)
                bench.server.quiet(system.name)


@contextmanager
def sending(
    bench: Bench, system: System, measure: str, quiet_s: float | None = None
) -> Iterator[dict[str, float]]:
    """The work that the block does is `measure`, with all the requests that it leads to."""
    done: dict[str, float] = {}
    with bench.counted(system.name, quiet_s) as requests:
        yield done
    bench.rate(measure, system, done, requests if system.mounts else None)


def sent(
    bench: Bench,
    measure: str,
    system: System,
    done: dict[str, float],
    directory: str,
    names: dict[str, int],
) -> None:
    """Waits until the bucket holds exactly `names` in `directory`, from the work's begin on."""
    if system.mounts:
        end = bench.server.until(
            system.name,
            directory,
            lambda sizes: names == sizes if directory else names.items() <= sizes.items(),
        )
        bench.add(measure, system, end - done["begun"])


# ------------------------------------------------------------------ many files
def files(bench: Bench) -> None:
    """Many files: created, read, sent, removed, gone."""
    sizes = bench.sizes
    names = {f"{number:05}.bin": sizes.file for number in range(sizes.files)}
    with bench.all_running():
        for number, system in enumerate(bench.rounds(sizes.file_rounds, memory=True)):
            directory = f"created-{number}"
            where = f"{system.path}/{directory}"
            with bench.turn(system):
                with sending(bench, system, "create") as done:
                    done |= system.work("create", directory=where, files=sizes.files, size=sizes.file)
                    sent(bench, "drained", system, done, directory, names)
                done = system.work("open_read_close", directory=where, files=sizes.files, size=sizes.file)
                bench.rate("created-read", system, done)
                with sending(bench, system, "remove") as done:
                    done |= system.work("remove", path=where, files=sizes.files)
                    sent(bench, "gone", system, done, directory, {})


def cold_small(bench: Bench) -> None:
    """Small files of the bucket, read whole for the first time, in order."""
    small_files(bench, "cold-small", shuffled=False)


def cold_small_random(bench: Bench) -> None:
    """The same in an order that nobody can foresee."""
    small_files(bench, "cold-small-random", shuffled=True)


def small_files(bench: Bench, measure: str, shuffled: bool) -> None:
    sizes = bench.sizes
    keys = bench.seed_small("small", sizes.files, sizes.small)
    work: dict[str, Any] = {"files": sizes.files, "size": sizes.small, "shuffled": shuffled, "once": True}
    bench.all_bare(measure, keys, sizes.small)
    bench.all_cold(measure, "open_read_close", "small", **work)
    for system in locals_of(bench):
        with bench.running(system, READS):
            where = f"{system.path}/small"
            system.work("create", directory=where, files=sizes.files, size=sizes.small)
            for _ in range(sizes.cold_rounds):
                bench.settle()  # written to the disk: only then are pages dropped
                done = system.work("open_read_close", directory=where, forget=True, **work)
                bench.rate(measure, system, done)


def small(bench: Bench) -> None:
    """The same, read again and again."""
    sizes = bench.sizes
    bench.seed_small("small", sizes.files, sizes.small)
    work: dict[str, Any] = {"files": sizes.files, "size": sizes.small}
    with bench.all_running(READS):
        for system in locals_of(bench):
            system.work("create", directory=f"{system.path}/small", **work)
        for system in bench.rounds(sizes.warm_rounds):
            with bench.turn(system):
                done = system.work("open_read_close", directory=f"{system.path}/small", **work)
                bench.rate("small", system, done)


def cold_tree(bench: Bench) -> None:
    """A tree of many directories, walked for the first time."""
    bench.seed_tree()
    bench.all_cold("cold-tree", "walk", "tree", files=bench.sizes.tree, once=True)


def tree(bench: Bench) -> None:
    """The same, walked and asked again and again."""
    bench.seed_tree()
    with bench.all_running(READS):
        for system in locals_of(bench):
            system.work("plant", directory=f"{system.path}/tree", **bench.sizes.shape)
        for system in bench.rounds(bench.sizes.warm_rounds):
            with bench.turn(system):
                for measure, work in (("tree", "walk"), ("stat", "stat")):
                    done = system.work(work, directory=f"{system.path}/tree", files=bench.sizes.tree)
                    bench.rate(measure, system, done)
        bench.memory("memory")


# ------------------------------------------------------------------ life
def start(bench: Bench) -> None:
    """From the start of the process until a file of the bucket answers: first on nothing, then once more
    after a tree was walked."""
    bench.seed_tree()
    path = f"tree/{'00/' * 2}00.bin"
    for system in bench.mounted:  # the program itself, and its bytecode, are in memory
        with bench.turn(system), bench.running(system, READS):
            pass
    for system in bench.cold_rounds(bench.sizes.cold_rounds):
        with bench.turn(system):
            try:
                bench.settle()
                started(bench, system, "start-empty", path)
                system.work("walk", directory=f"{system.path}/tree", files=bench.sizes.tree, once=True)
                bench.server.quiet(READS)
                system.unmount()
                bench.settle()
                started(bench, system, "start-again", path)
            finally:
                system.stop()


def started(bench: Bench, system: Mounted, measure: str, path: str) -> None:
    with bench.counted(READS) as requests:
        system.path.mkdir(exist_ok=True)
        watcher = system.begin("appears", path=f"{system.path}/{path}")
        time.sleep(0.5)  # until it looks
        begun = system.launch(READS)
        done = watcher.result(timeout_s=60.0)
    bench.add(measure, system, (done["at"] - begun) * 1000, requests)


def hosts(bench: Bench) -> None:
    """A file closed on one host and opened on another until the new bytes are there; names are believed
    for a second, and files sent at once."""
    for system in bench.mounted:
        if "hosts" in system.unable:
            continue
        here, there = (bench.host(system, name, Pace(1, 0)) for name in ("here", "there"))
        with bench.turn(system), bench.running(here, READS), bench.running(there, READS):
            bench.settle()
            with bench.counted(READS, quiet_s=1.5) as requests:
                for number in range(bench.sizes.tokens):
                    paths = {"here": f"{here.path}/{system.name}", "there": f"{there.path}/{system.name}"}
                    bench.rate("hosts", system, here.work("token", **paths, number=number))
            bench.results.set_requests("hosts", system.name, dict(requests))


# ------------------------------------------------------------------ programs
def cp(bench: Bench) -> None:
    """cp of a large file from the local disk."""
    source, size = str(bench.directory / "source.bin"), bench.sizes.written
    bench.seed("source.bin", lambda: bench.local_work("make_source", path=source, size=size))
    with bench.all_running():
        for number, system in enumerate(bench.rounds(bench.sizes.program_rounds, memory=True)):
            name = f"copied-{number}.bin"
            with bench.turn(system):
                with sending(bench, system, "cp") as done:
                    done |= system.work("cp", source=source, path=f"{system.path}/{name}")
                    if system.mounts:
                        bench.server.until(system.name, "", lambda sizes, name=name: sizes.get(name) == size)  # type: ignore[misc]
                system.work("remove", path=f"{system.path}/{name}", files=1)


def tar(bench: Bench) -> None:
    """tar -x of many small files in many directories."""
    shape = bench.sizes.shaped(bench.sizes.packed_tops)
    archive = str(bench.directory / "archive.tar")
    bench.seed("an archive", lambda: bench.local_work("make_archive", path=archive, **shape))
    program(bench, "tar", shape, archive=archive)


def clone(bench: Bench) -> None:
    """git clone of many small files in many directories."""
    shape = bench.sizes.shaped(bench.sizes.cloned_tops)
    repository = str(bench.directory / "repository")
    bench.seed("a repository", lambda: bench.local_work("make_repository", path=repository, **shape))
    program(bench, "clone", shape, repository=repository)


def program(bench: Bench, measure: str, shape: dict[str, int], **arguments: str) -> None:
    wanted = shape["tops"] * shape["subs"] * shape["leaves"]
    with bench.all_running():
        for number, system in enumerate(bench.rounds(bench.sizes.program_rounds, True, measure)):
            directory = f"{measure}-{number}"
            where = f"{system.path}/{directory}"
            with bench.turn(system):
                with sending(bench, system, measure, quiet_s=1.5) as done:
                    done |= system.work(measure, directory=where, files=wanted, **arguments)
                    everything = int(done.get("files", wanted))
                    if system.mounts:
                        bench.server.until_count(system.name, directory, everything)
                bench.results.set_floor(measure, {"PUT": everything})
                system.work("remove", path=where, files=wanted)
                bench.server.quiet(system.name)


# ------------------------------------------------------------------ all
@dataclass(frozen=True)
class Case:
    run: Callable[[Bench], None]
    measures: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.run.__name__.replace("_", "-")

    @property
    def text(self) -> str:
        return " ".join((self.run.__doc__ or "").split()).rstrip(".")


CASES = {
    case.name: case
    for case in (
        Case(cold_read, ("cold-read", "cold-read-512")),
        Case(read, ("read-first", "read-again", "random", "memory-big")),
        Case(write, ("write", "back", "sent")),
        Case(files, ("create", "created-read", "drained", "remove", "gone")),
        Case(cold_small, ("cold-small",)),
        Case(cold_small_random, ("cold-small-random",)),
        Case(small, ("small",)),
        Case(cold_tree, ("cold-tree",)),
        Case(tree, ("tree", "stat", "memory")),
        Case(large_cases.large, ("large-ls", "large-find", "large-find-warm", "large-memory")),
        Case(start, ("start-empty", "start-again")),
        Case(hosts, ("hosts",)),
        Case(cp, ("cp",)),
        Case(tar, ("tar",)),
        Case(clone, ("clone",)),
        Case(far_cases.far_read, ("far-read", "far-read-512")),
        Case(far_cases.far_ends, ("far-ends", "far-ends-used")),
        Case(far_cases.far_headers, ("far-headers",)),
        Case(far_cases.far_small, ("far-small",)),
        Case(far_cases.far_small_random, ("far-small-random",)),
        Case(far_cases.far_tree, ("far-tree",)),
        Case(far_cases.far_files, ("far-create", "far-drained")),
        Case(far_cases.far_hosts, ("far-hosts",)),
        Case(far_cases.stalls, ("stall-p50", "stall-p99", "stall-p999")),
    )
}


# What --short leaves out: cases of which no ratio to a peer is promised by the row alone, and s3fs where it takes
# minutes and rclone does not.
LONG = frozenset({"start", "cp", "tar", "clone", "far-small-random"})
LONG_FOR = {"s3fs": frozenset({"far-small", "far-tree", "far-files", "stalls"})}
SHORT_SYSTEMS = (LOCAL, BARE, OURS, *PEERS)


class NoSuchCase(Exception):
    """Names neither a case nor a row."""


def chosen(patterns: list[str] | None) -> list[Case]:
    """The cases that `patterns` name, by themselves or by one of their rows; * stands for anything. None: all."""
    if patterns is None:
        return list(CASES.values())
    names = {name: {name, *case.measures} for name, case in CASES.items()}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for each in names.values() for name in each):
            raise NoSuchCase(
                f"no case or row is called {pattern}; there are {', '.join([*CASES, *MEASURES])}"
            )
    return [
        CASES[case]
        for case, each in names.items()
        if any(fnmatchcase(name, pattern) for name in each for pattern in patterns)
    ]
