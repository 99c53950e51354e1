"""Pages of a mapping that the disk took in part: the rest is written, or the kernel hears an error."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from r2fs.drivers.kernel.file_handlers import FileHandlers
from r2fs.drivers.kernel.openfiles import OpenFile


class Full:
    """A file system whose disk has no room left; what it is asked to write."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def wrote(self, handle: int) -> None:
        pass

    def write(self, caller: Any, handle: int, offset: int, data: memoryview, paged: bool) -> int:
        self.asked.append((offset, len(data)))
        raise OSError(errno.ENOSPC, "no room")


@pytest.mark.parametrize("paged", [False, True])
def test_the_disk_takes_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paged: bool) -> None:
    fs: Any = Full()
    nothing: Any = None
    fd, plain = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: plain(fd, data[:4096], offset))
    file = OpenFile(1, 2, fd, False, False, False)
    try:
        handlers = FileHandlers(fs, nothing, nothing, nothing, nothing)
        if paged:
            with pytest.raises(OSError, match="no room"):
                handlers._write(file, nothing, 0, memoryview(bytes(8192)), paged)
            assert fs.asked == [(4096, 4096)]
        else:
            assert handlers._write(file, nothing, 0, memoryview(bytes(8192)), paged) == 4096
    finally:
        os.close(fd)
