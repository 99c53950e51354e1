"""Two hosts at one bucket, step by step: who does what when is chosen by the test, and nothing is random.

Owns:  the programs and their steps, every order of the steps of two programs, and the check after each:
       no bytes that a program closed are gone, but by somebody who saw them.

A write is told by a token that comes once in the whole run. A host that truncates, deletes or renames
over a file drops the tokens that its mount showed there at that moment: those it saw. Every other token
of a closed file must be in the bucket at the end, under whatever name.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from r2fs.engine.inodes.inode import Node
from r2fs.model.errors import NotFound, Stale
from r2fs.model.keys import is_conflict_name
from r2fs.model.records import ObjectMeta
from tests.support.clocks import ManualClock
from tests.support.engine import Engine, do_at_once
from tests.support.memory_store import MemoryStore

TOKEN = re.compile(rb"<[^>]*>")
LOOKS = frozenset({"list", "head", "get", "check"})  # requests that change nothing

# What one program does, by letters: each is one operation, and ends with sending what is owed.
#   W  overwrites x        A  appends to x         D  deletes x
#   M  moves x to y        N  moves y to x         S  saves x: writes a new file, renames it over x
STEPS = {"W": 3, "A": 3, "D": 2, "M": 2, "N": 2, "S": 4}


def tokens(data: bytes) -> set[bytes]:
    return set(TOKEN.findall(data))


class SharedBucket(MemoryStore):
    """Remembers every version there ever was; `meanwhile` runs before a chosen request of a host."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[str, bytes] = {}  # by ETag
        self.at: int | None = None  # before which of the changing requests from now on
        self.meanwhile: Callable[[], None] | None = None
        self.broken_into = ""  # the key of the DELETE before which it ran
        self.taken: set[bytes] = set()  # tokens of what that DELETE took away
        self.before = self._before

    def _before(self, name: str, key: str) -> None:
        if self.at is None or self.meanwhile is None:
            return
        self.at -= 1
        if self.at < 0:
            run, self.meanwhile, self.at = self.meanwhile, None, None
            run()
            self.broken_into = key if name in ("delete", "delete_many") else ""

    def remove(self, key: str) -> None:
        if key == self.broken_into and key in self.objects:
            self.taken |= tokens(self.objects[key].data)
        super().remove(key)

    def store_version(self, key: str, data: bytes, meta: ObjectMeta, etag: str | None = None) -> str:
        stored = super().store_version(key, data, meta, etag)
        self.versions[stored] = bytes(data)
        return stored


class Host:
    """One engine without threads, and what its programs did and saw."""

    def __init__(self, base: Path, name: str, bucket: SharedBucket, clock: ManualClock) -> None:
        self.name = name
        self.bucket = bucket
        self.clock = clock
        self.engine = Engine(base / name, bucket, clock=clock, threads=False, host=name, freshness_s=1.0)
        for queue in (self.engine.downloads, self.engine.parts, self.engine.background):
            do_at_once(queue)
        self.closed: set[bytes] = set()  # tokens that a close() has returned for
        self.dropped: set[bytes] = set()  # tokens that this host's programs saw, and took away
        self.sealed: set[bytes] = set()  # every content that a file had when its writer closed
        self._number = 0

    # ---- a program, step by step
    def steps(self, program: str, run: int) -> list[Callable[[], None]]:
        steps: list[Callable[[], None]] = []
        for letter in program:
            self._number += 1
            token = f"<{self.name}{self._number} of {run}>".encode()
            steps += getattr(self, f"_{letter}")(token)
        return steps

    def _W(self, token: bytes) -> list[Callable[[], None]]:
        return self._writing("x", token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def _A(self, token: bytes) -> list[Callable[[], None]]:
        return self._writing("x", token, os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def _D(self, token: bytes) -> list[Callable[[], None]]:
        return [self._if_there(lambda: (self._drop("x"), self.engine.unlink("x"))), self.send]

    def _M(self, token: bytes) -> list[Callable[[], None]]:
        return [self._moving("x", "y"), self.send]

    def _N(self, token: bytes) -> list[Callable[[], None]]:
        return [self._moving("y", "x"), self.send]

    def _S(self, token: bytes) -> list[Callable[[], None]]:
        temporary = f".x.{self.name}{self._number}"
        *writing, send = self._writing(temporary, token, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        return [*writing, self._moving(temporary, "x"), send]

    def _writing(self, name: str, token: bytes, flags: int) -> list[Callable[[], None]]:
        handles: list[int] = []
        fs, caller = self.engine.fs, self.engine.caller

        def begin() -> None:
            if flags & os.O_TRUNC:
                self._drop(name)
            else:
                self.clock.advance(2)
            try:
                handles.append(self.engine.open(name, flags).handle)
            except Stale:  # the kernel looks the name up anew
                self.clock.advance(2)
                handles.append(self.engine.open(name, flags).handle)

        def end() -> None:
            node = self.engine.files.handles.get(handles[0]).node
            fs.write(caller, handles[0], 0 if flags & os.O_TRUNC else self._size(handles[0]), token)
            fs.flush(caller, handles[0])
            self.sealed.add(self.shown(node))
            fs.release(handles[0])
            self.closed.add(token)

        return [begin, end, self.send]

    def _size(self, handle: int) -> int:
        return self.engine.contents.of(self.engine.files.handles.get(handle).node).size

    def _moving(self, old: str, new: str) -> Callable[[], None]:
        return self._if_there(lambda: (self._drop(new), self.engine.rename(old, new)))

    def _if_there(self, step: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            try:
                step()
            except (NotFound, Stale):
                pass  # the other host has moved or deleted it

        return run

    def send(self) -> None:
        """Everything that is due."""
        for _ in range(100):
            task = self.engine.take_due()
            if task is None:
                return
            task()
        raise AssertionError(f"{self.name} sends without end: {self.engine.fs.queue_view()}")

    # ---- what the mount shows
    def _drop(self, name: str) -> None:
        """Note what is about to be taken away. The listing is fresh then: the operation asks for no other."""
        self.clock.advance(2)
        try:
            for _ in range(2):  # within the first the other host may have been at work, and time have passed
                entry = self.engine.entry(name)
        except NotFound:
            return
        self.dropped |= tokens(self.shown(self.engine.inodes.get(entry.ino)))

    def shown(self, node: Node) -> bytes:
        """A file's bytes, without a request and without a change of what is cached."""
        if node.content is not None and node.content.complete:
            return node.content.read(0, node.content.size)
        staged = self.engine.staged_path(node)
        if staged is not None:
            return staged.read_bytes()
        assert node.base is not None
        return self.bucket.versions[node.base.etag]

    def names(self) -> list[str]:
        self.clock.advance(2)
        return self.engine.listdir()

    def conflicts(self) -> tuple[str, ...]:
        return self.engine.fs.queue_view().conflicts


class Pair:
    """Both hosts, for many runs one after the other."""

    def __init__(self, base: Path) -> None:
        self.bucket = SharedBucket()
        self.clock = ManualClock()
        self.hosts = [Host(base, name, self.bucket, self.clock) for name in ("anna", "bert")]
        self.runs = 0
        self.lost_in_the_window = 0  # runs in which a DELETE took what its HEAD had not seen

    def end(self) -> None:
        for host in self.hosts:
            host.engine.stop()

    def play(
        self,
        first: bool,
        programs: Sequence[str],
        order: Sequence[int],
        inside: tuple[int, int] | None = None,
    ) -> None:
        """`order` says whose step is next. `first`: x is there at the beginning.

        `inside` is (step, request): the other host's steps that follow that step are taken within it, ahead
        of that one of its requests.
        """
        self._begin(first)
        steps = [host.steps(program, self.runs) for host, program in zip(self.hosts, programs, strict=True)]
        waiting = [iter(each) for each in steps]
        at = 0
        while at < len(order):
            mine, at = order[at], at + 1
            if inside is None or inside[0] != at - 1:
                next(waiting[mine])()
                continue
            theirs = []
            while at < len(order) and order[at] != mine:
                theirs.append(next(waiting[order[at]]))
                at += 1
            self._play_inside(next(waiting[mine]), theirs, inside[1])
        self._settle()
        self._check(f"{programs} in the order {''.join('ab'[n] for n in order)}, inside {inside}")

    def _play_inside(self, step: Callable[[], None], inner: list[Callable[[], None]], request: int) -> None:
        def run_inner() -> None:
            for each in inner:
                each()

        self.bucket.at, self.bucket.meanwhile = request, run_inner
        step()
        rest, self.bucket.meanwhile, self.bucket.at = self.bucket.meanwhile, None, None
        if rest is not None:  # it sent fewer requests than that
            rest()

    def _begin(self, first: bool) -> None:
        self.runs += 1
        self.bucket.objects.clear()
        self.bucket.broken_into, self.bucket.taken = "", set()
        if first:
            self.bucket.set("x", f"<first of {self.runs}>".encode())
        for host in self.hosts:
            host.closed, host.dropped, host.sealed = set(), set(), set()
            names = host.names()
            assert names == (["x"] if first else []), f"run {self.runs} begins with {names}"
        self.bucket.versions = {one.etag: one.data for one in self.bucket.objects.values()}

    def _settle(self) -> None:
        """All is sent, and each host sees what the other did."""
        for _ in range(20):
            for host in self.hosts:
                host.send()
                host.names()
            dues = [due for h in self.hosts if (due := h.engine.next_due_s()) is not None]
            if not dues:
                return
            self.clock.advance(max(0.0, min(dues) - self.clock.monotonic()) + 0.001)
        views = [host.engine.fs.queue_view() for host in self.hosts]
        raise AssertionError(f"something is left: {views}")

    def _check(self, played: str) -> None:
        found = self.bucket.contents()
        what = f"{played}: {found}"
        closed = set().union(*(host.closed for host in self.hosts))
        dropped = set().union(*(host.dropped for host in self.hosts))
        there = set().union(*(tokens(data) for data in found.values()))
        lost = closed - dropped - there
        self.lost_in_the_window += bool(lost & self.bucket.taken)  # as SEMANTICS has it
        assert lost <= self.bucket.taken, f"{what}\nlost: {lost}"
        whole = set().union(*(host.sealed for host in self.hosts)) | {f"<first of {self.runs}>".encode()}
        assert set(found.values()) <= whole, f"{what}\nno file was ever so: {set(found.values()) - whole}"
        odd = [name for name in found if name not in ("x", "y") and not is_conflict_name(name)]
        assert [name for name in odd if not name.startswith(".x.")] == [], what
        copies = tuple(sorted(name for name in found if is_conflict_name(name)))
        for host in self.hosts:
            host.engine.check_tree()
            assert host.names() == sorted(found), f"{what}\n{host.name} sees {host.names()}"
            assert {name: host.engine.read(name) for name in found} == found, f"{what}\non {host.name}"
            assert host.conflicts() == copies, f"{what}\n{host.name}'s status: {host.conflicts()}"
            assert host.engine.fs.queue_view().files == 0, what


def length(program: str) -> int:
    return sum(STEPS[letter] for letter in program)


def orders(one: str, other: str) -> Iterator[tuple[int, ...]]:
    """Every order of the steps of two programs."""
    first, second = length(one), length(other)
    for places in itertools.combinations(range(first + second), first):
        taken = set(places)
        yield tuple(0 if n in taken else 1 for n in range(first + second))
