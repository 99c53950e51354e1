from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from r2fs.disk import filecalls
from r2fs.disk.sparse_file import SparseFile
from r2fs.model.errors import Interrupted, LocalError, NoSpace, ReadFailed, StateDamaged
from r2fs.model.ranges import RangeSet


def partial(tmp_path: Path, size: int) -> SparseFile:
    return SparseFile.create(tmp_path / "f", size, complete=False)


def test_complete_content_is_a_plain_file(tmp_path: Path):
    content = SparseFile.create(tmp_path / "f", 0, complete=True)
    assert content.complete
    assert content.write(0, b"hello") == 5
    os.pwrite(content.fd, b"HELLO, passthrough", 0)
    assert content.size == 18
    assert content.read(7, 100) == b"passthrough"
    assert content.missing(0, 100) == []
    assert content.release(0, 18) == 0
    assert content.append(b"!") == 1
    content.truncate(5)
    assert content.read(0, 100) == b"HELLO"
    content.zero(1, 3)
    assert content.read(0, 100) == b"H\0\0LO"
    assert content.snapshot() == (RangeSet([(0, 5)]), RangeSet([(0, 5)]), 0)
    content.close()


def test_a_content_is_one_file(tmp_path: Path):
    content = partial(tmp_path, 10)
    found = os.fstat(content.fd)
    assert content.file == (found.st_dev, found.st_ino)
    content.rename_to(tmp_path / "g")
    content.make_readonly()
    content.make_writable()
    found = os.fstat(content.fd)
    assert content.file == (found.st_dev, found.st_ino)
    content.close()


def test_ranges_come_and_the_last_one_completes(tmp_path: Path):
    content = partial(tmp_path, 10)
    assert content.missing(0, 99) == [(0, 10)]
    with pytest.raises(ValueError, match="0-10"):
        content.read(0, 10)
    content.fill(5, b"56789")
    assert content.read(5, 100) == b"56789"
    with pytest.raises(ValueError, match="4-5"):
        content.read(4, 3)
    assert not content.complete
    content.fill(0, b"01234xxxx")
    assert content.complete
    assert content.read(0, 10) == b"0123456789"
    content.close()


def test_a_fill_never_lands_on_newer_bytes(tmp_path: Path):
    content = partial(tmp_path, 10)
    content.write(3, b"OWN")
    content.fill(0, b"0123456789")
    assert content.read(0, 10) == b"012OWN6789"
    content.close()


def test_what_was_cut_off_never_comes_back(tmp_path: Path):
    content = partial(tmp_path, 10)
    content.truncate(4)
    content.truncate(8)
    assert content.base_limit == 4
    assert content.missing(0, 8) == [(0, 4)]
    content.fill(0, b"0123456789")
    assert content.read(0, 100) == b"0123\0\0\0\0"
    content.close()


def test_a_gap_behind_the_end_is_zeros_of_ours(tmp_path: Path):
    content = partial(tmp_path, 4)
    content.write(8, b"x")
    present, own, base_limit = content.snapshot()
    assert (list(present), list(own), base_limit) == ([(4, 9)], [(4, 9)], 4)
    assert content.read(4, 100) == b"\0\0\0\0x"
    assert content.write(100, b"") == 0
    assert content.size == 9
    content.close()


def test_release_gives_back_clean_blocks_only(tmp_path: Path):
    size = 1 << 20
    content = partial(tmp_path, size)
    content.fill(0, b"b" * (size - 1))
    content.write(4096, b"o" * 4096)
    content.fsync()
    before = content.allocated()
    assert content.release(0, size // 2) == size // 2 - 4096
    assert content.allocated() == before - (size // 2 - 4096)
    assert content.read(4096, 4096) == b"o" * 4096
    assert content.missing(0, size // 2) == [(0, 4096), (8192, size // 2)]
    content.close()


def test_release_where_the_file_system_has_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no holes here")

    monkeypatch.setattr(filecalls, "punch_hole", refuse)
    content = partial(tmp_path, 10)
    content.fill(0, b"012345678")
    assert content.release(0, 5) == 0
    assert content.read(0, 9) == b"012345678"
    content.zero(2, 4)
    assert content.read(0, 9) == b"01\0\x0045678"
    content.close()


def test_maps_survive_in_a_snapshot(tmp_path: Path):
    content = partial(tmp_path, 100)
    content.fill(0, b"b" * 10)
    content.write(50, b"o" * 10)
    content.truncate(90)
    present, own, base_limit = content.snapshot()
    content.close()
    again = SparseFile.adopt(tmp_path / "f", 90, present, own, base_limit)
    again.check()
    assert again.snapshot() == (present, own, base_limit)
    assert again.read(50, 10) == b"o" * 10
    assert again.release(0, 100) == 10
    again.close()


def test_adopt_notices_a_file_that_lost_its_tail(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"short")
    with pytest.raises(StateDamaged):
        SparseFile.adopt(tmp_path / "f", 100, RangeSet([(0, 10)]))
    content = SparseFile.adopt(tmp_path / "f", 100, RangeSet([(0, 5)]))
    assert content.read(0, 5) == b"short"
    assert os.path.getsize(tmp_path / "f") == 100
    content.close()


def test_adopt_cuts_what_the_maps_do_not_know(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"0123456789")
    content = SparseFile.adopt(tmp_path / "f", 6, RangeSet([(0, 3)]), base_limit=6)
    content.write(8, b"x")
    assert content.read(6, 10) == b"\0\0x", "not the old 6 and 7"
    content.close()


def test_adopt_believes_nothing_past_the_size(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"0123456789")
    content = SparseFile.adopt(tmp_path / "f", 6, RangeSet([(0, 3), (5, 10)]), RangeSet([(5, 10)]))
    content.check()
    assert content.snapshot() == (RangeSet([(0, 3), (5, 6)]), RangeSet([(5, 6)]), 6)
    content.close()


def test_create_refuses_a_name_that_is_taken(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        SparseFile.create(tmp_path / "f", 0, complete=True)
    assert (tmp_path / "f").read_bytes() == b"mine"


def test_rename_keeps_the_descriptor(tmp_path: Path):
    content = SparseFile.create(tmp_path / "f", 0, complete=True)
    fd = content.fd
    content.rename_to(tmp_path / "g")
    content.write(0, b"x")
    assert content.path == tmp_path / "g"
    assert content.fd == fd
    assert (tmp_path / "g").read_bytes() == b"x"
    content.close()


def test_a_descriptor_keeps_its_number_while_it_cannot_write(tmp_path: Path):
    content = SparseFile.create(tmp_path / "f", 0, complete=True)
    content.write(0, b"x")
    fd = content.fd
    content.make_readonly()
    assert content.fd == fd
    assert content.read(0, 1) == b"x"
    with pytest.raises(LocalError):
        content.write(0, b"y")
    content.make_writable()
    content.write(0, b"z")
    assert content.read(0, 9) == b"z"
    assert not os.get_inheritable(fd)
    content.close()


def test_a_file_that_is_open_already_becomes_content(tmp_path: Path):
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    content = SparseFile.empty(tmp_path / "f", fd)
    assert content.complete and content.fd == fd
    content.close()


def test_closed_content_refuses_use(tmp_path: Path):
    content = partial(tmp_path, 10)
    content.close()
    content.close()
    assert content.closed
    for use in (
        lambda: content.fd,
        lambda: content.fill(0, b"x"),
        lambda: content.write(0, b"x"),
        lambda: content.read(0, 1),
        lambda: content.truncate(0),
        lambda: content.wait_present(0, 1, 1),
        content.fsync,
    ):
        with pytest.raises(ValueError):
            use()


def test_a_full_disk_is_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    content = partial(tmp_path, 10)
    real, room = os.pwrite, [4, None]

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        left = room.pop(0)
        if left is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, memoryview(data)[:left], offset)

    monkeypatch.setattr("r2fs.disk.filecalls.os.pwrite", pwrite)
    assert content.write(0, b"OWNOWN") == 4, "what was written counts"
    room[:] = [2, None, None]
    with pytest.raises(NoSpace):
        content.fill(4, b"456789")
    monkeypatch.undo()
    content.check()
    assert list(content.snapshot().present) == [(0, 6)]
    assert content.read(0, 6) == b"OWNO45"
    content.close()


# ------------------------------------------------------------------ waiting
def test_a_reader_waits_for_its_range(tmp_path: Path):
    content = partial(tmp_path, 10)
    assert content.wait_present(0, 5, timeout=0) is False
    got: list[bytes] = []

    def read() -> None:
        assert content.wait_present(0, 5, timeout=20)
        got.append(content.read(0, 5))

    reader = threading.Thread(target=read)
    reader.start()
    content.fill(5, b"56789")
    content.fill(0, b"01234")
    reader.join(20)
    assert got == [b"01234"]
    assert content.wait_present(0, 10)
    content.close()


def test_a_failure_wakes_who_waits_and_can_be_lifted(tmp_path: Path):
    content = partial(tmp_path, 10)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            content.wait_present(0, 5, timeout=20)
        except ReadFailed as error:
            raised.append(error)

    waiters = [threading.Thread(target=wait) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    failure = ReadFailed("f: the bucket is unreachable")
    content.fail(failure)
    for waiter in waiters:
        waiter.join(20)
    assert raised == [failure] * 3
    content.fill(0, b"0")
    assert content.wait_present(0, 1), "what is here is here"
    content.fail(None)
    assert content.wait_present(0, 5, timeout=0) is False
    content.close()


def test_a_cancelled_reader_is_interrupted(tmp_path: Path):
    content = partial(tmp_path, 10)
    cancelled = threading.Event()
    timer = threading.Timer(0.01, cancelled.set)
    timer.start()
    with pytest.raises(Interrupted):
        content.wait_present(0, 5, timeout=20, cancelled=cancelled)
    timer.join()
    content.close()


def test_appends_from_threads_do_not_overlap(tmp_path: Path):
    for complete in (True, False):
        content = SparseFile.create(tmp_path / f"f{complete}", 0 if complete else 3, complete=complete)

        def append(letter: bytes, content: SparseFile = content) -> None:
            for _ in range(200):
                assert content.append(letter * 7) == 7

        threads = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        first = 0 if complete else 3
        assert content.size == first + 5600
        written = os.pread(content.fd, 5600, first)
        assert all(len(set(written[at : at + 7])) == 1 for at in range(0, 5600, 7))
        assert sorted(set(written)) == sorted(b"abcd")
        content.close()


def test_a_release_during_a_read_makes_it_look_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    content = partial(tmp_path, 10)
    content.fill(0, b"01234")
    real = filecalls.pread_all

    def released_just_before(fd: int, size: int, offset: int, path: Path) -> bytes:
        content.release(0, 2)
        return real(fd, size, offset, path)

    monkeypatch.setattr(filecalls, "pread_all", released_just_before)
    with pytest.raises(ValueError, match="0-2"):
        content.read(0, 5)
    assert content.read(2, 3) == b"234"
    content.close()


LOOK_S = 2.0  # how soon it meets a moment at which the range is there is the scheduler's to say


def test_a_reader_never_sees_a_released_range_as_zeros(tmp_path: Path):
    size, block = 64 * 4096, 4096
    content = partial(tmp_path, size + 1)  # the last byte stays missing: it never becomes complete
    stop = threading.Event()
    wrong: list[int] = []

    def churn() -> None:
        while not stop.is_set():
            content.fill(0, b"b" * size)
            content.release(0, size)

    def look() -> None:
        seen, end = 0, time.monotonic() + LOOK_S
        while seen < 300 and not wrong and (time.monotonic() < end or not seen):
            try:
                data = content.read(0, block)
            except ValueError:
                continue  # released just now
            seen += 1
            if data != b"b" * block:
                wrong.append(seen)

    churner = threading.Thread(target=churn)
    churner.start()
    look()
    stop.set()
    churner.join(20)
    assert not wrong
    content.close()
