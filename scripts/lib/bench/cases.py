"""The cases: what is done, in which order, and what is written down of it.

Owns:  fairness. Systems take turns within each round, so that a busy minute of the machine falls on all;
       nothing of one system runs while another is measured; what is cold is mounted anew, on nothing.
Never: starts a process; systems and server do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from scripts.lib.bench.quiet import settle, settle_memory
from scripts.lib.bench.results import Results
from scripts.lib.bench.server import READS, Requests, Server
from scripts.lib.bench.systems import System
from scripts.lib.bench.work import tree_names

MB = 1e6
MIB = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """How much is done. Quick proves that everything works; its numbers mean nothing."""

    big: int = 256 * MIB  # bytes of the file that is read
    written: int = 256 * MIB
    files: int = 500  # that are created, and as many small ones that are read
    file: int = 100_000
    small: int = 4096
    tops: int = 100  # directories, each with `subs` in it, each with `leaves` files: 1,100 and 10,000
    subs: int = 10
    leaves: int = 10
    warm_rounds: int = 5
    cold_rounds: int = 3
    file_rounds: int = 5  # the disk's own share in these differs by a factor of two
    far_rounds: int = 1
    settled: bool = True  # each turn waits for a quiet machine

    @property
    def tree(self) -> int:
        return self.tops * self.subs * self.leaves

    @property
    def shape(self) -> dict[str, int]:
        return {"tops": self.tops, "subs": self.subs, "leaves": self.leaves}


QUICK = Sizes(
    big=24 * MIB,
    written=12 * MIB,
    files=20,
    tops=4,
    subs=3,
    leaves=10,
    warm_rounds=2,
    cold_rounds=1,
    file_rounds=1,
    settled=False,
)


class Bench:
    def __init__(
        self, systems: list[System], server: Server, sizes: Sizes, say: Callable[[str], None]
    ) -> None:
        self.systems = systems
        self.server = server
        self.sizes = sizes
        self.say = say
        self.results = Results()
        self._seeded: set[str] = set()

    # ------------------------------------------------------------------ helpers
    @property
    def mounted(self) -> list[System]:
        return [system for system in self.systems if system.mounts]

    @contextmanager
    def running(self, system: System, bucket: str, url: str | None = None) -> Iterator[None]:
        system.start(bucket, url)
        try:
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

    def rounds(self, count: int, memory: bool = False) -> Iterator[System]:
        """Each system `count` times, each time on a quiet machine; another one begins each round."""
        for number in range(count):
            for at in range(len(self.systems)):
                self.settle(memory)
                yield self.systems[(at + number) % len(self.systems)]

    def settle(self, memory: bool = False) -> None:
        if self.sizes.settled:
            settle()
            if memory:
                settle_memory()

    @contextmanager
    def counted(self, bucket: str) -> Iterator[Requests]:
        """Requests from here to the end of the block and of what it set off; filled at the end."""
        before = self.server.quiet(bucket)
        counts = Requests()
        yield counts
        counts.update(self.server.quiet(bucket) - before)

    def rate(
        self, measure: str, system: System, done: dict[str, float], requests: Requests | None = None
    ) -> None:
        scale = MB if measure in ("read_cold", "read_first", "read_again", "write") else 1.0
        self.add(measure, system, done["count"] / scale / done["seconds"], requests)

    def add(self, measure: str, system: System, value: float, requests: Requests | None = None) -> None:
        self.results.add(measure, system.name, value, None if requests is None else dict(requests))

    def cold(
        self, measure: str, system: System, name: str, url: str | None = None, **arguments: Any
    ) -> dict[str, float]:
        """The first work on a fresh mount, with what it asked of the server."""
        self.settle(memory=True)
        with self.counted(READS) as requests:
            done = system.work(name, **arguments)
        if measure == "ends":
            self.add(measure, system, done["seconds"] * 1000, requests)
        else:
            self.rate(measure, system, done, requests)
        return done

    def seed(self, what: str, put: Callable[[], None]) -> None:
        if what not in self._seeded:
            self.say(f"seeding {what}")
            put()
            self._seeded.add(what)

    def seed_big(self) -> None:
        self.seed("the large file", lambda: self.server.seed_file("big.bin", self.sizes.big))

    def seed_tree(self) -> None:
        keys = [f"tree/{name}" for name in tree_names(**self.sizes.shape)]
        self.seed("the tree", lambda: self.server.seed_files(keys, 100))

    # ------------------------------------------------------------------ the cases
    def big(self) -> None:
        """A large file of the bucket: read cold, from the cache, and at random places."""
        self.seed_big()
        for _ in range(self.sizes.cold_rounds - 1):
            for system in self.mounted:
                with self.running(system, READS):
                    self.cold("read_cold", system, "read", path=f"{system.path}/big.bin", once=True)
        with self.all_running(READS):
            for system in self.systems:
                if system.mounts:
                    self.cold("read_cold", system, "read", path=f"{system.path}/big.bin", once=True)
                else:
                    system.work("write", path=f"{system.path}/big.bin", size=self.sizes.big)
            for system in self.rounds(self.sizes.warm_rounds):
                path = f"{system.path}/big.bin"
                # the local disk's pages stay, as those of the peers' cache files do
                self.rate("read_first", system, system.work("read", path=path, forget=system.mounts))
                self.rate("read_again", system, system.work("read", path=path))
            for system in self.rounds(self.sizes.warm_rounds):
                path = f"{system.path}/big.bin"
                self.rate("random", system, system.work("randomly", path=path, forget=system.mounts))
            self.memory("memory_big")

    def ends(self) -> None:
        """Both ends of a large file on a far server."""
        self.seed_big()
        with self.server.far() as url:
            for _ in range(self.sizes.cold_rounds):
                for system in self.mounted:
                    with self.running(system, READS, url):
                        self.cold("ends", system, "ends", path=f"{system.path}/big.bin", size=self.sizes.big)

    def write(self) -> None:
        """A large new file: written, closed, read back at once, and sent."""
        size = self.sizes.written
        with self.all_running():
            for number, system in enumerate(self.rounds(self.sizes.cold_rounds, memory=True)):
                name = f"written-{number}.bin"
                with self.sending(system, "write") as done:
                    done |= system.work("write_and_read_back", path=f"{system.path}/{name}", size=size)
                    self.add("back", system, size / MB / done["back_seconds"])
                    self.sent("sent", system, done, "", {name: size})
                system.work("remove", path=f"{system.path}/{name}", files=1)
                self.server.quiet(system.name)

    def files(self) -> None:
        """Many files: created, sent, removed, gone."""
        sizes = self.sizes
        names = {f"{number:05}.bin": sizes.file for number in range(sizes.files)}
        with self.all_running():
            for number, system in enumerate(self.rounds(sizes.file_rounds, memory=True)):
                directory = f"created-{number}"
                where = f"{system.path}/{directory}"
                with self.sending(system, "create") as done:
                    done |= system.work("create", directory=where, files=sizes.files, size=sizes.file)
                    self.sent("drained", system, done, directory, names)
                with self.sending(system, "remove") as done:
                    done |= system.work("remove", path=where, files=sizes.files)
                    self.sent("gone", system, done, directory, {})

    @contextmanager
    def sending(self, system: System, measure: str) -> Iterator[dict[str, float]]:
        """The work that the block does is `measure`, with all the requests that it leads to."""
        done: dict[str, float] = {}
        with self.counted(system.name) as requests:
            yield done
        self.rate(measure, system, done, requests if system.mounts else None)

    def sent(
        self, measure: str, system: System, done: dict[str, float], directory: str, names: dict[str, int]
    ) -> None:
        """Waits until the bucket holds exactly `names` in `directory`, from the work's begin on."""
        if system.mounts:
            end = self.server.until(
                system.name,
                directory,
                lambda sizes: names == sizes if directory else names.items() <= sizes.items(),
            )
            self.add(measure, system, end - done["begun"])

    def small(self) -> None:
        """Small files of the bucket: read whole, cold and warm."""
        sizes = self.sizes
        keys = [f"small/{number:05}.bin" for number in range(sizes.files)]
        self.seed("small files", lambda: self.server.seed_files(keys, sizes.small))
        work: dict[str, Any] = {"files": sizes.files, "size": sizes.small}
        with self.all_running(READS):
            for system in self.systems:
                where = f"{system.path}/small"
                if system.mounts:
                    self.cold("small_cold", system, "open_read_close", directory=where, once=True, **work)
                else:
                    system.work("create", directory=where, **work)
            for system in self.rounds(sizes.warm_rounds):
                done = system.work("open_read_close", directory=f"{system.path}/small", **work)
                self.rate("small", system, done)

    def tree(self) -> None:
        """A tree of many directories: walked cold, walked and asked warm."""
        self.seed_tree()
        with self.all_running(READS):
            for system in self.systems:
                where = f"{system.path}/tree"
                if system.mounts:
                    self.cold("walk_cold", system, "walk", directory=where, files=self.sizes.tree, once=True)
                else:
                    system.work("plant", directory=where, **self.sizes.shape)
            for system in self.rounds(self.sizes.warm_rounds):
                for measure in ("walk", "stat"):
                    done = system.work(measure, directory=f"{system.path}/tree", files=self.sizes.tree)
                    self.rate(measure, system, done)
            self.memory("memory")

    def far(self) -> None:
        """The same tree on a far server."""
        self.seed_tree()
        with self.server.far() as url:
            for _ in range(self.sizes.far_rounds):
                for system in self.mounted:
                    self.say(f"far: {system.title}")
                    with self.running(system, READS, url):
                        where = f"{system.path}/tree"
                        self.cold(
                            "walk_far", system, "walk", directory=where, files=self.sizes.tree, once=True
                        )

    def memory(self, measure: str) -> None:
        for system in self.mounted:
            self.add(measure, system, system.resident_mb())


CASES: dict[str, Callable[[Bench], None]] = {
    case.__name__: case
    for case in (Bench.big, Bench.ends, Bench.write, Bench.files, Bench.small, Bench.tree, Bench.far)
}
