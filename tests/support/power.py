"""A power cut, a stop at a named point and a slow bucket, for an engine without FUSE."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from r2fs.disk import filecalls
from r2fs.model.errors import NoSpace
from tests.support.clocks import ManualClock
from tests.support.engine import Engine, do_at_once
from tests.support.memory_store import MemoryStore

LATER = {"upload_delay_s": 3600.0, "upload_deadline_s": 3600.0}
IN_PARTS = {"small_file": 1 << 10}  # what is larger is fetched while it is read and written
LOCAL = {"local_patterns": ("*.tmp",)}  # names that stay on this host
ONE, OTHER = b"one take", b"another take"


class Power:
    """The disk under a staging directory: what no fsync brought there is lost.

    The journal's commits are all there, as luck may have it; or, if it `forgets`, those of its last sync.
    """

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._tmp_path, self._monkeypatch = tmp_path, monkeypatch
        self._cuts = 0
        self.forgets = False
        self._data: dict[int, bytes] = {}  # by inode number
        self._names: set[tuple[str, int]] = set()  # with the inode number; of files
        self._plain = os.fsync
        self.fails = 0  # so many fsyncs of files do
        self.syncs = 0
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, fd: int) -> None:
        self.syncs += 1
        found = os.fstat(fd)
        is_file = stat.S_ISREG(found.st_mode)
        if is_file and self.fails and "/staging/data/" in os.readlink(f"/proc/self/fd/{fd}"):
            self.fails -= 1
            raise OSError(errno.EIO, "the disk failed, and tells it once")
        self._plain(fd)
        if Path(os.readlink(f"/proc/self/fd/{fd}")).name == "journal.db-wal":
            self._keep_journal(Path(os.readlink(f"/proc/self/fd/{fd}")).parent)
        elif is_file:
            self._data[found.st_ino] = Path(f"/proc/self/fd/{fd}").read_bytes()
        else:
            self._names |= {(entry.name, entry.inode()) for entry in os.scandir(fd)}

    def _keep_journal(self, state_dir: Path) -> None:
        (self._tmp_path / "synced").mkdir(exist_ok=True)
        for name in ("journal.db", "journal.db-wal"):
            shutil.copy(state_dir / name, self._tmp_path / "synced" / name)

    @property
    def synced(self) -> set[bytes]:
        """What files were when they were synced."""
        return set(self._data.values())

    def cut(self, engine: Engine, names: bool = True) -> None:
        """`names`: unsynced ones are lost; else those are there, with zeros for blocks that were not written."""
        engine.kill()
        for path in engine.staged_files():
            found = path.stat()
            if names and (path.name, found.st_ino) not in self._names:
                path.unlink()
            else:
                synced = self._data.get(found.st_ino, b"")
                path.write_bytes((synced + bytes(found.st_size))[: found.st_size])
        state_dir = engine.journal.state_dir
        if self.forgets:
            (state_dir / "journal.db-shm").unlink(missing_ok=True)
            for path in (self._tmp_path / "synced").iterdir():
                shutil.copy(path, state_dir / path.name)
        self._cuts += 1
        boot_id = self._tmp_path / "boot_id"
        boot_id.write_text(f"another-boot-{self._cuts}\n")
        self._monkeypatch.setattr(filecalls, "BOOT_ID", boot_id)


class Stop(BaseException):
    """Raised at a named point, past everything that would handle an error."""


def stop_at(engine: Engine, point: str) -> None:
    def stop(name: str) -> None:
        if name == point:
            raise Stop(name)

    engine.crash_point = stop


def send_until(engine: Engine, point: str) -> None:
    """What an upload thread does, up to a named point; of an engine without threads."""
    stop_at(engine, point)
    do_at_once(engine.downloads)
    with pytest.raises(Stop):
        engine.run_due()


def send(engine: Engine) -> None:
    """All that is due, as an upload thread does it; of an engine without threads."""
    engine.crash_point = lambda name: None
    engine.run_due()


def without_background(engine: Engine) -> Engine:
    """What fetches the rest of a file that is being written never comes to it; readers fetch for themselves."""
    engine.background.submit = lambda job, priority=0: True  # type: ignore[method-assign]
    do_at_once(engine.downloads)
    return engine


def save(
    engine: Engine, path: str, data: bytes, *, sync: bool, flags: int = os.O_WRONLY | os.O_CREAT
) -> None:
    opened = engine.open(path, flags)
    engine.fs.write(engine.caller, opened.handle, 0, data)
    if sync:
        engine.fs.fsync(engine.caller, opened.handle, False)
    engine.close(opened)


def states(engine: Engine) -> list[str]:
    """Of what waits for its upload."""
    return [transfer.state for transfer in engine.fs.queue_view().transfers]


def bucket(store: MemoryStore) -> dict[str, bytes]:
    return {key: stored.data for key, stored in store.objects.items()}


def slow(store: MemoryStore) -> tuple[threading.Event, threading.Event]:
    """GETs wait. Events: one has been asked for, and they may go on."""
    asked, go_on = threading.Event(), threading.Event()

    def wait(name: str, key: str) -> None:
        if name == "get":
            asked.set()
            assert go_on.wait(30)

    store.before = wait
    return asked, go_on


def fail_commit(engine: Engine, nth: int) -> None:
    """The journal's `nth` commit from now on finds no room."""
    numbers = itertools.count(1)

    def fill(name: str) -> None:
        if name == "commit" and next(numbers) == nth:
            raise NoSpace("the disk is full")

    engine.commit_point = fill


def fail_link(monkeypatch: pytest.MonkeyPatch, error: int = errno.ENOSPC, times: int = 1) -> None:
    """The next file that is to have a name in staging/open gets none, so many times."""
    plain, fails = os.link, iter([True] * times)

    def link(source: str | Path, name: str | Path, **options: object) -> None:
        if "/staging/open/" in str(name) and next(fails, False):
            raise OSError(error, os.strerror(error))
        plain(source, name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link)


def pass_time(engine: Engine, clock: ManualClock, rounds: int = 5, step_s: float = 20.0) -> None:
    """What upload threads do meanwhile; of an engine without threads."""
    for _ in range(rounds):
        clock.advance(step_s)
        engine.end_outage()
        send(engine)
