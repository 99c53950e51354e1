"""The cases at a distance: TLS, a round trip of 40 ms, 60 MB/s a connection, as R2 is from another city."""

from __future__ import annotations

import time
from typing import Any

from scripts.lib.bench.far import Distance
from scripts.lib.bench.server import READS
from scripts.lib.bench.systems import Pace
from scripts.lib.bench.turns import Bench

CONNECTIONS = 32  # of the bare client: of 8, 16 and 32 the fastest at 40 ms
KEY_PAUSE_S = 1.2  # R2 takes one write of a key a second: r2fs does not send the next one before
READERS = 8  # at once, while answers stall


def far_read(bench: Bench) -> None:
    """Large files on a far server, read for the first time."""
    bench.seed_big()
    with bench.far() as url:
        for measure, name, size in (
            ("far-read", "big.bin", bench.sizes.big),
            ("far-read-512", "bigger.wav", bench.sizes.bigger),
        )[: bench.sizes.large_files]:
            bench.all_bare(measure, [name], size, url, CONNECTIONS)
            bench.all_cold(measure, "read", name, url, once=True)


def far_ends(bench: Bench) -> None:
    """Both ends of a large file on a far server."""
    bench.seed_big()
    size = bench.sizes.bigger
    with bench.far() as url:
        bench.all_cold("far-ends", "ends", "bigger.wav", url, size=size)
        for system in bench.cold_rounds(bench.sizes.far_rounds):
            with bench.turn(system), bench.running(system, READS, url):
                # names are known, and connections have carried much: TCP's slow start is over
                system.work("read", path=f"{system.path}/big.bin", once=True)
                bench.cold("far-ends-used", system, "ends", path=f"{system.path}/bigger.wav", size=size)


def far_headers(bench: Bench) -> None:
    """The beginnings of files on a far server, one after another."""
    bench.seed_small("takes", bench.sizes.headers, bench.sizes.header_file)
    with bench.far() as url:
        bench.all_cold("far-headers", "headers", "takes", url, files=bench.sizes.headers)


def far_small(bench: Bench) -> None:
    """Small files on a far server, read whole for the first time, in order."""
    small_files(bench, "far-small", shuffled=False)


def far_small_random(bench: Bench) -> None:
    """The same in an order that nobody can foresee."""
    small_files(bench, "far-small-random", shuffled=True)


def small_files(bench: Bench, measure: str, shuffled: bool) -> None:
    sizes = bench.sizes
    keys = bench.seed_small("small", sizes.files, sizes.small)
    work: dict[str, Any] = {"files": sizes.files, "size": sizes.small, "shuffled": shuffled, "once": True}
    with bench.far() as url:
        bench.all_bare(measure, keys, sizes.small, url, CONNECTIONS)
        bench.all_cold(measure, "open_read_close", "small", url, **work)


def far_tree(bench: Bench) -> None:
    """A tree of many directories on a far server, walked for the first time."""
    bench.seed_tree()
    with bench.far() as url:
        bench.all_cold("far-tree", "walk", "tree", url, files=bench.sizes.tree, once=True)


def far_files(bench: Bench) -> None:
    """Many files on a far server: created, and sent."""
    sizes = bench.sizes
    names = {f"{number:05}.bin": sizes.file for number in range(sizes.files)}
    with bench.far() as url:
        for number, system in enumerate(bench.cold_rounds(sizes.far_rounds)):
            directory = f"far-{number}"
            with bench.turn(system), bench.running(system, system.name, url):
                bench.settle(memory=True)
                with bench.counted(system.name) as requests:
                    where = f"{system.path}/{directory}"
                    done = system.work("create", directory=where, files=sizes.files, size=sizes.file)
                    end = bench.server.until(system.name, directory, lambda found: found == names)
                bench.rate("far-create", system, done, requests)
                bench.add("far-drained", system, end - done["begun"])


def far_hosts(bench: Bench) -> None:
    """A file closed on one host and opened on another, on a far server, where each open asks the bucket."""
    pace = Pace(1, 0, close_to_open=True)
    with bench.far() as url:
        for system in bench.mounted:
            if "far-hosts" in system.unable:
                continue
            here, there = (bench.host(system, name, pace) for name in ("far-here", "far-there"))
            with bench.turn(system), bench.running(here, READS, url), bench.running(there, READS, url):
                bench.settle()
                paths = {"here": f"{here.path}/far-{system.name}", "there": f"{there.path}/far-{system.name}"}
                here.work("token", **paths, number=bench.sizes.tokens)  # connections of both are open
                taken = []
                for number in range(bench.sizes.tokens):
                    time.sleep(KEY_PAUSE_S)
                    taken.append(here.work("token", **paths, number=number)["seconds"])
                bench.add("far-hosts", system, max(taken) * 1000)


def stalls(bench: Bench) -> None:
    """Small files on a far server, in no order and 8 at once, while one answer of a hundred is 10 s late."""
    sizes = bench.sizes
    bench.seed_small("stalled", sizes.stalled, sizes.small)
    distance = Distance(stall_one_in=sizes.stall_one_in, stall_s=sizes.stall_s)
    # plain HTTP: an answer can only be told from another where it can be seen
    for system in bench.cold_rounds(sizes.far_rounds):
        with bench.far(distance, tls=False) as url, bench.turn(system), bench.running(system, READS, url):
            bench.settle()
            work = {"directory": f"{system.path}/stalled", "files": sizes.stalled, "size": sizes.small}
            with bench.counted(READS) as requests:
                done = system.work("latencies", readers=READERS, **work)
            for name in ("p50", "p99", "p999"):
                bench.add(f"stall-{name}", system, done[name], requests if name == "p50" else None)
