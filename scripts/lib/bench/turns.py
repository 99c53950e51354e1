"""What all cases share: systems take turns on a quiet machine, and what they do is written down.

Owns:  fairness. Systems take turns within each round, so that a busy minute of the machine falls on all;
       nothing of one system runs while another is measured; what is cold is mounted anew, on nothing.
Never: starts a process; systems and server do.
Fails: a system that breaks in its turn is left out of the rest of the case, and `failures` says it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from scripts.lib.bench.far import Distance
from scripts.lib.bench.floors import FLOORS
from scripts.lib.bench.jobs import Broken, begin
from scripts.lib.bench.quiet import Quiet, settle_memory
from scripts.lib.bench.results import LOCAL, MEASURES, Results
from scripts.lib.bench.server import READS, Requests, Server, TooSlow
from scripts.lib.bench.sizes import Sizes
from scripts.lib.bench.systems import Bare, Mounted, Pace, System
from scripts.lib.bench.work import tree_names

MB = 1e6


class Bench:
    def __init__(
        self,
        systems: list[System],
        server: Server,
        sizes: Sizes,
        directory: Path,
        say: Callable[[str], None],
    ) -> None:
        # constant
        self.systems = [system for system in systems if not isinstance(system, Bare)]
        self.mounted = [system for system in systems if isinstance(system, Mounted)]
        self.bare = next((system for system in systems if isinstance(system, Bare)), None)
        self.server = server
        self.sizes = sizes
        self.directory = directory  # for what programs work on
        self.say = say
        self.results = Results()
        self.failures: list[str] = []
        self.quiet = Quiet()
        # state
        self._seeded: set[str] = set()
        self._broken: set[str] = set()  # systems, in this case; or left out of it
        for measure, floor in FLOORS.items():
            self.results.set_floor(measure, floor(sizes))

    # ------------------------------------------------------------------ turns
    @contextmanager
    def case(self, name: str, left_out: Collection[str] = ()) -> Iterator[None]:
        """What goes wrong outside of one system's turn ends the case, not the run. `left_out`: systems."""
        self._broken = set(left_out)
        try:
            yield
        except (Broken, TooSlow) as error:
            self._fail(f"{name}: {error}")

    @contextmanager
    def turn(self, system: System) -> Iterator[None]:
        """What goes wrong in the block is `system`'s own failure: the others go on."""
        try:
            yield
        except (Broken, TooSlow) as error:
            self._broken.add(system.name)
            self._fail(str(error) if system.name in str(error) else f"{system.name}: {error}")

    def _fail(self, what: str) -> None:
        self.failures.append(what)
        self.say(f"FAILED {what}")

    @contextmanager
    def running(self, system: System, bucket: str, url: str | None = None) -> Iterator[None]:
        """Empty at the beginning, ended at the end."""
        try:
            system.start(bucket, url)
            yield
        finally:
            system.stop()

    @contextmanager
    def all_running(self, bucket: str | None = None) -> Iterator[None]:
        """Every system on `bucket`, or on one of its own."""
        with ExitStack() as stack:
            for system in self.systems:
                stack.enter_context(self.running(system, bucket or system.name))
            yield

    def rounds(self, count: int, memory: bool = False, row: str = "") -> Iterator[System]:
        """Each system that can do `row` `count` times, each time on a quiet machine; another one begins each round."""
        for number in range(count):
            for at in range(len(self.systems)):
                system = self.systems[(at + number) % len(self.systems)]
                if system.name not in self._broken and row not in system.unable:
                    self.settle(memory)
                    yield system

    def cold_rounds(self, count: int) -> Iterator[Mounted]:
        """The same of those that mount; one whose turn took too long has no other."""
        slow: set[str] = set()
        for number in range(count):
            for at in range(len(self.mounted)):
                system = self.mounted[(at + number) % len(self.mounted)]
                if system.name not in self._broken | slow:
                    begun = time.monotonic()
                    yield system
                    if time.monotonic() - begun > self.sizes.patience_s:
                        slow.add(system.name)

    def settle(self, memory: bool = False) -> None:
        if self.sizes.settled:
            self.quiet.settle()
            if memory:
                settle_memory()

    # ------------------------------------------------------------------ what is written down
    @contextmanager
    def counted(self, bucket: str, quiet_s: float | None = None) -> Iterator[Requests]:
        """Requests from here to the end of the block and of what it set off; filled at the end."""
        quiet_s = self.sizes.quiet_s if quiet_s is None else quiet_s
        before = self.server.quiet(bucket, self.sizes.quiet_s)
        counts = Requests()
        yield counts
        counts.update(self.server.quiet(bucket, quiet_s) - before)

    def rate(
        self, measure: str, system: System, done: dict[str, float], requests: Requests | None = None
    ) -> None:
        """Of {"count", "seconds"}, in the measure's unit."""
        unit = MEASURES[measure].unit
        if unit == "ms":
            value = done["seconds"] * 1000
        elif unit == "ms/file":
            value = done["seconds"] * 1000 / done["count"]
        else:
            value = done["count"] / (MB if unit == "MB/s" else 1.0) / done["seconds"]
        self.add(measure, system, value, requests)

    def add(self, measure: str, system: System, value: float, requests: Requests | None = None) -> None:
        self.results.add(measure, system.name, value, None if requests is None else dict(requests))

    def memory(self, measure: str) -> None:
        for system in self.mounted:
            with self.turn(system):
                self.add(measure, system, system.resident_mb())

    # ------------------------------------------------------------------ cold rows
    def cold(self, measure: str, system: System, name: str, **arguments: Any) -> dict[str, float]:
        """The first work on a mount, with what it asked of the server."""
        self.settle(memory=MEASURES[measure].unit == "MB/s")
        with self.counted(READS) as requests:
            done = system.work(name, **arguments)
        self.rate(measure, system, done, requests)
        return done

    def all_cold(self, measure: str, name: str, path: str, url: str | None = None, **arguments: Any) -> None:
        """A row of one work on one path, each time on a fresh mount of the bucket that all read."""
        rounds = self.sizes.cold_rounds if url is None else self.sizes.far_rounds
        where = "directory" if name in ("open_read_close", "walk", "headers") else "path"
        for system in self.cold_rounds(rounds):
            with self.turn(system), self.running(system, READS, url):
                self.cold(measure, system, name, **{where: f"{system.path}/{path}"}, **arguments)

    def all_bare(
        self, measure: str, keys: list[str], size: int, url: str | None = None, connections: int = 16
    ) -> None:
        """The same objects by a bare client: 4 MiB at a time."""
        if self.bare is None:
            return
        for _ in range(self.sizes.cold_rounds if url is None else self.sizes.far_rounds):
            with self.turn(self.bare):
                self.settle()
                with self.counted(READS) as requests:
                    done = self.bare.get(keys, size, 4 << 20, connections, url)
                if MEASURES[measure].unit != "MB/s":
                    done["count"] = len(keys)
                self.rate(measure, self.bare, done, requests)

    def far(self, distance: Distance | None = None, tls: bool = True) -> AbstractContextManager[str]:
        """A context of a URL at a distance."""
        return self.server.far(distance or Distance(), tls)

    # ------------------------------------------------------------------ what lies there before
    def seed(self, what: str, put: Callable[[], object]) -> None:
        if what not in self._seeded:
            self.say(f"seeding {what}")
            put()
            self._seeded.add(what)

    def seed_big(self) -> None:
        for name, size in (("big.bin", self.sizes.big), ("bigger.wav", self.sizes.bigger)):
            self.seed(name, lambda name=name, size=size: self.server.seed_file(name, size))  # type: ignore[misc]

    def seed_tree(self) -> None:
        keys = [f"tree/{name}" for name in tree_names(**self.sizes.shape)]
        self.seed("the tree", lambda: self.server.seed_files(keys, 100))

    def seed_small(self, directory: str, files: int, size: int) -> list[str]:
        keys = [f"{directory}/{number:05}.bin" for number in range(files)]
        self.seed(f"{directory}/", lambda: self.server.seed_files(keys, size))
        return keys

    def local_work(self, name: str, **arguments: Any) -> None:
        """Work of programs.py on the local disk that is not measured."""
        begin(LOCAL, name, "work", name, json.dumps(arguments)).result()

    # ------------------------------------------------------------------ other mounts
    def host(self, system: Mounted, name: str, pace: Pace) -> Mounted:
        """The same system on another host: nothing in common but the bucket."""
        return type(system)(self.directory / name, self.server, pace)
