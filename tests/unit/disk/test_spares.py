"""Spares: files made ahead of need, and no trace of them at the end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2fs.disk import spares as module
from r2fs.disk.spares import Spares

PATIENCE_S = 30.0


@pytest.fixture
def spares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spares]:
    monkeypatch.setattr(module, "READY", 5)
    one = Spares(tmp_path)
    maker = threading.Thread(target=one.run)
    maker.start()
    yield one
    one.stop()
    maker.join(PATIENCE_S)
    assert not maker.is_alive()


def until_ready(directory: Path, count: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while len(os.listdir(directory)) != count and time.monotonic() < end:
        time.sleep(0.005)
    assert len(os.listdir(directory)) == count


def test_none_is_made_before_the_first_create(spares, tmp_path):
    path, fd = spares.take()
    os.close(fd)
    assert (path.parent, path.stat().st_size) == (tmp_path, 0)
    until_ready(tmp_path, 1 + 5)


def test_what_was_made_ahead_is_handed_out_once(spares, tmp_path, monkeypatch):
    os.close(spares.take()[1])
    until_ready(tmp_path, 1 + 5)
    monkeypatch.setattr(module, "QUIET_S", 3600.0)  # none is made from here on but for who takes
    taken = [spares.take() for _ in range(7)]
    assert len({path for path, _ in taken}) == 7
    assert len(os.listdir(tmp_path)) >= 1 + 7  # and perhaps one that was being made before
    for path, fd in taken:
        os.write(fd, b"x")
        assert path.read_bytes() == b"x"
        os.close(fd)


def test_what_was_not_taken_goes_at_the_end(spares, tmp_path):
    path, fd = spares.take()
    os.close(fd)
    until_ready(tmp_path, 1 + 5)
    spares.stop()
    until_ready(tmp_path, 1)
    assert path.exists()


def test_a_disk_that_refuses_is_told_to_who_takes(spares, tmp_path, monkeypatch):
    def refuse() -> tuple[Path, int]:
        raise OSError(28, "full")

    monkeypatch.setattr(spares, "_make", refuse)
    with pytest.raises(OSError, match="full"):
        spares.take()
    assert os.listdir(tmp_path) == []
