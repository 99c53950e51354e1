"""Checks of journal and cache on the disk: read-only, also while a daemon runs, and right about damage."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2fs.disk import check as checking
from r2fs.disk import database_file
from r2fs.doctor import disk, host
from r2fs.doctor.findings import Level
from r2fs.model.settings import Settings
from tests.mount.daemons import until
from tests.support.engine import Engine, settings_for
from tests.support.memory_store import MemoryStore


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine with a file that waits and a file that is cached."""
    engine = Engine(tmp_path, MemoryStore(), upload_delay_s=0.0)
    engine.write("cached.wav", b"c" * 5000)
    engine.drain()
    engine.read("cached.wav")
    yield engine
    engine.end()


def snapshot(base: Path) -> dict[str, tuple[int, int, int]]:
    """Files with bytes: the empty ones are spares, which a thread makes."""
    return {
        str(path): (found.st_ino, found.st_size, found.st_mtime_ns)
        for path in sorted(base.rglob("*"))
        if path.is_file() and (found := path.lstat()).st_size
    }


def both(settings: Settings) -> tuple[Level, Level]:
    return disk.journal(settings).level, disk.cache(settings).level


def test_a_running_engine_is_checked_and_nothing_changes(tmp_path: Path, engine: Engine):
    staged = engine.settings.staging_dir / "data"
    until("no staged file", lambda: not any(path.stat().st_size for path in list(staged.iterdir())))
    before = snapshot(tmp_path)
    assert both(engine.settings) == (Level.OK, Level.OK)
    assert snapshot(tmp_path) == before


def test_missing_directories_are_no_fault(tmp_path: Path):
    settings = settings_for(tmp_path)
    assert both(settings) == (Level.OK, Level.OK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "make room on this disk"), (errno.EACCES, "change its owner or mode")],
)
def test_a_directory_that_takes_no_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
):
    def fsync(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(host.os, "fsync", fsync)
    found = list(host.directories(settings_for(tmp_path)))
    assert [finding.level for finding in found] == [Level.FAILED, Level.FAILED]
    assert [finding.remedy.split(",")[0] for finding in found] == [remedy, remedy]


def test_staged_bytes_that_are_missing(tmp_path: Path):
    engine = Engine(tmp_path, MemoryStore(), upload_delay_s=3600.0)
    engine.write("only-here.wav", b"x" * 100)
    engine.kill()
    settings = engine.settings
    assert disk.journal(settings).level is Level.OK
    for staged in (settings.staging_dir / "data").iterdir():
        if staged.stat().st_size:
            os.rename(staged, tmp_path / "elsewhere")
    found = disk.journal(settings)
    assert (found.level, found.exit_code) == (Level.FAILED, 7)
    assert "only-here.wav" in found.text


def test_a_damaged_journal_and_a_damaged_cache(tmp_path: Path, engine: Engine):
    engine.stop()
    settings = engine.settings
    for database in (settings.state_dir / "journal.db", settings.cache_dir / "content" / "cache.db"):
        data = bytearray(database.read_bytes())
        data[4096 : 4096 + 2048] = b"\xa5" * 2048
        database.write_bytes(data)
        Path(f"{database}-wal").unlink(missing_ok=True)
    assert both(settings) == (Level.FAILED, Level.WARNING)


def test_files_that_the_cache_has_lost(engine: Engine):
    engine.stop()
    content = engine.settings.cache_dir / "content"
    gone = list(content.glob("[0-9a-f][0-9a-f]/*"))
    assert gone
    for path in gone:
        path.unlink()
    found = disk.cache(engine.settings)
    assert found.level is Level.WARNING
    assert "are missing" in found.text


def test_a_database_that_changes_all_the_time_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    state = tmp_path / "state"
    state.mkdir()
    (state / "journal.db").write_bytes(b"")
    ticks = iter(range(1000))
    monkeypatch.setattr(database_file, "_state", lambda path: [next(ticks)])
    monkeypatch.setattr(database_file, "PAUSE_S", 0.0)
    found = checking.journal(state, state / "staging")
    assert found is not None
    assert found.in_use
    assert not found.problems
    assert checking.cache(tmp_path / "nothing") is None
    assert disk.journal(settings_for(tmp_path)).level is Level.OK


def test_a_busy_engine_is_never_called_damaged(tmp_path: Path):
    engine = Engine(tmp_path, MemoryStore())
    ended = threading.Event()

    def work() -> None:
        number = 0
        while not ended.is_set():
            engine.write(f"{number % 7}.wav", b"x" * 100)
            number += 1

    writer = threading.Thread(target=work)
    writer.start()
    try:
        for _ in range(5):
            found = both(engine.settings)
            assert found == (Level.OK, Level.OK), disk.journal(engine.settings)
    finally:
        ended.set()
        writer.join()
        engine.end()
