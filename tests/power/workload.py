"""Programs at work on a disk whose power will be cut: saves of every kind, and what the machine does.

Owns:  a seed's list of actions, carried out on an engine whose state and cache lie on the disk;
       the history of what was acknowledged, and the bucket's at every position.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from r2fs.disk.filecalls import sync_file_system
from r2fs.model.errors import Unavailable
from r2fs.model.keys import nfc
from r2fs.model.records import ObjectMeta, Opened
from r2fs.model.verbs import ROOT
from tests.power.disk import Disk, write_out
from tests.power.history import History
from tests.support.engine import Engine
from tests.support.memory_store import MemoryStore, Stored

NAMES = [f"take{n}.wav" for n in range(6)]
BEFORE = {"good0.wav": 30_000, "good1.wav": 9_000, "take0.wav": 20_000}


def content(tag: int, size: int) -> bytes:
    """Bytes that no other write of the workload writes."""
    piece = f"<{tag}>".encode()
    return (piece * (size // len(piece) + 1))[:size]


class RecordedBucket(MemoryStore):
    """Survives every cut; knows what it held when the disk's log was so long."""

    def __init__(self, position: Callable[[], int]) -> None:
        super().__init__()
        self._position = position
        self.past: list[tuple[int, str, Stored | None]] = []
        self.away = False
        self.before = self._answer

    def _answer(self, name: str, key: str) -> None:
        if self.away:
            raise Unavailable(f"{key}: no answer")

    def store_version(self, key: str, data: bytes, meta: ObjectMeta, etag: str | None = None) -> str:
        etag = super().store_version(key, data, meta, etag)
        self.past.append((self._position(), nfc(key), self.objects[nfc(key)]))
        return etag

    def remove(self, key: str) -> None:
        with self._lock:
            super().remove(key)
            self.past.append((self._position(), nfc(key), None))

    def at(self, cut: int) -> MemoryStore:
        """The bucket as it was then, for the machine that starts again."""
        store = MemoryStore()
        for position, key, stored in self.past:
            if position <= cut:
                store.objects.pop(key, None)
                if stored is not None:
                    store.objects[key] = stored
        return store


class Workload:
    def __init__(self, disk: Disk, seed: int) -> None:
        self.rng = random.Random(seed)
        self.disk = disk
        self.history = History(disk.position)
        self.bucket = RecordedBucket(disk.position)
        self._tag = 0
        self._originals = set[bytes | None]()
        for name, size in BEFORE.items():
            data = content(self._next(), size)
            self._originals.add(data)
            self.bucket.set(name, data)
            self.history.existed(name, data)
        self.bucket.past = [(0, key, stored) for _, key, stored in self.bucket.past]
        self.engine = Engine(disk.mountpoint / "r2fs", self.bucket, upload_delay_s=0.05)
        self.mounted = disk.position()  # before: there is not yet anything to be kept
        self._held: tuple[str, Opened, bytearray] | None = None
        self._holds = 0

    def run(self, actions: int) -> None:
        choices = [self.save, self.save, self.edit, self.edit, self.replace, self.replace, self.rename,
                   self.unlink, self.hold, self.hold, self.machine, self.machine, self.weather]  # fmt: skip
        for _ in range(actions):
            self.rng.choice(choices)()
        self.engine.kill()

    # ------------------------------------------------------------------ programs
    def save(self) -> None:
        """Open with O_TRUNC, write, perhaps fsync, close."""
        self._save(self.rng.choice(NAMES), self.rng.random() < 0.5)

    def _save(self, path: str, sync: bool) -> None:
        data = content(self._next(), self.rng.randrange(1, 40_000))
        self.history.started(path, data, True)
        opened = self.engine.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._write(opened, 0, data)
        if sync:
            self._fsync(path, opened)
        self._close(path, opened)

    def edit(self) -> None:
        """Write here and there into what exists; perhaps fsync, and perhaps go on after it."""
        path = self._existing()
        if path is None or (self.bucket.away and self.history.now(path).after in self._originals):
            return  # its bytes may never have been here
        data = bytearray(self.history.now(path).after or b"")
        opened: Opened | None = None
        for _ in range(self.rng.choice([1, 1, 2])):
            places = [self.rng.randrange(0, max(1, len(data))) for _ in range(self.rng.choice([1, 2, 3]))]
            pieces = [(at, content(self._next(), self.rng.randrange(1, 9_000))) for at in places]
            for at, piece in pieces:
                data[at : at + len(piece)] = piece
            self.history.started(path, bytes(data), True)
            opened = opened or self.engine.open(path, os.O_RDWR)
            for at, piece in pieces:
                self._write(opened, at, piece)
                if self.rng.random() < 0.3:
                    self.machine()
            if self.rng.random() < 0.5:
                self._fsync(path, opened)
        assert opened is not None
        self._close(path, opened)

    def replace(self) -> None:
        """The atomic save, with or without care."""
        path = self.rng.choice(NAMES)
        self._save(path + ".tmp", self.rng.random() < 0.7)
        self._rename(path + ".tmp", path)

    def rename(self) -> None:
        old, new = self._existing(), self.rng.choice(NAMES)
        if old is not None and old != new:
            self._rename(old, new)

    def _rename(self, old: str, new: str) -> None:
        begin = self.disk.position()
        # Before the call: what a cut in the middle of it finds must be known to the history.
        self.history.renamed(old, new, begin)
        self.engine.rename(old, new)
        self._sync_directory()

    def unlink(self) -> None:
        path = self._existing()
        if path is not None:
            self.history.started(path, None, False)
            self.engine.unlink(path)
            self._sync_directory()

    def hold(self) -> None:
        """A recording: it stays open while other things happen, is written on and synced now and then."""
        if self._held is None:
            self._holds += 1
            path = f"held{self._holds}.wav"
            self.history.started(path, b"", True)
            self._held = (path, self.engine.open(path, os.O_RDWR | os.O_CREAT), bytearray())
        path, opened, data = self._held
        if self.rng.random() < 0.2:
            self._held = None
            self._close(path, opened)
            return
        at = self.rng.choice([len(data), 0])
        piece = content(self._next(), self.rng.randrange(1, 20_000))
        data[at : at + len(piece)] = piece
        self.history.started(path, bytes(data), True)
        self._write(opened, at, piece)
        if self.rng.random() < 0.5:
            self._fsync(path, opened)

    # ------------------------------------------------------------------ the machine, and the weather
    def machine(self) -> None:
        """Pages go to the disk when nobody asked: one file's, the journal's, or everybody's."""
        state = self.engine.settings.state_dir
        files = [*(state / "staging/data").iterdir(), state / "journal.db-wal", state / "journal.db"]
        if self.rng.random() < 0.2:
            sync_file_system(state)
        else:
            self._write_out(self.rng.choice(files))

    def _write_out(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # uploaded meanwhile
            return
        try:
            write_out(fd)
        finally:
            os.close(fd)

    def weather(self) -> None:
        """The bucket goes, comes back, or takes all that waits."""
        self.bucket.away = not self.bucket.away and self.rng.random() < 0.5
        if not self.bucket.away:
            self.engine.fs.drain(0.3)

    # ------------------------------------------------------------------ inside
    def _write(self, opened: Opened, at: int, data: bytes) -> None:
        if opened.local is not None and self.rng.random() < 0.5:
            os.pwrite(opened.local, data, at)  # passthrough
            self.engine.fs.wrote(opened.handle)
        else:
            self.engine.fs.write(self.engine.caller, opened.handle, at, data)

    def _fsync(self, path: str, opened: Opened) -> None:
        self.engine.fs.fsync(self.engine.caller, opened.handle, False)
        self.history.synced(path)

    def _close(self, path: str, opened: Opened) -> None:
        # Sealed and sent before close() has returned to us: what it was closed with must be known before.
        self.history.closed(path)
        self.engine.close(opened)
        self.history.closed(path)

    def _sync_directory(self) -> None:
        if self.rng.random() < 0.4:
            self.engine.fs.fsync_directory(self.engine.caller, ROOT)
            self.history.directory_synced()

    def _existing(self) -> str | None:
        held = self._held[0] if self._held else None
        names = [name for name in self.history.names() if name != held]
        return self.rng.choice(names) if names else None

    def _next(self) -> int:
        self._tag += 1
        return self._tag
