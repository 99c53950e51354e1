"""Sparse file against a model of one byte after the other: any order of operations."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from r2fs.disk.sparse_file import SparseFile
from r2fs.model.ranges import RangeSet

MAX = 48
BASE = bytes(range(100, 100 + MAX))
offsets = st.integers(0, MAX)
datas = st.binary(min_size=0, max_size=12)


class ContentMachine(RuleBasedStateMachine):
    """`cells`: for each byte of the file (value, origin), origin being hole, base or own."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="content-model-"))
        self.names = 0
        self.content: SparseFile  # from begin() on

    def path(self) -> Path:
        self.names += 1
        return self.directory / str(self.names)

    @initialize(size=st.integers(1, MAX))
    def begin(self, size: int) -> None:
        self.cells: list[tuple[int, str]] = [(0, "hole")] * size
        self.limit = size
        self.frozen = False  # once complete it stays so, and keeps no maps
        self.content = SparseFile.create(self.path(), size, complete=False)

    def own(self, start: int, data: bytes) -> None:
        self.cells += [(0, "own")] * (start - len(self.cells))
        self.cells[start : start + len(data)] = [(value, "own") for value in data]

    @rule(offset=offsets, size=st.integers(0, 16))
    def fill(self, offset: int, size: int) -> None:
        data = BASE[offset : offset + size]
        self.content.fill(offset, data)
        for at in range(offset, min(offset + len(data), self.limit, len(self.cells))):
            if self.cells[at][1] == "hole":
                self.cells[at] = (BASE[at], "base")

    @rule(offset=offsets, data=datas)
    def write(self, offset: int, data: bytes) -> None:
        assert self.content.write(offset, data) == len(data)
        if data:
            self.own(offset, data)

    @rule(data=datas)
    def append(self, data: bytes) -> None:
        if len(self.cells) + len(data) <= MAX:
            assert self.content.append(data) == len(data)
            self.own(len(self.cells), data)

    @rule(size=offsets)
    def truncate(self, size: int) -> None:
        self.content.truncate(size)
        self.limit = min(self.limit, size)
        del self.cells[size:]
        self.cells += [(0, "own")] * (size - len(self.cells))

    @rule(start=offsets, length=st.integers(0, 16))
    def zero(self, start: int, length: int) -> None:
        self.content.zero(start, start + length)
        stop = min(start + length, len(self.cells))
        if start < stop:
            self.own(start, bytes(stop - start))

    @rule(start=offsets, length=st.integers(0, MAX))
    def release(self, start: int, length: int) -> None:
        freed = self.content.release(start, start + length)
        if self.frozen:
            assert freed == 0
            return
        clean = [
            at for at in range(start, min(start + length, len(self.cells))) if self.cells[at][1] == "base"
        ]
        assert freed == len(clean)
        for at in clean:
            self.cells[at] = (0, "hole")

    @precondition(lambda self: not self.frozen)
    @rule()
    def restart(self) -> None:
        present, own, limit = self.content.snapshot()
        path, size = self.content.path, self.content.size
        self.content.close()
        self.content = SparseFile.adopt(path, size, present, own, limit)

    @rule()
    def rename(self) -> None:
        self.content.rename_to(self.path())

    @invariant()
    def agrees(self) -> None:
        if not self.names:
            return
        self.content.check()
        holes = [at for at, (_, origin) in enumerate(self.cells) if origin == "hole"]
        self.frozen = self.frozen or not holes
        assert self.content.size == len(self.cells)
        assert self.content.complete == self.frozen
        assert self.content.missing(0, MAX * 2) == list(RangeSet((at, at + 1) for at in holes))
        if not self.frozen:
            here = RangeSet((at, at + 1) for at, (_, origin) in enumerate(self.cells) if origin != "hole")
            own = RangeSet((at, at + 1) for at, (_, origin) in enumerate(self.cells) if origin == "own")
            assert self.content.snapshot() == (here, own, self.limit)
        for start, stop in self.runs():
            expected = bytes(value for value, _ in self.cells[start:stop])
            assert self.content.read(start, stop - start) == expected

    def runs(self) -> list[tuple[int, int]]:
        return list(RangeSet((at, at + 1) for at, (_, o) in enumerate(self.cells) if o != "hole"))

    def teardown(self) -> None:
        if self.names:
            self.content.close()
        shutil.rmtree(self.directory)


TestContentModel = ContentMachine.TestCase
TestContentModel.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
