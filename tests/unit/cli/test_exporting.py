"""Copies of pending files on another disk: each is on the disk before it counts."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from r2fs.cli import exporting


@pytest.mark.parametrize("there", [False, True])
def test_a_copy_is_synced_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Also one of an earlier export, which may have been killed before its fsync."""
    source, below = tmp_path / "a", tmp_path / "export"
    below.mkdir()
    source.write_bytes(b"unsent")
    if there:
        (below / "a").write_bytes(b"unsent")
    synced, real = list[int](), os.fsync

    def fsync(fd: int) -> None:
        found = os.fstat(fd)
        synced.extend([found.st_ino] if stat.S_ISREG(found.st_mode) else [])
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    assert exporting.export(source, below / "a", below) == 6
    assert synced == [(below / "a").stat().st_ino]
