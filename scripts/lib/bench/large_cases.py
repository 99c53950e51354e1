"""A bucket of a million objects that nobody stores: names, times and sizes come from arithmetic (`Generated`)."""

from __future__ import annotations

from scripts.lib.bench.results import OURS, RCLONE
from scripts.lib.bench.server import READS
from scripts.lib.bench.turns import Bench
from tests.support.generated import Generated, GeneratedServer


def large(bench: Bench) -> None:
    """A bucket of a million objects, mounted for the second time: the first ls, a walk by names, the same again."""
    shape = bench.sizes.million_directories, bench.sizes.million_files
    work = {"files": shape[0] * shape[1]}
    with GeneratedServer(Generated(shape), READS) as server:
        for system in bench.mounted:
            if system.name not in (OURS, RCLONE):
                continue
            with bench.turn(system):
                try:
                    system.start(READS, server.endpoint.url)
                    system.work("names", directory=str(system.path), **work)
                    system.unmount()
                    bench.settle()
                    system.start(READS, server.endpoint.url)
                    listed = system.work("names_of_one", directory=str(system.path), files=shape[0])
                    bench.rate("large-ls", system, listed)
                    for measure in ("large-find", "large-find-warm"):
                        bench.rate(measure, system, system.work("names", directory=str(system.path), **work))
                    bench.add("large-memory", system, system.resident_mb())
                finally:
                    system.stop()
