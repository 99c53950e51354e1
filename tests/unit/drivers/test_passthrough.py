"""The policy of open modes, against the kernel's rules as test_kernel_rules.py finds them."""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from r2fs.drivers.kernel import passthrough
from r2fs.drivers.kernel.passthrough import IDLE_FILE, OpenModes
from r2fs.drivers.kernel.wire import FOPEN_KEEP_CACHE, FOPEN_NOFLUSH, FOPEN_PASSTHROUGH
from r2fs.model.errors import Stale


class Registry:
    """The kernel's registered files: fails as it is told."""

    def __init__(self) -> None:
        self.files: dict[int, tuple[int, int]] = {}
        self.fails: int | None = None
        self._ids = itertools.count(1)

    def register(self, local: int) -> int:
        if self.fails:
            raise OSError(self.fails, os.strerror(self.fails))
        found = os.fstat(local)
        number = next(self._ids)
        self.files[number] = found.st_dev, found.st_ino
        return number

    def unregister(self, backing_id: int) -> None:
        del self.files[backing_id]


@pytest.fixture
def local() -> Iterator[Callable[[], int]]:
    """`local()`: a descriptor of another file each time."""
    made: list[IO[bytes]] = []

    def make() -> int:
        made.append(tempfile.TemporaryFile())  # noqa: SIM115
        return made[-1].fileno()

    yield make
    for file in made:
        file.close()


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_the_last_release_unregisters(registry: Registry, local: Callable[[], int]) -> None:
    modes, fd = OpenModes(registry), local()
    one = modes.enter(5, fd, 1, writes=True)
    two = modes.enter(5, fd, 1, writes=False)
    assert one.passthrough and two.passthrough
    assert one.backing_id == two.backing_id != 0
    assert one.fopen == FOPEN_PASSTHROUGH
    assert two.fopen == FOPEN_PASSTHROUGH | FOPEN_NOFLUSH, "only a writer's close() waits"
    modes.leave(5, True)
    modes.check()
    assert len(registry.files) == 1
    modes.leave(5, True)
    modes.check()
    assert registry.files == {}
    assert modes.view() == ()


def test_a_small_file_stays_registered(registry: Registry, local: Callable[[], int]) -> None:
    modes, fd, other = OpenModes(registry), local(), local()
    first = modes.enter(5, fd, 1, False).backing_id
    modes.leave(5, True)
    modes.check()
    assert modes.view() == ()
    assert modes.enter(5, fd, 1, False).backing_id == first
    modes.leave(5, True)
    second = modes.enter(5, other, 2, False).backing_id
    assert set(registry.files) == {second} != {first}, "other content: the earlier file is let go"
    modes.leave(5, True)
    assert not modes.enter(5, None, 3, False).passthrough
    assert registry.files == {}
    modes.leave(5, False)
    modes.enter(5, fd, 1, False)
    modes.leave(5, True)
    modes.forgotten(5)
    assert registry.files == {}


def test_a_large_file_does_not_stay_registered(registry: Registry, local: Callable[[], int]) -> None:
    modes, fd = OpenModes(registry), local()
    os.truncate(fd, IDLE_FILE + 1)
    modes.enter(5, fd, 1, False)
    modes.leave(5, True)
    assert registry.files == {}


def test_few_files_stay_registered(
    registry: Registry, local: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passthrough, "IDLE", 2)
    modes = OpenModes(registry)
    ids = [modes.enter(ino, local(), 1, False).backing_id for ino in range(4)]
    for ino in (0, 2, 1, 3):
        modes.leave(ino, True)
    modes.check()
    assert set(registry.files) == {ids[1], ids[3]}, "those that were closed last"


def test_the_first_handle_decides(registry: Registry, local: Callable[[], int]) -> None:
    modes, fd = OpenModes(registry), local()
    assert not modes.enter(5, None, 1, False).passthrough
    assert not modes.enter(5, fd, 1, False).passthrough
    (view,) = modes.view()
    assert (view.mode, view.handles, view.why) == (
        "cached",
        2,
        "some bytes are missing, or a writer is slowed",
    )
    modes.leave(5, False)
    assert not modes.enter(5, fd, 1, False).passthrough
    modes.leave(5, False)
    modes.leave(5, False)
    assert modes.enter(5, fd, 1, False).passthrough
    assert modes.enter(5, None, 1, False).passthrough
    modes.check()


def test_pages_are_kept_for_one_version_only(registry: Registry) -> None:
    modes = OpenModes(registry)

    def keeps(version: int) -> bool:
        grant = modes.enter(5, None, version, False)
        modes.leave(5, False)
        return bool(grant.fopen & FOPEN_KEEP_CACHE)

    assert [keeps(1), keeps(1), keeps(2), keeps(2), keeps(1)] == [False, True, False, True, False]
    modes.forgotten(5)
    assert not keeps(1), "the kernel's pages have gone with its inode"


def test_a_passthrough_spell_makes_pages_suspect(registry: Registry, local: Callable[[], int]) -> None:
    modes = OpenModes(registry)
    modes.enter(5, None, 1, False)
    modes.leave(5, False)
    modes.enter(5, local(), 1, True)
    modes.leave(5, True)
    assert not modes.enter(5, None, 1, False).fopen & FOPEN_KEEP_CACHE


def test_other_content_under_an_open_inode_is_stale(registry: Registry, local: Callable[[], int]) -> None:
    modes = OpenModes(registry)
    modes.enter(5, local(), 1, False)
    with pytest.raises(Stale):
        modes.enter(5, local(), 1, False)
    modes.check()


def test_without_privilege_nothing_is_tried_again(registry: Registry, local: Callable[[], int]) -> None:
    modes, registry.fails = OpenModes(registry), errno.EPERM
    modes.probe(local())
    assert modes.unavailable is not None
    registry.fails = None
    assert not modes.enter(5, local(), 1, False).passthrough
    assert modes.view()[0].why == modes.unavailable
    modes.disable("another reason")
    assert modes.view()[0].why == modes.unavailable, "the first reason stays"


def test_a_probe_leaves_nothing(registry: Registry, local: Callable[[], int]) -> None:
    modes = OpenModes(registry)
    modes.probe(local())
    assert modes.unavailable is None
    assert registry.files == {}


@pytest.mark.parametrize("code", [errno.ELOOP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOMEM, errno.ENFILE])
def test_what_concerns_one_file_concerns_no_other(
    registry: Registry, local: Callable[[], int], code: int
) -> None:
    modes, registry.fails = OpenModes(registry), code
    assert not modes.enter(5, local(), 1, False).passthrough
    assert os.strerror(code) in modes.view()[0].why
    registry.fails = None
    assert modes.enter(6, local(), 1, False).passthrough


def test_a_take_over_keeps_modes_and_ids(registry: Registry, local: Callable[[], int]) -> None:
    modes, fd = OpenModes(registry), local()
    grants = {5: modes.enter(5, fd, 1, True), 6: modes.enter(6, None, 1, True)}
    later = OpenModes(registry)
    for ino, grant in grants.items():
        later.recover(ino, grant.backing_id, grant.file)
    again = later.enter(5, fd, 1, False)
    assert again.passthrough and again.backing_id == grants[5].backing_id
    with pytest.raises(Stale):
        later.enter(5, local(), 1, False)
    later.leave(5, True)
    assert grants[5].backing_id in registry.files, "the handle from before is open"
    later.leave(5, True)
    assert grants[5].backing_id not in registry.files
    assert not later.enter(6, local(), 1, False).passthrough
    later.leave(6, False)
    later.leave(6, False)
    assert later.enter(6, local(), 1, False).passthrough
    later.check()


# ------------------------------------------------------------------ any order
@dataclass
class KernelInode:
    """What the kernel holds of one inode: its rules, as assertions."""

    plain: int = 0
    ids: set[int] = field(default_factory=set)
    passing: int = 0


class AnyOrder(RuleBasedStateMachine):
    """Opens and closes in any order never meet EIO, and leave nothing registered."""

    handles = Bundle("handles")

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry()
        self.modes = OpenModes(self.registry)
        self.files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115
        self.kernel = [KernelInode() for _ in range(3)]

    @rule(
        target=handles,
        ino=st.integers(0, 2),
        local=st.booleans(),
        version=st.integers(1, 2),
        writes=st.booleans(),
    )
    def open(self, ino: int, local: bool, version: int, writes: bool) -> tuple[int, bool]:
        grant = self.modes.enter(ino, self.files[ino].fileno() if local else None, version, writes)
        inode = self.kernel[ino]
        if grant.fopen & FOPEN_PASSTHROUGH:
            assert not inode.plain, "EIO"
            assert not grant.fopen & FOPEN_KEEP_CACHE, "EIO"
            assert grant.backing_id in self.registry.files, "EIO"
            inode.ids.add(grant.backing_id)
            assert len(inode.ids) == 1, "EIO"
            inode.passing += 1
        else:
            assert not inode.passing, "EIO"
            inode.plain += 1
        return ino, grant.passthrough

    @rule(handle=consumes(handles))
    def close(self, handle: tuple[int, bool]) -> None:
        ino, passthrough = handle
        inode = self.kernel[ino]
        if passthrough:
            inode.passing -= 1
            if not inode.passing:
                inode.ids.clear()
        else:
            inode.plain -= 1
        self.modes.leave(ino, passthrough)

    @rule(ino=st.integers(0, 2))
    def forget(self, ino: int) -> None:
        self.modes.forgotten(ino)

    @rule(code=st.sampled_from([None, errno.ELOOP]))
    def refuse(self, code: int | None) -> None:
        self.registry.fails = code

    @invariant()
    def consistent(self) -> None:
        self.modes.check()
        registered = {number for inode in self.kernel for number in inode.ids}
        assert registered <= set(self.registry.files)
        assert len(self.registry.files) <= len(self.kernel), "at most one for each inode"
        assert {view.ino for view in self.modes.view()} == {
            ino for ino, inode in enumerate(self.kernel) if inode.plain or inode.passing
        }

    def teardown(self) -> None:
        for ino, inode in enumerate(self.kernel):
            for passing, count in ((True, inode.passing), (False, inode.plain)):
                for _ in range(count):
                    self.modes.leave(ino, passing)
            self.modes.forgotten(ino)
        assert self.registry.files == {}
        for file in self.files:
            file.close()


TestAnyOrder = AnyOrder.TestCase


def test_a_file_that_the_engine_names_is_not_asked_for(
    registry: Registry, local: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    modes, fd = OpenModes(registry), local()
    found = os.fstat(fd)
    file = found.st_dev, found.st_ino
    modes.enter(5, fd, 1, False, file)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda fd: pytest.fail("fstat was called"))
        assert modes.enter(5, fd, 1, False, file).file == file
        with pytest.raises(Stale):
            modes.enter(5, fd, 1, False, (file[0], file[1] + 1))


def test_a_reader_gets_the_registration_that_counts(registry: Registry, local: Callable[[], int]) -> None:
    """Other content under the same inode, after the first was closed: readers get the same answer no more."""
    modes, first, second = OpenModes(registry), local(), local()
    before = modes.enter(5, first, 1, False)
    assert modes.enter(5, first, 1, False) == before
    modes.leave(5, True)
    modes.leave(5, True)
    after = modes.enter(5, second, 2, False)
    assert after.backing_id != before.backing_id
    assert registry.files == {after.backing_id: after.file}
    assert modes.enter(5, second, 2, True) == after._replace(fopen=FOPEN_PASSTHROUGH)
