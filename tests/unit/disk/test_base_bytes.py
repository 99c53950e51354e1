"""Disk for bytes that are about to arrive: allocated before them, given back where they do not."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r2fs.disk import filecalls
from r2fs.disk.sparse_file import SparseFile
from r2fs.model.errors import NoSpace

MIB = 1 << 20


@pytest.fixture
def content(tmp_path: Path) -> Iterator[SparseFile]:
    made = SparseFile.create(tmp_path / "file", 8 * MIB, complete=False)
    os.utime(made.fd, ns=(1_000, 2_000))
    yield made
    made.close()


def times(content: SparseFile) -> tuple[int, int]:
    stat = os.fstat(content.fd)
    return stat.st_atime_ns, stat.st_mtime_ns


def test_disk_is_there_before_the_bytes(content: SparseFile) -> None:
    content.prepare(MIB, 5 * MIB)
    assert 4 * MIB <= content.allocated() < 5 * MIB
    assert times(content) == (1_000, 2_000)
    assert content.missing(0, 8 * MIB) == [(0, 8 * MIB)], "no byte counts as here"
    content.fill(MIB, b"x" * MIB)
    assert content.read(MIB, MIB) == b"x" * MIB
    assert content.allocated() < 5 * MIB


@pytest.mark.parametrize("step", ["allocate", "write"])
def test_times_are_never_those_of_a_download(
    content: SparseFile, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A program's stat, and what a close notes, while bytes arrive."""
    seen: list[int] = []
    looks = threading.Thread(target=lambda: seen.append(content.stat().st_mtime_ns))
    real = getattr(filecalls, step)

    def meanwhile(*args: Any) -> Any:
        done = real(*args)
        looks.start()
        looks.join(0.2)  # it may have to wait for the end of this step
        return done

    monkeypatch.setattr(filecalls, step, meanwhile)
    content.prepare(0, MIB) if step == "allocate" else content.fill(0, b"x" * MIB)
    looks.join(10)
    assert seen == [2_000]


def test_disk_of_bytes_that_did_not_arrive_is_given_back(content: SparseFile) -> None:
    content.fill(MIB, b"x" * MIB)
    content.write(6 * MIB, b"own")
    content.prepare(0, 8 * MIB)
    assert content.allocated() >= 8 * MIB
    mtime_ns = times(content)[1]
    content.trim(0, 8 * MIB)
    assert content.allocated() < 2 * MIB
    assert content.read(MIB, MIB) == b"x" * MIB
    assert content.read(6 * MIB, 3) == b"own"
    assert times(content)[1] == mtime_ns


def test_no_disk_is_taken_past_what_the_base_still_has(content: SparseFile) -> None:
    content.truncate(MIB)
    content.truncate(8 * MIB)
    content.prepare(0, 8 * MIB)
    assert content.allocated() <= MIB + 65536


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOSPC])
def test_a_file_system_that_cannot_is_no_error(
    content: SparseFile, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    claim_blocks = filecalls.claim_blocks

    def claim(fd: int, length: int, offset: int = 0) -> None:
        claim_blocks(fd, length // 2, offset)  # a full disk took some
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filecalls, "claim_blocks", claim)
    content.prepare(0, 4 * MIB)
    if number == errno.ENOSPC:
        assert content.allocated() == 0, "the last room is for whoever writes next"
    content.fill(0, b"x" * MIB)
    assert content.read(0, MIB) == b"x" * MIB
    assert times(content)[1] == 2_000


def test_neither_memory_nor_complete_or_closed_files_are_prepared(
    content: SparseFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def claim(fd: int, length: int, offset: int = 0) -> None:
        raise NoSpace("asked for")

    monkeypatch.setattr(filecalls, "claim_blocks", claim)
    assert content.stream()
    content.to_memory(0)
    content.prepare(0, MIB)
    content.trim(0, MIB)
    content.close()
    content.prepare(0, MIB)
    content.trim(0, MIB)
