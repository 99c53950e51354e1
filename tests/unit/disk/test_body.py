from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2fs.disk import body as body_module
from r2fs.disk.body import FileBody, Gate, MemoryBody
from r2fs.model.errors import BodyWithdrawn

DATA = bytes(range(256)) * 64


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "f").write_bytes(DATA)
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    yield fd
    os.close(fd)


def test_a_region_is_read_in_pieces_and_hashed(fd: int):
    body = FileBody(fd, 100, 5000)
    assert len(body) == 5000
    assert body.md5_hex is None
    got = b"".join(iter(lambda: body.read(777), b""))
    assert got == DATA[100:5100]
    assert body.md5_hex == md5(got)
    assert body.tell() == 5000


def test_both_bodies_behave_alike(fd: int):
    for body in (FileBody(fd, 0, len(DATA)), MemoryBody(DATA)):
        assert body.seek(0, os.SEEK_END) == len(DATA)
        assert body.read() == b""
        assert body.seek(-10, os.SEEK_CUR) == len(DATA) - 10
        assert body.read(100) == DATA[-10:]
        assert body.md5_hex is None, "only the tail was read"
        body.seek(0)
        assert body.read() == DATA
        assert body.md5_hex == md5(DATA)
        with pytest.raises(ValueError):
            body.seek(-1)


def test_reading_again_from_the_start_hashes_anew(fd: int):
    body = FileBody(fd, 0, 1000)
    body.read(600)
    body.seek(0)
    body.read(600)
    assert body.md5_hex is None
    body.read(400)
    assert body.md5_hex == md5(DATA[:1000])


def test_reads_out_of_order_give_no_md5(fd: int):
    body = FileBody(fd, 0, 1000)
    body.read(500)
    body.seek(600)
    body.read(400)
    body.seek(500)
    body.read(500)
    assert body.md5_hex is None
    for start, size in ((0, 500), (600, 400), (900, 100)):  # as many bytes as it has, but not its bytes
        body.seek(start)
        body.read(size)
    assert body.md5_hex is None


def test_an_empty_body_is_a_body(fd: int):
    for body in (FileBody(fd, 0, 0), MemoryBody(b"")):
        assert body
        assert body.read() == b""
        assert body.md5_hex == md5(b"")


def test_progress_sums_up_to_the_position_of_the_pass(fd: int):
    told: list[int] = []
    body = FileBody(fd, 0, 1000, on_read=told.append)
    body.read(400)
    body.read(400)
    body.seek(0)
    body.read(300)
    assert sum(told) == 300
    body.read()
    assert sum(told) == 1000


def test_a_closed_gate_lets_no_byte_through(fd: int):
    gate = Gate()
    body = FileBody(fd, 0, 1000, gate)
    assert body.read(10) == DATA[:10]
    assert not gate.closed
    gate.close()
    gate.close()
    assert gate.closed
    with pytest.raises(BodyWithdrawn):
        body.read(10)
    body.seek(0)
    with pytest.raises(BodyWithdrawn):
        body.read(10)


def test_close_waits_for_the_read_that_has_begun(fd: int, monkeypatch: pytest.MonkeyPatch):
    gate, reading, go_on = Gate(), threading.Event(), threading.Event()
    real = os.pread
    order: list[str] = []

    def slow(fd: int, size: int, offset: int) -> bytes:
        reading.set()
        assert go_on.wait(20)
        order.append("read")
        return real(fd, size, offset)

    monkeypatch.setattr("r2fs.disk.body.os.pread", slow)
    reader = threading.Thread(target=lambda: gate.pread(fd, 10, 0))

    def close() -> None:
        gate.close()
        order.append("closed")

    closer = threading.Thread(target=close)
    reader.start()
    assert reading.wait(20)
    closer.start()
    while not gate.closed:
        closer.join(0.001)
    assert closer.is_alive()
    go_on.set()
    reader.join(20)
    closer.join(20)
    assert order == ["read", "closed"]


def test_a_file_that_became_shorter_breaks_the_request(fd: int):
    body = FileBody(fd, 0, len(DATA) + 1)
    with pytest.raises(BodyWithdrawn, match="1 bytes early"):
        body.read()
    assert body.md5_hex is None


def test_short_preads_are_continued(fd: int, monkeypatch: pytest.MonkeyPatch):
    real = os.pread
    monkeypatch.setattr("r2fs.disk.body.os.pread", lambda fd, size, at: real(fd, min(size, 100), at))
    body = FileBody(fd, 0, 1000)
    assert body.read() == DATA[:1000]
    assert body.md5_hex == md5(DATA[:1000])


def test_nobody_reads_a_large_body_at_once(tmp_path: Path):
    with open(tmp_path / "large", "wb+") as file:
        file.truncate(body_module.READ_ALL_MAX + 1)
        with pytest.raises(ValueError, match="at once"):
            FileBody(file.fileno(), 0, body_module.READ_ALL_MAX + 1).read()
